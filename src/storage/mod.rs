//! The DeviceSet: file-system trees as named devices, each a snapshot of another.
//!
//! | file | what |
//! |---|---|
//! | this one | the trait and its words; free of device-mapper types |
//! | `thin/` | driver `thin`: snapshots in a device-mapper pool |
//! | `copy/` | driver `copy`: copies of whole trees |
//! | `view.rs` | a part of a set: ids with a prefix |
//! | `leases.rs` | who uses which device |
//! | `out_of_order.rs` | in the place of a set that must be repaired by hand first |
//! | `words.rs` | what a set says of its room and its health |
//! | `crc32c.rs` | the checksum of the journal and of the pool's metadata |

pub mod copy;
pub mod thin;

mod crc32c;
mod leases;
mod out_of_order;
mod view;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;

use self::copy::CopyDeviceSet;
pub use self::out_of_order::out_of_order;
use self::thin::{ThinConfig, ThinDeviceSet};
pub use self::view::View;
pub use self::words::{
    DeviceGrowth, Finding, ForeignDevice, LeaseInfo, Pressure, PressureLevel, PressureListener, Report, Source, Trimmed,
};
#[cfg(test)]
use crate::model::DeviceState;
use crate::model::{Bytes, DeviceId, DeviceInfo, Driver, ErrorCode, PoolStatus};

/// Directory at the top of every device that holds the tree; beside it is the device's label.
pub const TREE: &str = "rootfs";

/// The id of the device with an empty tree, from which every other descends.
pub const BASE: &str = "base";

/// The state of a pool whose directory another process has open, as [`StorageError::PoolState`] says it.
pub const LOCKED: &str = "in use by another process";

/// A set of devices. Every call may block on the disk; none blocks on another device's user.
pub trait DeviceSet: Send + Sync + fmt::Debug {
    /// Which driver this is.
    fn driver(&self) -> Driver;

    /// Adds `id` as a snapshot of `base`, which must be ready. A pending device is removed by the next
    /// [`recovery`](crate::storage) unless [`complete_device`](Self::complete_device) came first. A base that is in use
    /// is frozen for a moment; with driver `copy` it is not, so what is written meanwhile is in the copy or not, file by file
    /// and even within one, and what vanishes is left out: whoever needs one moment stops or freezes the writers. A device
    /// smaller than its base takes longer, as its file system is made smaller first;
    /// NotSupported, with the least size, when its content does not fit. After an error nothing of `id` is left.
    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError>;

    /// Makes `id` `size` large, which is a hard limit for what is in it; rounded up to a block of the pool. On line when
    /// it is mounted, else its file system grows with its next mount. It cannot be made smaller, and the base cannot be
    /// made larger (NotSupported). After an error the device works with its old size, or it is on record with the new
    /// one and its file system follows with its next mount.
    fn resize_device(&self, id: &DeviceId, size: Bytes) -> Result<DeviceInfo, StorageError>;

    /// Makes `id` a fresh snapshot of `to`; both must be ready. It keeps its own size. InUse while somebody uses `id`. It
    /// is the old or the new whole afterwards, also after a crash at any moment; the old one after an error.
    fn rollback_device(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError>;

    /// Activates `id` for other software, until [`deactivate_device`](Self::deactivate_device), its removal or
    /// [`close`](Self::close), also over a restart of the daemon. The path of its block device; of a directory with
    /// driver `copy`, which forgets it with the process. Asking twice changes nothing.
    fn activate_device(&self, id: &DeviceId) -> Result<PathBuf, StorageError>;

    /// Takes [`activate_device`](Self::activate_device) back. InUse, naming who, while somebody uses it; nothing is
    /// changed then. Not an error when it is not active.
    fn deactivate_device(&self, id: &DeviceId) -> Result<(), StorageError>;

    /// Bytes that are each device's own, which is what its removal gives back; what it shares with others is not among
    /// them. As of one moment during this call. Reads all mappings of the pool (some ms per GiB that is mapped), and no
    /// device waits meanwhile. With driver `copy` what the trees take now, every one of them walked: an upper bound, since
    /// the file system may share it.
    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError>;

    /// Makes a pending device ready: what was written to it is on the disk when this returns.
    fn complete_device(&self, id: &DeviceId) -> Result<(), StorageError>;

    /// Removes `id`. The name is free and the intent is on the disk when this returns; the device is deleted when its
    /// last user is gone, which is not waited for; with driver `copy` that holds for users of any process, over restarts
    /// too. While the pool is out of data it is deleted at once: users that it
    /// still has get I/O errors then.
    fn remove_device(&self, id: &DeviceId) -> Result<Removal, StorageError>;

    /// Activates `id` and mounts it detached: in no mount namespace, visible to nobody. `purpose` is a word or two for
    /// [`leases`](Self::leases) and for whoever is told that the device is in use.
    fn mount_device_for(&self, id: &DeviceId, access: Access, purpose: &str) -> Result<MountedDevice, StorageError>;

    /// As [`mount_device_for`](Self::mount_device_for), for no purpose that anybody wants to know.
    fn mount_device(&self, id: &DeviceId, access: Access) -> Result<MountedDevice, StorageError> {
        self.mount_device_for(id, access, "mount")
    }

    /// Who has devices mounted through this set, and what for. A mount that was passed on is none any more when its lease
    /// was given back.
    fn leases(&self) -> Vec<LeaseInfo>;

    /// Every device on record, in order of id.
    fn devices(&self) -> Result<Vec<DeviceInfo>, StorageError>;

    /// One device.
    fn device(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError>;

    /// The pool's numbers.
    fn status(&self) -> Result<PoolStatus, StorageError>;

    /// Makes the pool's parts `data` and `metadata` bytes large in all, now; 0 leaves one as it is. What is configured
    /// as the limit of growth does not hold for this. NotSupported when it is smaller than what there is; after an
    /// error of the host's file system (no room) everything is as before.
    fn grow(&self, data: Bytes, metadata: Bytes) -> Result<PoolStatus, StorageError>;

    /// Gives what the file systems of devices in use do not need any more back to the pool (`FITRIM`), and on to the
    /// host, as far as no other device shares it. The pool's files keep their length and get holes; of those the set
    /// takes back what it needs before the host is full.
    fn trim(&self) -> Result<Trimmed, StorageError>;

    /// As [`trim`](Self::trim), of one device, in use or not; how many bytes its file system gave back.
    fn trim_device(&self, id: &DeviceId) -> Result<Bytes, StorageError>;

    /// Compares the copies of the truth: the pool's metadata, the journal, and the labels on the devices. Changes
    /// nothing; looks at every device, so takes some ms for each.
    fn check(&self) -> Result<Report, StorageError>;

    /// Writes labels anew that are wrong or gone, and takes devices back that are on no record but carry a label of
    /// their own with an id that is free. Deletes nothing. What is left to do is in the report; a journal that is
    /// behind needs [`thin::salvage`].
    fn repair(&self) -> Result<Report, StorageError>;

    /// Numbers in the pool of its devices that are on no record, without a look at what is on them; see
    /// [`check`](Self::check).
    fn foreign(&self) -> Vec<u32>;

    /// Deletes a device of the pool that is on no record, by its number there: see [`Report::foreign`]. For good.
    fn remove_foreign(&self, thin_id: u32) -> Result<Removal, StorageError>;

    /// The devices that take room now, the fastest first. Empty when nothing is written, and always with driver `copy`.
    fn growth(&self) -> Vec<DeviceGrowth>;

    /// Sets who is told of the pool's room: how it is now, then when its level changes, and every second or more often while
    /// it is [`Low`](PressureLevel::Low) or worse. Called from a thread of the set's own, which does nothing else meanwhile:
    /// when it is `Full`, the last reserve is given to the writers after this returned. Driver `copy` never calls.
    fn on_pressure(&self, listener: PressureListener);

    /// What the bytes of all trees are on: the block device of the pool's data, or the directory with driver `copy`. What a
    /// container reads and writes of its root arrives there on its behalf.
    fn backing(&self) -> Result<PathBuf, StorageError>;

    /// What the administrator should know about how this host is set up; each a line for the log at the start.
    fn warnings(&self) -> Vec<String>;

    /// Called when the daemon stops for good: finishes deferred removals, deactivates every idle device, and, when no
    /// device is in use, the pool. What is in use is left alone.
    fn close(&self) -> Result<(), StorageError>;
}

/// How a device is added.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddOptions {
    /// Virtual size. The base's when absent.
    pub size: Option<Bytes>,
    /// Whether it starts pending.
    pub pending: bool,
}

/// How adding a device went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    /// How long its base was suspended, so nobody could write to it; None when it was not active.
    pub frozen: Option<Duration>,
}

/// Whether a mount may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// What became of a removed device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Gone.
    Removed,
    /// Hidden; deleted in the background, when its last user is gone.
    Deferred,
    /// There was none.
    NotThere,
}

/// A detached mount of a device, and the lease that keeps the device active while this is held.
///
/// Dropping it closes the mount and gives the lease back: with the last one the kernel is told to remove the node as
/// soon as nobody has it open, so a container that was given the mount keeps the device exactly as long as it lives.
#[derive(Debug)]
pub struct MountedDevice {
    mount: OwnedFd,
    lease: Box<dyn Lease>,
}

/// What keeps a device active; released by being dropped.
pub trait Lease: Send + Sync + fmt::Debug {}

impl MountedDevice {
    /// Joins a detached mount with its lease.
    pub fn new(mount: OwnedFd, lease: Box<dyn Lease>) -> Self {
        Self { mount, lease }
    }

    /// The mount: the top of the device's file system; the tree is below it in [`TREE`].
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Splits it, for a caller that passes the mount on.
    pub fn into_parts(self) -> (OwnedFd, Box<dyn Lease>) {
        (self.mount, self.lease)
    }
}

/// What can go wrong in the DeviceSet. Which state remains is said at each method of [`DeviceSet`].
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No such device.
    #[error("no device has the id '{0}'")]
    NoSuchDevice(DeviceId),
    /// The id is taken.
    #[error("the device id '{0}' is in use")]
    DeviceExists(DeviceId),
    /// The device has the wrong state for it.
    #[error("device '{id}' is {state}")]
    WrongState {
        /// Which device.
        id: DeviceId,
        /// Its state, as a word.
        state: &'static str,
    },
    /// Somebody still uses the device, or a child needs it.
    #[error("device '{id}' is in use: {by}")]
    InUse {
        /// Which device.
        id: DeviceId,
        /// By whom.
        by: String,
    },
    /// It took longer than users of the device can bear, and was given up.
    #[error("{op} device '{id}' took too long: {message}; see whether the disk answers, and try again")]
    TookTooLong {
        /// What was tried.
        op: &'static str,
        /// On which device.
        id: DeviceId,
        /// What became of it.
        message: &'static str,
    },
    /// The pool has no room.
    #[error(
        "the pool has no room: {free} free of {total} {what}, {reserve} are kept in reserve; remove containers or images, or grow the pool"
    )]
    PoolFull {
        /// `data` or `metadata`.
        what: &'static str,
        /// Free bytes.
        free: Bytes,
        /// All bytes.
        total: Bytes,
        /// Bytes kept back.
        reserve: Bytes,
    },
    /// The pool refuses changes.
    #[error("the pool {pool} is {state}: {advice}")]
    PoolState {
        /// The pool's name.
        pool: String,
        /// Its state.
        state: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Another daemon changed the pool.
    #[error(
        "another process changed the pool {pool}: transaction id {found}, expected {expected}; stop the other holmd and restart this one"
    )]
    Stale {
        /// The pool's name.
        pool: String,
        /// The id that was expected.
        expected: u64,
        /// The id that was found.
        found: u64,
    },
    /// This host cannot do it.
    #[error("{what} is not available: {advice}")]
    NotSupported {
        /// What is missing.
        what: &'static str,
        /// What to do.
        advice: String,
    },
    /// The set waits for a repair by hand.
    #[error("{reason}; then restart holmd")]
    OutOfOrder {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file of ours is damaged.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {op} {path}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A device-mapper call failed.
    #[error("device-mapper cannot {op} {device}: {source}")]
    DeviceMapper {
        /// What was tried.
        op: &'static str,
        /// On which device.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// A helper program failed.
    #[error("{program} failed: {message}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

impl StorageError {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchDevice(_) => ErrorCode::NoSuchDevice,
            Self::DeviceExists(_) => ErrorCode::NameInUse,
            Self::WrongState { .. } | Self::InUse { .. } => ErrorCode::DeviceInUse,
            Self::PoolFull { .. } => ErrorCode::PoolFull,
            Self::TookTooLong { .. } => ErrorCode::Timeout,
            Self::NotSupported { .. } => ErrorCode::NotSupported,
            Self::PoolState { .. }
            | Self::Stale { .. }
            | Self::OutOfOrder { .. }
            | Self::Damaged { .. }
            | Self::Io { .. }
            | Self::DeviceMapper { .. }
            | Self::Program { .. } => ErrorCode::StorageFailed,
        }
    }
}

/// Which driver is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// `thin` where the kernel has it, else `copy`; but what a directory was begun with it goes on with.
    #[default]
    Auto,
    /// `thin`, or an error.
    Thin,
    /// `copy`.
    Copy,
}

/// An open set.
#[derive(Debug)]
pub struct Opened {
    /// The set.
    pub set: Arc<dyn DeviceSet>,
    /// Why it is not driver `thin`, when [`DriverChoice::Auto`] chose `copy`: worth a line in the log.
    pub fallback: Option<String>,
}

/// Opens the set in `config.directory`, which is made on first use. Driver `copy` uses nothing else of `config`.
///
/// After an error everything is as before, but for what opening had repaired already; opening again goes on from there.
pub fn open(choice: DriverChoice, config: &ThinConfig) -> Result<Opened, StorageError> {
    let fallback = match choice {
        DriverChoice::Thin => None,
        DriverChoice::Copy => Some(None),
        DriverChoice::Auto => choose(&config.directory, thin::available()).map(Some),
    };
    let set: Arc<dyn DeviceSet> = match &fallback {
        None => ThinDeviceSet::open(config)?,
        Some(_) => CopyDeviceSet::open(&config.directory)?,
    };
    Ok(Opened { set, fallback: fallback.flatten() })
}

/// Why `copy` is to be used; None for `thin`. A directory with a pool in it stays with it: an error of its driver is
/// better than containers and images that seem to have vanished.
fn choose(directory: &Path, thin: Result<(), StorageError>) -> Option<String> {
    if directory.join("journal").exists() {
        return None;
    }
    if directory.join("trees").exists() {
        return Some(format!("{} was begun with it", directory.display()));
    }
    thin.err().map(|error| error.to_string())
}

/// Makes the directory and locks it for as long as the file is open.
fn lock_directory(directory: &Path) -> Result<File, StorageError> {
    let failed = |op| move |source| StorageError::Io { op, path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make"))?;
    let file = File::open(directory).map_err(failed("open"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::PoolState {
            pool: directory.display().to_string(),
            state: LOCKED,
            advice: "only one holmd can use a directory: stop the other, or configure another directory and prefix",
        }),
        other => other.map(|()| file).map_err(|error| failed("lock")(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let lock = lock_directory(directory.path()).unwrap();
        assert!(matches!(lock_directory(directory.path()), Err(StorageError::PoolState { .. })));
        drop(lock);
        lock_directory(directory.path()).unwrap();
    }

    #[test]
    fn auto_takes_what_is_there_and_stays_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let missing = || Err(StorageError::NotSupported { what: "device-mapper", advice: "load it".into() });
        assert_eq!(choose(directory.path(), Ok(())), None);
        assert!(choose(directory.path(), missing()).unwrap().contains("device-mapper"));
        std::fs::create_dir(directory.path().join("trees")).unwrap();
        assert!(choose(directory.path(), Ok(())).unwrap().contains("begun"));
        std::fs::write(directory.path().join("journal"), "").unwrap();
        assert_eq!(choose(directory.path(), missing()), None);
    }
}

#[cfg(test)]
#[path = "../../tests/storage/behaviour.rs"]
mod behaviour;

/// Driver `thin` over the model of a kernel, for tests of other modules; its trees are real directories.
#[cfg(test)]
pub(crate) fn in_memory() -> Arc<dyn DeviceSet> {
    thin::over(&thin::model::Model::new())
}

#[cfg(test)]
mod driver_tests {
    //! The same bodies over the model of a kernel and over `copy`; over a real kernel in `tests/storage_kernel.rs`.
    use super::behaviour::{Subject, every_behaviour};
    use super::*;

    #[test]
    fn thin_does_what_every_driver_does() {
        let model = thin::model::Model::new();
        let open = || thin::over(&model) as Arc<dyn DeviceSet>;
        every_behaviour(&Subject { open: &open, real_mounts: false, sizes: true, shrinks: true });
    }

    #[test]
    fn copy_does_what_every_driver_does() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = || CopyDeviceSet::open(directory.path()).unwrap() as Arc<dyn DeviceSet>;
        let probe = open();
        let base = DeviceId::parse(BASE).unwrap();
        if let Err(StorageError::Io { source, .. }) = probe.mount_device(&base, Access::ReadOnly)
            && source.kind() == std::io::ErrorKind::PermissionDenied
        {
            eprintln!("skipped: detached mounts need CAP_SYS_ADMIN");
            return;
        }
        drop(probe);
        every_behaviour(&Subject { open: &open, real_mounts: true, sizes: false, shrinks: false });
    }
}
