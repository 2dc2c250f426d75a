//! `org.holm1.DeviceSet`.

use std::sync::Arc;

use zbus::interface;

use super::door::Door;
use super::error::Result;
use super::table::Latest;
use crate::model::{DeviceInfo, Driver, PoolStatus};

/// The pool and its devices.
#[derive(Debug)]
pub(super) struct DeviceSet {
    door: Door,
    driver: Driver,
    pool: Arc<Latest<PoolStatus>>,
}

impl DeviceSet {
    pub(super) fn new(door: Door, driver: Driver, pool: Arc<Latest<PoolStatus>>) -> Self {
        Self { door, driver, pool }
    }
}

#[interface(name = "org.holm1.DeviceSet", introspection_docs = false)]
impl DeviceSet {
    /// Every device: id, number in the pool, id of the device it was made from or empty, mapped bytes, whether active.
    #[zbus(out_args("devices"))]
    async fn list_devices(&self) -> Result<Vec<(String, u32, String, u64, bool)>> {
        Ok(self.door.open()?.engine.devices().await?.into_iter().map(row).collect())
    }

    /// thin or copy.
    #[zbus(property(emits_changed_signal = "const"))]
    fn driver(&self) -> &str {
        self.driver.as_str()
    }

    /// Device-mapper name of the pool; the directory with driver copy.
    #[zbus(property)]
    fn pool(&self) -> String {
        self.pool.get().pool.clone()
    }

    /// ok, low-data, low-metadata, out-of-data, read-only or needs-check.
    #[zbus(property)]
    fn state(&self) -> &str {
        self.pool.get().state.as_str()
    }

    /// Bytes of data in use.
    #[zbus(property)]
    fn data_used(&self) -> u64 {
        self.pool.get().data_used.0
    }

    /// Bytes of data there are.
    #[zbus(property)]
    fn data_total(&self) -> u64 {
        self.pool.get().data_total.0
    }

    /// Bytes of metadata in use.
    #[zbus(property)]
    fn metadata_used(&self) -> u64 {
        self.pool.get().metadata_used.0
    }

    /// Bytes of metadata there are.
    #[zbus(property)]
    fn metadata_total(&self) -> u64 {
        self.pool.get().metadata_total.0
    }

    /// Bytes of a block of the pool.
    #[zbus(property)]
    fn block_size(&self) -> u64 {
        self.pool.get().block_size.0
    }

    /// The pool's transaction id.
    #[zbus(property)]
    fn transaction_id(&self) -> u64 {
        self.pool.get().transaction_id
    }

    /// Devices on record.
    #[zbus(property)]
    fn devices(&self) -> u32 {
        self.pool.get().devices
    }

    /// Devices whose node exists.
    #[zbus(property)]
    fn active(&self) -> u32 {
        self.pool.get().active
    }
}

fn row(device: DeviceInfo) -> (String, u32, String, u64, bool) {
    let base = device.base.map(String::from).unwrap_or_default();
    (device.id.into(), device.thin_id, base, device.mapped.0, device.active)
}
