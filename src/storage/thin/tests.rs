//! The driver over the model: crashes at every step, and random sequences against a simple table.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;

use proptest::prelude::*;

use super::ThinDeviceSet;
use super::backend::{Mode, Nodes};
use super::core::{Bell, Core, Settings};
use super::journal::Journal;
use super::label::Label;
use super::model::{Death, Model};
use super::names::Names;
use super::remover::{Doorbell, Remover};
use super::state::{Phase, State};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState, PoolState};
use crate::storage::{Access, AddOptions, Removal, StorageError};

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
    let settings = Settings { pool_name: "t-pool".into(), block_size: Bytes(64 << 10), base_size: Bytes(1 << 30) };
    Core::open(Arc::new(model.clone()), Names::new("t", &state.uuid)?, settings, journal, state, bell)
}

/// The whole driver, with its thread, over the model.
pub(in crate::storage) fn over(model: &Model) -> Arc<ThinDeviceSet> {
    let bell = Doorbell::new().unwrap();
    let core = open_with(model, Box::new(bell.clone())).unwrap();
    let remover = Remover::start(Arc::downgrade(&core), bell).unwrap();
    Arc::new(ThinDeviceSet { _remover: remover, core, _lock: None })
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn options(pending: bool) -> AddOptions {
    AddOptions { size: None, pending }
}

fn live(core: &Core) -> Vec<DeviceInfo> {
    core.infos(|_| true).unwrap().into_iter().filter(|info| info.state != DeviceState::Removing).collect()
}

fn ready(core: &Core) -> BTreeSet<String> {
    live(core).into_iter().filter(|info| info.state == DeviceState::Ready).map(|info| info.id.to_string()).collect()
}

/// What must hold after every recovery, whatever happened before: the pool has exactly the devices on record, and what
/// is not ours is still there.
fn check(model: &Model, core: &Core, foreign: &BTreeMap<u32, u64>) {
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

const STEPS: [(&str, Step); 8] = [
    ("add", |core| core.add(&id("new"), &id("a"), &options(false))),
    ("add pending", |core| core.add(&id("new"), &id("a"), &options(true))),
    ("add larger", |core| core.add(&id("new"), &id("a"), &AddOptions { size: Some(Bytes(2 << 30)), pending: false })),
    ("complete", |core| core.finish(&id("p"))),
    ("remove", |core| delete(core, "b")),
    ("remove pending", |core| delete(core, "p")),
    ("snapshot of an active device", |core| {
        let held = core.mount(&id("b"), Access::ReadWrite)?;
        let result = core.add(&id("new"), &id("b"), &options(false));
        drop(held);
        result
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

/// base, a, b ready; p pending; one foreign device.
fn stage() -> (Model, Arc<Core>, BTreeMap<u32, u64>) {
    let model = Model::new();
    let core = open(&model).unwrap();
    core.add(&id("a"), &id("base"), &options(false)).unwrap();
    core.add(&id("b"), &id("a"), &options(false)).unwrap();
    core.add(&id("p"), &id("a"), &options(true)).unwrap();
    model.tamper(|pool| pool.add_thin(77, 1));
    core.table().foreign.insert(77);
    (model, core, BTreeMap::from([(77, 1)]))
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
        "add" | "add larger" | "snapshot of an active device" => &["base", "a", "b", "new"],
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
    for error in [core.add(&id("x"), &id("a"), &options(false)), core.remove(&id("b")).map(drop), core.finish(&id("p"))]
    {
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
    assert_eq!(label("a").id, id("base"), "inherited");
    for name in ["base", "a", "b"] {
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

/// A step of a random sequence; numbers pick devices.
#[derive(Debug, Clone)]
enum Random {
    Add(u8, u8, bool),
    Complete(u8),
    Remove(u8),
    Mount(u8),
    Drop,
    Restart(bool, i64),
}

fn random() -> impl Strategy<Value = Random> {
    prop_oneof![
        4 => (0..6u8, 0..7u8, any::<bool>()).prop_map(|(new, base, pending)| Random::Add(new, base, pending)),
        1 => (0..6u8).prop_map(Random::Complete),
        2 => (0..6u8).prop_map(Random::Remove),
        2 => (0..6u8).prop_map(Random::Mount),
        1 => Just(Random::Drop),
        1 => (any::<bool>(), 0..40i64).prop_map(|(power, steps)| Random::Restart(power, steps)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// The simple table: ids with a flag, pending or not. A crash may leave the operation that it cut done or not done.
    #[test]
    fn a_random_history_agrees_with_a_simple_table(history in prop::collection::vec(random(), 1..40)) {
        let model = Model::new();
        let mut core = open(&model).unwrap();
        let mut simple: BTreeMap<String, bool> = BTreeMap::from([("base".to_owned(), false)]);
        let mut mounts = Vec::new();
        let name = |number: u8| if number == 6 { "base".to_owned() } else { format!("d{number}") };
        for step in history {
            match step {
                Random::Add(new, base, pending) => {
                    let (new, base) = (name(new), name(base));
                    let may = !simple.contains_key(&new) && simple.get(&base) == Some(&false);
                    let done = core.add(&id(&new), &id(&base), &options(pending));
                    prop_assert_eq!(done.is_ok(), may, "{:?}", done);
                    if may { simple.insert(new, pending); }
                }
                Random::Complete(number) => {
                    let may = simple.get(&name(number)) == Some(&true);
                    prop_assert_eq!(core.finish(&id(&name(number))).is_ok(), may);
                    if may { simple.insert(name(number), false); }
                }
                Random::Remove(number) => {
                    let removal = core.remove(&id(&name(number))).unwrap();
                    prop_assert_eq!(removal == Removal::NotThere, simple.remove(&name(number)).is_none());
                }
                Random::Mount(number) => {
                    let mount = core.mount(&id(&name(number)), Access::ReadWrite);
                    prop_assert_eq!(mount.is_ok(), simple.contains_key(&name(number)));
                    mounts.extend(mount);
                }
                Random::Drop => { mounts.pop(); }
                Random::Restart(power, steps) => {
                    model.crash.after(steps);
                    let cut = core.add(&id("d0"), &id("base"), &options(false)).is_ok();
                    if cut { simple.insert("d0".to_owned(), false); }
                    mounts.clear();
                    drop(core);
                    model.reboot(if power { Death::PowerCut(7) } else { Death::Killed });
                    core = open(&model).unwrap();
                    simple.retain(|_, pending| !*pending);
                    if ready(&core).contains("d0") { simple.insert("d0".to_owned(), false); }
                    check(&model, &core, &BTreeMap::new());
                }
            }
            let shown: BTreeMap<String, bool> =
                live(&core).iter().map(|info| (info.id.to_string(), info.state == DeviceState::Pending)).collect();
            prop_assert_eq!(&shown, &simple);
        }
    }
}
