//! A set that cannot be opened before somebody has repaired it by hand. What needs no device goes on meanwhile: containers
//! that run are looked after, shown and stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    Access, AddOptions, Added, DeviceGrowth, DeviceSet, LeaseInfo, MountedDevice, PressureListener, Removal, Report,
    StorageError, Trimmed,
};
use crate::model::{Bytes, DeviceId, DeviceInfo, Driver, PoolState, PoolStatus};

/// The set. Every call that needs a device fails with the reason.
#[derive(Debug)]
struct OutOfOrder {
    directory: PathBuf,
    reason: String,
}

/// A set in the place of one that could not be opened because of `error`.
pub fn out_of_order(directory: PathBuf, error: &StorageError) -> Arc<dyn DeviceSet> {
    Arc::new(OutOfOrder { directory, reason: error.to_string() })
}

impl OutOfOrder {
    fn refuse<T>(&self) -> Result<T, StorageError> {
        Err(StorageError::OutOfOrder { reason: self.reason.clone() })
    }
}

impl DeviceSet for OutOfOrder {
    fn driver(&self) -> Driver {
        Driver::Thin
    }

    fn add_device(&self, _: &DeviceId, _: &DeviceId, _: &AddOptions) -> Result<Added, StorageError> {
        self.refuse()
    }

    fn resize_device(&self, _: &DeviceId, _: Bytes) -> Result<DeviceInfo, StorageError> {
        self.refuse()
    }

    fn rollback_device(&self, _: &DeviceId, _: &DeviceId) -> Result<(), StorageError> {
        self.refuse()
    }

    fn activate_device(&self, _: &DeviceId) -> Result<PathBuf, StorageError> {
        self.refuse()
    }

    fn deactivate_device(&self, _: &DeviceId) -> Result<(), StorageError> {
        self.refuse()
    }

    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        self.refuse()
    }

    fn complete_device(&self, _: &DeviceId) -> Result<(), StorageError> {
        self.refuse()
    }

    fn remove_device(&self, _: &DeviceId) -> Result<Removal, StorageError> {
        self.refuse()
    }

    fn mount_device_for(&self, _: &DeviceId, _: Access, _: &str) -> Result<MountedDevice, StorageError> {
        self.refuse()
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        Vec::new()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, StorageError> {
        self.refuse()
    }

    fn device(&self, _: &DeviceId) -> Result<DeviceInfo, StorageError> {
        self.refuse()
    }

    /// No numbers, and that it has to be checked.
    fn status(&self) -> Result<PoolStatus, StorageError> {
        Ok(PoolStatus {
            pool: self.directory.display().to_string(),
            state: PoolState::NeedsCheck,
            data_used: Bytes(0),
            data_total: Bytes(0),
            metadata_used: Bytes(0),
            metadata_total: Bytes(0),
            block_size: Bytes(0),
            transaction_id: 0,
            devices: 0,
            active: 0,
        })
    }

    fn grow(&self, _: Bytes, _: Bytes) -> Result<PoolStatus, StorageError> {
        self.refuse()
    }

    fn trim(&self) -> Result<Trimmed, StorageError> {
        self.refuse()
    }

    fn trim_device(&self, _: &DeviceId) -> Result<Bytes, StorageError> {
        self.refuse()
    }

    fn check(&self) -> Result<Report, StorageError> {
        self.refuse()
    }

    fn repair(&self) -> Result<Report, StorageError> {
        self.refuse()
    }

    fn foreign(&self) -> Vec<u32> {
        Vec::new()
    }

    fn remove_foreign(&self, _: u32) -> Result<Removal, StorageError> {
        self.refuse()
    }

    fn growth(&self) -> Vec<DeviceGrowth> {
        Vec::new()
    }

    fn on_pressure(&self, _: PressureListener) {}

    fn backing(&self) -> Result<PathBuf, StorageError> {
        self.refuse()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn close(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorCode;

    #[test]
    fn it_says_why_and_that_it_must_be_checked() {
        let error = StorageError::Damaged { path: "/x/journal".into(), reason: "salvage it".to_owned() };
        let set = out_of_order("/x".into(), &error);
        assert_eq!(set.status().unwrap().state, PoolState::NeedsCheck);
        let refused = set.devices().unwrap_err();
        assert_eq!(refused.code(), ErrorCode::StorageFailed);
        assert!(refused.to_string().contains("salvage it"), "{refused}");
    }
}
