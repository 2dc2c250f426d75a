//! The backend on a real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use devicemapper::{DM, DevId, Device, DeviceInfo, DmError, DmFlags, DmName, DmOptions, DmUuid, errors};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backend::{Files, Host, Node, Nodes, Numbers, Part, Pool, Spec};
use super::core::lock;
use super::metadata::{self, Listing, MetadataError, Superblock};
use super::names::Names;
use super::store::Parts;
use super::{backup, ext4, growth, mappings, users, xfs};
use crate::model::{Bytes, FileSystem};
use crate::storage::{Access, StorageError};
use crate::sys::fsmount::{self, Writable};
use crate::sys::uevent::Uevents;
use crate::sys::{block, dm, fstrim};

/// An active pool.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) control: Control,
    pub(super) names: Names,
    /// Name of the pool's node.
    pub(super) pool: String,
    /// `major:minor` of the pool.
    pub(super) device: String,
    /// The file that holds the metadata. Reads of it see what the kernel last wrote: its loop device goes through the
    /// page cache, as these reads do.
    pub(super) metadata: (PathBuf, File),
    pub(super) block_size: Bytes,
    /// What it lies on.
    pub(super) parts: Parts,
    /// What a new base gets.
    pub(super) file_system: FileSystem,
    /// Read by whoever needs the pool running for a moment, written while it is stopped to be made larger: no device
    /// can be activated then (thin_ctr in dm-thin.c answers EINVAL).
    pub(super) running: RwLock<()>,
    /// Locked while a snapshot of the metadata is held for us: there can be only one.
    pub(super) held: Mutex<()>,
}

/// `/dev/mapper/control`.
pub(super) struct Control(DM);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Kernel {
    /// Bytes in a pool block.
    pub(super) fn block_size(&self) -> Bytes {
        self.block_size
    }

    fn message(&self, text: &str) -> io::Result<()> {
        let _running = self.running.read();
        self.control.message(&self.pool, text)
    }

    /// Reads metadata that does not change meanwhile.
    fn at_one_moment<T>(&self, read: impl FnOnce(&Superblock) -> Result<T, MetadataError>) -> Result<T, StorageError> {
        let file = &self.metadata.1;
        let _alone = lock(&self.held);
        let held = match HeldMetadata::reserve(self) {
            Ok(held) => Some(held),
            // A read-only pool reserves nothing, but does not change either.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
            Err(source) => return Err(self.failed("reserve the metadata of", source)),
        };
        let root = Superblock::read(file, 0).map(|superblock| held.as_ref().map_or(0, |_| superblock.held_root));
        let found = root.and_then(|root| read(&Superblock::read(file, root)?));
        drop(held);
        found.map_err(|error| self.unreadable(&error))
    }

    fn failed(&self, op: &'static str, source: io::Error) -> StorageError {
        StorageError::DeviceMapper { op, device: self.pool.clone(), source }
    }

    fn unreadable(&self, error: &MetadataError) -> StorageError {
        StorageError::Damaged { path: self.metadata.0.clone(), reason: error.to_string() }
    }
}

impl Control {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        DM::new().map(Self).map_err(os_error)
    }

    /// The targets that the kernel has now.
    pub(super) fn has_target(&self, name: &str) -> io::Result<bool> {
        Ok(self.0.list_versions().map_err(os_error)?.iter().any(|(target, ..)| target == name))
    }

    /// Makes a node with a table of one target and lets it run. Nothing is left after an error.
    pub(super) fn create(&self, name: &str, uuid: &str, sectors: u64, target: (&str, &str)) -> io::Result<DeviceInfo> {
        self.create_from(name, uuid, &[(0, sectors, target.0.to_owned(), target.1.to_owned())])
    }

    /// As [`create`](Self::create), with a table of several targets: first sector, sectors, type, parameters.
    pub(super) fn create_from(
        &self,
        name: &str,
        uuid: &str,
        table: &[(u64, u64, String, String)],
    ) -> io::Result<DeviceInfo> {
        let options = DmOptions::default();
        let uuid = DmUuid::new(uuid).map_err(os_error)?;
        let info = self.0.device_create(dm_name(name)?, Some(uuid), options).map_err(os_error)?;
        let loaded = self.0.table_load(&DevId::Name(dm_name(name)?), table, options).map_err(os_error);
        if let Err(error) = loaded.and_then(|_| dm::resume(self.0.file(), name)) {
            if let Err(error) = dm::remove(self.0.file(), name, dm::Remove::AtLastClose) {
                tracing::debug!(%error, name, "cannot remove a device that could not be activated");
            }
            return Err(error);
        }
        Ok(info)
    }

    /// Puts another table of one target in the place of the live one. I/O that waits goes to the new one.
    pub(super) fn replace(&self, name: &str, sectors: u64, target: (&str, &str)) -> io::Result<()> {
        self.replace_with(name, &[(0, sectors, target.0.to_owned(), target.1.to_owned())])
    }

    /// As [`replace`](Self::replace), with a table of several targets.
    pub(super) fn replace_with(&self, name: &str, table: &[(u64, u64, String, String)]) -> io::Result<()> {
        self.0.table_load(&DevId::Name(dm_name(name)?), table, DmOptions::default()).map_err(os_error)?;
        // It may have been stopped with the old table or the new one: running is better in either case.
        dm::replace_table(self.0.file(), name).inspect_err(|_| drop(dm::resume(self.0.file(), name)))
    }

    /// From now on a poll of this descriptor says that some device of the host has news. Linux `drivers/md/dm-ioctl.c`:
    /// each open file has its own number of the last event that it saw.
    pub(super) fn arm(&self) -> io::Result<BorrowedFd<'_>> {
        self.0.arm_poll().map_err(os_error)?;
        Ok(self.0.file().as_fd())
    }

    /// What the kernel says of a node.
    pub(super) fn info(&self, name: &str) -> io::Result<Option<DeviceInfo>> {
        match self.0.device_info(&DevId::Name(dm_name(name)?)).map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The live table of a node of one target: its type and parameters.
    pub(super) fn table(&self, name: &str) -> io::Result<Option<(String, String)>> {
        self.line(name, DmFlags::DM_STATUS_TABLE)
    }

    /// The status of a node of one target, as it is without waiting for the disk: its type and what that says.
    pub(super) fn status(&self, name: &str) -> io::Result<Option<(String, String)>> {
        self.line(name, DmFlags::DM_NOFLUSH)
    }

    /// Sectors of a node of one target.
    pub(super) fn sectors(&self, name: &str) -> io::Result<u64> {
        let options = DmOptions::default().set_flags(DmFlags::DM_STATUS_TABLE);
        let (_, lines) = self.0.table_status(&DevId::Name(dm_name(name)?), options).map_err(os_error)?;
        Ok(lines.first().map_or(0, |(_, sectors, ..)| *sectors))
    }

    fn line(&self, name: &str, flags: DmFlags) -> io::Result<Option<(String, String)>> {
        let options = DmOptions::default().set_flags(flags);
        let (_, lines) = self.0.table_status(&DevId::Name(dm_name(name)?), options).map_err(os_error)?;
        Ok(lines.into_iter().next().map(|(_, _, target, params)| (target, params)))
    }

    /// Sends a message to a node.
    pub(super) fn message(&self, name: &str, text: &str) -> io::Result<()> {
        self.0.target_msg(&DevId::Name(dm_name(name)?), None, text).map(drop).map_err(os_error)
    }

    /// Lets a node run.
    pub(super) fn resume(&self, name: &str) -> io::Result<()> {
        dm::resume(self.0.file(), name)
    }

    /// Removes a node, at last close if it is open.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        dm::remove(self.0.file(), name, dm::Remove::AtLastClose)
    }

    /// Takes a wish to remove at last close back.
    pub(super) fn keep(&self, name: &str) -> io::Result<()> {
        self.message(name, "@cancel_deferred_remove")
    }
}

impl Pool for Kernel {
    fn create_thin(&self, thin: u32) -> io::Result<()> {
        self.message(&format!("create_thin {thin}"))
    }

    fn create_snap(&self, thin: u32, origin: u32) -> io::Result<()> {
        self.message(&format!("create_snap {thin} {origin}"))
    }

    fn delete(&self, thin: u32) -> io::Result<()> {
        self.message(&format!("delete {thin}"))
    }

    fn set_transaction_id(&self, from: u64, to: u64) -> io::Result<()> {
        self.message(&format!("set_transaction_id {from} {to}"))
    }

    fn numbers(&self) -> io::Result<Numbers> {
        let (_, line) = self.control.status(&self.pool)?.ok_or(io::ErrorKind::NotFound)?;
        Numbers::parse(&line).ok_or_else(|| io::Error::other(format!("the status '{line}' is not understood")))
    }

    fn listing(&self) -> Result<Listing, StorageError> {
        self.at_one_moment(|superblock| superblock.devices(&self.metadata.1))
    }

    fn exclusive(&self) -> Result<BTreeMap<u32, u64>, StorageError> {
        let numbers = self.numbers().map_err(|source| self.failed("ask the status of", source))?;
        self.at_one_moment(|superblock| mappings::exclusive(&self.metadata.1, superblock, numbers.data.1))
    }

    fn back_up(&self, directory: &Path) -> Result<bool, StorageError> {
        let device = &self.metadata.0;
        let written = self.at_one_moment(|superblock| {
            // Without a snapshot of it the program would read what changes under it.
            let held = superblock.is_held();
            if held { Ok(backup::write(device, directory, SystemTime::now())?) } else { Ok(false) }
        });
        written.map_err(|error| match error {
            StorageError::Damaged { reason, .. } => StorageError::Program { program: "thin_dump", message: reason },
            other => other,
        })
    }

    fn glance(&self) -> Result<Listing, StorageError> {
        metadata::committed(&self.metadata.1).map_err(|error| self.unreadable(&error))
    }

    fn extend(&self, part: Part, to: Bytes) -> io::Result<()> {
        let _stopped = self.running.write();
        growth::extend(self, part, to)
    }

    fn host(&self, part: Part) -> io::Result<Host> {
        growth::host(self, part)
    }

    fn reserve(&self) -> io::Result<()> {
        match &self.parts {
            Parts::Files { data } => growth::reserve(data),
            Parts::Pair { .. } | Parts::Split(_) | Parts::Given => Ok(()),
        }
    }

    fn dirty(&self) -> Bytes {
        growth::dirty()
    }

    fn backing(&self) -> io::Result<PathBuf> {
        let missing = || io::Error::from_raw_os_error(libc::ENXIO);
        let (_, params) = self.control.table(&self.pool)?.ok_or_else(missing)?;
        // Metadata comes first.
        block::node(params.split(' ').nth(1).ok_or_else(missing)?)
    }

    fn warnings(&self) -> Vec<String> {
        growth::warnings()
    }

    fn deactivate(&self) -> io::Result<bool> {
        if matches!(self.parts, Parts::Given) {
            return Ok(false);
        }
        self.control.remove(&self.pool).map(|()| true)
    }
}

/// A snapshot of the metadata that the kernel keeps; there can be only one.
struct HeldMetadata<'a>(&'a Kernel);

impl<'a> HeldMetadata<'a> {
    fn reserve(kernel: &'a Kernel) -> io::Result<Self> {
        match kernel.message("reserve_metadata_snap") {
            // A daemon that was killed left its own behind.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                kernel.message("release_metadata_snap")?;
                kernel.message("reserve_metadata_snap")?;
            }
            other => other?,
        }
        Ok(Self(kernel))
    }
}

impl Drop for HeldMetadata<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.message("release_metadata_snap") {
            tracing::debug!(%error, "cannot release the metadata; the next start does it");
        }
    }
}

impl Nodes for Kernel {
    fn node(&self, name: &str) -> io::Result<Option<Node>> {
        Ok(self.control.info(name)?.map(|info| node(name, &info)))
    }

    fn activate(&self, spec: &Spec<'_>) -> io::Result<Node> {
        let params = format!("{} {}", self.device, spec.thin);
        let _running = self.running.read();
        self.control.create(spec.name, spec.uuid, spec.size.sectors(), ("thin", &params))?;
        self.node(spec.name)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENXIO))
    }

    fn size(&self, name: &str) -> io::Result<Bytes> {
        self.control.sectors(name).map(|sectors| Bytes(sectors * 512))
    }

    fn enlarge(&self, spec: &Spec<'_>) -> io::Result<()> {
        let params = format!("{} {}", self.device, spec.thin);
        let _running = self.running.read();
        self.control.replace(spec.name, spec.size.sectors(), ("thin", &params))
    }

    fn users(&self, node: &Node) -> Vec<String> {
        users::of(node.minor)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.control.remove(name)
    }

    fn keep(&self, name: &str) -> io::Result<()> {
        self.control.keep(name)
    }

    fn suspend(&self, name: &str) -> io::Result<()> {
        dm::suspend(self.control.0.file(), name)
    }

    fn resume(&self, name: &str) -> io::Result<()> {
        self.control.resume(name)
    }

    fn cut_off(&self, name: &str, size: Bytes) -> io::Result<()> {
        self.control.replace(name, size.sectors(), ("error", ""))
    }

    fn ours(&self) -> io::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for name in self.names()? {
            nodes.extend(self.node(&name)?.filter(|node| self.names.owns(&node.uuid)));
        }
        Ok(nodes)
    }

    fn names(&self) -> io::Result<BTreeSet<String>> {
        let prefix = self.names.name_prefix();
        let listed = self.control.0.list_devices().map_err(os_error)?;
        Ok(listed.iter().map(|(name, ..)| name.to_string()).filter(|name| name.starts_with(&prefix)).collect())
    }

    fn wait_gone(&self, name: &str, limit: Duration) -> io::Result<bool> {
        let until = Instant::now() + limit;
        // Before the first look, so that nothing is missed.
        let events = Uevents::open()?;
        loop {
            if self.node(name)?.is_none() && !lingers(name) {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&timeout))?;
            while matches!(events.next(), Ok(Some(_))) {}
        }
    }
}

/// Whether a node that has lost its name already may still hold its table: that is dropped before the block device
/// goes. A device on its way no longer tells its name (EINVAL), so each of those may be the one.
fn lingers(name: &str) -> bool {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks.filter(|disk| disk.file_name().as_encoded_bytes().starts_with(b"dm-")).any(|disk| {
        match fs::read_to_string(disk.path().join("dm/name")) {
            Ok(found) => found.trim_end() == name,
            Err(error) => error.raw_os_error() == Some(libc::EINVAL),
        }
    })
}

fn node(name: &str, info: &DeviceInfo) -> Node {
    let flags = info.flags();
    Node {
        name: name.to_owned(),
        uuid: info.uuid().map(ToString::to_string).unwrap_or_default(),
        minor: info.device().minor,
        live: flags.contains(DmFlags::DM_ACTIVE_PRESENT),
        leaving: flags.contains(DmFlags::DM_DEFERRED_REMOVE),
        suspended: flags.contains(DmFlags::DM_SUSPEND),
        users: u32::try_from(info.open_count()).unwrap_or(0),
    }
}

impl Files for Kernel {
    fn format(&self, node: &Node) -> Result<(), StorageError> {
        match self.file_system {
            FileSystem::Ext4 => ext4::format(&path_of(node)),
            FileSystem::Xfs => xfs::format(&path_of(node)),
        }
    }

    fn mount(&self, node: &Node, access: Access) -> io::Result<OwnedFd> {
        let mount = |writable| {
            self.of_either(|file_system| match file_system {
                FileSystem::Ext4 => fsmount::detached("ext4", &path_of(node), &[("errors", "remount-ro")], writable),
                FileSystem::Xfs => fsmount::detached("xfs", &path_of(node), &[("nouuid", "")], writable),
            })
        };
        match access {
            Access::ReadWrite => mount(Writable::Yes),
            Access::ReadOnly => match mount(Writable::No) {
                // Somebody has it mounted for writing: share that.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => mount(Writable::NotThroughThisMount),
                other => other,
            },
        }
    }

    fn read_at(&self, node: &Node, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(path_of(node))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write_at(&self, node: &Node, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = File::options().write(true).open(path_of(node))?;
        file.write_all_at(bytes, offset)?;
        file.sync_all()
    }

    fn peek(&self, node: &Node) -> io::Result<OwnedFd> {
        let quiet = |file_system| match file_system {
            FileSystem::Ext4 => fsmount::detached("ext4", &path_of(node), &[("noload", "")], Writable::No),
            FileSystem::Xfs => {
                fsmount::detached("xfs", &path_of(node), &[("norecovery", ""), ("nouuid", "")], Writable::No)
            }
        };
        match self.of_either(quiet) {
            // Somebody has it mounted: then its journal was replayed.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => self.mount(node, Access::ReadOnly),
            other => other,
        }
    }

    fn fill(&self, node: &Node, head: &[u8], size: Bytes) -> io::Result<()> {
        let mut file = File::options().write(true).open(format!("/dev/dm-{}", node.minor))?;
        // Whole pool blocks, so that the kernel does not write zeros first.
        let mut chunk = vec![0; usize::try_from(self.block_size.0).map_err(io::Error::other)?];
        chunk[..head.len()].copy_from_slice(head);
        for _ in 0..size.0 / self.block_size.0 {
            file.write_all(&chunk)?;
        }
        file.sync_all()
    }

    fn discard(&self, node: &Node) -> io::Result<()> {
        let file = File::options().write(true).open(path_of(node))?;
        let size = block::size(&file)?;
        // In steps, so that nothing waits long for the pool's metadata.
        for start in (0..size).step_by(DISCARD_STEP) {
            block::discard(&file, start, (size - start).min(DISCARD_STEP as u64))?;
        }
        Ok(())
    }

    fn trim(&self, mount: BorrowedFd<'_>) -> io::Result<Bytes> {
        // The pool gives back whole blocks only.
        fstrim::trim(top_of(mount)?, self.block_size.0).map(Bytes)
    }

    fn shrink(&self, node: &Node, size: Bytes) -> Result<(), StorageError> {
        let path = path_of(node);
        let head = self.read_at(node, 0, xfs::MAGIC.len());
        let head = head.map_err(|source| StorageError::Io { op: "read", path: path.clone(), source })?;
        if head == xfs::MAGIC {
            let advice = "xfs cannot be made smaller: ask for the size of its base or more".to_owned();
            return Err(StorageError::NotSupported { what: "a device smaller than its base", advice });
        }
        ext4::shrink(&path, size)
    }

    fn grow(&self, mount: BorrowedFd<'_>, size: Bytes) -> io::Result<()> {
        let top = top_of(mount)?;
        let kind = rustix::fs::fstatfs(&top)?.f_type;
        if u64::try_from(kind).is_ok_and(|kind| kind == xfs::SUPER_MAGIC) {
            return crate::sys::xfs::grow(top, size.0);
        }
        ext4::grow(top, size)
    }
}

impl Kernel {
    /// All devices of a pool have the file system of its base, which need not be what is configured now.
    fn of_either(&self, mount: impl Fn(FileSystem) -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
        let other = match self.file_system {
            FileSystem::Ext4 => FileSystem::Xfs,
            FileSystem::Xfs => FileSystem::Ext4,
        };
        match mount(self.file_system) {
            // EINVAL: there is none of this kind.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => mount(other).map_err(|_| error),
            found => found,
        }
    }
}

fn path_of(node: &Node) -> PathBuf {
    PathBuf::from(format!("/dev/dm-{}", node.minor))
}

/// The mount is a path-only descriptor, which takes no ioctl.
fn top_of(mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(mount, c".", flags, Mode::empty())?)
}

const DISCARD_STEP: usize = 1 << 30;

fn dm_name(name: &str) -> io::Result<&DmName> {
    DmName::new(name).map_err(os_error)
}

/// The errno behind the crate's error, whose own text is a dump of structures.
fn os_error(error: DmError) -> io::Error {
    match error {
        DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => (*errno).into(),
        other => io::Error::other(other),
    }
}

/// As tables name devices.
pub(super) fn number(device: Device) -> String {
    format!("{}:{}", device.major, device.minor)
}
