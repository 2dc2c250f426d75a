//! Back to a snapshot: a new snapshot of that takes the name of the device, by one line of the journal. Before it the
//! device is the former one, after it the new one, and either way the other is deleted.

use super::core::{Core, Draft, lock};
use super::lease::GOING;
use super::state::{Device, Phase};
use crate::model::DeviceId;
use crate::storage::{BASE, StorageError};

impl Core {
    /// Makes `id` a fresh snapshot of `to`, of the size that it has.
    pub(super) fn rollback(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError> {
        if id.as_str() == BASE {
            return Err(StorageError::InUse { id: id.clone(), by: "every other device descends from it".to_owned() });
        }
        let former = self.find(id, &[Phase::Ready])?;
        let origin = self.find(to, &[Phase::Ready])?;
        self.admit_after_removals()?;
        // Early, so that most refusals cost nothing. What was stopped just now may be on its way.
        self.wait_for_last_close(&former)?;
        self.with_former(&former, || Ok(()))?;
        let draft = Draft { id, origin: Some(&origin), size: former.size, pending: true, replaces: Some(former.thin) };
        let (device, _) = self.snapshot(&origin, || self.begin(&draft))?;
        let shrunk = if device.size < origin.size { self.shrink(&device, origin.size) } else { Ok(()) };
        let replaced = shrunk.and_then(|()| self.with_former(&former, || self.replace(&device)));
        replaced.inspect_err(|_| self.abandon(&device))?;
        self.bell.ring();
        Ok(())
    }

    fn wait_for_last_close(&self, device: &Device) -> Result<(), StorageError> {
        let (name, _) = self.node_names(device);
        let failed = |source| StorageError::DeviceMapper { op: "look at", device: name.clone(), source };
        if self.backend.node(&name).map_err(failed)?.is_some_and(|node| node.leaving) {
            self.backend.wait_gone(&name, GOING).map_err(failed)?;
        }
        Ok(())
    }

    /// Does something while nobody uses `former` and nobody can begin to.
    fn with_former(
        &self,
        former: &Device,
        work: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let slot = self.slot(former.thin);
        let _held = lock(&slot);
        if self.table().state.held.contains(&former.thin) {
            let by = "software that activated it; deactivate it first".to_owned();
            return Err(StorageError::InUse { id: former.id.clone(), by });
        }
        self.check_unused(former)?;
        work()
    }
}
