//! Check, repair and salvage over the model.

use std::os::fd::AsFd;

use super::super::model::{Death, Model};
use super::super::names::Names;
use super::super::state::State;
use super::super::state::tests::device;
use super::super::tests::open;
use super::*;
use crate::model::DeviceId;
use crate::storage::thin::journal::Journal;
use crate::storage::thin::metadata::Details;
use crate::storage::thin::salvage::{Rebuilt, join, rebuild};
use crate::storage::{AddOptions, Removal, Source};

const POOL: &str = "0-1-2";
const BLOCK: Bytes = Bytes(64 << 10);

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

/// base, a, b, and c of b; each written to, with its own label.
fn stage() -> (Model, Arc<Core>) {
    let model = Model::new();
    let core = open(&model).unwrap();
    for (new, base) in [("a", "base"), ("b", "a"), ("c", "b")] {
        add(&core, new, base);
    }
    (model, core)
}

fn add(core: &Arc<Core>, new: &str, base: &str) {
    core.add(&id(new), &id(base), &AddOptions::default()).unwrap();
    let mount = core.mount(&id(new), Access::ReadWrite).unwrap();
    std::fs::write(path_of(&mount), new).unwrap();
}

fn path_of(mount: &crate::storage::MountedDevice) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    let top = std::fs::read_link(format!("/proc/self/fd/{}", mount.mount().as_raw_fd())).unwrap();
    top.join("content")
}

fn thin_of(core: &Core, name: &str) -> u32 {
    core.find(&id(name), &[Phase::Ready]).unwrap().thin
}

pub(in crate::storage::thin) fn names(core: &Core) -> Vec<String> {
    let table = core.table();
    let shown = table.state.names.keys().filter(|id| !crate::storage::thin::hidden::is_hidden(id));
    shown.map(ToString::to_string).collect()
}

/// As `holmctl device salvage` does it, on a pool whose journal is `journal`.
pub(in crate::storage::thin) fn salvage(model: &Model, journal: Option<Vec<u8>>) -> Result<Rebuilt, StorageError> {
    model.set_journal(journal);
    let old = Journal::open(Box::new(model.clone())).ok().and_then(|(_, state)| state);
    let known = old.as_ref().map(|state| state.uuid.clone());
    let names = Names::new("t", known.as_deref().unwrap_or("unknown")).unwrap();
    let rebuilt = rebuild(model, &names, known, old.as_ref(), BLOCK)?;
    Journal::begin(Box::new(model.clone())).checkpoint(&rebuilt.state)?;
    Ok(rebuilt)
}

#[test]
fn a_set_that_is_well_has_no_findings_and_a_check_changes_nothing() {
    let (model, core) = stage();
    core.add(&id("fresh"), &id("a"), &AddOptions::default()).unwrap();
    core.tidy();
    let (journal, thins) = (model.journal(), model.tamper(|pool| pool.thins()));
    let report = core.examine().unwrap();
    assert_eq!((report.devices, &report.findings, &report.foreign), (5, &vec![], &vec![]));
    assert_eq!((model.journal(), model.tamper(|pool| pool.thins())), (journal, thins));
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
}

#[test]
fn lost_foreign_and_wrongly_labelled_devices_are_found_and_repaired_where_that_is_safe() {
    let (model, core) = stage();
    let (lost, relabelled) = (thin_of(&core, "c"), thin_of(&core, "a"));
    let wrong = Label { id: id("other"), ..Label::of(POOL, &core.find(&id("a"), &[Phase::Ready]).unwrap()) };
    wrong.write(core.mount(&id("a"), Access::ReadOnly).unwrap().mount()).unwrap();
    drop(core);
    model.reboot(Death::Killed);
    model.tamper(|pool| {
        pool.lose_thin(lost);
        pool.add_thin(99, 1);
    });
    let core = open(&model).unwrap();
    let report = core.examine().unwrap();
    assert!(report.findings.contains(&Finding::Lost(id("c"))), "{report:?}");
    assert!(matches!(&report.findings[..], [Finding::WrongLabel { .. }, Finding::Lost(_)]), "{report:?}");
    let [foreign] = &report.foreign[..] else { panic!("{report:?}") };
    assert_eq!((foreign.thin_id, foreign.about.as_str()), (99, "has no label"));
    let after = core.repair().unwrap();
    assert_eq!(after.findings, [Finding::Lost(id("c"))]);
    assert_eq!(after.foreign, report.foreign);
    assert_eq!(thin_of(&core, "a"), relabelled);
}

#[test]
fn a_foreign_device_is_deleted_by_hand_only_and_nothing_else_is() {
    let (model, core) = stage();
    drop(core);
    model.reboot(Death::Killed);
    model.tamper(|pool| pool.add_thin(99, 1));
    let core = open(&model).unwrap();
    let ours = thin_of(&core, "a");
    assert_eq!(core.remove_foreign(ours).unwrap(), Removal::NotThere);
    assert_eq!(core.remove_foreign(99).unwrap(), Removal::Removed);
    assert_eq!(core.remove_foreign(99).unwrap(), Removal::NotThere);
    let thins = model.tamper(|pool| pool.thins());
    assert!(thins.contains_key(&ours) && !thins.contains_key(&99));
    drop(core);
    model.reboot(Death::PowerCut(0));
    assert!(open(&model).unwrap().examine().unwrap().findings.is_empty());
}

#[test]
fn removing_a_foreign_device_may_crash_anywhere() {
    for steps in 0.. {
        let (model, core) = stage();
        model.tamper(|pool| pool.add_thin(99, 1));
        core.table().foreign.insert(99);
        model.crash.after(steps);
        let done = core.remove_foreign(99).is_ok();
        drop(core);
        model.reboot(Death::PowerCut(10));
        let core = open(&model).unwrap();
        assert_eq!(names(&core), ["a", "b", "base", "c"]);
        add(&core, "new", "a");
        if done {
            break;
        }
    }
}

#[test]
fn a_journal_that_is_gone_is_rebuilt_with_every_name_and_parent() {
    let (model, core) = stage();
    // The ballast has no file system, and is known again nevertheless.
    core.tend(std::time::Instant::now());
    core.tend(std::time::Instant::now() + crate::storage::thin::keeper::USUAL);
    let before = core.table().state.clone();
    drop(core);
    model.reboot(Death::PowerCut(0));
    let report = salvage(&model, None).unwrap().report;
    assert_eq!((report.devices, report.foreign.len()), (4, 0));
    assert!(report.findings.contains(&Finding::Salvaged { id: id("b"), from: Source::Label }));
    let core = open(&model).unwrap();
    assert_eq!(core.table().state.uuid, POOL);
    assert_eq!(core.table().state.names, before.names);
    for name in ["a", "b", "c"] {
        let device = core.find(&id(name), &[Phase::Ready]).unwrap();
        assert_eq!(Some(&(device.clone(), Phase::Ready)), before.devices.get(&device.thin));
        let mount = core.mount(&id(name), Access::ReadOnly).unwrap();
        assert_eq!(std::fs::read_to_string(path_of(&mount)).unwrap(), name);
    }
    assert!(core.examine().unwrap().findings.is_empty());
    add(&core, "new", "c");
}

#[test]
fn an_inherited_label_brings_nobody_back_twice() {
    let (model, core) = stage();
    let parent = thin_of(&core, "a");
    let inherited = Label::of(POOL, &core.find(&id("a"), &[Phase::Ready]).unwrap());
    inherited.write(core.mount(&id("b"), Access::ReadOnly).unwrap().mount().as_fd()).unwrap();
    let thin = thin_of(&core, "b");
    drop(core);
    model.reboot(Death::Killed);
    let report = salvage(&model, None).unwrap().report;
    let [foreign] = &report.foreign[..] else { panic!("{report:?}") };
    assert_eq!(foreign.thin_id, thin);
    assert!(foreign.about.contains("snapshot of 'a'"), "{foreign:?}");
    let core = open(&model).unwrap();
    assert_eq!(names(&core), ["a", "base", "c"]);
    assert_eq!(thin_of(&core, "a"), parent);
    assert!(model.tamper(|pool| pool.thins()).contains_key(&thin), "it is kept");
    core.remove_foreign(thin).unwrap();
    assert!(!model.tamper(|pool| pool.thins()).contains_key(&thin));
}

#[test]
fn a_journal_of_an_earlier_time_is_brought_up_to_date() {
    let (model, core) = stage();
    add(&core, "gone", "a");
    let old = model.journal();
    core.remove(&id("gone")).unwrap();
    core.tidy();
    add(&core, "later", "a");
    let thins = model.tamper(|pool| pool.thins());
    drop(core);
    model.reboot(Death::Killed);
    salvage(&model, Some(old)).unwrap();
    let core = open(&model).unwrap();
    assert_eq!(names(&core), ["a", "b", "base", "c", "later"]);
    assert_eq!(model.tamper(|pool| pool.thins()), thins);
    add(&core, "new", "later");
}

#[test]
fn a_journal_that_is_whole_is_not_replaced() {
    let (model, core) = stage();
    let journal = model.journal();
    drop(core);
    model.reboot(Death::Killed);
    assert!(matches!(salvage(&model, Some(journal)), Err(StorageError::NotSupported { .. })));
}

#[test]
fn a_device_whose_removal_was_intended_is_not_brought_back() {
    let mut old = State::new(POOL);
    for op in [
        super::super::state::Op::Create(device("x", 1, 5)),
        super::super::state::Op::Created { thin: 1 },
        super::super::state::Op::Delete { thin: 1, transaction: 6 },
        super::super::state::Op::Create(device("x", 2, 7)),
    ] {
        old.apply(&op).unwrap();
    }
    let details = |stamp| Details { stamp, mapped_blocks: 3 };
    let pool = Listing::from([(1, details(5)), (2, details(7)), (3, details(8))]);
    let labels = [(1, device("x", 1, 5)), (2, device("x", 2, 7)), (3, device("x", 3, 8))];
    let labels = labels.map(|(thin, device)| (thin, Ok(Some(Label::of(POOL, &device))))).into();
    let rebuilt = join(POOL, Some((&old, Source::Journal)), 9, &pool, &labels, BLOCK).unwrap();
    assert_eq!(rebuilt.state.devices[&1].1, Phase::Removing);
    assert_eq!(rebuilt.state.names.values().collect::<Vec<_>>(), [&3], "the youngest has the id");
    assert_eq!(rebuilt.report.foreign.iter().map(|foreign| foreign.thin_id).collect::<Vec<_>>(), [2]);
    assert_eq!((rebuilt.state.next_thin, rebuilt.state.transaction), (4, 9));
}
