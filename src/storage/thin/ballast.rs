//! The ballast: a device that only takes room, to be thrown out in an emergency.
//!
//! Deleting a thin device is what still works on a pool that is out of data, without stopping it: the pool takes writes
//! again at once, and what the page cache held for running containers gets onto the disk. It is an ordinary device with
//! an id of its own, so that it can neither be lost nor leaked; nobody is shown it.

use super::backend::Spec;
use super::core::{Core, Draft};
use super::label::Label;
use super::space::Space;
use crate::model::{Bytes, DeviceId};
use crate::storage::StorageError;

/// Its id. No other device can have it.
pub(super) const BALLAST: &str = "ballast";

/// A hundredth of the data, at most 256 MiB.
fn size(data: &Space, block: Bytes) -> Bytes {
    Bytes((data.total.0 / 100).min(256 * Bytes::MIB) / block.0 * block.0)
}

/// Its id.
pub(super) fn id() -> DeviceId {
    DeviceId::parse(BALLAST).expect("the ballast has a valid id")
}

impl Core {
    /// Takes ballast when there is none and room for it is plenty.
    pub(super) fn take_ballast(&self, data: &Space) -> Result<bool, StorageError> {
        let (size, read_only, there) = {
            let table = self.table();
            (size(data, self.settings.block_size), table.read_only, table.state.names.contains_key(&id()))
        };
        if there || read_only || size.0 == 0 || data.free().0 < data.mark.0 + 2 * size.0 {
            return Ok(false);
        }
        let draft = Draft { id: &id(), origin: None, size, pending: true, replaces: None };
        let device = self.create(&draft)?;
        let (name, uuid) = self.node_names(&device);
        let spec = Spec { name: &name, uuid: &uuid, thin: device.thin, size };
        // Without a file system it has its label at its head, so that it is known when the journal is lost.
        let label = Label::of(&self.table().state.uuid.clone(), &device).text();
        let filled = self.backend.activate(&spec).and_then(|node| self.backend.fill(&node, &label, size));
        if let Err(error) = self.backend.remove(&name) {
            tracing::debug!(%error, name, "cannot deactivate the ballast yet, ignoring");
        }
        match filled {
            Ok(()) => self.ready(&id()).map(|()| true),
            Err(source) => {
                self.remove(&id())?;
                Err(StorageError::DeviceMapper { op: "fill", device: name, source })
            }
        }
    }

    /// Throws it out, not leaving that to the remover; whether there was any.
    pub(super) fn drop_ballast(&self) -> Result<bool, StorageError> {
        let Some(device) = self.begin_removal(&id())? else { return Ok(false) };
        let gone = self.try_delete(device.thin);
        self.bell.ring();
        gone.map(|_| true)
    }
}
