//! Driver `copy`: every device is a directory, and a snapshot is a copy of the whole tree. For hosts without
//! device-mapper; quick where the file system shares extents (btrfs, xfs).
//!
//! ```text
//! <directory>/trees/<id>/rootfs    complete
//! <directory>/pending/<id>/rootfs  being filled; removed at the next start
//! <directory>/trash/<n>            removed; deleted when its last user is gone
//! ```
//!
//! A device is complete exactly when it is in `trees`: it comes there by one rename, after its content is on the disk.
//! There are no quotas. Who uses a tree is counted in this process and looked up in the kernel for all others (decision
//! 0040), so nothing is deleted under somebody whom an earlier daemon gave it to.
//!
//! | file | what |
//! |---|---|
//! | this one | the calls of the set |
//! | `table.rs` | the devices and their directories |
//! | `lease.rs` | users in this process |
//! | `users.rs` | users anywhere, as the kernel tells |
//! | `trash.rs` | deletes what is removed |
//! | `note.rs` | what is known of a device besides its tree |
//! | `room.rs` | the file system's room |
//! | `check.rs` | whether the directories are as they should be |
//! | `tree.rs` | copies a tree |
//! | `file.rs` | copies what is in one file |
//! | `measure.rs` | how much a tree takes |

mod check;
mod file;
mod lease;
mod measure;
mod note;
mod room;
mod table;
mod trash;
mod tree;
mod users;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, Mode};

use self::lease::CopyLease;
use self::note::{Note, write_note};
use self::room::Room;
use self::table::{Entry, Place, Shared, open_tree};
use self::trash::Sweeper;
use super::{
    Access, AddOptions, Added, BASE, DeviceGrowth, DeviceSet, LeaseInfo, MountedDevice, PressureListener, Removal,
    Report, StorageError, TREE, Trimmed, lock_directory,
};
use crate::model::{Bytes, DeviceId, DeviceInfo, Driver, PoolStatus};
use crate::sys::mount::{self, Attributes, Depth};

/// The driver.
#[derive(Debug)]
pub struct CopyDeviceSet {
    shared: Arc<Shared>,
    /// Whether copies share their content on the disk.
    shares: bool,
    /// Ended before the lock is given back.
    _sweeper: Sweeper,
    _lock: Lock,
}

/// Keeps other daemons out of the directory.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being spawned may have a copy of the descriptor.
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::debug!(%error, "cannot unlock the directory, ignoring");
        }
    }
}

impl CopyDeviceSet {
    /// Opens the set in `directory`, making it on first use. What was pending or removed is deleted as soon as nobody uses
    /// it.
    pub fn open(directory: &Path) -> Result<Arc<Self>, StorageError> {
        let lock = Lock(lock_directory(directory)?);
        let directory = fs::canonicalize(directory).map_err(|source| failed("find", directory, source))?;
        for place in ["pending", "trash", "trees"] {
            make_directory(&directory.join(place))?;
        }
        let shares = room::shares_extents(&directory)?;
        let shared = Arc::new(Shared::new(directory));
        shared.collect_trash()?;
        shared.load()?;
        ensure_base(&shared)?;
        let sweeper = Sweeper::start(&shared)?;
        Ok(Arc::new(Self { shared, shares, _sweeper: sweeper, _lock: lock }))
    }
}

fn ensure_base(shared: &Shared) -> Result<(), StorageError> {
    let id = DeviceId::parse(BASE).expect("the base has a valid id");
    if shared.table().devices.contains_key(&id) {
        return Ok(());
    }
    shared.table().devices.insert(id.clone(), Entry::new(Place::Copying, Note::default()));
    let path = shared.path(&id, Place::Pending);
    make_directory(&path)?;
    let tree = path.join(TREE);
    make_directory(&tree)?;
    rustix::fs::chmod(&tree, Mode::from_raw_mode(0o755)).map_err(|error| failed("make", &tree, error.into()))?;
    write_note(&path, &Note::default())?;
    shared.publish(&id)
}

impl DeviceSet for CopyDeviceSet {
    fn driver(&self) -> Driver {
        Driver::Copy
    }

    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError> {
        if options.size.is_some() {
            return Err(no_sizes());
        }
        Room::of(self.shared.directory())?.admit()?;
        let user = self.shared.reserve(id, base)?;
        let result = self.shared.fill(id, base, &user, options.pending);
        drop(user);
        match result {
            // A base in use is not held still: see the trait.
            Ok(()) => Ok(Added::default()),
            Err(error) => {
                self.shared.give_up(id);
                Err(self.or_full(error))
            }
        }
    }

    fn resize_device(&self, id: &DeviceId, _size: Bytes) -> Result<DeviceInfo, StorageError> {
        self.shared.table().entry(id)?;
        Err(no_sizes())
    }

    fn rollback_device(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError> {
        if id.as_str() == BASE {
            return Err(in_use(id, "every other device descends from it".to_owned()));
        }
        let _closed = self.shared.close_off(id)?;
        let origin = self.shared.use_device(to, |place| place == Place::Trees)?;
        Room::of(self.shared.directory())?.admit()?;
        let fresh = self.shared.new_trash();
        let replaced = self.shared.fill_and_exchange(id, to, &origin, &fresh);
        // What was copied and is not wanted, or the former tree.
        self.shared.throw_away(fresh);
        replaced.map_err(|error| self.or_full(error))
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
        let check = || {
            let table = self.shared.table();
            let users = table.entry(id)?.users;
            let own = usize::from(table.held.contains_key(id));
            if users > own { Err(in_use(id, mounts(users - own))) } else { Ok(()) }
        };
        check()?;
        self.shared.check_unused_outside(id)?;
        // Dropped outside the lock, which giving back takes.
        let held = self.shared.table().held.remove(id);
        drop(held);
        Ok(())
    }

    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        let ids: Vec<DeviceId> = self.shared.table().devices.keys().cloned().collect();
        let mut exclusive = BTreeMap::new();
        for id in ids {
            let user = match self.shared.use_device(&id, |place| place != Place::Copying) {
                // Gone meanwhile, or not there yet.
                Err(StorageError::NoSuchDevice(_) | StorageError::WrongState { .. }) => continue,
                user => user?,
            };
            let bytes = measure::tree(open_tree(&user)?.as_fd());
            let bytes = bytes.map_err(|source| failed("measure", &self.shared.path(&id, Place::Trees), source))?;
            if let Some(entry) = self.shared.table().devices.get_mut(&id) {
                entry.mapped = bytes;
            }
            exclusive.insert(id, bytes);
        }
        Ok(exclusive)
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
            return Err(in_use(id, "every other device descends from it".to_owned()));
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
            // What is mounted in it stays there, also where the host's mounts are shared.
            .and_then(|mount| mount::make_private(mount.as_fd()).map(|()| mount))
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
        self.shared.look()?;
        let table = self.shared.table();
        table.devices.keys().map(|id| table.info(id)).collect()
    }

    fn device(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError> {
        self.shared.table().info(id)
    }

    fn status(&self) -> Result<PoolStatus, StorageError> {
        let room = Room::of(self.shared.directory())?;
        self.shared.look()?;
        let table = self.shared.table();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(PoolStatus {
            pool: self.shared.directory().display().to_string(),
            state: room.state(),
            data_used: Bytes(room.total.0 - room.free.0),
            data_total: room.total,
            metadata_used: Bytes(0),
            metadata_total: Bytes(0),
            block_size: room.block,
            transaction_id: 0,
            devices: count(table.devices.len()),
            active: count(table.devices.keys().filter(|id| table.is_active(id)).count()),
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

    fn check(&self) -> Result<Report, StorageError> {
        Ok(self.shared.check())
    }

    fn repair(&self) -> Result<Report, StorageError> {
        self.shared.repair()
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

    fn backing(&self) -> Result<PathBuf, StorageError> {
        Ok(self.shared.directory().to_owned())
    }

    fn warnings(&self) -> Vec<String> {
        if self.shares {
            return Vec::new();
        }
        let directory = self.shared.directory().display();
        vec![format!(
            "the file system of {directory} cannot share content between files: every layer, container and snapshot is a \
             whole copy; btrfs and XFS can, and driver 'thin' does not need it"
        )]
    }

    fn close(&self) -> Result<(), StorageError> {
        self.shared.sweep();
        Ok(())
    }
}

impl CopyDeviceSet {
    /// A copy that ended for want of room says so.
    fn or_full(&self, error: StorageError) -> StorageError {
        match &error {
            StorageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Room::of(self.shared.directory()).map_or(error, |room| room.full())
            }
            _ => error,
        }
    }
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

fn mounts(count: usize) -> String {
    format!("{count} mounts of this daemon")
}

fn no_sizes() -> StorageError {
    let advice = "driver 'copy' has no quotas: leave the size out, or use driver 'thin'".to_owned();
    StorageError::NotSupported { what: "a size of a device", advice }
}

fn in_use(id: &DeviceId, by: String) -> StorageError {
    StorageError::InUse { id: id.clone(), by }
}

fn wrong(id: &DeviceId, state: &'static str) -> StorageError {
    StorageError::WrongState { id: id.clone(), state }
}

fn failed(op: &'static str, path: &Path, source: io::Error) -> StorageError {
    StorageError::Io { op, path: path.to_owned(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
