//! The copy of the table over the model, and what salvage makes of it.

use std::collections::BTreeSet;

use super::super::check::tests::{names, salvage};
use super::super::model::{Death, Model};
use super::super::state::tests::{device, state};
use super::super::tests::{check, open, stage};
use super::*;
use crate::storage::{AddOptions, Finding, Source};

fn device_id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

/// A pool whose journal is gone, with devices that were made and never used.
fn never_started() -> (Model, State) {
    let (model, core, _) = stage();
    core.add(&device_id("fresh"), &device_id("b"), &AddOptions::default()).unwrap();
    core.add(&device_id("fresher"), &device_id("fresh"), &AddOptions::default()).unwrap();
    core.rollback(&device_id("b"), &device_id("a")).unwrap();
    core.tidy();
    assert!(core.write_copy().unwrap());
    let state = core.table().state.clone();
    drop(core);
    model.reboot(Death::PowerCut(0));
    (model, state)
}

#[test]
fn devices_that_were_never_used_come_back_under_their_names_when_the_journal_is_gone() {
    let (model, before) = never_started();
    let report = salvage(&model, None).unwrap().report;
    assert_eq!(report.foreign.iter().map(|foreign| foreign.thin_id).collect::<Vec<_>>(), [77]);
    for (name, from) in [("fresh", Source::Copy), ("fresher", Source::Copy), ("b", Source::Copy), ("a", Source::Label)]
    {
        let found = Finding::Salvaged { id: device_id(name), from };
        assert!(report.findings.contains(&found), "{name}: {report:?}");
    }
    let core = open(&model).unwrap();
    assert_eq!(core.table().state.names, before.names);
    assert!(core.examine().unwrap().findings.is_empty());
}

#[test]
fn a_journal_that_is_newer_than_the_copy_is_believed_and_the_other_way_round() {
    let (model, core, _) = stage();
    let add = |name: &str| core.add(&device_id(name), &device_id("a"), &AddOptions::default()).unwrap();
    add("first");
    let journal = model.journal();
    add("second");
    core.write_copy().unwrap();
    drop(core);
    model.reboot(Death::Killed);
    salvage(&model, Some(journal)).unwrap();
    let core = open(&model).unwrap();
    let found: BTreeSet<_> = names(&core).into_iter().collect();
    assert!(found.contains("second"), "the copy knows it: {found:?}");
    core.add(&device_id("third"), &device_id("a"), &AddOptions::default()).unwrap();
    let journal = model.journal();
    core.add(&device_id("fourth"), &device_id("a"), &AddOptions::default()).unwrap();
    drop(core);
    model.reboot(Death::Killed);
    let report = salvage(&model, Some(journal)).unwrap().report;
    assert!(report.findings.contains(&Finding::Salvaged { id: device_id("third"), from: Source::Journal }));
    assert_eq!(report.foreign.len(), 2, "nobody knows the fourth: {:?}", report.foreign);
}

#[test]
fn nobody_is_shown_the_copy_and_it_is_written_only_when_something_changed() {
    let (model, core, _) = stage();
    let shown = core.status().unwrap().devices;
    assert!(core.write_copy().unwrap());
    assert_eq!(core.status().unwrap().devices, shown);
    assert!(!core.exclusive().unwrap().contains_key(&id()));
    assert_eq!(model.tamper(|pool| pool.nodes()), []);
    model.crash.after(0);
    assert!(core.write_copy().unwrap(), "nothing to do");
    model.reboot(Death::Killed);
}

#[test]
fn a_pool_without_room_gets_no_copy_until_it_has() {
    let (model, core, _) = stage();
    model.tamper(|pool| pool.numbers().data = (8000, 8192));
    assert!(!core.write_copy().unwrap());
    model.tamper(|pool| pool.numbers().data = (10, 8192));
    assert!(core.write_copy().unwrap());
}

#[test]
fn writing_the_copy_may_crash_anywhere_and_an_earlier_one_stays_whole() {
    for first in [true, false] {
        for steps in 0.. {
            let (model, core, foreign) = stage();
            if !first {
                core.write_copy().unwrap();
            }
            core.add(&device_id("late"), &device_id("a"), &AddOptions::default()).unwrap();
            model.crash.after(steps);
            let done = core.write_copy().is_ok();
            drop(core);
            model.reboot(Death::PowerCut(20));
            check(&model, &open(&model).unwrap(), &foreign);
            salvage(&model, None).unwrap();
            let found = names(&open(&model).unwrap());
            assert!(found.contains(&"base".to_owned()) && found.contains(&"b".to_owned()), "{found:?}");
            assert!(!done || found.contains(&"late".to_owned()), "{found:?}");
            if done {
                break;
            }
        }
    }
}

#[test]
fn the_newer_of_two_whole_slots_counts() {
    let model = Model::new();
    model.tamper(|pool| pool.add_thin(1, 1));
    let node =
        super::super::backend::Nodes::activate(&model, &Spec { name: "t-1", uuid: "u", thin: 1, size: SIZE }).unwrap();
    let table = |number: u32| state(&[Op::Create(device("a", number, 1))]);
    let found = || newest(&model, &node).unwrap().map(|(number, state)| (number, state.next_thin));
    super::super::backend::Files::write_at(&model, &node, 0, &[0; 4096]).unwrap();
    assert_eq!(found(), None);
    for number in 0..3 {
        write_slot(&model, &node, u64::from(number), &table(number)).unwrap();
        assert_eq!(found(), Some((u64::from(number), number + 1)));
    }
    super::super::backend::Files::write_at(&model, &node, SLOTS[0] + HEAD as u64 + 3, b"x").unwrap();
    assert_eq!(found(), Some((1, 2)), "the other one is whole");
}
