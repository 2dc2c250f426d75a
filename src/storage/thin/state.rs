//! What the journal says: records folded into the table of devices. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Bytes, DeviceId};

/// One step, as written to the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(super) enum Op {
    /// First line: whose journal this is.
    Pool {
        /// Version of this format.
        version: u32,
        /// The pool's UUID.
        uuid: String,
    },
    /// The intent to make a device.
    Create(Device),
    /// The device is there.
    Created {
        /// Which.
        thin: u32,
    },
    /// The device was not made; nothing of it is left.
    Aborted {
        /// Which.
        thin: u32,
    },
    /// What was written to the device is on the disk.
    Ready {
        /// Which.
        thin: u32,
    },
    /// A device is to have another size.
    Resize {
        /// Which.
        thin: u32,
        /// Its new size.
        size: Bytes,
    },
    /// A device that was made to replace another takes its name, complete; the other one is to be deleted.
    Replace {
        /// Which takes the name.
        thin: u32,
        /// The transaction of the other one's deletion.
        transaction: u64,
    },
    /// A device is active until further notice, used or not.
    Hold {
        /// Which.
        thin: u32,
    },
    /// A device is active only while it is used.
    Release {
        /// Which.
        thin: u32,
    },
    /// The intent to delete a device; its name is free from here.
    Delete {
        /// Which.
        thin: u32,
        /// The transaction of the deletion.
        transaction: u64,
    },
    /// The device is gone.
    Deleted {
        /// Which.
        thin: u32,
    },
    /// The pool was deactivated in good order.
    Clean,
    /// Counters, in a checkpoint.
    Counters {
        /// No id below this is free.
        next_thin: u32,
        /// Highest transaction intended so far.
        transaction: u64,
    },
    /// A device as it was at a checkpoint.
    Keep {
        /// The device.
        device: Device,
        /// How far it was.
        phase: Phase,
    },
}

/// A device on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    /// Its id.
    pub(super) id: DeviceId,
    /// Its number in the pool.
    pub(super) thin: u32,
    /// The transaction of its creation, which the kernel stamps it with.
    pub(super) stamp: u64,
    /// What it was snapshotted from, by id and by number in the pool.
    pub(super) base: Option<(DeviceId, u32)>,
    /// Virtual size.
    pub(super) size: Bytes,
    /// Whether it waits for [`Op::Ready`] after it was made.
    pub(super) pending: bool,
    /// The device whose name it is to take by [`Op::Replace`]; it has none of its own until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<u32>,
}

/// How far a device's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Intended.
    Creating,
    /// There, being filled.
    Pending,
    /// Complete.
    Ready,
    /// To be deleted; the name is free.
    Removing,
}

/// The table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The pool's UUID.
    pub(super) uuid: String,
    /// Every device by number.
    pub(super) devices: BTreeMap<u32, (Device, Phase)>,
    /// The number of each id in use.
    pub(super) names: BTreeMap<DeviceId, u32>,
    /// Devices that are active whether used or not.
    pub(super) held: BTreeSet<u32>,
    /// The lowest number never used.
    pub(super) next_thin: u32,
    /// The highest transaction that was ever intended.
    pub(super) transaction: u64,
    /// Whether the pool was deactivated in good order and not used since.
    pub(super) clean: bool,
}

/// Version of the journal's format.
pub(super) const VERSION: u32 = 1;

/// Numbers of the kernel are below this.
const THIN_IDS: u32 = 1 << 24;

impl State {
    /// A new pool's.
    pub(super) fn new(uuid: &str) -> Self {
        Self { uuid: uuid.to_owned(), ..Self::default() }
    }

    /// The device called `id`.
    pub(super) fn find(&self, id: &DeviceId) -> Option<&(Device, Phase)> {
        self.devices.get(self.names.get(id)?)
    }

    /// The next number: one never used; when all were, one used by nobody now.
    pub(super) fn free_thin(&self, foreign: &BTreeSet<u32>) -> Option<u32> {
        let free = |thin: &u32| !foreign.contains(thin) && !self.devices.contains_key(thin);
        (self.next_thin..THIN_IDS).find(free).or_else(|| (0..THIN_IDS).find(free))
    }

    /// Takes one step. An error says why the step cannot follow what came before; nothing is changed then.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), String> {
        self.clean = *op == Op::Clean;
        match op {
            Op::Clean => Ok(()),
            Op::Pool { version, uuid } => self.begin(*version, uuid),
            Op::Create(device) => self.insert(device, Phase::Creating),
            Op::Keep { device, phase } => self.insert(device, *phase),
            Op::Created { thin } => {
                let pending = self.device(*thin)?.0.pending;
                self.step(*thin, &[Phase::Creating], if pending { Phase::Pending } else { Phase::Ready })
            }
            Op::Ready { thin } => self.step(*thin, &[Phase::Pending], Phase::Ready),
            Op::Resize { thin, size } => {
                self.device(*thin)?;
                self.devices.get_mut(thin).expect("it was found just now").0.size = *size;
                Ok(())
            }
            Op::Replace { thin, transaction } => self.replace(*thin, *transaction),
            Op::Hold { thin } => {
                self.device(*thin)?;
                self.held.insert(*thin);
                Ok(())
            }
            Op::Release { thin } => {
                self.held.remove(thin);
                Ok(())
            }
            Op::Delete { thin, transaction } => self.begin_removal(*thin, *transaction),
            Op::Aborted { thin } => self.forget(*thin, Phase::Creating),
            Op::Deleted { thin } => self.forget(*thin, Phase::Removing),
            Op::Counters { next_thin, transaction } => {
                self.next_thin = self.next_thin.max(*next_thin);
                self.transaction = self.transaction.max(*transaction);
                Ok(())
            }
        }
    }

    /// The shortest list of steps that leads here.
    pub(super) fn checkpoint(&self) -> Vec<Op> {
        let mut ops = vec![
            Op::Pool { version: VERSION, uuid: self.uuid.clone() },
            Op::Counters { next_thin: self.next_thin, transaction: self.transaction },
        ];
        ops.extend(self.devices.values().map(|(device, phase)| Op::Keep { device: device.clone(), phase: *phase }));
        ops.extend(self.held.iter().map(|thin| Op::Hold { thin: *thin }));
        ops
    }

    fn begin(&mut self, version: u32, uuid: &str) -> Result<(), String> {
        if version != VERSION {
            return Err(format!("has format {version}, this holmd reads {VERSION}: use the holmd that wrote it"));
        }
        if !self.uuid.is_empty() {
            return Err("begins twice".to_owned());
        }
        uuid.clone_into(&mut self.uuid);
        Ok(())
    }

    fn insert(&mut self, device: &Device, phase: Phase) -> Result<(), String> {
        if self.uuid.is_empty() {
            return Err("has no first line".to_owned());
        }
        if device.thin >= THIN_IDS || self.devices.contains_key(&device.thin) {
            return Err(format!("uses number {} twice or it is too large", device.thin));
        }
        if phase != Phase::Removing && device.replaces.is_none() {
            if self.names.contains_key(&device.id) {
                return Err(format!("uses the id '{}' twice", device.id));
            }
            self.names.insert(device.id.clone(), device.thin);
        }
        self.next_thin = self.next_thin.max(device.thin + 1);
        self.transaction = self.transaction.max(device.stamp);
        self.devices.insert(device.thin, (device.clone(), phase));
        Ok(())
    }

    fn device(&self, thin: u32) -> Result<&(Device, Phase), String> {
        self.devices.get(&thin).ok_or_else(|| format!("speaks of number {thin}, which it never made"))
    }

    fn step(&mut self, thin: u32, from: &[Phase], to: Phase) -> Result<(), String> {
        let phase = self.device(thin)?.1;
        if !from.contains(&phase) {
            return Err(format!("takes number {thin} from {phase:?} to {to:?}"));
        }
        self.devices.get_mut(&thin).expect("it was found just now").1 = to;
        Ok(())
    }

    fn begin_removal(&mut self, thin: u32, transaction: u64) -> Result<(), String> {
        self.step(thin, &[Phase::Creating, Phase::Pending, Phase::Ready], Phase::Removing)?;
        self.forget_name(thin);
        self.held.remove(&thin);
        self.transaction = self.transaction.max(transaction);
        Ok(())
    }

    fn replace(&mut self, thin: u32, transaction: u64) -> Result<(), String> {
        let (device, phase) = self.device(thin)?;
        let (id, former) = (device.id.clone(), device.replaces);
        let former = former.filter(|former| *phase == Phase::Pending && self.names.get(&id) == Some(former));
        self.begin_removal(former.ok_or_else(|| format!("gives number {thin} a name too early"))?, transaction)?;
        let (device, phase) = self.devices.get_mut(&thin).expect("it was found just now");
        (device.replaces, *phase) = (None, Phase::Ready);
        self.names.insert(id, thin);
        Ok(())
    }

    fn forget(&mut self, thin: u32, from: Phase) -> Result<(), String> {
        if self.device(thin)?.1 != from {
            return Err(format!("forgets number {thin} too early"));
        }
        self.forget_name(thin);
        self.devices.remove(&thin);
        Ok(())
    }

    /// The name may belong to a younger device by now.
    fn forget_name(&mut self, thin: u32) {
        if let Some((device, _)) = self.devices.get(&thin)
            && self.names.get(&device.id) == Some(&thin)
        {
            self.names.remove(&device.id);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::storage::thin) fn device(id: &str, thin: u32, stamp: u64) -> Device {
        let id = DeviceId::parse(id).unwrap();
        Device { id, thin, stamp, base: None, size: Bytes(1 << 30), pending: false, replaces: None }
    }

    pub(in crate::storage::thin) fn state(ops: &[Op]) -> State {
        let mut state = State::new("u");
        for op in ops {
            state.apply(op).unwrap();
        }
        state
    }

    #[test]
    fn a_checkpoint_leads_to_the_same_table() {
        let mut pending = device("b", 1, 2);
        pending.pending = true;
        let state = state(&[
            Op::Create(device("a", 0, 1)),
            Op::Created { thin: 0 },
            Op::Create(pending),
            Op::Created { thin: 1 },
            Op::Create(device("c", 2, 3)),
            Op::Created { thin: 2 },
            Op::Delete { thin: 2, transaction: 4 },
            Op::Create(device("c", 3, 5)),
            Op::Resize { thin: 0, size: Bytes(2 << 30) },
            Op::Hold { thin: 0 },
            Op::Create(Device { pending: true, replaces: Some(0), ..device("a", 4, 6) }),
            Op::Created { thin: 4 },
        ]);
        let mut again = State::default();
        for op in state.checkpoint() {
            again.apply(&op).unwrap();
        }
        assert_eq!(again, state);
    }

    #[test]
    fn a_removed_name_is_free_at_once_and_stays_its_new_owners() {
        let state = state(&[
            Op::Create(device("a", 0, 1)),
            Op::Created { thin: 0 },
            Op::Delete { thin: 0, transaction: 2 },
            Op::Create(device("a", 1, 3)),
            Op::Deleted { thin: 0 },
        ]);
        assert_eq!(state.names.values().copied().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_name_goes_from_one_device_to_another_in_one_step() {
        let mut state = state(&[
            Op::Create(device("a", 0, 1)),
            Op::Created { thin: 0 },
            Op::Hold { thin: 0 },
            Op::Create(Device { pending: true, replaces: Some(0), ..device("a", 1, 2) }),
            Op::Created { thin: 1 },
        ]);
        assert_eq!(state.names.values().copied().collect::<Vec<_>>(), [0]);
        state.apply(&Op::Replace { thin: 1, transaction: 3 }).unwrap();
        assert_eq!(state.names.values().copied().collect::<Vec<_>>(), [1]);
        assert_eq!((state.devices[&0].1, state.devices[&1].1), (Phase::Removing, Phase::Ready));
        assert!(state.held.is_empty() && state.transaction == 3);
        assert!(state.apply(&Op::Replace { thin: 1, transaction: 4 }).is_err());
    }

    #[test]
    fn numbers_are_not_used_again() {
        let state = state(&[Op::Create(device("a", 4, 1)), Op::Aborted { thin: 4 }]);
        assert_eq!(state.free_thin(&BTreeSet::new()), Some(5));
        assert_eq!(state.free_thin(&BTreeSet::from([5, 6])), Some(7));
    }

    #[test]
    fn when_all_numbers_were_used_a_free_one_is_searched() {
        let full = state(&[Op::Create(device("a", THIN_IDS - 1, 1))]);
        assert_eq!(full.free_thin(&BTreeSet::from([0])), Some(1));
    }

    #[test]
    fn steps_that_cannot_be_are_refused() {
        let mut state = state(&[Op::Create(device("a", 0, 1)), Op::Created { thin: 0 }]);
        let before = state.clone();
        for op in [
            Op::Created { thin: 0 },
            Op::Created { thin: 9 },
            Op::Deleted { thin: 0 },
            Op::Aborted { thin: 0 },
            Op::Ready { thin: 0 },
            Op::Replace { thin: 0, transaction: 2 },
            Op::Hold { thin: 9 },
            Op::Create(device("a", 1, 2)),
            Op::Create(device("b", 0, 2)),
            Op::Pool { version: VERSION, uuid: "v".into() },
        ] {
            assert!(state.apply(&op).is_err(), "{op:?}");
            assert_eq!(state, before);
        }
        assert!(State::default().apply(&Op::Pool { version: 2, uuid: "v".into() }).unwrap_err().contains("format 2"));
    }
}
