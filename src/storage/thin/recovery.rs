//! What to do at start: a pure function of what the journal says and what the pool says.
//!
//! | journal | pool | action |
//! |---|---|---|
//! | create intended | device absent | abort the record |
//! | create intended | device there, stamp of the intent | finish: the snapshot is whole, and its maker may have been told so |
//! | create intended | device there, another stamp | abort the record, quarantine the device |
//! | pending | device there, right stamp | delete: nobody fills it any more |
//! | delete intended | device there, right stamp | delete |
//! | delete intended | device absent, or of another stamp | record that it is gone |
//! | ready | device absent, or of another stamp | lost |
//! | nothing | device there | quarantine |
//! | behind the pool's transaction id | | the journal is of an earlier time: nothing is changed |
//! | knows a device as made whose stamp the pool's transaction id has not reached | | the pool's metadata is of an earlier time, or another pool's: nothing is changed |
//! | | the base's label is not there or names another pool | the files were exchanged: nothing is changed |
//!
//! A device is only ever deleted when the journal holds its number *and* its stamp: the pair is never given twice.

use std::collections::BTreeSet;

use super::metadata::{Details, Listing};
use super::state::{Phase, State};

/// One thing to do. Each is safe to do again after a crash in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Record that the device was not made.
    Abort(u32),
    /// Record that the device is there.
    Finish(u32),
    /// Delete the device: with an intent first.
    Remove(u32),
    /// Delete the device: the intent is on record.
    Delete(u32),
    /// Record that the device is gone.
    Gone(u32),
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// What to do, in order.
    pub(super) actions: Vec<Action>,
    /// Devices on record that the pool does not have.
    pub(super) lost: BTreeSet<u32>,
    /// Devices of the pool that are on no record; never touched.
    pub(super) foreign: BTreeSet<u32>,
    /// Why nothing may be changed, if so.
    pub(super) read_only: Option<Mismatch>,
}

impl Plan {
    /// Nothing may be changed, for a reason that is not in what was compared.
    pub(super) fn refuse(&mut self, why: Mismatch) {
        self.actions.clear();
        self.read_only = Some(why);
    }
}

/// Journal and pool are not of the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The pool went on without the journal.
    JournalBehind,
    /// The journal knows devices as made that the pool has yet to make.
    PoolBehind,
    /// The pool does not have the base, from which all else descends.
    BaseLost,
    /// The base is another pool's. Not found by [`plan`], which sees no labels.
    AnotherPool,
}

/// Compares. `transaction` is the pool's transaction id.
pub(super) fn plan(state: &State, base: Option<u32>, transaction: u64, pool: &Listing) -> Plan {
    let mut plan = Plan {
        foreign: pool
            .iter()
            .filter(|(thin, details)| !is_ours(state, **thin, **details))
            .map(|(thin, _)| *thin)
            .collect(),
        ..Plan::default()
    };
    for (thin, (device, phase)) in &state.devices {
        let there = pool.get(thin).is_some_and(|details| details.stamp == device.stamp);
        let action = match (phase, there) {
            (Phase::Creating, false) => Action::Abort(*thin),
            (Phase::Creating, true) if device.pending => Action::Remove(*thin),
            (Phase::Creating, true) => Action::Finish(*thin),
            (Phase::Pending, _) => Action::Remove(*thin),
            (Phase::Removing, true) => Action::Delete(*thin),
            (Phase::Removing, false) => Action::Gone(*thin),
            (Phase::Ready, true) => continue,
            (Phase::Ready, false) => {
                plan.lost.insert(*thin);
                continue;
            }
        };
        plan.actions.push(action);
    }
    plan.read_only = mismatch(state, base, transaction, &plan.lost);
    if plan.read_only.is_some() {
        plan.actions.clear();
    }
    plan
}

fn mismatch(state: &State, base: Option<u32>, transaction: u64, lost: &BTreeSet<u32>) -> Option<Mismatch> {
    if transaction > state.transaction {
        return Some(Mismatch::JournalBehind);
    }
    // The pool's id is raised before a device is made, and the kernel writes both to the disk before it says so.
    let made = |phase: &Phase| matches!(phase, Phase::Ready | Phase::Pending);
    if state.devices.values().any(|(device, phase)| made(phase) && device.stamp > transaction) {
        return Some(Mismatch::PoolBehind);
    }
    base.filter(|base| lost.contains(base)).map(|_| Mismatch::BaseLost)
}

fn is_ours(state: &State, thin: u32, details: Details) -> bool {
    state.devices.get(&thin).is_some_and(|(device, _)| device.stamp == details.stamp)
}

#[cfg(test)]
mod tests {
    use super::super::state::Op;
    use super::super::state::tests::{device, state};
    use super::*;

    fn pool(devices: &[(u32, u64)]) -> Listing {
        devices.iter().map(|(thin, stamp)| (*thin, Details { stamp: *stamp, mapped_blocks: 1 })).collect()
    }

    fn creating() -> State {
        state(&[Op::Create(device("a", 3, 5))])
    }

    fn ready() -> State {
        state(&[Op::Create(device("a", 3, 5)), Op::Created { thin: 3 }])
    }

    fn removing() -> State {
        let mut state = ready();
        state.apply(&Op::Delete { thin: 3, transaction: 6 }).unwrap();
        state
    }

    fn pending() -> State {
        let mut device = device("a", 3, 5);
        device.pending = true;
        state(&[Op::Create(device), Op::Created { thin: 3 }])
    }

    #[test]
    fn every_row_of_the_table_holds() {
        use Action::{Abort, Delete, Finish, Gone, Remove};
        let (here, other, none) = (pool(&[(3, 5)]), pool(&[(3, 4)]), pool(&[]));
        let mut cut_short = device("a", 3, 5);
        cut_short.pending = true;
        let rows = [
            (creating(), 4, &none, vec![Abort(3)], vec![], vec![]),
            (creating(), 5, &none, vec![Abort(3)], vec![], vec![]),
            (creating(), 5, &here, vec![Finish(3)], vec![], vec![]),
            (creating(), 5, &other, vec![Abort(3)], vec![], vec![3]),
            (state(&[Op::Create(cut_short)]), 5, &here, vec![Remove(3)], vec![], vec![]),
            (pending(), 5, &here, vec![Remove(3)], vec![], vec![]),
            (removing(), 5, &here, vec![Delete(3)], vec![], vec![]),
            (removing(), 6, &here, vec![Delete(3)], vec![], vec![]),
            (removing(), 6, &none, vec![Gone(3)], vec![], vec![]),
            (removing(), 6, &other, vec![Gone(3)], vec![], vec![3]),
            (ready(), 5, &here, vec![], vec![], vec![]),
            (ready(), 5, &none, vec![], vec![3], vec![]),
            (ready(), 5, &other, vec![], vec![3], vec![3]),
            (State::new("u"), 0, &here, vec![], vec![], vec![3]),
        ];
        for (state, transaction, pool, actions, lost, foreign) in rows {
            let plan = plan(&state, None, transaction, pool);
            let expected = Plan {
                actions,
                lost: lost.into_iter().collect(),
                foreign: foreign.into_iter().collect(),
                read_only: None,
            };
            assert_eq!(plan, expected, "{state:?} {transaction} {pool:?}");
        }
    }

    #[test]
    fn a_journal_of_an_earlier_time_changes_nothing() {
        let plan = plan(&removing(), None, 7, &pool(&[(3, 5), (4, 7)]));
        assert_eq!(plan.read_only, Some(Mismatch::JournalBehind));
        assert!(plan.actions.is_empty());
        assert_eq!(plan.foreign, BTreeSet::from([4]));
    }

    #[test]
    fn a_pool_of_an_earlier_time_changes_nothing() {
        let made = [Op::Create(device("a", 3, 5)), Op::Created { thin: 3 }];
        let plan = plan(&state(&made), None, 4, &pool(&[(3, 4)]));
        assert_eq!((plan.read_only, plan.actions), (Some(Mismatch::PoolBehind), vec![]));
    }

    #[test]
    fn a_pool_without_the_base_is_not_written_to() {
        assert_eq!(plan(&ready(), Some(3), 5, &pool(&[])).read_only, Some(Mismatch::BaseLost));
    }
}
