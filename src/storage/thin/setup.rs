//! From a directory to an active pool: two loop files, made on first use with all their room reserved, and a pool over
//! them. The loop devices clear themselves when the pool goes, so none can be left over.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::backend::{Mode, Numbers};
use super::health::{self, Depth};
use super::journal::Journal;
use super::kernel::{Control, Kernel, number};
use super::metadata::{self, Superblock};
use super::names::{Names, Role};
use super::space::{self, MAX_METADATA};
use super::state::State;
use super::store::{self, Claim, Parts};
use super::{Store, ThinConfig};
use crate::model::Bytes;
use crate::storage::StorageError;
use crate::sys::loopdev::{self, Io, LoopDevice};

/// Makes the files on first use; later checks that they are those that the journal speaks of.
pub(super) fn prepare_files(
    config: &ThinConfig,
    journal: &mut Journal,
    state: Option<State>,
) -> Result<State, StorageError> {
    check_block_size(config.block_size)?;
    if config.store != Store::Files {
        return store::prepare(config, journal, state, Claim::IfEmpty);
    }
    let metadata = Paths::of(config).metadata;
    let used = match File::open(&metadata) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.and_then(|file| metadata::is_blank(&file).map(|blank| Some(!blank))),
    }
    .or_else(|error| if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) })
    .map_err(|source| StorageError::Io { op: "read", path: metadata.clone(), source })?;
    let damaged = |reason: &str| Err(StorageError::Damaged { path: metadata, reason: reason.to_owned() });
    match (state, used) {
        (None, Some(true)) => damaged(
            "it holds a pool but there is no journal beside it; rebuild that with 'holmctl device salvage', restore the journal from a backup, or move the directory away to begin with an empty pool",
        ),
        (None, _) => {
            make_files(config)?;
            let state = State::new(&random_uuid()?);
            journal.checkpoint(&state)?;
            Ok(state)
        }
        (Some(state), Some(true)) => reserve_again(config).map(|()| state),
        (Some(state), Some(false)) if state.transaction == 0 => Ok(state),
        (Some(_), Some(false)) => damaged(
            "it is empty although the journal knows devices; put the right file back, or move the directory away to begin with an empty pool",
        ),
        (Some(_), None) => damaged(
            "it is missing although the journal knows a pool; put the file back, or move the directory away to begin with an empty pool",
        ),
    }
}

/// Activates the pool after a check of its metadata, or adopts it if it is active already.
pub(super) fn activate(config: &ThinConfig, names: Names, depth: Depth) -> Result<Kernel, StorageError> {
    available()?;
    let name = pool_name(config, &names);
    let failed = |op| {
        let device = name.clone();
        move |source| StorageError::DeviceMapper { op, device, source }
    };
    let control = Control::open().map_err(failed("open the control device for"))?;
    let members = Members::open(config, &names, &control)?;
    let superblock = || Superblock::read(members.metadata().1, 0).ok();
    let block_size = superblock().map_or(config.block_size, |found| Bytes(u64::from(found.data_block_sectors) * 512));
    let fresh = || {
        // Read now: a pool that goes leaves its last word in it.
        if let Some(superblock) = &superblock() {
            health::check(members.metadata().0, superblock, depth)?;
        }
        create(&control, &name, &names, block_size, &members)
    };
    let info = match control.info(&name).map_err(failed("look at"))? {
        Some(info) if info.flags().contains(devicemapper::DmFlags::DM_ACTIVE_PRESENT) => {
            let info = adopt(&control, &name, &names, info, &members)?;
            // Metadata that met an error can only be checked while the pool is not active. A pool that was given to us is
            // not ours to take down.
            let ours = !matches!(config.store, Store::Pool(_));
            if ours
                && info.open_count() == 0
                && must_be_checked(&control, &name).map_err(failed("ask the status of"))?
            {
                control.remove(&name).map_err(failed("deactivate"))?;
                fresh()?
            } else {
                info
            }
        }
        Some(_) => {
            // Its maker died before the table was loaded.
            control.remove(&name).map_err(failed("remove the unfinished"))?;
            fresh()?
        }
        None => fresh()?,
    };
    let device = number(info.device());
    let (metadata, parts) = members.into_parts();
    Ok(Kernel {
        control,
        names,
        pool: name,
        device,
        metadata,
        parts,
        file_system: config.file_system,
        block_size,
        running: RwLock::default(),
        held: Mutex::default(),
    })
}

fn must_be_checked(control: &Control, name: &str) -> io::Result<bool> {
    let status = control.status(name)?.and_then(|(_, line)| Numbers::parse(&line));
    Ok(status.is_some_and(|numbers| numbers.needs_check || numbers.mode == Mode::Failed))
}

/// The pool's node.
fn pool_name(config: &ThinConfig, names: &Names) -> String {
    match &config.store {
        Store::Pool(name) => name.clone(),
        Store::Files | Store::Pair { .. } | Store::Device(_) => names.name(Role::Pool),
    }
}

/// Whether the kernel has what is needed, after loading its modules if it can.
pub(in crate::storage) fn available() -> Result<(), StorageError> {
    let missing = |what, advice: String| Err(StorageError::NotSupported { what, advice });
    if !Path::new("/dev/loop-control").exists() {
        load_module("loop");
    }
    if !Path::new("/dev/mapper/control").exists() {
        load_module("dm-mod");
    }
    let control = match Control::open() {
        Ok(control) => control,
        Err(error) => {
            return missing("device-mapper", format!("cannot open /dev/mapper/control ({error}); use driver 'copy'"));
        }
    };
    let has_pools = || control.has_target("thin-pool").unwrap_or(false);
    if !has_pools() {
        load_module("dm-thin-pool");
    }
    if !has_pools() {
        return missing(
            "the device-mapper target thin-pool",
            "load the module dm-thin-pool, or use driver 'copy'".to_owned(),
        );
    }
    if !Path::new("/dev/loop-control").exists() {
        return missing("/dev/loop-control", "load the module loop, or use driver 'copy'".to_owned());
    }
    Ok(())
}

/// Best effort: what is missing afterwards is reported by whoever needs it.
fn load_module(module: &str) {
    let run = Command::new("/sbin/modprobe").args(["-q", module]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    tracing::debug!(module, ?run, "loaded a module");
}

fn create(
    control: &Control,
    name: &str,
    names: &Names,
    block_size: Bytes,
    members: &Members,
) -> Result<devicemapper::DeviceInfo, StorageError> {
    let failed = |op| move |source| StorageError::DeviceMapper { op, device: name.to_owned(), source };
    let Attached { metadata, data, length, loops: _held_until_the_table_holds_them } = members.attach(name)?;
    let sectors = length / block_size.0 * block_size.sectors();
    let low_water = space::data_mark(Bytes(length)).0 / block_size.0;
    let params = format!("{} {} {} {low_water} 0", metadata, data, block_size.sectors(),);
    let target = ("thin-pool", params.as_str());
    control.create(name, &names.uuid(Role::Pool), sectors, target).map_err(failed("activate"))
}

/// A pool that a former daemon left active is ours if it lies on our files.
fn adopt(
    control: &Control,
    name: &str,
    names: &Names,
    info: devicemapper::DeviceInfo,
    members: &Members,
) -> Result<devicemapper::DeviceInfo, StorageError> {
    let failed = |op| move |source| StorageError::DeviceMapper { op, device: name.to_owned(), source };
    if matches!(members, Members::Blocks(opened) if matches!(opened.parts, Parts::Given)) {
        return Ok(info);
    }
    let foreign = || StorageError::PoolState {
        pool: name.to_owned(),
        state: "of somebody else",
        advice: "an active device-mapper device has this name but not this pool's files: remove it, or configure another prefix",
    };
    if info.uuid().is_none_or(|uuid| uuid.to_string() != names.uuid(Role::Pool)) {
        return Err(foreign());
    }
    let (target, params) = control.table(name).map_err(failed("read the table of"))?.ok_or_else(foreign)?;
    if target != "thin-pool" || !members.are_below(&params).map_err(failed("look below"))? {
        return Err(foreign());
    }
    // The last daemon may have asked for its removal at last close, or died while it was suspended.
    control.keep(name).map_err(failed("keep"))?;
    if info.flags().contains(devicemapper::DmFlags::DM_SUSPEND) {
        control.resume(name).map_err(failed("resume"))?;
    }
    Ok(info)
}

/// What the pool lies on, open.
enum Members {
    Files(OpenFiles),
    Blocks(store::Opened),
}

/// Devices for the pool's table.
struct Attached {
    metadata: String,
    data: String,
    /// Bytes of data.
    length: u64,
    loops: Vec<LoopDevice>,
}

impl Members {
    fn open(config: &ThinConfig, names: &Names, control: &Control) -> Result<Self, StorageError> {
        match config.store {
            Store::Files => OpenFiles::open(config).map(Self::Files),
            _ => store::open_store(config, names, control).map(Self::Blocks),
        }
    }

    fn metadata(&self) -> (&Path, &File) {
        match self {
            Self::Files(files) => (&files.paths.metadata, &files.metadata),
            Self::Blocks(opened) => (&opened.metadata.0, &opened.metadata.1),
        }
    }

    fn attach(&self, name: &str) -> Result<Attached, StorageError> {
        let failed = |op| move |source| StorageError::DeviceMapper { op, device: name.to_owned(), source };
        match self {
            Self::Files(files) => {
                let loops = [files.attach(&files.metadata, Io::Buffered)?, files.attach(&files.data, Io::Direct)?];
                Ok(Attached {
                    metadata: device_number(&loops[0]).map_err(failed("attach the metadata of"))?,
                    data: device_number(&loops[1]).map_err(failed("attach the data of"))?,
                    length: files.data.metadata().map_err(failed("measure the data of"))?.len(),
                    loops: loops.into(),
                })
            }
            Self::Blocks(opened) => {
                let gone = || failed("find")(io::ErrorKind::NotFound.into());
                let (metadata, data) = opened.numbers.clone().ok_or_else(gone)?;
                Ok(Attached { metadata, data, length: opened.length, loops: Vec::new() })
            }
        }
    }

    /// Whether a pool with these parameters lies on them.
    fn are_below(&self, params: &str) -> io::Result<bool> {
        let mut words = params.split(' ');
        let (metadata, data) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match self {
            Self::Files(files) => Ok(is_behind(&files.metadata, metadata)? && is_behind(&files.data, data)?),
            Self::Blocks(opened) => {
                Ok(opened.numbers.as_ref().is_some_and(|numbers| (&*numbers.0, &*numbers.1) == (metadata, data)))
            }
        }
    }

    fn into_parts(self) -> ((PathBuf, File), Parts) {
        match self {
            Self::Files(files) => ((files.paths.metadata, files.metadata), Parts::Files { data: files.data }),
            Self::Blocks(opened) => (opened.metadata, opened.parts),
        }
    }
}

/// Whether `device` is a loop device of `file`.
fn is_behind(file: &File, device: &str) -> io::Result<bool> {
    let Some(number) = device.strip_prefix("7:").and_then(|minor| minor.parse().ok()) else { return Ok(false) };
    let meta = file.metadata()?;
    Ok(loopdev::backing_of(number)? == Some((meta.dev(), meta.ino())))
}

struct Paths {
    data: PathBuf,
    metadata: PathBuf,
}

impl Paths {
    fn of(config: &ThinConfig) -> Self {
        Self { data: config.directory.join("data"), metadata: config.directory.join("metadata") }
    }
}

struct OpenFiles {
    paths: Paths,
    data: File,
    metadata: File,
}

impl OpenFiles {
    fn open(config: &ThinConfig) -> Result<Self, StorageError> {
        let paths = Paths::of(config);
        let open = |path: &Path| {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            opened.map_err(|source| StorageError::Io { op: "open", path: path.to_owned(), source })
        };
        Ok(Self { data: open(&paths.data)?, metadata: open(&paths.metadata)?, paths })
    }

    fn attach(&self, file: &File, io: Io) -> Result<LoopDevice, StorageError> {
        let path = if std::ptr::eq(file, &self.data) { &self.paths.data } else { &self.paths.metadata };
        let failed = |source| StorageError::Io { op: "attach a loop device to", path: path.clone(), source };
        // A pool that went just now clears its loop devices when its last user closed them; no event tells.
        for _ in 0..50 {
            if loopdev::attached_to(file).map_err(failed)?.is_empty() {
                return LoopDevice::attach(file, io, 4096).map_err(failed);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(StorageError::PoolState {
            pool: path.display().to_string(),
            state: "attached to a loop device of somebody else",
            advice: "find it with `losetup -j FILE` and detach it with `losetup -d`",
        })
    }
}

fn device_number(device: &LoopDevice) -> io::Result<String> {
    let device = device.device()?;
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

fn make_files(config: &ThinConfig) -> Result<(), StorageError> {
    let paths = Paths::of(config);
    let free = free_bytes(&config.directory)?;
    let (data, metadata) = sizes(config, free);
    let needed = Bytes(data.0 + metadata.0);
    if needed > free {
        return Err(StorageError::NotSupported {
            what: "a pool of this size",
            advice: format!(
                "{} has {free} free, and the pool needs {needed} ({data} of data, {metadata} of metadata): free some, configure a smaller data_size, or another directory",
                config.directory.display()
            ),
        });
    }
    for (path, size) in [(&paths.metadata, metadata), (&paths.data, data)] {
        let made = make_file(path, size);
        if made.is_err() {
            // Nothing is in them yet.
            let _ = fs::remove_file(&paths.metadata);
            let _ = fs::remove_file(&paths.data);
        }
        made?;
    }
    Ok(())
}

/// An empty file with all its room reserved.
fn make_file(path: &Path, size: Bytes) -> Result<(), StorageError> {
    let failed = |op| move |source| StorageError::Io { op, path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.map_err(failed("make"))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("make"))?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size.0) {
        Err(rustix::io::Errno::OPNOTSUPP) => Err(StorageError::NotSupported {
            what: "reserving room in the file system of the pool",
            advice: format!("{} is on a file system without fallocate(2): use ext4, xfs or btrfs", path.display()),
        }),
        other => {
            other.map_err(|error| failed("reserve the room of")(error.into()))?;
            file.sync_all().map_err(failed("sync"))
        }
    }
}

/// The metadata must never want for room. Of the data the keeper takes back what discards gave away, when it must.
fn reserve_again(config: &ThinConfig) -> Result<(), StorageError> {
    let files = OpenFiles::open(config)?;
    if let Err(error) = super::growth::reserve(&files.metadata) {
        let path = files.paths.metadata.display();
        tracing::debug!(%error, %path, "cannot reserve all room of a file of the pool, ignoring");
    }
    Ok(())
}

/// Sizes of data and metadata for `free` bytes.
fn sizes(config: &ThinConfig, free: Bytes) -> (Bytes, Bytes) {
    let auto = (free.0 / 5 * 2).clamp(512 * Bytes::MIB, 2 * Bytes::GIB);
    let auto = config.data_max_size.map_or(auto, |limit| auto.min(limit.0));
    let data = config.data_size.unwrap_or(Bytes(auto)).0.next_multiple_of(config.block_size.0);
    let metadata = (data / 256).clamp(16 * Bytes::MIB, MAX_METADATA);
    (Bytes(data), Bytes(config.metadata_size.map_or(metadata, |size| size.0.min(MAX_METADATA)) & !4095))
}

fn check_block_size(size: Bytes) -> Result<(), StorageError> {
    if size.0 >= 64 * Bytes::KIB && size.0 <= Bytes::GIB && size.0.is_multiple_of(64 * Bytes::KIB) {
        return Ok(());
    }
    let advice = format!("{size} cannot be used: use a multiple of 64K, at most 1G");
    Err(StorageError::NotSupported { what: "the pool's block size", advice })
}

fn free_bytes(directory: &Path) -> Result<Bytes, StorageError> {
    let status = rustix::fs::statvfs(directory).map_err(|error| StorageError::Io {
        op: "measure",
        path: directory.to_owned(),
        source: error.into(),
    })?;
    Ok(Bytes(status.f_bavail.saturating_mul(status.f_frsize)))
}

/// A UUID that nobody has.
pub(super) fn random_uuid() -> Result<String, StorageError> {
    const PATH: &str = "/proc/sys/kernel/random/uuid";
    let text = fs::read_to_string(PATH);
    let text = text.map_err(|source| StorageError::Io { op: "read", path: PATH.into(), source })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::journal::FileLog;
    use super::super::state::Op;
    use super::super::state::tests::device;
    use super::*;

    fn config(directory: &Path) -> ThinConfig {
        let mut config = ThinConfig::new(directory);
        config.data_size = Some(Bytes(4 * Bytes::MIB));
        config.metadata_size = Some(Bytes(2 * Bytes::MIB));
        config
    }

    fn prepare(config: &ThinConfig) -> Result<State, StorageError> {
        let (mut journal, state) = Journal::open(Box::new(FileLog::new(&config.directory).unwrap()))?;
        prepare_files(config, &mut journal, state)
    }

    #[test]
    fn first_use_makes_files_with_all_their_room() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let state = prepare(&config).unwrap();
        assert_eq!(state.uuid.len(), 36);
        let data = fs::metadata(directory.path().join("data")).unwrap();
        assert_eq!(data.len(), 4 * Bytes::MIB);
        assert!(data.blocks() * 512 >= 4 * Bytes::MIB);
        assert_eq!(prepare(&config).unwrap(), state);
    }

    #[test]
    fn metadata_that_was_reset_is_an_error_and_no_fresh_pool() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        prepare(&config).unwrap();
        let (mut journal, state) = Journal::open(Box::new(FileLog::new(directory.path()).unwrap())).unwrap();
        let mut state = state.unwrap();
        state.apply(&Op::Create(device("base", 0, 1))).unwrap();
        journal.checkpoint(&state).unwrap();
        assert!(matches!(prepare(&config), Err(StorageError::Damaged { .. })));
        fs::remove_file(directory.path().join("metadata")).unwrap();
        assert!(matches!(prepare(&config), Err(StorageError::Damaged { .. })));
    }

    #[test]
    fn a_pool_without_its_journal_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        prepare(&config).unwrap();
        fs::remove_file(directory.path().join("journal")).unwrap();
        fs::write(directory.path().join("metadata"), [1; 8192]).unwrap();
        assert!(prepare(&config).unwrap_err().to_string().contains("no journal"));
    }

    #[test]
    fn a_host_without_room_is_told_the_sizes() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        config.data_size = Some(Bytes(1 << 50));
        let error = prepare(&config).unwrap_err().to_string();
        assert!(error.contains("1P of data"), "{error}");
        assert!(!directory.path().join("data").exists());
    }

    #[test]
    fn automatic_sizes_follow_the_room() {
        let config = ThinConfig::new("/x");
        assert_eq!(sizes(&config, Bytes(1 << 40)), (Bytes(2 * Bytes::GIB), Bytes(16 * Bytes::MIB)));
        assert_eq!(sizes(&config, Bytes(Bytes::GIB)), (Bytes(512 * Bytes::MIB), Bytes(16 * Bytes::MIB)));
    }

    #[test]
    fn odd_block_sizes_are_refused() {
        for size in [0, 4096, 96 << 10, 2 << 30] {
            assert!(check_block_size(Bytes(size)).is_err(), "{size}");
        }
    }
}
