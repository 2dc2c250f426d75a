//! Driver `copy`: every device is a directory, and a snapshot is a copy of the whole tree. For hosts without
//! device-mapper; quick where the file system shares extents (btrfs, xfs).
//!
//! ```text
//! <directory>/trees/<id>/rootfs    complete
//! <directory>/pending/<id>/rootfs  being filled; removed at the next start
//! <directory>/trash/<n>            removed; deleted when its last user in this process is gone, or at the next start
//! ```
//!
//! A device is complete exactly when it is in `trees`: it comes there by one rename, after its content is on the disk.
//! There are no quotas. Users outside this process are not known: after a restart of the daemon the caller must not
//! remove a device that still has one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use super::leases::{Leases, Taken};
use super::tree::{self, CopyError};
use super::{
    Access, AddOptions, Added, BASE, DeviceGrowth, DeviceSet, Lease, LeaseInfo, MountedDevice, PressureListener,
    Removal, Report, StorageError, TREE, Trimmed, lock_directory,
};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState, Driver, PoolState, PoolStatus};
use crate::sys::mount::{self, Attributes, Depth};

/// The driver.
#[derive(Debug)]
pub struct CopyDeviceSet {
    shared: Arc<Shared>,
    /// Its lock keeps other daemons out of the directory.
    _lock: File,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    table: Mutex<Table>,
    leases: Leases,
}

#[derive(Debug, Default)]
struct Table {
    devices: BTreeMap<DeviceId, Entry>,
    /// Removed devices that are still mounted, by their directory.
    trash: BTreeMap<PathBuf, usize>,
    /// Devices that other software activated.
    held: BTreeMap<DeviceId, User>,
    serial: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    place: Place,
    base: Option<DeviceId>,
    mapped: Bytes,
    users: usize,
}

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Being copied; nobody may use it.
    Copying,
    Pending,
    Trees,
}

/// Beside the tree: what a listing says of the device.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    base: Option<DeviceId>,
    /// Bytes of its files when it was copied.
    mapped: Bytes,
}

impl CopyDeviceSet {
    /// Opens the set in `directory`, making it on first use. What was pending or removed is deleted.
    pub fn open(directory: &Path) -> Result<Arc<Self>, StorageError> {
        let lock = lock_directory(directory)?;
        let shared = Shared { directory: directory.to_owned(), table: Mutex::default(), leases: Leases::default() };
        for place in ["pending", "trash"] {
            let path = directory.join(place);
            remove_tree(&path)?;
            make_directory(&path)?;
        }
        make_directory(&directory.join("trees"))?;
        shared.load()?;
        let set = Self { shared: Arc::new(shared), _lock: lock };
        set.ensure_base()?;
        Ok(Arc::new(set))
    }

    fn ensure_base(&self) -> Result<(), StorageError> {
        let id = DeviceId::parse(BASE).expect("the base has a valid id");
        let shared = &self.shared;
        if shared.table().devices.contains_key(&id) {
            return Ok(());
        }
        let entry = Entry { place: Place::Copying, base: None, mapped: Bytes(0), users: 0 };
        shared.table().devices.insert(id.clone(), entry);
        let path = shared.path(&id, Place::Pending);
        make_directory(&path)?;
        let tree = path.join(TREE);
        make_directory(&tree)?;
        rustix::fs::chmod(&tree, Mode::from_raw_mode(0o755)).map_err(|error| failed("make", &tree, error.into()))?;
        shared.write_note(&id, &Note { base: None, mapped: Bytes(0) })?;
        shared.publish(&id)
    }
}

impl DeviceSet for CopyDeviceSet {
    fn driver(&self) -> Driver {
        Driver::Copy
    }

    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError> {
        if options.size.is_some() {
            let advice = "driver 'copy' has no quotas: leave the size out, or use driver 'thin'".to_owned();
            return Err(StorageError::NotSupported { what: "a size of a device", advice });
        }
        let user = self.shared.reserve(id, base)?;
        let result = self.shared.fill(id, base, &user, options.pending);
        drop(user);
        if result.is_err() {
            self.shared.table().devices.remove(id);
            remove_tree(&self.shared.path(id, Place::Pending))?;
        }
        result.map(|()| Added::default())
    }

    fn resize_device(&self, id: &DeviceId, _size: Bytes) -> Result<DeviceInfo, StorageError> {
        self.shared.table().entry(id)?;
        let advice = "driver 'copy' has no quotas; use driver 'thin'".to_owned();
        Err(StorageError::NotSupported { what: "a size of a device", advice })
    }

    fn rollback_device(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError> {
        if id.as_str() == BASE {
            return Err(StorageError::InUse { id: id.clone(), by: "every other device descends from it".to_owned() });
        }
        self.shared.check_replaceable(&self.shared.table(), id)?;
        let origin = self.shared.use_device(to, |place| place == Place::Trees)?;
        let fresh = self.shared.new_trash();
        let replaced = self.shared.fill_and_exchange(id, to, &origin, &fresh);
        drop(origin);
        let removed = remove_tree(&fresh);
        replaced.and(removed)
    }

    fn activate_device(&self, id: &DeviceId) -> Result<PathBuf, StorageError> {
        let user = self.shared.use_device(id, |place| place != Place::Copying)?;
        let path = user.path()?;
        // The former one, if any, is dropped outside the lock, which giving back takes.
        let former = self.shared.table().held.insert(id.clone(), user);
        drop(former);
        Ok(path)
    }

    fn deactivate_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        let held = {
            let mut table = self.shared.table();
            let users = table.entry(id)?.users;
            let own = usize::from(table.held.contains_key(id));
            if users > own {
                return Err(StorageError::InUse { id: id.clone(), by: mounts(users - own) });
            }
            table.held.remove(id)
        };
        drop(held);
        Ok(())
    }

    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        Ok(self.shared.table().devices.iter().map(|(id, entry)| (id.clone(), entry.mapped)).collect())
    }

    fn complete_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        match self.shared.table().entry(id)?.place {
            Place::Copying => return Err(wrong(id, "being made")),
            Place::Trees => return Err(wrong(id, "complete")),
            Place::Pending => {}
        }
        self.shared.publish(id)
    }

    fn remove_device(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        if id.as_str() == BASE {
            return Err(StorageError::InUse { id: id.clone(), by: "every other device descends from it".to_owned() });
        }
        // Outside the lock, which giving back takes.
        let held = self.shared.table().held.remove(id);
        drop(held);
        self.shared.discard(id)
    }

    fn mount_device_for(&self, id: &DeviceId, access: Access, purpose: &str) -> Result<MountedDevice, StorageError> {
        let user = self.shared.use_device(id, |place| place != Place::Copying)?;
        let path = user.path()?;
        let parent = path.parent().expect("a device is in a directory of its place");
        let name = path.file_name().expect("a device has a name");
        let mount = File::open(parent)
            .and_then(|parent| mount::copy_at(parent.as_fd(), name, Depth::One))
            .and_then(|mount| match access {
                Access::ReadWrite => Ok(mount),
                Access::ReadOnly => {
                    mount::add_attributes(mount.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One).map(|()| mount)
                }
            })
            .map_err(|source| failed("mount", &path, source))?;
        let lease = CopyLease { _user: user, _taken: self.shared.leases.take(id, purpose) };
        Ok(MountedDevice::new(mount, Box::new(lease)))
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        self.shared.leases.list()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, StorageError> {
        let table = self.shared.table();
        Ok(table.devices.iter().map(|(id, entry)| entry.info(id)).collect())
    }

    fn device(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError> {
        Ok(self.shared.table().entry(id)?.info(id))
    }

    fn status(&self) -> Result<PoolStatus, StorageError> {
        let directory = &self.shared.directory;
        let status = rustix::fs::statvfs(directory).map_err(|error| failed("measure", directory, error.into()))?;
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(status.f_frsize));
        let table = self.shared.table();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(PoolStatus {
            pool: directory.display().to_string(),
            state: if status.f_bavail < status.f_blocks / 20 { PoolState::LowData } else { PoolState::Ok },
            data_used: bytes(status.f_blocks - status.f_bfree),
            data_total: bytes(status.f_blocks),
            metadata_used: Bytes(0),
            metadata_total: Bytes(0),
            block_size: bytes(1),
            transaction_id: 0,
            devices: count(table.devices.len()),
            active: count(table.devices.values().filter(|entry| entry.users > 0).count()),
        })
    }

    fn grow(&self, _data: Bytes, _metadata: Bytes) -> Result<PoolStatus, StorageError> {
        let advice = "driver 'copy' has no pool: its room is that of the file system, enlarge that".to_owned();
        Err(StorageError::NotSupported { what: "growing", advice })
    }

    /// What is deleted is free at once.
    fn trim(&self) -> Result<Trimmed, StorageError> {
        Ok(Trimmed::default())
    }

    fn trim_device(&self, id: &DeviceId) -> Result<Bytes, StorageError> {
        self.shared.table().entry(id).map(|_| Bytes(0))
    }

    /// There is one copy of the truth: the directories.
    fn check(&self) -> Result<Report, StorageError> {
        let devices = u32::try_from(self.shared.table().devices.len()).unwrap_or(u32::MAX);
        Ok(Report { devices, ..Report::default() })
    }

    fn repair(&self) -> Result<Report, StorageError> {
        self.check()
    }

    fn foreign(&self) -> Vec<u32> {
        Vec::new()
    }

    fn remove_foreign(&self, _thin_id: u32) -> Result<Removal, StorageError> {
        Ok(Removal::NotThere)
    }

    fn growth(&self) -> Vec<DeviceGrowth> {
        Vec::new()
    }

    fn on_pressure(&self, _listener: PressureListener) {}

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn close(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change under this lock is one assignment, so the table is whole even after a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Result<(), StorageError> {
        let trees = self.directory.join("trees");
        for entry in fs::read_dir(&trees).map_err(|source| failed("list", &trees, source))? {
            let entry = entry.map_err(|source| failed("list", &trees, source))?;
            let Some(id) = entry.file_name().to_str().and_then(|name| DeviceId::parse(name).ok()) else { continue };
            let path = entry.path().join(NOTE);
            let text = fs::read(&path).map_err(|source| failed("read", &path, source))?;
            let note: Note = serde_json::from_slice(&text)
                .map_err(|error| StorageError::Damaged { path: path.clone(), reason: error.to_string() })?;
            let entry = Entry { place: Place::Trees, base: note.base, mapped: note.mapped, users: 0 };
            self.table().devices.insert(id, entry);
        }
        Ok(())
    }

    /// Takes the name for a copy of `base`, which stays where it is while the guard lives.
    fn reserve(self: &Arc<Self>, id: &DeviceId, base: &DeviceId) -> Result<User, StorageError> {
        if self.table().devices.contains_key(id) {
            return Err(StorageError::DeviceExists(id.clone()));
        }
        let user = self.use_device(base, |place| place == Place::Trees)?;
        let entry = Entry { place: Place::Copying, base: Some(base.clone()), mapped: Bytes(0), users: 0 };
        match self.table().devices.entry(id.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(StorageError::DeviceExists(id.clone())),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
                Ok(user)
            }
        }
    }

    /// Copies the tree, outside every lock: copies run side by side.
    fn fill(&self, id: &DeviceId, base: &DeviceId, source: &User, pending: bool) -> Result<(), StorageError> {
        let to = self.path(id, Place::Pending);
        // Left by a copy that failed and could not be removed then.
        remove_tree(&to)?;
        make_directory(&to)?;
        let copied = copy_tree(source, &to.join(TREE))?;
        self.write_note(id, &Note { base: Some(base.clone()), mapped: copied })?;
        let entry = |place| Entry { place, base: Some(base.clone()), mapped: copied, users: 0 };
        self.table().devices.insert(id.clone(), entry(if pending { Place::Pending } else { Place::Copying }));
        if pending { Ok(()) } else { self.publish(id) }
    }

    fn write_note(&self, id: &DeviceId, note: &Note) -> Result<(), StorageError> {
        write_note_in(&self.path(id, Place::Pending), note)
    }

    /// A place that is removed at the next start.
    fn new_trash(&self) -> PathBuf {
        let mut table = self.table();
        table.serial += 1;
        self.directory.join("trash").join(table.serial.to_string())
    }

    fn check_replaceable(&self, table: &Table, id: &DeviceId) -> Result<(), StorageError> {
        let entry = table.entry(id)?;
        match entry.place {
            Place::Copying => Err(wrong(id, "being made")),
            Place::Pending => Err(wrong(id, "not complete")),
            Place::Trees if entry.users > 0 => Err(StorageError::InUse { id: id.clone(), by: mounts(entry.users) }),
            Place::Trees => Ok(()),
        }
    }

    /// Copies `to` to `fresh`, brings it to the disk, and lets it and the tree of `id` change places in one step.
    fn fill_and_exchange(&self, id: &DeviceId, to: &DeviceId, origin: &User, fresh: &Path) -> Result<(), StorageError> {
        make_directory(fresh)?;
        let mapped = copy_tree(origin, &fresh.join(TREE))?;
        write_note_in(fresh, &Note { base: Some(to.clone()), mapped })?;
        let directory = File::open(fresh).map_err(|source| failed("open", fresh, source))?;
        rustix::fs::syncfs(&directory).map_err(|error| failed("sync", fresh, error.into()))?;
        let mut table = self.table();
        self.check_replaceable(&table, id)?;
        let tree = self.path(id, Place::Trees);
        rustix::fs::renameat_with(rustix::fs::CWD, fresh, rustix::fs::CWD, &tree, RenameFlags::EXCHANGE)
            .map_err(|error| failed("exchange", &tree, error.into()))?;
        let entry = Entry { place: Place::Trees, base: Some(to.clone()), mapped, users: 0 };
        table.devices.insert(id.clone(), entry);
        drop(table);
        for changed in [&tree, fresh].into_iter().filter_map(|path: &Path| path.parent()) {
            let synced = File::open(changed).and_then(|directory| directory.sync_all());
            synced.map_err(|source| failed("sync", changed, source))?;
        }
        Ok(())
    }

    /// Content to the disk, then one rename, then the rename to the disk.
    fn publish(&self, id: &DeviceId) -> Result<(), StorageError> {
        let (from, to) = (self.path(id, Place::Pending), self.path(id, Place::Trees));
        let directory = File::open(&from).map_err(|source| failed("open", &from, source))?;
        rustix::fs::syncfs(&directory).map_err(|error| failed("sync", &from, error.into()))?;
        let mut table = self.table();
        fs::rename(&from, &to).map_err(|source| failed("rename", &from, source))?;
        if let Some(entry) = table.devices.get_mut(id) {
            entry.place = Place::Trees;
        }
        drop(table);
        let trees = self.directory.join("trees");
        File::open(&trees).and_then(|trees| trees.sync_all()).map_err(|source| failed("sync", &trees, source))
    }

    /// Moves a device to the trash: its name is free. Deletes it when nobody uses it.
    fn discard(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        let trash = self.new_trash();
        let mut table = self.table();
        let Some(entry) = table.devices.get(id).cloned() else { return Ok(Removal::NotThere) };
        if entry.place == Place::Copying {
            return Err(wrong(id, "being made"));
        }
        let from = self.path(id, entry.place);
        fs::rename(&from, &trash).map_err(|source| failed("rename", &from, source))?;
        table.devices.remove(id);
        if entry.users > 0 {
            table.trash.insert(trash, entry.users);
            return Ok(Removal::Deferred);
        }
        drop(table);
        let parent = from.parent().expect("a device is in a directory of its place");
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|source| failed("sync", parent, source))?;
        remove_tree(&trash)?;
        Ok(Removal::Removed)
    }

    fn use_device(self: &Arc<Self>, id: &DeviceId, may: impl Fn(Place) -> bool) -> Result<User, StorageError> {
        let mut table = self.table();
        let entry = table.devices.get_mut(id).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))?;
        if !may(entry.place) {
            return Err(wrong(id, if entry.place == Place::Copying { "being made" } else { "not complete" }));
        }
        entry.users += 1;
        let path = self.path(id, entry.place);
        let directory = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match directory {
            Ok(directory) => Ok(User { shared: Arc::downgrade(self), directory: Some(directory.into()) }),
            Err(error) => {
                entry.users -= 1;
                Err(failed("open", &path, error.into()))
            }
        }
    }

    fn path(&self, id: &DeviceId, place: Place) -> PathBuf {
        let place = match place {
            Place::Copying | Place::Pending => "pending",
            Place::Trees => "trees",
        };
        self.directory.join(place).join(id.as_str())
    }

    /// One user less of the device that is at `path` now.
    fn release(&self, path: &Path) {
        let mut table = self.table();
        if let Some(users) = table.trash.get_mut(path) {
            *users -= 1;
            if *users == 0 {
                table.trash.remove(path);
                drop(table);
                if let Err(error) = remove_tree(path) {
                    tracing::debug!(%error, "cannot delete a removed device; the next start does it");
                }
            }
            return;
        }
        let id = path.file_name().and_then(OsStr::to_str).and_then(|name| DeviceId::parse(name).ok());
        if let Some(entry) = id.and_then(|id| table.devices.get_mut(&id)) {
            entry.users = entry.users.saturating_sub(1);
        }
    }
}

impl Table {
    fn entry(&self, id: &DeviceId) -> Result<&Entry, StorageError> {
        self.devices.get(id).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))
    }
}

impl Entry {
    fn info(&self, id: &DeviceId) -> DeviceInfo {
        DeviceInfo {
            id: id.clone(),
            thin_id: 0,
            base: self.base.clone(),
            size: Bytes(0),
            mapped: self.mapped,
            active: self.users > 0,
            state: if self.place == Place::Trees { DeviceState::Ready } else { DeviceState::Pending },
        }
    }
}

/// A user of a device: keeps it from being deleted.
#[derive(Debug)]
struct User {
    shared: Weak<Shared>,
    /// Follows the device when it is renamed.
    directory: Option<File>,
}

impl User {
    /// Where the device is now.
    fn path(&self) -> Result<PathBuf, StorageError> {
        use std::os::fd::AsRawFd;
        let fd = self.directory.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let link = PathBuf::from(format!("/proc/self/fd/{fd}"));
        fs::read_link(&link).map_err(|source| failed("follow", &link, source))
    }
}

/// A user that somebody mounted the device for.
#[derive(Debug)]
struct CopyLease {
    _user: User,
    _taken: Taken,
}

impl Lease for CopyLease {}

impl Drop for User {
    fn drop(&mut self) {
        let path = self.path();
        self.directory.take();
        match (self.shared.upgrade(), path) {
            (Some(shared), Ok(path)) => shared.release(&path),
            (Some(_), Err(error)) => tracing::debug!(%error, "cannot find a device that is given back"),
            (None, _) => {}
        }
    }
}

const NOTE: &str = "holm.note";

/// From the tree of a device, wherever that is moved meanwhile, to a new directory.
fn copy_tree(source: &User, to: &Path) -> Result<Bytes, StorageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = source.directory.as_ref().expect("a user has its directory until it is dropped");
    let from =
        rustix::fs::openat(from, TREE, flags, Mode::empty()).map_err(|error| failed("open", to, error.into()))?;
    make_directory(to)?;
    let target = File::open(to).map_err(|source| failed("open", to, source))?;
    tree::copy(from.as_fd(), target.as_fd()).map_err(|CopyError { op, path, source }| failed(op, &path, source))
}

fn make_directory(path: &Path) -> Result<(), StorageError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| failed("make", path, source)),
    }
}

fn remove_tree(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| failed("remove", path, source)),
    }
}

fn write_note_in(device: &Path, note: &Note) -> Result<(), StorageError> {
    let path = device.join(NOTE);
    let text = serde_json::to_vec(note).expect("a note is plain data");
    fs::write(&path, text).map_err(|source| failed("write", &path, source))
}

fn mounts(count: usize) -> String {
    format!("{count} mounts of this daemon")
}

fn wrong(id: &DeviceId, state: &'static str) -> StorageError {
    StorageError::WrongState { id: id.clone(), state }
}

fn failed(op: &'static str, path: &Path, source: io::Error) -> StorageError {
    StorageError::Io { op, path: path.to_owned(), source }
}
