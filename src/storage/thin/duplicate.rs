//! A copy of the journal's table in the pool itself, on a hidden device.
//!
//! Labels tell whose a device is only after it was first mounted for writing. With this copy a journal that is lost can be
//! rebuilt with every name. It is written a moment after changes and always at a clean stop.
//!
//! ```text
//! 0        the label of the device, which has no file system
//! 1 MiB    slot 0: one block that says what follows, and the table
//! 512 MiB  slot 1: the same
//! ```
//!
//! The slots are written in turn, so one is whole whenever the power goes; which is the newer one says its number.

use std::io;

use serde::{Deserialize, Serialize};

use super::backend::{Backend, Mode, Node, Spec};
use super::core::{Core, Draft, lock};
use super::label::Label;
use super::state::{Device, Op, Phase, State};
use crate::model::{Bytes, DeviceId};
use crate::storage::{StorageError, crc32c};

/// Its id. No other device can have it.
pub(super) const COPY: &str = "table";

/// What it could hold; it maps what it does hold.
pub(super) const SIZE: Bytes = Bytes(Bytes::GIB);

/// Its id.
pub(super) fn id() -> DeviceId {
    DeviceId::parse(COPY).expect("the copy of the table has a valid id")
}

/// What was written last, as far as this process knows.
#[derive(Debug, Default)]
pub(super) struct Written(Option<(u64, State)>);

impl Core {
    /// Writes the table to its device when it has changed; false when that cannot be done now. Never waits for room in
    /// the pool, unless somebody takes the last of it in the same moment.
    pub(super) fn write_copy(&self) -> Result<bool, StorageError> {
        let mut written = lock(&self.copy);
        if self.table().read_only || !self.has_room_for_copy()? {
            return Ok(false);
        }
        let device = match self.find(&id(), &[Phase::Ready]) {
            Ok(device) => device,
            Err(_) => self.make_copy_device()?,
        };
        let state = State { clean: false, ..self.table().state.clone() };
        if matches!(&written.0, Some((_, last)) if *last == state) {
            return Ok(true);
        }
        let failed = |source| StorageError::Io { op: "write the copy of the table to", path: COPY.into(), source };
        let slot = self.slot(device.thin);
        let _held = lock(&slot);
        let node = self.activate(&device)?;
        let number = match &written.0 {
            Some((number, _)) => Ok(number + 1),
            None => newest(&*self.backend, &node).map(|found| found.map_or(0, |(number, _)| number + 1)),
        };
        let result = number.and_then(|number| write_slot(&*self.backend, &node, number, &state).map(|()| number));
        self.let_go(&device, &node.name);
        // After a failure it is not known what the slots hold.
        written.0 = None;
        written.0 = Some((result.map_err(failed)?, state));
        Ok(true)
    }

    fn has_room_for_copy(&self) -> Result<bool, StorageError> {
        let numbers = self.numbers()?;
        Ok(numbers.mode == Mode::Write && !numbers.needs_check && self.room(&numbers).is_enough())
    }

    fn make_copy_device(&self) -> Result<Device, StorageError> {
        let draft = Draft { id: &id(), origin: None, size: SIZE, pending: true, replaces: None };
        let device = self.create(&draft)?;
        let (name, uuid) = self.node_names(&device);
        let spec = Spec { name: &name, uuid: &uuid, thin: device.thin, size: SIZE };
        let label = Label::of(&self.table().state.uuid.clone(), &device).text();
        let labelled = self.backend.activate(&spec).and_then(|node| self.backend.write_at(&node, 0, &label));
        self.let_go(&device, &name);
        match labelled {
            Ok(()) => self.ready(&id()).map(|()| device),
            Err(source) => {
                self.remove(&id())?;
                Err(StorageError::DeviceMapper { op: "label", device: name, source })
            }
        }
    }
}

/// The newest table that is whole on the device, and its number.
pub(super) fn newest(backend: &dyn Backend, node: &Node) -> io::Result<Option<(u64, State)>> {
    let mut found = None;
    for offset in SLOTS {
        let slot = read_slot(backend, node, offset)?;
        if found.as_ref().is_none_or(|(best, _)| slot.as_ref().is_some_and(|(number, _)| number > best)) {
            found = slot;
        }
    }
    Ok(found)
}

fn read_slot(backend: &dyn Backend, node: &Node, offset: u64) -> io::Result<Option<(u64, State)>> {
    let Some(head) = Head::parse(&backend.read_at(node, offset, HEAD)?) else { return Ok(None) };
    let table = backend.read_at(node, offset + HEAD as u64, head.length)?;
    if crc32c::checksum(&table) != head.checksum {
        return Ok(None);
    }
    let mut state = State::default();
    let ops: Vec<Op> = serde_json::from_slice(&table).unwrap_or_default();
    let whole = !ops.is_empty() && ops.iter().all(|op| state.apply(op).is_ok());
    Ok(whole.then_some((head.number, state)))
}

fn write_slot(backend: &dyn Backend, node: &Node, number: u64, state: &State) -> io::Result<()> {
    let table = serde_json::to_vec(&state.checkpoint()).expect("a table is plain data");
    let head = Head { number, length: table.len(), checksum: crc32c::checksum(&table) };
    if head.length > MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let bytes = [head.text(), table].concat();
    backend.write_at(node, SLOTS[usize::from(number % 2 == 1)], &bytes)
}

/// The first block of a slot: a checksum, then this as JSON, then zeros.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Higher is newer.
    number: u64,
    /// Bytes of the table behind it.
    length: usize,
    /// Of those bytes.
    checksum: u32,
}

impl Head {
    fn text(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("a head is plain data");
        let mut text = format!("{:08x} {json}", crc32c::checksum(json.as_bytes())).into_bytes();
        text.resize(HEAD, 0);
        text
    }

    fn parse(block: &[u8]) -> Option<Self> {
        let text = str::from_utf8(block.split(|byte| *byte == 0).next()?).ok()?;
        let (checksum, json) = text.split_once(' ')?;
        let right = u32::from_str_radix(checksum, 16).ok()? == crc32c::checksum(json.as_bytes());
        let head: Self = serde_json::from_str(json).ok().filter(|_| right)?;
        (head.length <= MAX).then_some(head)
    }
}

const SLOTS: [u64; 2] = [Bytes::MIB, 512 * Bytes::MIB];
const HEAD: usize = 4096;
/// 2^24 devices have more: then there is no copy.
const MAX: usize = 256 << 20;

#[cfg(test)]
#[path = "duplicate_tests.rs"]
mod tests;
