//! Another size. Larger is done on line: the journal first, then the table of the node, then the file system. What a
//! crash cuts off is done by the next mount, which finds the former size in the label. Smaller is done only to a snapshot
//! that is being made, before anybody can use it.

use std::os::fd::AsFd;

use super::backend::Spec;
use super::check::LARGEST;
use super::core::{Core, Draft, lock};
use super::lease::{GOING, sync, whole_blocks};
use super::state::Device;
use crate::model::{Bytes, DeviceId};
use crate::storage::{Access, Added, BASE, StorageError};

impl Core {
    /// Makes `id` larger.
    pub(super) fn resize(&self, id: &DeviceId, size: Bytes) -> Result<(), StorageError> {
        let refused = |what, advice| Err(StorageError::NotSupported { what, advice });
        if id.as_str() == BASE {
            return refused("another size of the base", "configure base-size for devices added later".to_owned());
        }
        if size > LARGEST {
            return refused("a device of this size", format!("ask for at most {LARGEST}"));
        }
        self.admit_after_removals()?;
        let size = whole_blocks(size, self.settings.block_size);
        self.with_slot(id, |device| {
            if size < device.size {
                let advice = format!("it has {}; add a smaller one and copy what it needs", device.size);
                return refused("a smaller size of a device", advice);
            }
            if size > device.size {
                self.record_size(device, size)?;
            }
            self.grow_if_active(&Device { size, ..device.clone() })
        })
    }

    fn grow_if_active(&self, device: &Device) -> Result<(), StorageError> {
        let (name, uuid) = self.node_names(device);
        let node = self.backend.node(&name);
        let node = node.map_err(|source| StorageError::DeviceMapper { op: "look at", device: name, source })?;
        if !node.is_some_and(|node| node.live && node.uuid == uuid) {
            return Ok(());
        }
        self.fit_node(device)?;
        match self.open_mount(device, Access::ReadWrite) {
            // Somebody has it mounted read-only: it grows with its next mount.
            Ok(_) | Err(StorageError::InUse { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the node of an active device as large as the device is on record. The slot is locked.
    pub(super) fn fit_node(&self, device: &Device) -> Result<(), StorageError> {
        let (name, uuid) = self.node_names(device);
        let failed = |source| StorageError::DeviceMapper { op: "enlarge", device: name.clone(), source };
        if self.backend.size(&name).map_err(failed)? >= device.size {
            return Ok(());
        }
        let spec = Spec { name: &name, uuid: &uuid, thin: device.thin, size: device.size };
        self.backend.enlarge(&spec).map_err(failed)
    }

    /// As [`add`](Self::add), smaller than the base. The device is one that is being made until it is done, so nobody
    /// meets it, and a crash leaves nothing of it.
    pub(super) fn add_smaller(&self, draft: &Draft<'_>, origin: &Device) -> Result<Added, StorageError> {
        let (device, frozen) = self.snapshot(origin, || self.begin(&Draft { pending: true, ..*draft }))?;
        self.shrink(&device, origin.size).inspect_err(|_| self.abandon(&device))?;
        self.created(&device)?;
        if !draft.pending {
            self.ready(&device.id)?;
        }
        Ok(Added { frozen })
    }

    /// Makes the file system of a device that nobody uses as small as the device, and gives it its label. It has its
    /// origin's size, which is at most `from`.
    pub(super) fn shrink(&self, device: &Device, from: Bytes) -> Result<(), StorageError> {
        let slot = self.slot(device.thin);
        let _held = lock(&slot);
        let node = self.activate(&Device { size: from, ..device.clone() })?;
        let shrunk = self.backend.shrink(&node, device.size);
        let waited = |source| StorageError::DeviceMapper { op: "deactivate", device: node.name.clone(), source };
        if !self.deactivate(device) && !self.backend.wait_gone(&node.name, GOING).map_err(waited)? {
            shrunk?;
            return self.check_unused(device);
        }
        shrunk?;
        let mount = self.open_mount(device, Access::ReadWrite)?;
        sync(device, mount.as_fd())
    }
}
