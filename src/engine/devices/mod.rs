//! The DeviceSet for whoever keeps trees of their own in it, and its upkeep.
//!
//! | file | what |
//! |---|---|
//! | this one | add, remove, mount, open; grow, check, repair, trim |
//! | `owner.rs` | which ids are Holm's own |
//! | `place.rs` | trees as mounts, on directories of other mount namespaces too |
//! | `report.rs` | what a check or a trim came to |
//! | `pool.rs` | the pool's numbers, kept new |
//! | `health.rs` | what the journal says of the pool |
//! | `error.rs` | what can go wrong |

mod error;
pub(super) mod health;
mod owner;
mod place;
mod pool;
mod report;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::info;

pub use self::error::DeviceError;
use self::owner::{check_not_own, own, reserved};
use self::place::{DetachError, Identity};
pub(super) use self::pool::{Pool, watch_pool};
pub use self::report::{CheckView, FindingView, ForeignView, TrimView};
use super::error::EngineError;
use super::view::{JobId, JobKind, JobResult};
use super::{Engine, Inner, blocking};
use crate::model::{Bytes, DeviceId, DeviceInfo, Driver, now_usec};
use crate::storage::{Access, AddOptions, DeviceSet, Lease, MountedDevice, PressureLevel, Removal};

/// What the engine remembers of devices, besides what the DeviceSet knows.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) pool: Pool,
    /// How urgent the lack of room was when that was last told.
    pressed: Mutex<PressureLevel>,
    /// Held by what looks at every device: two at once would only be slower.
    upkeep: Mutex<()>,
    checked: Mutex<Option<Arc<CheckView>>>,
    trimmed: Mutex<Option<Arc<TrimView>>>,
    /// Of trees that were mounted for other software. Driver `copy` has nothing else to know their users by; with `thin`
    /// the kernel knows, and they hold nothing.
    leases: Mutex<BTreeMap<DeviceId, Vec<Box<dyn Lease>>>>,
}

impl Devices {
    pub(super) fn new(pool: Pool) -> Self {
        let (pressed, upkeep, checked, trimmed, leases) = Default::default();
        Self { pool, pressed, upkeep, checked, trimmed, leases }
    }
}

/// A device, and who needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// The device.
    pub info: DeviceInfo,
    /// What needs it, such as `container web`; nothing for other software's.
    pub users: Vec<String>,
    /// Whether it is Holm's own.
    pub own: bool,
}

impl Engine {
    /// Every device of the DeviceSet, with who needs it.
    pub async fn device_views(&self) -> Result<Vec<DeviceView>, EngineError> {
        let mut users = self.inner.users_of_devices();
        let view = |info: DeviceInfo| {
            let users = users.remove(&info.id).unwrap_or_default();
            DeviceView { own: own(&info.id).is_some(), users, info }
        };
        Ok(self.devices().await?.into_iter().map(view).collect())
    }

    /// Adds a device of other software's as a snapshot of any. How long that one was held still for it, if it was in use.
    /// After an error nothing of it is left.
    pub async fn add_device(
        &self,
        id: DeviceId,
        base: DeviceId,
        size: Option<Bytes>,
    ) -> Result<Option<Duration>, EngineError> {
        self.inner.check_open()?;
        check_not_own(&id)?;
        let options = AddOptions { size, pending: false };
        self.change(move |devices| {
            let added = devices.add_device(&id, &base, &options)?;
            info!(op = "add-device", device = %id, frozen = ?added.frozen, "Device {id} added on {base}.");
            Ok(added.frozen)
        })
        .await
    }

    /// Removes a device of other software's that nobody uses. Its name is free at once.
    pub async fn remove_device(&self, id: DeviceId) -> Result<(), EngineError> {
        check_not_own(&id)?;
        self.change(move |devices| {
            devices.device(&id)?;
            // InUse while somebody uses it: other software must not lose its tree without knowing.
            devices.deactivate_device(&id)?;
            devices.remove_device(&id)?;
            info!(op = "remove-device", device = %id, "Device {id} removed.");
            Ok(())
        })
        .await
    }

    /// Activates a device of other software's, until it is deactivated: the path of its block device, or of a directory with
    /// driver `copy`.
    pub async fn activate_device(&self, id: DeviceId) -> Result<PathBuf, EngineError> {
        self.inner.check_open()?;
        check_not_own(&id)?;
        self.change(move |devices| Ok(devices.activate_device(&id)?)).await
    }

    /// Takes that back. Refused while somebody uses it.
    pub async fn deactivate_device(&self, id: DeviceId) -> Result<(), EngineError> {
        check_not_own(&id)?;
        self.change(move |devices| {
            devices.device(&id)?;
            Ok(devices.deactivate_device(&id)?)
        })
        .await
    }

    /// Makes a device of other software's larger, in use or not; what it is large then.
    pub async fn resize_device(&self, id: DeviceId, size: Bytes) -> Result<Bytes, EngineError> {
        check_not_own(&id)?;
        self.change(move |devices| Ok(devices.resize_device(&id, size)?.size)).await
    }

    /// Gives back what the file system of a device does not need, in use or not; how much that was.
    pub async fn trim_device(&self, id: DeviceId) -> Result<Bytes, EngineError> {
        self.inner.check_open()?;
        self.change(move |devices| Ok(devices.trim_device(&id)?)).await
    }

    /// Bytes that are each device's own, which is what its removal gives back.
    pub async fn measure_devices(&self) -> Result<BTreeMap<DeviceId, Bytes>, EngineError> {
        let inner = Arc::clone(&self.inner);
        let measure = move || {
            let _alone = lock(&inner.held.upkeep);
            inner.devices.exclusive()
        };
        Ok(blocking(measure).await?)
    }

    /// Mounts the tree of a device on a directory, in the mount namespace of the process `pid` or in the daemon's own,
    /// whichever the directory is in. Holm's own are mounted for reading only.
    pub async fn mount_device(
        &self,
        id: DeviceId,
        directory: OwnedFd,
        read_only: bool,
        pid: u32,
    ) -> Result<(), EngineError> {
        self.inner.check_open()?;
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        check_access(&id, access)?;
        let inner = Arc::clone(&self.inner);
        self.change(move |devices| {
            let failed = |op| failed(op, &id);
            if !place::is_directory(directory.as_fd()).map_err(failed("look at the place for"))? {
                return Err(DeviceError::NoDirectory.into());
            }
            let (tree, lease) = open_tree(devices, &id, access, "mounted in the host's tree")?;
            match place::attach(tree.as_fd(), directory.as_fd(), pid) {
                Ok(()) => {
                    inner.leases().entry(id).or_default().push(lease);
                    Ok(())
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(DeviceError::Elsewhere.into()),
                Err(error) => Err(failed("mount")(error).into()),
            }
        })
        .await
    }

    /// Takes every mount of a device's tree away that is in the mount namespace of the process `pid` or in the daemon's
    /// own. What somebody works in stays, and is an error.
    pub async fn unmount_device(&self, id: DeviceId, pid: u32) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        self.change(move |devices| {
            // With driver `copy` a mount of before the daemon's restart is nobody's lease.
            if !devices.device(&id)?.active && devices.driver() == Driver::Thin {
                return Err(DeviceError::NotMounted(id).into());
            }
            let mounted = devices.mount_device_for(&id, Access::ReadOnly, "unmount")?;
            let tree = Identity::of(mounted.mount()).map_err(failed("look at", &id))?;
            drop(mounted);
            match place::detach(tree, pid) {
                Ok(0) => Err(DeviceError::NotMounted(id).into()),
                Ok(_) => {
                    inner.leases().remove(&id);
                    Ok(())
                }
                Err(DetachError::Busy(place)) => {
                    Err(DeviceError::Busy { id, place: place.display().to_string() }.into())
                }
                Err(DetachError::Other(error)) => Err(failed("unmount", &id)(error).into()),
            }
        })
        .await
    }

    /// The tree of a device as a mount that is attached nowhere. The device is in use as long as anybody has it. Holm's
    /// own are for reading only.
    pub async fn open_device(&self, id: DeviceId) -> Result<OwnedFd, EngineError> {
        self.inner.check_open()?;
        let access = if own(&id).is_some() { Access::ReadOnly } else { Access::ReadWrite };
        self.change(move |devices| Ok(open_tree(devices, &id, access, "open")?.0)).await
    }

    /// Deletes a device of the pool that is on no record, by its number there. For good.
    pub async fn remove_foreign(&self, thin_id: u32) -> Result<(), EngineError> {
        self.change(move |devices| match devices.remove_foreign(thin_id)? {
            Removal::NotThere => Err(DeviceError::NoForeignDevice(thin_id).into()),
            Removal::Removed | Removal::Deferred => {
                info!(op = "remove-foreign", thin_id, "Foreign thin device {thin_id} removed.");
                Ok(())
            }
        })
        .await
    }

    /// Makes the pool's parts so large in all; 0 leaves one as it is.
    pub fn grow_pool(&self, data: Bytes, metadata: Bytes) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        Ok(self.upkeep(JobKind::Grow, move |inner| Ok(inner.devices.grow(data, metadata).map(drop)?)))
    }

    /// Compares the copies of the truth. What it finds is in [`checked`](Self::checked) afterwards; a finding is no failure.
    pub fn check_devices(&self) -> JobId {
        self.upkeep(JobKind::Check, |inner| {
            let _alone = lock(&inner.held.upkeep);
            let report = inner.devices.check()?;
            inner.note_checked(report);
            Ok(())
        })
    }

    /// Repairs what can be repaired without deleting anything; what is left is in [`checked`](Self::checked) afterwards.
    pub fn repair_devices(&self) -> JobId {
        self.upkeep(JobKind::Repair, |inner| {
            let _alone = lock(&inner.held.upkeep);
            let report = inner.devices.repair()?;
            inner.note_checked(report);
            Ok(())
        })
    }

    /// Gives back what file systems in use do not need. What came of it is in [`trimmed`](Self::trimmed) afterwards.
    pub fn trim_devices(&self) -> JobId {
        self.upkeep(JobKind::Trim, |inner| {
            let _alone = lock(&inner.held.upkeep);
            let view = TrimView::of(inner.devices.trim()?, now_usec());
            *lock(&inner.held.trimmed) = Some(Arc::new(view));
            Ok(())
        })
    }

    /// What the last check or repair found, if there was one since the daemon started.
    pub fn checked(&self) -> Option<Arc<CheckView>> {
        lock(&self.inner.held.checked).clone()
    }

    /// What the last trim gave back, if there was one since the daemon started.
    pub fn trimmed(&self) -> Option<Arc<TrimView>> {
        lock(&self.inner.held.trimmed).clone()
    }

    /// Does something with the DeviceSet, and has the pool's numbers new before it returns.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn DeviceSet) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let devices = Arc::clone(&self.inner.devices);
        let result = blocking(move || work(&*devices)).await;
        self.inner.look_at_pool().await;
        result
    }

    /// Does something that takes a while, as a job about the pool.
    fn upkeep(&self, kind: JobKind, work: impl FnOnce(&Inner) -> Result<(), EngineError> + Send + 'static) -> JobId {
        let inner = Arc::clone(&self.inner);
        let job = inner.jobs.begin(kind, &inner.pool().pool);
        let id = job.id();
        tokio::spawn(async move {
            let worker = Arc::clone(&inner);
            let result = blocking(move || work(&worker)).await;
            inner.look_at_pool().await;
            job.finish(result.as_ref().map_or_else(JobResult::from, |()| JobResult::Done));
        });
        id
    }
}

impl Inner {
    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<DeviceId, Vec<Box<dyn Lease>>>> {
        lock(&self.held.leases)
    }

    fn note_checked(&self, report: crate::storage::Report) {
        health::checked(self, report.findings.len());
        *lock(&self.held.checked) = Some(Arc::new(CheckView::of(report, now_usec())));
    }
}

/// Every change under these locks is one assignment, so what is behind them is whole even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holm's own are read by others, never written.
fn check_access(id: &DeviceId, access: Access) -> Result<(), DeviceError> {
    match own(id) {
        Some(own) if access == Access::ReadWrite => Err(reserved(id, own)),
        _ => Ok(()),
    }
}

/// The tree of a device alone, detached, and the device's lease.
fn open_tree(
    devices: &dyn DeviceSet,
    id: &DeviceId,
    access: Access,
    purpose: &str,
) -> Result<(OwnedFd, Box<dyn Lease>), EngineError> {
    let mounted: MountedDevice = devices.mount_device_for(id, access, purpose)?;
    let tree = place::tree(mounted.mount(), access).map_err(failed("open the tree of", id))?;
    Ok((tree, mounted.into_parts().1))
}

fn failed(op: &'static str, id: &DeviceId) -> impl Fn(std::io::Error) -> DeviceError + use<> {
    let id = id.clone();
    move |source| DeviceError::Mount { op, id: id.clone(), source }
}
