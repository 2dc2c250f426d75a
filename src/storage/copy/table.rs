//! The devices as this process knows them, and their directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rustix::fs::{Mode, OFlags, RenameFlags};

use super::lease::User;
use super::note::{Note, write_note};
use super::tree::{self, CopyError};
use super::{failed, in_use, lock, make_directory, mounts, remove_tree, users, wrong};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState};
use crate::storage::leases::Leases;
use crate::storage::{Removal, StorageError, TREE};
use crate::sys::mount::{self, Depth};

/// What the set shares with its users and its sweeper.
#[derive(Debug)]
pub(super) struct Shared {
    directory: PathBuf,
    table: Mutex<Table>,
    /// Who was given what in this process, for listings.
    pub(super) leases: Leases,
    /// Rung when there is something for the sweeper.
    pub(super) bell: Condvar,
    /// Held by whoever sweeps.
    pub(super) sweeping: Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) devices: BTreeMap<DeviceId, Entry>,
    /// Removed devices by their directories, with their users in this process.
    pub(super) trash: BTreeMap<PathBuf, usize>,
    /// Devices that other software activated.
    pub(super) held: BTreeMap<DeviceId, User>,
    /// Devices that somebody outside this process used when that was last looked at.
    pub(super) seen: BTreeSet<DeviceId>,
    /// The last name that was given in the trash.
    pub(super) serial: u64,
    /// Whether there is something in the trash that was not looked at.
    pub(super) fresh: bool,
    /// Whether the sweeper is to end.
    pub(super) closing: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) base: Option<DeviceId>,
    pub(super) mapped: Bytes,
    /// In this process.
    pub(super) users: usize,
    /// Whether its tree is being replaced: then it gets no new users.
    pub(super) replaced: bool,
}

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Being copied; nobody may use it.
    Copying,
    Pending,
    Trees,
}

impl Shared {
    /// Nothing yet, in a directory whose path is canonical.
    pub(super) fn new(directory: PathBuf) -> Self {
        let (table, leases, bell, sweeping) = Default::default();
        Self { directory, table, leases, bell, sweeping }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // Every change under this lock is one assignment, so the table is whole even after a panic.
        lock(&self.table)
    }

    /// Puts every complete device on the table. One whose note is damaged is a device all the same: a check tells.
    pub(super) fn load(&self) -> Result<(), StorageError> {
        let trees = self.directory.join("trees");
        for entry in fs::read_dir(&trees).map_err(|source| failed("list", &trees, source))? {
            let entry = entry.map_err(|source| failed("list", &trees, source))?;
            let Some(id) = entry.file_name().to_str().and_then(|name| DeviceId::parse(name).ok()) else { continue };
            let note = Note::read(&entry.path()).unwrap_or_else(|error| {
                tracing::warn!("{error}: run 'holmctl device check --repair'");
                Note::default()
            });
            self.table().devices.insert(id, Entry::new(Place::Trees, note));
        }
        Ok(())
    }

    /// Takes the name for a copy of `base`, which stays where it is while the guard lives.
    pub(super) fn reserve(self: &Arc<Self>, id: &DeviceId, base: &DeviceId) -> Result<User, StorageError> {
        if self.table().devices.contains_key(id) {
            return Err(StorageError::DeviceExists(id.clone()));
        }
        let user = self.use_device(base, |place| place == Place::Trees)?;
        let note = Note { base: Some(base.clone()), mapped: Bytes(0) };
        match self.table().devices.entry(id.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(StorageError::DeviceExists(id.clone())),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry::new(Place::Copying, note));
                Ok(user)
            }
        }
    }

    /// Copies the tree, outside every lock: copies run side by side.
    pub(super) fn fill(
        &self,
        id: &DeviceId,
        base: &DeviceId,
        source: &User,
        pending: bool,
    ) -> Result<(), StorageError> {
        let to = self.path(id, Place::Pending);
        // Left by a copy that failed and could not be moved away then.
        remove_tree(&to)?;
        make_directory(&to)?;
        let mapped = copy_tree(source, &to.join(TREE))?;
        let note = Note { base: Some(base.clone()), mapped };
        write_note(&to, &note)?;
        let place = if pending { Place::Pending } else { Place::Copying };
        self.table().devices.insert(id.clone(), Entry::new(place, note));
        if pending { Ok(()) } else { self.publish(id) }
    }

    /// Takes a device that failed to be made off the table and out of the way.
    pub(super) fn give_up(&self, id: &DeviceId) {
        let Some(entry) = self.table().devices.remove(id) else { return };
        let (from, trash) = (self.path(id, entry.place), self.new_trash());
        match fs::rename(&from, &trash) {
            Ok(()) => self.throw_away(trash),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("cannot remove {}: {error}; the next start of holmd does it", from.display()),
        }
    }

    /// Content to the disk, then one rename, then the rename to the disk.
    pub(super) fn publish(&self, id: &DeviceId) -> Result<(), StorageError> {
        let (from, to) = (self.path(id, Place::Pending), self.path(id, Place::Trees));
        sync_content(&from)?;
        let mut table = self.table();
        fs::rename(&from, &to).map_err(|source| failed("rename", &from, source))?;
        if let Some(entry) = table.devices.get_mut(id) {
            entry.place = Place::Trees;
        }
        drop(table);
        sync_directory(&self.directory.join("trees"))
    }

    /// Keeps everybody from beginning to use a device that nobody uses, until the guard is dropped.
    pub(super) fn close_off(&self, id: &DeviceId) -> Result<ClosedOff<'_>, StorageError> {
        let mut table = self.table();
        let entry = table.devices.get_mut(id).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))?;
        match entry.place {
            Place::Copying => return Err(wrong(id, "being made")),
            Place::Pending => return Err(wrong(id, "not complete")),
            Place::Trees if entry.replaced => return Err(wrong(id, REPLACED)),
            Place::Trees if entry.users > 0 => return Err(in_use(id, mounts(entry.users))),
            Place::Trees => entry.replaced = true,
        }
        drop(table);
        let closed = ClosedOff { shared: self, id: id.clone() };
        self.check_unused_outside(id)?;
        Ok(closed)
    }

    /// Copies `to` to `fresh`, brings it to the disk, and lets it and the tree of `id` change places in one step.
    pub(super) fn fill_and_exchange(
        &self,
        id: &DeviceId,
        to: &DeviceId,
        origin: &User,
        fresh: &Path,
    ) -> Result<(), StorageError> {
        make_directory(fresh)?;
        let mapped = copy_tree(origin, &fresh.join(TREE))?;
        let note = Note { base: Some(to.clone()), mapped };
        write_note(fresh, &note)?;
        sync_content(fresh)?;
        let mut table = self.table();
        let tree = self.path(id, Place::Trees);
        rustix::fs::renameat_with(rustix::fs::CWD, fresh, rustix::fs::CWD, &tree, RenameFlags::EXCHANGE)
            .map_err(|error| failed("exchange", &tree, error.into()))?;
        // Its guard opens it again.
        let entry = Entry { replaced: true, ..Entry::new(Place::Trees, note) };
        table.devices.insert(id.clone(), entry);
        drop(table);
        sync_directory(&self.directory.join("trees"))?;
        sync_directory(&self.directory.join("trash"))
    }

    /// Moves a device to the trash: its name is free.
    pub(super) fn discard(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        let trash = self.new_trash();
        let mut table = self.table();
        let Some(entry) = table.devices.get(id).cloned() else { return Ok(Removal::NotThere) };
        if entry.place == Place::Copying || entry.replaced {
            return Err(wrong(id, if entry.replaced { REPLACED } else { "being made" }));
        }
        let from = self.path(id, entry.place);
        fs::rename(&from, &trash).map_err(|source| failed("rename", &from, source))?;
        table.devices.remove(id);
        table.seen.remove(id);
        table.trash.insert(trash, entry.users);
        table.fresh = true;
        drop(table);
        self.bell.notify_all();
        sync_directory(from.parent().expect("a device is in a directory of its place"))?;
        sync_directory(&self.directory.join("trash"))?;
        Ok(Removal::Deferred)
    }

    /// One more user in this process, of a device whose place is right.
    pub(super) fn use_device(
        self: &Arc<Self>,
        id: &DeviceId,
        may: impl Fn(Place) -> bool,
    ) -> Result<User, StorageError> {
        let mut table = self.table();
        let entry = table.devices.get_mut(id).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))?;
        if !may(entry.place) {
            return Err(wrong(id, if entry.place == Place::Copying { "being made" } else { "not complete" }));
        }
        if entry.replaced {
            return Err(wrong(id, REPLACED));
        }
        let path = self.path(id, entry.place);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty());
        let directory = directory.map_err(|error| failed("open", &path, error.into()))?;
        entry.users += 1;
        Ok(User::new(Arc::downgrade(self), directory.into()))
    }

    /// One user less of the device that is at `path` now.
    pub(super) fn release(&self, path: &Path) {
        let mut table = self.table();
        if let Some(users) = table.trash.get_mut(path) {
            *users -= 1;
            table.fresh = true;
            drop(table);
            self.bell.notify_all();
            return;
        }
        let id = path.file_name().and_then(OsStr::to_str).and_then(|name| DeviceId::parse(name).ok());
        if let Some(entry) = id.and_then(|id| table.devices.get_mut(&id)) {
            entry.users = entry.users.saturating_sub(1);
        }
    }

    /// InUse, naming who, when somebody outside this process uses a device.
    pub(super) fn check_unused_outside(&self, id: &DeviceId) -> Result<(), StorageError> {
        let place = self.table().entry(id)?.place;
        let path = self.path(id, place);
        let tree = path.strip_prefix(&self.directory).expect("every device is in the directory");
        match self.users()?.remove(tree) {
            Some(users) => Err(in_use(id, users.join(", "))),
            None => Ok(()),
        }
    }

    /// Looks anew who uses what outside this process.
    pub(super) fn look(&self) -> Result<(), StorageError> {
        let users = self.users()?;
        let mut table = self.table();
        let used = |(id, entry): (&DeviceId, &Entry)| {
            let path = self.path(id, entry.place);
            path.strip_prefix(&self.directory).is_ok_and(|tree| users.contains_key(tree)).then(|| id.clone())
        };
        table.seen = table.devices.iter().filter_map(used).collect();
        Ok(())
    }

    fn users(&self) -> Result<users::Users, StorageError> {
        users::of_trees_in(&self.directory).map_err(|source| failed("look who uses", &self.directory, source))
    }

    pub(super) fn path(&self, id: &DeviceId, place: Place) -> PathBuf {
        let place = match place {
            Place::Copying | Place::Pending => "pending",
            Place::Trees => "trees",
        };
        self.directory.join(place).join(id.as_str())
    }
}

/// While this lives, nobody begins to use the device.
#[derive(Debug)]
pub(super) struct ClosedOff<'a> {
    shared: &'a Shared,
    id: DeviceId,
}

impl Drop for ClosedOff<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.shared.table().devices.get_mut(&self.id) {
            entry.replaced = false;
        }
    }
}

impl Table {
    pub(super) fn entry(&self, id: &DeviceId) -> Result<&Entry, StorageError> {
        self.devices.get(id).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))
    }

    pub(super) fn info(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError> {
        let entry = self.entry(id)?;
        Ok(DeviceInfo {
            id: id.clone(),
            thin_id: 0,
            base: entry.base.clone(),
            size: Bytes(0),
            mapped: entry.mapped,
            active: self.is_active(id),
            state: if entry.place == Place::Trees { DeviceState::Ready } else { DeviceState::Pending },
        })
    }

    /// Whether somebody uses a device, or did when that was last looked at.
    pub(super) fn is_active(&self, id: &DeviceId) -> bool {
        self.seen.contains(id) || self.devices.get(id).is_some_and(|entry| entry.users > 0)
    }

    /// What is in the trash and has no user in this process.
    pub(super) fn idle_trash(&self) -> Vec<PathBuf> {
        self.trash.iter().filter(|(_, users)| **users == 0).map(|(path, _)| path.clone()).collect()
    }
}

impl Entry {
    pub(super) fn new(place: Place, note: Note) -> Self {
        Self { place, base: note.base, mapped: note.mapped, users: 0, replaced: false }
    }
}

const REPLACED: &str = "being brought back to a snapshot";

/// From the tree of a device, wherever that is moved meanwhile, to a new directory. What is mounted in it stays behind.
fn copy_tree(source: &User, to: &Path) -> Result<Bytes, StorageError> {
    let from = open_tree(source)?;
    make_directory(to)?;
    let target = File::open(to).map_err(|source| failed("open", to, source))?;
    tree::copy(from.as_fd(), target.as_fd()).map_err(|CopyError { op, path, source }| failed(op, &path, source))
}

/// The tree of a device for reading, on a mount of its own, in which nothing else is mounted.
pub(super) fn open_tree(user: &User) -> Result<File, StorageError> {
    let failed = |error: std::io::Error| match user.path() {
        Ok(path) => failed("open the tree of", &path, error),
        Err(error) => error,
    };
    let mount = mount::copy(user.directory().as_fd(), Depth::One).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = rustix::fs::openat(mount, TREE, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    Ok(tree.into())
}

/// Brings everything of the file system that a directory is on to the disk.
fn sync_content(path: &Path) -> Result<(), StorageError> {
    let directory = File::open(path).map_err(|source| failed("open", path, source))?;
    rustix::fs::syncfs(&directory).map_err(|error| failed("sync", path, error.into()))
}

/// Brings the names in a directory to the disk.
pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|source| failed("sync", path, source))
}
