//! The driver over the model: crashes at every step, and random sequences against a simple table.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::ThinDeviceSet;
use super::backend::{Mode, Nodes};
use super::core::{Bell, Core, Settings};
use super::journal::Journal;
use super::keeper::{Keeper, USUAL};
use super::label::Label;
use super::model::{Death, Model};
use super::names::Names;
use super::remover::{Doorbell, Remover};
use super::scribe::Scribe;
use super::state::{Phase, State};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState, PoolState};
use crate::storage::{Access, AddOptions, MountedDevice, Pressure, PressureLevel, Removal, StorageError};

#[derive(Debug)]
struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

pub(super) fn open(model: &Model) -> Result<Arc<Core>, StorageError> {
    open_with(model, Box::new(Silent))
}

pub(super) fn open_with(model: &Model, bell: Box<dyn Bell>) -> Result<Arc<Core>, StorageError> {
    let (mut journal, state) = Journal::open(Box::new(model.clone()))?;
    let state = match state {
        Some(state) => state,
        None => {
            let state = State::new("0-1-2");
            journal.checkpoint(&state)?;
            state
        }
    };
    let settings = Settings {
        pool_name: "t-pool".into(),
        block_size: Bytes(64 << 10),
        base_size: Bytes(1 << 30),
        data_max: None,
        directory: None,
    };
    Core::open(Arc::new(model.clone()), Names::new("t", &state.uuid)?, settings, journal, state, bell)
}

/// The whole driver, with its thread, over the model.
pub(in crate::storage) fn over(model: &Model) -> Arc<ThinDeviceSet> {
    let bell = Doorbell::new().unwrap();
    let core = open_with(model, Box::new(bell.clone())).unwrap();
    let remover = Remover::start(Arc::downgrade(&core), bell).unwrap();
    let keeper = Keeper::start(Arc::downgrade(&core), None).unwrap();
    let scribe = Mutex::new(Some(Scribe::start(&core).unwrap()));
    Arc::new(ThinDeviceSet { keeper: Mutex::new(Some(keeper)), scribe, _remover: remover, core, _lock: None })
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn options(pending: bool) -> AddOptions {
    AddOptions { size: None, pending }
}

fn sized(size: u64) -> AddOptions {
    AddOptions { size: Some(Bytes(size)), pending: false }
}

fn live(core: &Core) -> Vec<DeviceInfo> {
    core.infos(|_| true).unwrap().into_iter().filter(|info| info.state != DeviceState::Removing).collect()
}

fn ready(core: &Core) -> BTreeSet<String> {
    live(core).into_iter().filter(|info| info.state == DeviceState::Ready).map(|info| info.id.to_string()).collect()
}

/// What must hold after every recovery, whatever happened before: the pool has exactly the devices on record, and what
/// is not ours is still there.
pub(super) fn check(model: &Model, core: &Core, foreign: &BTreeMap<u32, u64>) {
    let table = core.table();
    assert!(table.lost.is_empty(), "lost {:?}", table.lost);
    let mut thins = model.tamper(|pool| pool.thins());
    for (thin, stamp) in foreign {
        assert_eq!(thins.remove(thin), Some(*stamp), "a foreign device was deleted");
    }
    let recorded: BTreeMap<u32, u64> =
        table.state.devices.iter().map(|(thin, (device, _))| (*thin, device.stamp)).collect();
    let creating = table.state.devices.values().any(|(_, phase)| *phase == Phase::Creating);
    assert!(!creating, "a recovery left an intent open");
    assert_eq!(thins, recorded, "leaked or lost ids");
    assert!(model.tamper(|pool| pool.nodes()).iter().all(|node| !node.suspended));
}

/// One operation on a pool that has the devices of [`stage`].
type Step = fn(&Arc<Core>) -> Result<(), StorageError>;

const STEPS: [(&str, Step); 17] = [
    ("add", |core| core.add(&id("new"), &id("a"), &options(false)).map(drop)),
    ("add pending", |core| core.add(&id("new"), &id("a"), &options(true)).map(drop)),
    ("add larger", |core| core.add(&id("new"), &id("a"), &sized(2 << 30)).map(drop)),
    ("add smaller", |core| core.add(&id("new"), &id("a"), &sized(512 << 20)).map(drop)),
    ("add smaller and pending", |core| {
        core.add(&id("new"), &id("a"), &AddOptions { pending: true, ..sized(512 << 20) }).map(drop)
    }),
    ("resize", |core| core.resize(&id("b"), Bytes(2 << 30))),
    ("resize in use", |core| {
        let held = core.mount(&id("b"), Access::ReadWrite)?;
        let result = core.resize(&id("b"), Bytes(2 << 30));
        drop(held);
        result
    }),
    ("rollback", |core| {
        core.rollback(&id("b"), &id("a"))?;
        core.tidy();
        Ok(())
    }),
    ("rollback to a larger one", |core| {
        core.resize(&id("a"), Bytes(2 << 30))?;
        core.mount(&id("a"), Access::ReadWrite)?;
        core.rollback(&id("b"), &id("a"))?;
        core.tidy();
        Ok(())
    }),
    ("repair", |core| core.repair().map(drop)),
    ("grow", |core| core.grow(Bytes(768 << 20), Bytes(32 << 20)).map(drop)),
    ("hold and release", |core| {
        core.hold(&id("b"))?;
        core.release(&id("b"))
    }),
    ("complete", |core| core.finish(&id("p"))),
    ("remove", |core| delete(core, "b")),
    ("remove pending", |core| delete(core, "p")),
    ("snapshot of an active device", |core| {
        let held = core.mount(&id("b"), Access::ReadWrite)?;
        let result = core.add(&id("new"), &id("b"), &options(false));
        drop(held);
        assert!(result.as_ref().is_ok_and(|added| added.frozen.is_some()) || result.is_err());
        result.map(drop)
    }),
    ("remove and add again", |core| {
        core.remove(&id("b"))?;
        core.add(&id("b"), &id("a"), &options(false))?;
        core.tidy();
        Ok(())
    }),
];

/// What `remove` begins and the remover does.
fn delete(core: &Core, name: &str) -> Result<(), StorageError> {
    let removal = core.remove(&id(name))?;
    assert_ne!(removal, Removal::NotThere);
    core.tidy();
    Ok(())
}

/// base, a, b ready, with their names in them; p pending; one foreign device.
pub(super) fn stage() -> (Model, Arc<Core>, BTreeMap<u32, u64>) {
    let model = Model::new();
    let core = open(&model).unwrap();
    core.add(&id("a"), &id("base"), &options(false)).unwrap();
    core.add(&id("b"), &id("a"), &options(false)).unwrap();
    for name in ["a", "b"] {
        std::fs::write(content(&core.mount(&id(name), Access::ReadWrite).unwrap()), name).unwrap();
    }
    core.add(&id("p"), &id("a"), &options(true)).unwrap();
    model.tamper(|pool| {
        pool.add_thin(77, 1);
        pool.host().free = Bytes(1 << 30);
    });
    core.table().foreign.insert(77);
    (model, core, BTreeMap::from([(77, 1)]))
}

fn content(mount: &MountedDevice) -> PathBuf {
    use std::os::fd::AsRawFd;
    let top = std::fs::read_link(format!("/proc/self/fd/{}", mount.mount().as_raw_fd())).unwrap();
    top.join("content")
}

fn text(core: &Arc<Core>, name: &str) -> String {
    std::fs::read_to_string(content(&core.mount(&id(name), Access::ReadWrite).unwrap())).unwrap()
}

fn size(core: &Core, name: &str) -> Bytes {
    core.find(&id(name), &[Phase::Ready]).unwrap().size
}

/// What `name` promised when it was acknowledged, or has done or not done when it was not; every device can be used.
fn check_content(core: &Arc<Core>, name: &str, acknowledged: bool) {
    for device in ready(core) {
        core.mount(&id(&device), Access::ReadWrite).unwrap();
    }
    assert_eq!(text(core, "a"), "a");
    if !ready(core).contains("b") {
        return;
    }
    let texts: &[&str] = match name {
        "rollback" | "rollback to a larger one" | "remove and add again" if acknowledged => &["a"],
        "rollback" | "rollback to a larger one" | "remove and add again" => &["a", "b"],
        _ => &["b"],
    };
    assert!(texts.contains(&text(core, "b").as_str()), "{name}: {}", text(core, "b"));
    let sizes: &[u64] = match name {
        "resize" | "resize in use" if acknowledged => &[2 << 30],
        "resize" | "resize in use" => &[1 << 30, 2 << 30],
        _ => &[1 << 30],
    };
    assert!(sizes.contains(&size(core, "b").0), "{name}: {}", size(core, "b"));
    if name == "add smaller" && acknowledged {
        assert_eq!(size(core, "new"), Bytes(512 << 20));
    }
}

/// Runs `step` with a crash after `steps`; whether it was acknowledged, and whether the crash came.
fn run(model: &Model, core: &Arc<Core>, step: Step, steps: i64) -> (bool, bool) {
    model.crash.after(steps);
    let acknowledged = step(core).is_ok();
    (acknowledged, model.crash.happened())
}

/// What must be ready after `name` was acknowledged.
fn expected(name: &str) -> BTreeSet<String> {
    let names: &[&str] = match name {
        "add" | "add larger" | "add smaller" | "snapshot of an active device" => &["base", "a", "b", "new"],
        "complete" => &["base", "a", "b", "p"],
        "remove" => &["base", "a"],
        _ => &["base", "a", "b"],
    };
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_crash_at_any_step_of_any_operation_loses_nothing_and_leaks_nothing() {
    for (name, step) in STEPS {
        for steps in 0.. {
            let mut crashed = false;
            for death in [Death::Killed, Death::PowerCut(0), Death::PowerCut(40), Death::PowerCut(usize::MAX)] {
                let (model, core, foreign) = stage();
                let (acknowledged, now) = run(&model, &core, step, steps);
                crashed |= now;
                drop(core);
                model.reboot(death);
                let core = open(&model).unwrap_or_else(|error| panic!("{name}, step {steps}, {death:?}: {error}"));
                check(&model, &core, &foreign);
                let ready = ready(&core);
                for must in ["base", "a"] {
                    assert!(ready.contains(must), "{name}, step {steps}, {death:?}: lost {must}");
                }
                if acknowledged {
                    assert_eq!(ready, expected(name), "{name}, step {steps}, {death:?}");
                }
                check_content(&core, name, acknowledged);
            }
            if !crashed {
                assert!(steps > 2, "{name} has crash points");
                break;
            }
        }
    }
}

#[test]
fn a_recovery_that_crashes_itself_is_done_again() {
    for (name, step) in STEPS {
        // Where the operation is cut: after the intent, the transaction id, the message.
        for first in [3, 5, 7, 9, 11] {
            for second in 0.. {
                let (model, core, foreign) = stage();
                run(&model, &core, step, first);
                drop(core);
                model.reboot(Death::PowerCut(0));
                model.crash.after(second);
                let done = open(&model).is_ok();
                model.reboot(Death::PowerCut(20));
                let core = open(&model).unwrap_or_else(|error| panic!("{name}, {first}, {second}: {error}"));
                check(&model, &core, &foreign);
                if done {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_second_recovery_changes_nothing() {
    for (_, step) in STEPS {
        let (model, core, _) = stage();
        run(&model, &core, step, 8);
        drop(core);
        model.reboot(Death::Killed);
        drop(open(&model).unwrap());
        let (journal, thins) = (model.journal(), model.tamper(|pool| pool.thins()));
        let state = open(&model).unwrap().table().state.clone();
        drop(open(&model).unwrap());
        assert_eq!(open(&model).unwrap().table().state, state);
        assert_eq!(model.tamper(|pool| pool.thins()), thins);
        assert!(!journal.is_empty());
    }
}

#[test]
fn a_first_start_that_crashes_anywhere_starts_again() {
    for steps in 0.. {
        let model = Model::new();
        model.crash.after(steps);
        let done = open(&model).is_ok();
        model.reboot(Death::PowerCut(10));
        let core = open(&model).unwrap_or_else(|error| panic!("step {steps}: {error}"));
        check(&model, &core, &BTreeMap::new());
        assert_eq!(ready(&core), BTreeSet::from(["base".to_owned()]));
        if done {
            break;
        }
    }
}

#[test]
fn a_second_daemon_is_noticed_and_this_one_stops() {
    let (model, core, _) = stage();
    model.tamper(|pool| *pool.transaction() += 1);
    let before = model.tamper(|pool| pool.thins());
    for _ in 0..2 {
        let error = core.add(&id("new"), &id("a"), &options(false)).unwrap_err();
        assert!(matches!(error, StorageError::Stale { .. }), "{error}");
    }
    assert!(matches!(core.remove(&id("b")), Err(StorageError::Stale { .. })));
    assert_eq!(model.tamper(|pool| pool.thins()), before);
    assert_eq!(core.status().unwrap().state, PoolState::ReadOnly);
}

#[test]
fn a_journal_of_an_earlier_time_changes_nothing_but_lets_devices_be_used() {
    let (model, core, _) = stage();
    core.add(&id("going"), &id("a"), &options(false)).unwrap();
    let held = core.mount(&id("going"), Access::ReadWrite).unwrap();
    assert_eq!(core.remove(&id("going")).unwrap(), Removal::Deferred);
    drop(held);
    let old = model.journal();
    core.add(&id("later"), &id("a"), &options(false)).unwrap();
    let before = model.tamper(|pool| pool.thins());
    drop(core);
    model.reboot(Death::Killed);
    model.set_journal(Some(old));
    let core = open(&model).unwrap();
    core.tidy();
    assert_eq!(model.tamper(|pool| pool.thins()), before);
    for error in [
        core.add(&id("x"), &id("a"), &options(false)).map(drop),
        core.remove(&id("b")).map(drop),
        core.finish(&id("p")),
        core.resize(&id("b"), Bytes(2 << 30)),
        core.rollback(&id("b"), &id("a")),
        core.hold(&id("b")).map(drop),
    ] {
        assert!(matches!(error, Err(StorageError::PoolState { .. })), "{error:?}");
    }
    core.mount(&id("b"), Access::ReadOnly).unwrap();
}

#[test]
fn a_device_that_the_pool_lost_is_shown_and_can_be_removed() {
    let (model, core, _) = stage();
    let thin = core.find(&id("b"), &[Phase::Ready]).unwrap().thin;
    drop(core);
    model.reboot(Death::Killed);
    model.tamper(|pool| pool.lose_thin(thin));
    let core = open(&model).unwrap();
    let info = live(&core).into_iter().find(|info| info.id == id("b")).unwrap();
    assert_eq!(info.state, DeviceState::Lost);
    assert!(matches!(core.mount(&id("b"), Access::ReadOnly), Err(StorageError::WrongState { .. })));
    delete(&core, "b").unwrap();
    assert!(core.removing().is_empty());
}

#[test]
fn a_foreign_device_under_a_lost_devices_number_is_never_deleted() {
    let (model, core, _) = stage();
    let thin = core.find(&id("b"), &[Phase::Ready]).unwrap().thin;
    drop(core);
    model.reboot(Death::Killed);
    model.tamper(|pool| {
        pool.lose_thin(thin);
        pool.add_thin(thin, 1);
    });
    let core = open(&model).unwrap();
    delete(&core, "b").unwrap();
    assert!(core.removing().is_empty());
    assert_eq!(model.tamper(|pool| pool.thins())[&thin], 1);
}

#[test]
fn a_number_that_somebody_took_is_left_alone_and_another_used() {
    let (model, core, _) = stage();
    let next = core.table().state.next_thin;
    model.tamper(|pool| pool.add_thin(next, 1));
    core.add(&id("new"), &id("a"), &options(false)).unwrap();
    assert_eq!(core.find(&id("new"), &[Phase::Ready]).unwrap().thin, next + 1);
    assert_eq!(model.tamper(|pool| pool.thins())[&next], 1);
}

#[test]
fn a_device_in_use_is_deleted_when_its_last_user_is_gone() {
    let (model, core, _) = stage();
    let held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    let thin = core.find(&id("b"), &[Phase::Ready]).unwrap().thin;
    assert_eq!(core.remove(&id("b")).unwrap(), Removal::Deferred);
    core.add(&id("b"), &id("a"), &options(false)).unwrap();
    assert!(core.tidy().is_some());
    assert!(model.tamper(|pool| pool.thins()).contains_key(&thin));
    drop(held);
    core.tidy();
    assert!(!model.tamper(|pool| pool.thins()).contains_key(&thin));
    assert!(ready(&core).contains("b"));
}

#[test]
fn a_node_goes_with_its_last_user_although_the_daemon_was_killed() {
    let (model, core, _) = stage();
    core.tidy();
    let held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    drop(core);
    assert_eq!(model.tamper(|pool| pool.nodes()).len(), 1);
    drop(held);
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
}

#[test]
fn a_device_whose_node_is_about_to_go_can_be_mounted_again() {
    let (model, core, _) = stage();
    core.tidy();
    let first = core.mount(&id("b"), Access::ReadWrite).unwrap();
    let second = core.mount(&id("b"), Access::ReadWrite).unwrap();
    drop(first);
    assert_eq!(model.tamper(|pool| pool.nodes()).len(), 1);
    drop(second);
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
}

#[test]
fn making_a_device_mounts_nothing() {
    let (model, core, _) = stage();
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
    assert_eq!(core.tidy(), None);
}

#[test]
fn a_device_left_suspended_by_a_crash_is_resumed_at_start() {
    let (model, core, _) = stage();
    let _held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    model.tamper(|pool| pool.suspend_all());
    drop(core);
    model.reboot(Death::Killed);
    let core = open(&model).unwrap();
    assert!(model.ours().unwrap().iter().all(|node| !node.suspended && node.leaving));
    drop(core);
}

#[test]
fn a_full_pool_refuses_new_devices_and_never_deletions() {
    let (model, core, _) = stage();
    for spoil in [
        (|pool: &mut super::model::Tamper<'_>| pool.numbers().data = (8000, 8192)) as fn(&mut super::model::Tamper<'_>),
        |pool| pool.numbers().metadata = (3500, 4096),
    ] {
        let good = model.tamper(|pool| *pool.numbers());
        model.tamper(spoil);
        assert!(matches!(core.add(&id("x"), &id("a"), &options(false)), Err(StorageError::PoolFull { .. })));
        model.tamper(|pool| *pool.numbers() = good);
    }
    model.tamper(|pool| pool.numbers().data = (8192, 8192));
    delete(&core, "b").unwrap();
    assert!(core.removing().is_empty());
}

#[test]
fn what_was_removed_a_moment_ago_makes_room_for_what_is_added() {
    let (model, core, _) = stage();
    core.remove(&id("b")).unwrap();
    model.tamper(|pool| pool.numbers().data = (8000, 8192));
    assert!(core.add(&id("x"), &id("a"), &options(false)).is_err());
    assert!(core.removing().is_empty(), "it was deleted first");
}

#[test]
fn a_journal_from_before_a_deletion_is_behind_the_pool() {
    let (model, core, _) = stage();
    let old = model.journal();
    delete(&core, "b").unwrap();
    drop(core);
    model.reboot(Death::Killed);
    model.set_journal(Some(old));
    assert_eq!(open(&model).unwrap().status().unwrap().state, PoolState::ReadOnly);
}

#[test]
fn a_removal_in_a_read_only_pool_waits_until_it_can_be_written() {
    let (model, core, _) = stage();
    model.tamper(|pool| pool.numbers().mode = Mode::ReadOnly);
    assert_eq!(core.remove(&id("b")).unwrap(), Removal::Deferred);
    assert!(matches!(core.add(&id("x"), &id("a"), &options(false)), Err(StorageError::PoolState { .. })));
    model.tamper(|pool| pool.numbers().mode = Mode::Write);
    core.tidy();
    assert!(!live(&core).iter().any(|info| info.id == id("b")));
    assert!(core.removing().is_empty());
}

#[test]
fn a_device_gets_a_label_of_its_own_when_it_is_first_written() {
    let (_model, core, _) = stage();
    let label = |name| Label::read(core.mount(&id(name), Access::ReadOnly).unwrap().mount()).unwrap().unwrap();
    core.add(&id("c"), &id("b"), &options(false)).unwrap();
    assert_eq!(label("c").id, id("b"), "inherited");
    for name in ["base", "a", "b", "c"] {
        core.mount(&id(name), Access::ReadWrite).unwrap();
        let device = core.find(&id(name), &[Phase::Ready]).unwrap();
        assert_eq!(label(name), Label::of("0-1-2", &device));
    }
}

#[test]
fn a_device_whose_label_names_another_pool_is_refused() {
    let (_model, core, _) = stage();
    let device = core.find(&id("b"), &[Phase::Ready]).unwrap();
    let mount = core.mount(&id("b"), Access::ReadOnly).unwrap();
    Label::of("another", &device).write(mount.mount().as_fd()).unwrap();
    assert!(matches!(core.mount(&id("b"), Access::ReadWrite), Err(StorageError::Damaged { .. })));
}

#[test]
fn a_stuck_device_stops_neither_the_list_nor_other_devices() {
    let (_model, core, _) = stage();
    let stuck = core.slot(core.find(&id("b"), &[Phase::Ready]).unwrap().thin);
    let _held = super::core::lock(&stuck);
    assert_eq!(live(&core).len(), 4);
    core.status().unwrap();
    core.add(&id("x"), &id("a"), &options(false)).unwrap();
    core.mount(&id("x"), Access::ReadWrite).unwrap();
    assert_eq!(core.remove(&id("b")).unwrap(), Removal::Deferred);
    core.tidy();
}

fn pressures(core: &Core) -> Arc<Mutex<Vec<Pressure>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let own = heard.clone();
    core.listen(Box::new(move |pressure| own.lock().unwrap().push(pressure.clone())));
    heard
}

#[test]
fn a_pool_grows_before_it_is_full_and_lets_new_devices_in() {
    let (model, core, _) = stage();
    let heard = pressures(&core);
    model.tamper(|pool| {
        pool.host().free = Bytes(60 << 30);
        pool.numbers().data = (8000, 8192);
        pool.numbers().metadata = (3500, 4096);
    });
    core.add(&id("x"), &id("a"), &options(false)).unwrap();
    let numbers = model.tamper(|pool| *pool.numbers());
    assert!(numbers.data.1 >= 8192 + 4096 && numbers.metadata.1 == 8192, "{numbers:?}");
    core.tend(Instant::now());
    let levels: Vec<_> = heard.lock().unwrap().iter().map(|pressure| pressure.level).collect();
    assert_eq!(levels, [PressureLevel::None]);
}

#[test]
fn a_pool_stops_growing_at_its_limit_and_leaves_the_host_its_part() {
    let (model, core, _) = stage();
    model.tamper(|pool| {
        // 10 GiB are kept for the host.
        pool.host().free = Bytes((10 << 30) + (300 << 20));
        pool.numbers().data = (8192, 8192);
        pool.numbers().mode = Mode::OutOfData;
    });
    for expected in [8192 + 4096, 8192 + 4096 + 44 * 16, 8192 + 4096 + 44 * 16] {
        core.tend(Instant::now());
        assert_eq!(model.tamper(|pool| pool.numbers().data.1), expected);
        model.tamper(|pool| pool.numbers().data.0 = pool.numbers().data.1);
    }
}

#[test]
fn whoever_listens_hears_of_a_lack_of_room_and_of_its_end() {
    let (model, core, _) = stage();
    let heard = pressures(&core);
    let now = Instant::now();
    for (second, used) in [(0, 10), (1, 6400), (2, 6400), (3, 8000), (4, 8000), (5, 100)] {
        model.tamper(|pool| pool.numbers().data.0 = used);
        core.tend(now + Duration::from_secs(second));
    }
    use PressureLevel::{High, Low, None};
    let levels: Vec<_> = heard.lock().unwrap().iter().map(|pressure| pressure.level).collect();
    assert_eq!(
        levels,
        [None, High, Low, High, High, None],
        "how it is at first; high is said again until something is done"
    );
}

#[test]
fn ballast_is_taken_when_there_is_room_and_thrown_out_when_there_is_none() {
    let (model, core, foreign) = stage();
    let count = |model: &Model| model.tamper(|pool| pool.thins().len());
    let before = count(&model);
    core.tend(Instant::now());
    assert_eq!(count(&model), before, "not at once");
    core.tend(Instant::now() + USUAL);
    core.tend(Instant::now() + USUAL);
    assert_eq!(count(&model), before + 1);
    assert!(!live(&core).iter().any(|info| info.id.as_str() == "ballast"), "nobody sees it");
    assert_eq!(core.status().unwrap().devices, 4);
    let thins = model.tamper(|pool| pool.thins());
    // After the listener was told, so that it can stop the writers first.
    let (own, seen) = (model.clone(), Arc::new(Mutex::new(None)));
    let note = seen.clone();
    core.listen(Box::new(move |_| *note.lock().unwrap() = Some(own.tamper(|pool| pool.thins().len()))));
    model.tamper(|pool| (pool.numbers().data.0, pool.numbers().mode) = (8192, Mode::OutOfData));
    core.tend(Instant::now());
    assert_eq!(*seen.lock().unwrap(), Some(thins.len()));
    assert_eq!(count(&model), before);
    drop(core);
    model.reboot(Death::Killed);
    model.tamper(|pool| (pool.numbers().data.0, pool.numbers().mode) = (10, Mode::Write));
    check(&model, &open(&model).unwrap(), &foreign);
}

#[test]
fn taking_ballast_may_crash_anywhere() {
    for steps in 0.. {
        let (model, core, foreign) = stage();
        core.tend(Instant::now());
        model.crash.after(steps);
        core.tend(Instant::now() + USUAL);
        let done = !model.crash.happened();
        drop(core);
        model.reboot(Death::PowerCut(20));
        check(&model, &open(&model).unwrap(), &foreign);
        if done {
            break;
        }
    }
}

#[test]
fn on_a_full_pool_a_device_in_use_is_deleted_at_once() {
    let (model, core, _) = stage();
    let held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    let thin = core.find(&id("b"), &[Phase::Ready]).unwrap().thin;
    model.tamper(|pool| (pool.numbers().data.0, pool.numbers().mode) = (8192, Mode::OutOfData));
    core.remove(&id("b")).unwrap();
    core.tidy();
    assert!(!model.tamper(|pool| pool.thins()).contains_key(&thin));
    drop(held);
    assert!(live(&core).len() == 3);
}

#[test]
fn a_device_in_use_is_not_snapshotted_when_what_is_dirty_has_no_room() {
    let (model, core, _) = stage();
    let _held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    // Above the reserve when a new device is let in, so only the suspend is what is refused.
    model.tamper(|pool| pool.numbers().data.0 = 8192 - 8192 / 20);
    assert!(matches!(core.add(&id("x"), &id("b"), &options(false)), Err(StorageError::PoolFull { .. })));
    assert!(model.ours().unwrap().iter().all(|node| !node.suspended));
    model.tamper(|pool| pool.host().free = Bytes(60 << 30));
    core.add(&id("x"), &id("b"), &options(false)).unwrap();
}

#[test]
fn growing_by_hand_takes_sizes_and_never_shrinks() {
    let (model, core, _) = stage();
    model.tamper(|pool| pool.host().free = Bytes(1 << 30));
    let status = core.grow(Bytes(768 << 20), Bytes(0)).unwrap();
    assert_eq!((status.data_total, status.metadata_total), (Bytes(768 << 20), Bytes(16 << 20)));
    assert!(matches!(core.grow(Bytes(512 << 20), Bytes(0)), Err(StorageError::NotSupported { .. })));
    assert!(matches!(core.grow(Bytes(1 << 40), Bytes(0)), Err(StorageError::DeviceMapper { .. })));
}

#[test]
fn what_is_in_use_is_trimmed() {
    let (_model, core, _) = stage();
    core.tidy();
    let _held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    let trimmed = core.trim().unwrap();
    assert_eq!((trimmed.devices, trimmed.bytes), (1, Bytes(4096)));
}

#[test]
fn a_larger_size_is_there_at_once_when_it_is_in_use_and_later_when_not() {
    let (model, core, _) = stage();
    core.tidy();
    let held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    core.resize(&id("b"), Bytes((2 << 30) + 1)).unwrap();
    let larger = Bytes((2 << 30) + (64 << 10));
    assert_eq!(size(&core, "b"), larger);
    let file_system = |mount: &MountedDevice| std::fs::read_to_string(content(mount).with_file_name("size")).unwrap();
    assert_eq!(file_system(&held), larger.0.to_string());
    drop(held);
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
    core.resize(&id("a"), Bytes(3 << 30)).unwrap();
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
    assert_eq!(file_system(&core.mount(&id("a"), Access::ReadWrite).unwrap()), (3u64 << 30).to_string());
    for (name, size) in [("a", 1 << 30), ("base", 2 << 30), ("b", 1 << 60)] {
        let refused = core.resize(&id(name), Bytes(size));
        assert!(matches!(refused, Err(StorageError::NotSupported { .. })), "{refused:?}");
    }
}

#[test]
fn a_device_too_small_for_its_content_is_refused_and_nothing_of_it_is_left() {
    let (model, core, foreign) = stage();
    let error = core.add(&id("new"), &id("a"), &sized(1 << 20)).unwrap_err();
    assert!(matches!(&error, StorageError::NotSupported { advice, .. } if advice.contains("64M")), "{error}");
    assert!(core.removing().is_empty());
    check(&model, &core, &foreign);
    core.add(&id("new"), &id("a"), &sized(100 << 20)).unwrap();
    let label = Label::read(core.mount(&id("new"), Access::ReadOnly).unwrap().mount()).unwrap().unwrap();
    assert_eq!((label.id, label.size), (id("new"), Bytes(100 << 20)));
}

#[test]
fn a_device_is_rolled_back_only_when_nobody_uses_it() {
    let (model, core, _) = stage();
    let before = model.tamper(|pool| pool.thins());
    let held = core.mount(&id("b"), Access::ReadWrite).unwrap();
    let refused = core.rollback(&id("b"), &id("a"));
    assert!(matches!(refused, Err(StorageError::InUse { .. })), "{refused:?}");
    drop(held);
    core.hold(&id("b")).unwrap();
    assert!(matches!(core.rollback(&id("b"), &id("a")), Err(StorageError::InUse { .. })));
    core.release(&id("b")).unwrap();
    assert!(matches!(core.rollback(&id("b"), &id("p")), Err(StorageError::WrongState { .. })));
    assert!(matches!(core.rollback(&id("base"), &id("a")), Err(StorageError::InUse { .. })));
    core.tidy();
    assert_eq!(model.tamper(|pool| pool.thins()), before);
    core.rollback(&id("b"), &id("a")).unwrap();
    core.tidy();
    assert_eq!(text(&core, "b"), "a");
    assert_eq!(model.tamper(|pool| pool.thins()).len(), before.len());
    assert_eq!(live(&core).iter().filter(|info| info.id == id("b")).count(), 1);
}

#[test]
fn a_held_device_stays_active_over_mounts_and_a_restart_until_it_is_released() {
    let (model, core, _) = stage();
    let names = |model: &Model| model.tamper(|pool| pool.nodes().len());
    let path = core.hold(&id("b")).unwrap();
    assert_eq!(core.hold(&id("b")).unwrap(), path);
    drop(core.mount(&id("b"), Access::ReadWrite).unwrap());
    core.examine().unwrap();
    assert_eq!(names(&model), 1);
    drop(core);
    model.reboot(Death::Killed);
    let core = open(&model).unwrap();
    assert_eq!(names(&model), 1);
    assert_eq!(core.hold(&id("b")).unwrap(), path);
    let mount = core.mount(&id("b"), Access::ReadWrite).unwrap();
    assert!(matches!(core.release(&id("b")), Err(StorageError::InUse { .. })));
    drop(mount);
    core.release(&id("b")).unwrap();
    core.release(&id("b")).unwrap();
    assert_eq!(names(&model), 0);
}

#[test]
fn nothing_is_held_after_the_machine_was_off_after_a_removal_or_after_the_end() {
    let (model, core, _) = stage();
    core.hold(&id("b")).unwrap();
    drop(core);
    model.reboot(Death::PowerCut(usize::MAX));
    let core = open(&model).unwrap();
    assert!(core.table().state.held.is_empty());
    core.hold(&id("a")).unwrap();
    core.hold(&id("b")).unwrap();
    delete(&core, "b").unwrap();
    assert_eq!(model.tamper(|pool| pool.nodes().len()), 1);
    core.release_all().unwrap();
    assert!(core.deactivate_all().unwrap());
}

#[test]
fn what_is_a_devices_own_is_told_for_those_that_are_shown() {
    let (_model, core, _) = stage();
    core.tend(Instant::now());
    core.tend(Instant::now() + USUAL);
    let exclusive = core.exclusive().unwrap();
    let names: Vec<_> = exclusive.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b", "base", "p"]);
    assert_eq!(exclusive[&id("a")], Bytes(256 << 10));
}

#[test]
fn a_device_with_much_of_its_own_is_discarded_before_it_is_deleted() {
    let (model, core, foreign) = stage();
    let thin = core.find(&id("b"), &[Phase::Ready]).unwrap().thin;
    model.tamper(|pool| pool.map(thin, 1000));
    delete(&core, "b").unwrap();
    assert_eq!(model.tamper(|pool| pool.host().holes), Bytes(1000 << 16));
    check(&model, &core, &foreign);
    let thin = core.find(&id("a"), &[Phase::Ready]).unwrap().thin;
    model.tamper(|pool| {
        pool.map(thin, 1000);
        pool.numbers().passes_discards = false;
    });
    delete(&core, "a").unwrap();
    assert_eq!(model.tamper(|pool| pool.host().holes), Bytes(1000 << 16), "a pool of former times keeps it");
}

#[test]
fn a_discard_before_a_deletion_may_crash_anywhere() {
    for steps in 0.. {
        let (model, core, foreign) = stage();
        let thin = core.find(&id("b"), &[Phase::Ready]).unwrap().thin;
        model.tamper(|pool| pool.map(thin, 1000));
        model.crash.after(steps);
        let done = core.remove(&id("b")).is_ok();
        core.tidy();
        let crashed = model.crash.happened();
        drop(core);
        model.reboot(Death::PowerCut(0));
        let core = open(&model).unwrap();
        core.tidy();
        check(&model, &core, &foreign);
        if ready(&core).contains("b") {
            assert!(!done);
            assert_eq!(text(&core, "b"), "b", "it is whole as long as it is there");
        }
        if !crashed {
            break;
        }
    }
}

#[test]
fn what_was_given_back_is_taken_again_when_the_host_gets_short() {
    let (model, core, _) = stage();
    let gib = Bytes::GIB;
    let host = |free: u64, holes: u64| {
        model.tamper(|pool| (pool.host().free, pool.host().holes) = (Bytes(free), Bytes(holes)));
    };
    host(50 * gib, 300 << 20);
    core.tend(Instant::now());
    assert_eq!(model.tamper(|pool| pool.host().holes), Bytes(300 << 20), "there is enough for all");
    host(10 * gib + (299 << 20), 300 << 20);
    assert_eq!(core.tend(Instant::now()), Duration::from_secs(1));
    assert_eq!(model.tamper(|pool| pool.host().holes), Bytes(0));
    // Somebody was faster: new devices are refused as if the pool were full.
    host(0, 490 << 20);
    core.tend(Instant::now());
    assert!(matches!(core.add(&id("x"), &id("a"), &options(false)), Err(StorageError::PoolFull { .. })));
    assert_eq!(core.status().unwrap().state, PoolState::LowData);
}

#[test]
fn a_larger_base_size_holds_for_devices_added_later_and_for_no_other() {
    let (model, core, _) = stage();
    core.add(&id("special"), &id("a"), &sized(512 << 20)).unwrap();
    drop(core);
    model.reboot(Death::Killed);
    let (journal, state) = Journal::open(Box::new(model.clone())).unwrap();
    let state = state.unwrap();
    let settings = Settings {
        pool_name: "t-pool".into(),
        block_size: Bytes(64 << 10),
        base_size: Bytes(2 << 30),
        data_max: None,
        directory: None,
    };
    let names = Names::new("t", &state.uuid).unwrap();
    let core = Core::open(Arc::new(model.clone()), names, settings, journal, state, Box::new(Silent)).unwrap();
    for (new, base, expected) in
        [("from-base", "base", 2 << 30), ("from-a", "a", 2 << 30), ("own", "special", 512 << 20)]
    {
        core.add(&id(new), &id(base), &options(false)).unwrap();
        assert_eq!(size(&core, new), Bytes(expected), "{new}");
        core.mount(&id(new), Access::ReadWrite).unwrap();
    }
    for name in ["base", "a", "b"] {
        assert_eq!(size(&core, name), Bytes(1 << 30));
    }
}

/// A step of a random sequence; numbers pick devices, the last is the base.
#[derive(Debug, Clone)]
enum Random {
    Add(u8, u8, bool),
    Complete(u8),
    Remove(u8),
    Mount(u8),
    Write(u8, u8),
    Resize(u8, u64),
    Rollback(u8, u8),
    Hold(u8),
    Drop,
    Restart(bool, i64),
}

fn random() -> impl Strategy<Value = Random> {
    prop_oneof![
        4 => (0..6u8, 0..7u8, any::<bool>()).prop_map(|(new, base, pending)| Random::Add(new, base, pending)),
        1 => (0..6u8).prop_map(Random::Complete),
        2 => (0..6u8).prop_map(Random::Remove),
        2 => (0..6u8).prop_map(Random::Mount),
        2 => (0..6u8, any::<u8>()).prop_map(|(number, text)| Random::Write(number, text)),
        1 => (0..6u8, 1..4u64).prop_map(|(number, size)| Random::Resize(number, size << 30)),
        2 => (0..6u8, 0..6u8).prop_map(|(number, to)| Random::Rollback(number, to)),
        1 => (0..6u8).prop_map(Random::Hold),
        1 => Just(Random::Drop),
        1 => (any::<bool>(), 0..40i64).prop_map(|(power, steps)| Random::Restart(power, steps)),
    ]
}

/// What a device is.
#[derive(Debug, Clone, PartialEq)]
struct Simple {
    pending: bool,
    size: u64,
    text: Option<String>,
}

/// The simple table: every device by its id, and who has what mounted.
struct History {
    model: Model,
    core: Arc<Core>,
    devices: BTreeMap<String, Simple>,
    mounts: Vec<(String, MountedDevice)>,
}

impl History {
    fn new() -> Self {
        let model = Model::new();
        model.tamper(|pool| pool.host().free = Bytes(1 << 30));
        let base = Simple { pending: false, size: 1 << 30, text: None };
        let core = open(&model).unwrap();
        Self { core, model, devices: BTreeMap::from([("base".to_owned(), base)]), mounts: Vec::new() }
    }

    fn name(number: u8) -> String {
        if number == 6 { "base".to_owned() } else { format!("d{number}") }
    }

    fn ready(&self, name: &str) -> Option<&Simple> {
        self.devices.get(name).filter(|device| !device.pending)
    }

    fn is_used(&self, name: &str) -> bool {
        self.mounts.iter().any(|(mounted, _)| mounted == name)
    }

    fn step(&mut self, step: &Random) {
        match *step {
            Random::Add(new, base, pending) => self.add(&Self::name(new), &Self::name(base), pending),
            Random::Complete(number) => {
                let device = self.devices.get_mut(&Self::name(number)).filter(|device| device.pending);
                assert_eq!(self.core.finish(&id(&Self::name(number))).is_ok(), device.is_some());
                device.into_iter().for_each(|device| device.pending = false);
            }
            Random::Remove(number) => {
                let name = Self::name(number);
                let removal = self.core.remove(&id(&name)).unwrap();
                assert_eq!(removal == Removal::NotThere, self.devices.remove(&name).is_none());
                // Who still uses it uses nothing that has a name.
                self.mounts.iter_mut().filter(|(mounted, _)| *mounted == name).for_each(|(mounted, _)| mounted.clear());
            }
            Random::Mount(number) => {
                let name = Self::name(number);
                let mount = self.core.mount(&id(&name), Access::ReadWrite);
                assert_eq!(mount.is_ok(), self.devices.contains_key(&name));
                self.mounts.extend(mount.map(|mount| (name, mount)));
            }
            Random::Write(number, text) => {
                let name = Self::name(number);
                let Some(device) = self.devices.get_mut(&name) else { return };
                std::fs::write(content(&self.core.mount(&id(&name), Access::ReadWrite).unwrap()), text.to_string())
                    .unwrap();
                device.text = Some(text.to_string());
            }
            Random::Resize(number, size) => self.resize(&Self::name(number), size),
            Random::Rollback(number, to) => self.roll_back(&Self::name(number), &Self::name(to)),
            Random::Hold(number) => {
                let name = Self::name(number);
                if self.ready(&name).is_some() && !self.is_used(&name) {
                    self.core.hold(&id(&name)).unwrap();
                    self.core.release(&id(&name)).unwrap();
                }
            }
            Random::Drop => drop(self.mounts.pop()),
            Random::Restart(power, steps) => self.restart(power, steps),
        }
    }

    fn add(&mut self, new: &str, base: &str, pending: bool) {
        let origin = self.ready(base).filter(|_| !self.devices.contains_key(new)).cloned();
        let done = self.core.add(&id(new), &id(base), &options(pending));
        assert_eq!(done.is_ok(), origin.is_some(), "{done:?}");
        self.devices.extend(origin.map(|origin| (new.to_owned(), Simple { pending, ..origin })));
    }

    fn resize(&mut self, name: &str, size: u64) {
        let may = self.devices.get(name).is_some_and(|device| device.size <= size);
        let done = self.core.resize(&id(name), Bytes(size));
        assert_eq!(done.is_ok(), may, "{done:?}");
        if let Some(device) = self.devices.get_mut(name).filter(|_| may) {
            device.size = size;
        }
    }

    fn roll_back(&mut self, name: &str, to: &str) {
        let may = self.ready(name).is_some() && !self.is_used(name);
        let origin = self.ready(to).filter(|_| may).cloned();
        let done = self.core.rollback(&id(name), &id(to));
        assert_eq!(done.is_ok(), origin.is_some(), "{done:?}");
        if let (Some(device), Some(origin)) = (self.devices.get_mut(name), origin) {
            device.text = origin.text;
        }
    }

    /// A crash may leave the operation that it cut done or not done.
    fn restart(&mut self, power: bool, steps: i64) {
        self.model.crash.after(steps);
        let was = self.devices.contains_key("d0");
        let acknowledged = self.core.add(&id("d0"), &id("base"), &options(false)).is_ok();
        self.mounts.clear();
        self.model.reboot(if power { Death::PowerCut(7) } else { Death::Killed });
        self.core = open(&self.model).unwrap();
        self.devices.retain(|_, device| !device.pending);
        let there = ready(&self.core).contains("d0");
        assert!(there || !acknowledged, "an acknowledged device is gone");
        if !was && there {
            self.devices.insert("d0".to_owned(), self.devices["base"].clone());
        }
        check(&self.model, &self.core, &BTreeMap::new());
    }

    /// Whether the driver shows what the table says.
    fn agrees(&self) {
        let shown: BTreeMap<String, (bool, u64)> = live(&self.core)
            .iter()
            .map(|info| (info.id.to_string(), (info.state == DeviceState::Pending, info.size.0)))
            .collect();
        let simple = self.devices.iter().map(|(name, device)| (name.clone(), (device.pending, device.size))).collect();
        assert_eq!(shown, simple);
    }

    /// Whether in every device is what the table says.
    fn holds(&self) {
        for (name, device) in &self.devices {
            let mounted = self.core.mount(&id(name), Access::ReadOnly).unwrap();
            assert_eq!(std::fs::read_to_string(content(&mounted)).ok(), device.text, "what is in {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_agrees_with_a_simple_table(steps in prop::collection::vec(random(), 1..60)) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
            history.agrees();
        }
        history.holds();
    }
}
