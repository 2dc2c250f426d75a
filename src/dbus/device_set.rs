//! `org.holm1.DeviceSet`.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::message::Header;
use zbus::{Variant, interface};

use super::auth::{Action, Wish, sender};
use super::door::{Door, Room};
use super::error::Result;
use super::options::{Dictionary, Options};
use super::paths::Path;
use super::table::Latest;
use crate::engine::{CheckView, DeviceView};
use crate::model::{Bytes, DeviceId, DeviceInfo, Driver, PoolStatus};

/// A description of something, as `a{sv}`.
type Description = HashMap<&'static str, Variant<'static>>;

/// Findings of a check: kind, device or empty, text.
type Findings = Vec<(String, String, String)>;

/// Devices on no record: number, stamp, mapped bytes, text.
type Foreign = Vec<(u32, u64, u64, String)>;

/// Devices that could not be trimmed, and why.
type Failed = Vec<(String, String)>;

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

    /// Passes if the caller may do this with a device.
    async fn authorize(&self, header: &Header<'_>, verb: &'static str, id: &DeviceId) -> Result<Arc<Room>> {
        self.door.authorize(header, Wish::new(Action::ManageStorage, verb).device(id.as_str())).await
    }

    async fn add(
        &self,
        id: &str,
        base: &str,
        options: Dictionary,
        header: &Header<'_>,
    ) -> Result<Option<std::time::Duration>> {
        let (id, base) = (DeviceId::parse(id)?, DeviceId::parse(base)?);
        let size = size_option(options)?;
        let room = self.authorize(header, "add-device", &id).await?;
        let frozen = room.engine.add_device(id, base, size).await?;
        room.settled().await;
        Ok(frozen)
    }

    /// Passes if the caller may do this with the pool.
    async fn authorize_upkeep(&self, header: &Header<'_>, verb: &'static str) -> Result<Arc<Room>> {
        self.door.authorize(header, Wish::new(Action::ManageStorage, verb)).await
    }
}

#[interface(name = "org.holm1.DeviceSet", introspection_docs = false)]
impl DeviceSet {
    /// Adds a device as a snapshot of another, which may be in use. Options: Size t.
    async fn add_device(
        &self,
        id: &str,
        base: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        self.add(id, base, options, &header).await.map(drop)
    }

    /// As AddDevice; replies how long the base was held still for it, 0 if it was not in use.
    #[zbus(out_args("frozen_usec"))]
    async fn snapshot_device(
        &self,
        id: &str,
        base: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<u64> {
        let frozen = self.add(id, base, options, &header).await?.unwrap_or_default();
        Ok(u64::try_from(frozen.as_micros()).unwrap_or(u64::MAX))
    }

    /// Removes a device that is not in use.
    async fn remove_device(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "remove-device", &id).await?;
        room.engine.remove_device(id).await?;
        room.settled().await;
        Ok(())
    }

    /// Activates a device until DeactivateDevice or RemoveDevice, also over a restart of holmd. The path of its block device;
    /// of a directory with driver copy.
    #[zbus(out_args("path"))]
    async fn activate_device(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<String> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "activate-device", &id).await?;
        let path = room.engine.activate_device(id).await?;
        room.settled().await;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Takes ActivateDevice back. Refused while somebody uses the device.
    async fn deactivate_device(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "deactivate-device", &id).await?;
        room.engine.deactivate_device(id).await?;
        room.settled().await;
        Ok(())
    }

    /// Makes a device larger, in use or not: what is in it can take so many bytes. Replies how many it became, being whole
    /// blocks of the pool.
    #[zbus(out_args("size"))]
    async fn resize_device(&self, id: &str, size: u64, #[zbus(header)] header: Header<'_>) -> Result<u64> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "resize-device", &id).await?;
        let size = room.engine.resize_device(id, Bytes(size)).await?;
        room.settled().await;
        Ok(size.0)
    }

    /// Mounts the tree of a device on the directory that the descriptor is of, in the mount namespace of the caller or in
    /// that of holmd. Options: ReadOnly b.
    async fn mount_device(
        &self,
        id: &str,
        target: zbus::OwnedFd,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        let id = DeviceId::parse(id)?;
        let read_only = read_only_option(options)?;
        let room = self.authorize(&header, "mount-device", &id).await?;
        let caller = room.callers.pid(sender(&header)?).await?;
        room.engine.mount_device(id, target.into(), read_only, caller).await?;
        room.settled().await;
        Ok(())
    }

    /// Takes every mount of a device's tree away that is in the mount namespace of the caller or in that of holmd.
    async fn unmount_device(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "unmount-device", &id).await?;
        let caller = room.callers.pid(sender(&header)?).await?;
        room.engine.unmount_device(id, caller).await?;
        room.settled().await;
        Ok(())
    }

    /// The tree of a device as a detached mount.
    #[zbus(out_args("tree"))]
    async fn open_device(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<zbus::OwnedFd> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "open-device", &id).await?;
        let tree = room.engine.open_device(id).await?;
        room.settled().await;
        Ok(tree.into())
    }

    /// Makes the pool's parts so large in all, in bytes; 0 leaves one as it is.
    #[zbus(out_args("job"))]
    async fn grow(&self, data: u64, metadata: u64, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let room = self.authorize_upkeep(&header, "grow").await?;
        let job = room.engine.grow_pool(Bytes(data), Bytes(metadata))?;
        Ok(room.job(job).await)
    }

    /// Compares what pool, journal and labels say, and changes nothing. GetCheckReport has the outcome.
    #[zbus(out_args("job"))]
    async fn check(&self, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let room = self.authorize_upkeep(&header, "check").await?;
        let job = room.engine.check_devices();
        Ok(room.job(job).await)
    }

    /// Brings labels in line and takes devices back onto the record; deletes nothing. GetCheckReport has what is left.
    #[zbus(out_args("job"))]
    async fn repair(&self, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let room = self.authorize_upkeep(&header, "repair").await?;
        let job = room.engine.repair_devices();
        Ok(room.job(job).await)
    }

    /// Gives back to the pool what the file systems in use do not need. GetTrimReport has the outcome.
    #[zbus(out_args("job"))]
    async fn trim(&self, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let room = self.authorize_upkeep(&header, "trim").await?;
        let job = room.engine.trim_devices();
        Ok(room.job(job).await)
    }

    /// As Trim, of one device, in use or not: how many bytes were given back.
    #[zbus(out_args("bytes"))]
    async fn trim_device(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<u64> {
        let id = DeviceId::parse(id)?;
        let room = self.authorize(&header, "trim", &id).await?;
        let bytes = room.engine.trim_device(id).await?;
        room.settled().await;
        Ok(bytes.0)
    }

    /// Deletes a device of the pool that is on no record, by its number there. For good.
    async fn remove_foreign(&self, thin_id: u32, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let room = self.authorize_upkeep(&header, "remove-foreign").await?;
        room.engine.remove_foreign(thin_id).await?;
        room.settled().await;
        Ok(())
    }

    /// What the last Check or Repair found: when, devices looked at, findings (kind, device or empty, text), devices on no
    /// record (number in the pool, stamp, mapped bytes, text). When is 0 if there was none since holmd started.
    #[zbus(out_args("at_usec", "devices", "findings", "foreign"))]
    async fn get_check_report(&self) -> Result<(u64, u32, Findings, Foreign)> {
        Ok(self.door.open()?.engine.checked().map(|view| check_report(&view)).unwrap_or_default())
    }

    /// What the last Trim came to: when, bytes given back, devices trimmed, devices that could not be and why. When is 0 if
    /// there was none since holmd started.
    #[zbus(out_args("at_usec", "bytes", "devices", "failed"))]
    async fn get_trim_report(&self) -> Result<(u64, u64, u32, Failed)> {
        let report = self.door.open()?.engine.trimmed().map(|view| {
            let failed = view.failed.iter().map(|(id, reason)| (id.to_string(), reason.clone())).collect();
            (view.at_usec, view.bytes.0, view.devices, failed)
        });
        Ok(report.unwrap_or_default())
    }

    /// Bytes that are each device's own, which is what its removal gives back.
    #[zbus(out_args("devices"))]
    async fn measure_devices(&self) -> Result<Vec<(String, u64)>> {
        let measured = self.door.open()?.engine.measure_devices().await?;
        Ok(measured.into_iter().map(|(id, bytes)| (id.into(), bytes.0)).collect())
    }

    /// Every device: id, and ThinId u, Base s, Size t, Mapped t, Active b, State s, Own b, Users as. What is empty is left
    /// out.
    #[zbus(out_args("devices"))]
    async fn describe_devices(&self) -> Result<Vec<(String, Description)>> {
        Ok(self.door.open()?.engine.device_views().await?.into_iter().map(description).collect())
    }

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

fn description(DeviceView { info, users, own }: DeviceView) -> (String, Description) {
    let mut description = Description::from([
        ("ThinId", Variant::from(info.thin_id)),
        ("Size", info.size.0.into()),
        ("Mapped", info.mapped.0.into()),
        ("Active", info.active.into()),
        ("State", info.state.as_str().into()),
        ("Own", own.into()),
    ]);
    if let Some(base) = info.base {
        description.insert("Base", String::from(base).into());
    }
    if !users.is_empty() {
        description.insert("Users", users.into());
    }
    (info.id.into(), description)
}

fn check_report(view: &CheckView) -> (u64, u32, Findings, Foreign) {
    let device = |id: &Option<DeviceId>| id.as_ref().map(DeviceId::to_string).unwrap_or_default();
    let findings = view.findings.iter().map(|found| (found.kind.to_owned(), device(&found.device), found.text.clone()));
    let foreign = view.foreign.iter().map(|it| (it.thin_id, it.stamp, it.mapped.0, it.about.clone()));
    (view.at_usec, view.devices, findings.collect(), foreign.collect())
}

/// The options of `AddDevice`.
fn size_option(options: Dictionary) -> Result<Option<Bytes>> {
    let mut options = Options::new(options);
    let size =
        options.parse("Size", |size: u64| if size == 0 { Err("it must be greater than 0") } else { Ok(size) })?;
    options.finish()?;
    Ok(size.map(Bytes))
}

/// The options of `MountDevice`.
fn read_only_option(options: Dictionary) -> Result<bool> {
    let mut options = Options::new(options);
    let read_only = options.flag("ReadOnly")?;
    options.finish()?;
    Ok(read_only)
}
