//! Nodes, mounts and leases.
//!
//! A node is made when a mount is asked for, and marked for removal at last close as soon as the mount has it open.
//! So it lives exactly as long as somebody uses the mount, be it this process, a container, or a container whose daemon
//! was killed; the kernel removes it by itself, and nobody polls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::backend::{Mode, Node, Spec};
use super::core::{Core, Draft, lock};
use super::label::{self, Label};
use super::state::{Device, Phase};
use crate::model::{Bytes, DeviceId};
use crate::storage::leases::Taken;
use crate::storage::{Access, AddOptions, Added, BASE, Lease, MountedDevice, Removal, StorageError};

/// How often removals are tried again for which no event came.
const RETRY: Duration = Duration::from_secs(5);

/// How long a deletion waits for a node that is going; later it is tried again.
const SETTLING: Duration = Duration::from_millis(200);

/// How long a node may take to go once nobody has it open.
pub(super) const GOING: Duration = Duration::from_secs(2);

impl Core {
    /// Makes the snapshot. Label and size stay its origin's until it is first mounted for writing: so this costs no
    /// mount, and whoever makes a device in order to use it mounts it once.
    pub(super) fn add(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError> {
        let origin = self.find(base, &[Phase::Ready])?;
        let size = whole_blocks(options.size.unwrap_or_else(|| self.usual_size(&origin)), self.settings.block_size);
        self.admit_after_removals()?;
        let draft = Draft { id, origin: Some(&origin), size, pending: options.pending, replaces: None };
        if size < origin.size {
            return self.add_smaller(&draft, &origin);
        }
        let (_, frozen) = self.snapshot(&origin, || self.create(&draft))?;
        Ok(Added { frozen })
    }

    /// Its origin's size. But what has the size of the base has that only because nobody asked for another: a larger one
    /// that was configured since takes its place.
    fn usual_size(&self, origin: &Device) -> Bytes {
        let base = DeviceId::parse(BASE).expect("the base has a valid id");
        let usual = self.find(&base, &[Phase::Ready]).is_ok_and(|base| base.size == origin.size);
        if usual { origin.size.max(self.settings.base_size) } else { origin.size }
    }

    /// What was removed a moment ago may still fill the pool.
    pub(super) fn admit_after_removals(&self) -> Result<(), StorageError> {
        match self.admit() {
            Err(StorageError::PoolFull { .. }) if !self.removing().is_empty() => {
                self.tidy();
                self.admit()
            }
            other => other,
        }
    }

    /// The base: an empty file system with an empty tree.
    pub(super) fn ensure_base(&self) -> Result<(), StorageError> {
        let id = DeviceId::parse(BASE).expect("the base has a valid id");
        if self.table().state.names.contains_key(&id) {
            return Ok(());
        }
        let size = whole_blocks(self.settings.base_size, self.settings.block_size);
        let device = self.create(&Draft { id: &id, origin: None, size, pending: true, replaces: None })?;
        let node = self.activate(&device)?;
        let formatted = self.backend.format(&node);
        let mount = self.mount_node(&device, &node, Access::ReadWrite);
        let mount = formatted.and(mount)?;
        label::make_tree(mount.as_fd()).map_err(|source| file_error("make the tree of", &device, source))?;
        self.write_label(&device, mount.as_fd())?;
        sync(&device, mount.as_fd())?;
        drop(mount);
        self.ready(&id)
    }

    /// Mounts `id`, with a lease, for work of the set's own.
    pub(super) fn mount(self: &Arc<Self>, id: &DeviceId, access: Access) -> Result<MountedDevice, StorageError> {
        self.mount_for(id, access, "its own work")
    }

    /// Mounts `id`, with a lease.
    pub(super) fn mount_for(
        self: &Arc<Self>,
        id: &DeviceId,
        access: Access,
        purpose: &str,
    ) -> Result<MountedDevice, StorageError> {
        self.with_slot(id, |device| {
            let mount = self.open_mount(device, access)?;
            Ok(MountedDevice::new(
                mount,
                Box::new(ThinLease { core: Arc::downgrade(self), _taken: self.leases.take(id, purpose) }),
            ))
        })
    }

    /// Does something with a device that can be used while nobody else changes its node or takes its name away.
    pub(super) fn with_slot<T>(
        &self,
        id: &DeviceId,
        work: impl FnOnce(&Device) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        loop {
            let thin = self.find(id, &[Phase::Ready, Phase::Pending])?.thin;
            let slot = self.slot(thin);
            let _held = lock(&slot);
            // It may have been removed or replaced while this waited.
            let device = self.find(id, &[Phase::Ready, Phase::Pending])?;
            if device.thin == thin {
                return work(&device);
            }
        }
    }

    /// Activates, mounts, and completes what making the device left undone. The slot is locked.
    pub(super) fn open_mount(&self, device: &Device, access: Access) -> Result<OwnedFd, StorageError> {
        let node = self.activate(device)?;
        let mount = self.mount_node(device, &node, access)?;
        if access == Access::ReadWrite {
            self.complete(device, mount.as_fd())?;
        }
        Ok(mount)
    }

    fn mount_node(&self, device: &Device, node: &Node, access: Access) -> Result<OwnedFd, StorageError> {
        let mounted = self.backend.mount(node, access);
        // At once, not when the lease is given back: so it holds even if this process is killed.
        self.let_go(device, &node.name);
        mounted.map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => {
                StorageError::InUse { id: device.id.clone(), by: "somebody who mounted it read-only".to_owned() }
            }
            _ => file_error("mount", device, source),
        })
    }

    /// From now on the node goes with its last user, unless it is held.
    pub(super) fn let_go(&self, device: &Device, name: &str) {
        if self.table().state.held.contains(&device.thin) {
            return;
        }
        if let Err(error) = self.backend.remove(name) {
            tracing::debug!(%error, name, "cannot ask for removal at last close, ignoring");
        }
    }

    /// A snapshot starts with its origin's label and size.
    fn complete(&self, device: &Device, mount: BorrowedFd<'_>) -> Result<(), StorageError> {
        let label = Label::read(mount).map_err(|source| file_error("read the label of", device, source))?;
        let uuid = self.table().state.uuid.clone();
        if let Some(label) = &label
            && label.pool != uuid
        {
            let reason =
                format!("its label names the pool {}, this one is {uuid}: the pool's files were exchanged", label.pool);
            return Err(StorageError::Damaged { path: format!("device {}", device.id).into(), reason });
        }
        if label.as_ref() == Some(&Label::of(&uuid, device)) {
            return Ok(());
        }
        if label.is_none_or(|inherited| inherited.size != device.size) {
            self.fit_node(device)?;
            self.backend.grow(mount, device.size).map_err(|source| file_error("grow", device, source))?;
        }
        self.write_label(device, mount)
    }

    pub(super) fn write_label(&self, device: &Device, mount: BorrowedFd<'_>) -> Result<(), StorageError> {
        let label = Label::of(&self.table().state.uuid.clone(), device);
        label.write(mount).map_err(|source| file_error("write the label of", device, source))
    }

    /// The node of `device`, live and not about to go. The slot is locked, so only the kernel removes it meanwhile.
    pub(super) fn activate(&self, device: &Device) -> Result<Node, StorageError> {
        let (name, uuid) = self.node_names(device);
        let failed = |source| StorageError::DeviceMapper { op: "activate", device: name.clone(), source };
        let until = Instant::now() + GOING;
        loop {
            let found = self.backend.node(&name).map_err(failed)?;
            if let Some(node) = &found
                && node.uuid != uuid
            {
                return Err(StorageError::InUse {
                    id: device.id.clone(),
                    by: format!("a foreign device called {name}"),
                });
            }
            let result = match found {
                Some(node) if node.live => self.backend.keep(&name).map(|()| Some(node)),
                Some(_) => self.backend.remove(&name).map(|()| None),
                None => {
                    let spec = Spec { name: &name, uuid: &uuid, thin: device.thin, size: device.size };
                    self.backend.activate(&spec).map(Some)
                }
            };
            match result {
                Ok(Some(node)) => return Ok(node),
                Ok(None) => {}
                // It went by itself just now.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                    self.backend.wait_gone(&name, until.saturating_duration_since(Instant::now())).map_err(failed)?;
                }
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Whether the node of `device` is gone, after asking for it. The slot is locked.
    pub(super) fn deactivate(&self, device: &Device) -> bool {
        let (name, uuid) = self.node_names(device);
        let look =
            || self.backend.node(&name).inspect_err(|error| tracing::debug!(%error, name, "cannot look at a device"));
        match look() {
            Err(_) => return false,
            // Of somebody else: it does not hold our device.
            Ok(Some(node)) if node.uuid != uuid => return true,
            Ok(None) => {}
            Ok(Some(_)) => match self.backend.remove(&name) {
                Err(error) if error.raw_os_error() != Some(libc::ENXIO) => return false,
                _ => {}
            },
        }
        // Nobody has it open: then it is on its way.
        if look().is_ok_and(|found| found.is_none_or(|node| node.users == 0))
            && let Err(error) = self.backend.wait_gone(&name, SETTLING)
        {
            tracing::debug!(%error, name, "cannot wait for a device to go, ignoring");
        }
        matches!(look(), Ok(None))
    }

    /// On a pool that is out of data, lets every I/O of a device fail that is to be deleted, so that it can be at once:
    /// its users, or the last of what they wrote, may wait for the very room that it takes.
    pub(super) fn cut_off(&self, device: &Device) -> bool {
        if !self.numbers().is_ok_and(|numbers| numbers.mode == Mode::OutOfData) {
            return false;
        }
        let (name, uuid) = self.node_names(device);
        let ours = self.backend.node(&name).is_ok_and(|node| node.is_some_and(|node| node.uuid == uuid));
        ours && self
            .backend
            .cut_off(&name, device.size)
            .inspect_err(|error| tracing::debug!(%error, name, "cannot cut a device off"))
            .is_ok()
    }

    /// Marks `id` for removal; the remover deletes it. Nothing is asked of device-mapper here: while the kernel lets go
    /// of a node, which is what it does at the end of a container, every question waits for that.
    pub(super) fn remove(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        if self.begin_removal(id)?.is_none() {
            return Ok(Removal::NotThere);
        }
        self.bell.ring();
        Ok(Removal::Deferred)
    }

    /// Brings what was written to `id` to the disk, then records that it is complete.
    pub(super) fn finish(&self, id: &DeviceId) -> Result<(), StorageError> {
        let device = self.find(id, &[Phase::Pending])?;
        let slot = self.slot(device.thin);
        let held = lock(&slot);
        // A second mount of the same device shares the first one's file system, so this syncs for all of them.
        let mount = self.open_mount(&device, Access::ReadWrite)?;
        sync(&device, mount.as_fd())?;
        drop(mount);
        drop(held);
        self.ready(id)
    }

    /// The remover's work: deletes what is not in use any more. Returns when it wants to be called again although
    /// nothing happens.
    pub(super) fn tidy(&self) -> Option<Duration> {
        let mut next = None;
        for thin in self.removing() {
            match self.try_delete(thin) {
                Ok(true) => {}
                Ok(false) => next = Some(RETRY),
                Err(error) => {
                    tracing::debug!(%error, thin, "cannot finish a removal, ignoring until the next start");
                }
            }
        }
        next
    }

    /// Asks every node that is not leased to go; true when all are gone.
    pub(super) fn deactivate_all(&self) -> Result<bool, StorageError> {
        self.tidy();
        let listed = |source| self.settings.failed("list the devices of", source);
        for node in self.backend.ours().map_err(listed)? {
            if let Err(error) = self.backend.remove(&node.name) {
                tracing::debug!(%error, node.name, "cannot ask for removal, ignoring");
            }
        }
        for node in self.backend.ours().map_err(listed)?.iter().filter(|node| node.users == 0) {
            self.backend.wait_gone(&node.name, GOING).map_err(listed)?;
        }
        self.tidy();
        Ok(self.backend.ours().map_err(listed)?.is_empty())
    }
}

/// The open mount is what keeps the device active; giving it back is a reason to look after removals that wait.
#[derive(Debug)]
struct ThinLease {
    core: Weak<Core>,
    _taken: Taken,
}

impl Lease for ThinLease {}

impl Drop for ThinLease {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.bell.ring();
        }
    }
}

/// Up to a multiple of a pool block.
pub(super) fn whole_blocks(size: Bytes, block: Bytes) -> Bytes {
    Bytes(size.0.div_ceil(block.0).saturating_mul(block.0))
}

pub(super) fn sync(device: &Device, mount: BorrowedFd<'_>) -> Result<(), StorageError> {
    use rustix::fs::{Mode, OFlags};
    // The mount is a path-only descriptor, which cannot be synced.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(mount, c".", flags, Mode::empty())
        .and_then(rustix::fs::syncfs)
        .map_err(|error| file_error("sync", device, error.into()))
}

pub(super) fn file_error(op: &'static str, device: &Device, source: std::io::Error) -> StorageError {
    StorageError::Io { op, path: format!("device {}", device.id).into(), source }
}
