//! Pools on block devices: a pair of them, one that is split, or a pool that is there already.
//!
//! What is on a device that is not known to be ours is never written over, unless by [`adopt`](super::adopt).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::backend::{Host, Part};
use super::core::lock;
use super::journal::Journal;
use super::kernel::Control;
use super::layout::{Layout, SMALLEST_DATA};
use super::metadata::{Block, Blocks, MetadataError, Superblock};
use super::names::{Names, Role};
use super::state::State;
use super::{Store, ThinConfig, setup};
use crate::model::Bytes;
use crate::storage::StorageError;
use crate::sys::block;

/// What an open pool lies on.
#[derive(Debug)]
pub(super) enum Parts {
    /// Two files, in loop devices.
    Files {
        /// The file of the data.
        data: File,
    },
    /// Two block devices.
    Pair {
        /// For the data.
        data: File,
        /// For the metadata.
        metadata: File,
    },
    /// One block device.
    Split(Split),
    /// A pool of the administrator's own.
    Given,
}

/// A block device with both parts on it, each behind a node of the target linear.
#[derive(Debug)]
pub(super) struct Split {
    device: File,
    layout: Mutex<Layout>,
    names: Names,
}

/// May what is on a device go?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Only when it is empty.
    IfEmpty,
    /// Yes: the administrator said so.
    Forced,
}

/// Checks the devices, and claims them on first use; the journal's table.
pub(super) fn prepare(
    config: &ThinConfig,
    journal: &mut Journal,
    state: Option<State>,
    claim: Claim,
) -> Result<State, StorageError> {
    let damaged = |reason: &str| Err(StorageError::Damaged { path: place(config), reason: reason.to_owned() });
    match (state, holds_pool(config)?) {
        (None, true) => damaged(
            "it holds a pool but there is no journal of it here; take it over with 'holmctl device adopt', or configure \
             another device",
        ),
        (None, false) => {
            check_claim(config, claim)?;
            let state = State::new(&setup::random_uuid()?);
            // First, so that what is on the device afterwards is known to be ours.
            journal.checkpoint(&state)?;
            begin(config, &state.uuid).map(|()| state)
        }
        (Some(state), true) => check_layout(config, &state.uuid).map(|()| state),
        (Some(state), false) if state.transaction == 0 => {
            check_claim(config, claim)?;
            begin(config, &state.uuid).map(|()| state)
        }
        (Some(_), false) => damaged(
            "it is empty although the journal knows devices; put the right device back, or move the directory away to begin \
             with an empty pool",
        ),
    }
}

/// For messages.
fn place(config: &ThinConfig) -> PathBuf {
    match &config.store {
        Store::Files => config.directory.clone(),
        Store::Pair { metadata, .. } => metadata.clone(),
        Store::Device(device) => device.clone(),
        Store::Pool(name) => Path::new("/dev/mapper").join(name),
    }
}

/// Whether there is a pool that was used.
pub(super) fn holds_pool(config: &ThinConfig) -> Result<bool, StorageError> {
    let found = |superblock: Result<Superblock, MetadataError>| match superblock {
        Ok(_) => Ok(true),
        Err(MetadataError::Io(source)) => Err(StorageError::Io { op: "read", path: place(config), source }),
        Err(_) => Ok(false),
    };
    match &config.store {
        Store::Files => Ok(false),
        Store::Pair { metadata, .. } => found(Superblock::read(&open(METADATA_KEY, metadata)?, 0)),
        Store::Device(path) => {
            let device = open(DEVICE_KEY, path)?;
            let layout =
                Layout::read(&device).map_err(|source| StorageError::Io { op: "read", path: path.clone(), source })?;
            let Some(layout) = layout else { return Ok(false) };
            let start = layout.segments(Part::Metadata).first().map_or(0, |first| first.start);
            found(Superblock::read(&From { device: &device, start }, 0))
        }
        Store::Pool(name) => given(name).map(|(_, metadata)| Superblock::read(&metadata, 0)).map(|superblock| {
            superblock.is_ok_and(|superblock| superblock.transaction_id > 0 || has_devices(&superblock, name))
        }),
    }
}

fn has_devices(superblock: &Superblock, pool: &str) -> bool {
    given(pool).is_ok_and(|(_, metadata)| superblock.devices(&metadata).is_ok_and(|devices| !devices.is_empty()))
}

/// Metadata that begins somewhere on a device.
struct From<'a> {
    device: &'a File,
    start: u64,
}

impl Blocks for From<'_> {
    fn read(&self, number: u64) -> io::Result<[u8; super::metadata::BLOCK]> {
        self.device.read(self.start / super::metadata::BLOCK as u64 + number)
    }
}

/// The UUID that the device itself says.
pub(super) fn uuid_of(config: &ThinConfig) -> Result<Option<String>, StorageError> {
    let Store::Device(path) = &config.store else { return Ok(None) };
    let layout = Layout::read(&open(DEVICE_KEY, path)?);
    let layout = layout.map_err(|source| StorageError::Io { op: "read", path: path.clone(), source })?;
    Ok(layout.map(|layout| layout.uuid))
}

fn check_layout(config: &ThinConfig, uuid: &str) -> Result<(), StorageError> {
    match uuid_of(config)? {
        Some(found) if found != uuid => {
            let reason = format!("it is of the pool {found}, the journal of {uuid}: another device is needed");
            Err(StorageError::Damaged { path: place(config), reason })
        }
        _ => Ok(()),
    }
}

/// Refuses devices that hold something.
fn check_claim(config: &ThinConfig, claim: Claim) -> Result<(), StorageError> {
    let devices: &[(&'static str, &Path)] = match &config.store {
        Store::Pair { data, metadata } => &[(DATA_KEY, data), (METADATA_KEY, metadata)],
        Store::Device(device) => &[(DEVICE_KEY, device)],
        Store::Files | Store::Pool(_) => &[],
    };
    for (key, path) in devices {
        let file = open(key, path)?;
        // Linux refuses this while it is mounted or below another device: open(2), O_EXCL.
        let alone = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path);
        if let Err(error) = alone {
            return Err(refused(key, format!("{} is in use ({error}): unmount it first", path.display())));
        }
        if claim == Claim::Forced {
            continue;
        }
        let ours = Layout::read(&file).is_ok_and(|layout| layout.is_some());
        if let Some(what) = content(path)?.filter(|_| !ours) {
            let advice = format!(
                "{} is not empty: it holds {what}; name another device, or give this one up with 'holmctl device adopt'",
                path.display()
            );
            return Err(refused(key, advice));
        }
    }
    Ok(())
}

/// What is on a device, in a word; None when nothing is known of it.
fn content(path: &Path) -> Result<Option<String>, StorageError> {
    const PROGRAM: &str = "blkid";
    let output = Command::new(PROGRAM)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| StorageError::Program { program: PROGRAM, message: format!("{error}; install util-linux") })?;
    let said = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(", ");
    match output.status.code() {
        // blkid(8): 2 says that nothing was found, 8 that several things were.
        Some(2) => first_block(path),
        Some(0) if !said.is_empty() => Ok(Some(said)),
        _ => Ok(Some("something that is not clear".to_owned())),
    }
}

/// What no program knows may be somebody's nevertheless.
fn first_block(path: &Path) -> Result<Option<String>, StorageError> {
    let failed = |source| StorageError::Io { op: "read", path: path.to_owned(), source };
    let blank = File::open(path).and_then(|file| super::metadata::is_blank(&file)).map_err(failed)?;
    Ok((!blank).then(|| "something that no program knows".to_owned()))
}

/// Makes an empty pool: metadata that begins with zeros is formatted by the kernel.
fn begin(config: &ThinConfig, uuid: &str) -> Result<(), StorageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StorageError::Io { op: "write", path, source }
    };
    match &config.store {
        Store::Files | Store::Pool(_) => Ok(()),
        Store::Pair { data, metadata } => {
            for (key, path, least) in [(DATA_KEY, data, SMALLEST_DATA), (METADATA_KEY, metadata, 2 * Bytes::MIB)] {
                check_size(key, path, &open(key, path)?, least)?;
            }
            // What there was must not be found again by anybody.
            blank(&open(DATA_KEY, data)?, 0).map_err(failed(data))?;
            blank(&open(METADATA_KEY, metadata)?, 0).map_err(failed(metadata))
        }
        Store::Device(path) => {
            let device = open(DEVICE_KEY, path)?;
            let size = block::size(&device).map_err(failed(path))?;
            let layout = Layout::new(uuid, size, config.data_size, config.metadata_size).ok_or_else(|| {
                let advice =
                    format!("{} has {}, which is too little for the sizes wanted", path.display(), Bytes(size));
                refused(DEVICE_KEY, advice)
            })?;
            let start = layout.segments(Part::Metadata).first().map_or(0, |first| first.start);
            blank(&device, 0).and_then(|()| blank(&device, start)).map_err(failed(path))?;
            layout.write(&device).map_err(failed(path))
        }
    }
}

fn check_size(key: &'static str, path: &Path, device: &File, least: u64) -> Result<(), StorageError> {
    let size =
        block::size(device).map_err(|source| StorageError::Io { op: "measure", path: path.to_owned(), source })?;
    if size >= least {
        return Ok(());
    }
    Err(refused(key, format!("{} has {}: at least {} are needed", path.display(), Bytes(size), Bytes(least))))
}

/// Signatures are in the first blocks.
fn blank(device: &File, from: u64) -> io::Result<()> {
    let block = Block::zeroed();
    for number in 0..32 {
        device.write_all_at(block.bytes(), from + number * super::metadata::BLOCK as u64)?;
    }
    device.sync_all()
}

/// Around the page cache, as the kernel's own access to metadata is: what it wrote is what is read.
fn open(key: &'static str, path: &Path) -> Result<File, StorageError> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
    let file = file.map_err(|error| refused(key, format!("cannot open {}: {error}", path.display())))?;
    let is_block = file.metadata().is_ok_and(|meta| meta.file_type().is_block_device());
    if is_block { Ok(file) } else { Err(refused(key, format!("{} is no block device", path.display()))) }
}

fn refused(what: &'static str, advice: String) -> StorageError {
    StorageError::NotSupported { what, advice }
}

/// The table and the open metadata device of a pool that is active already.
fn given(name: &str) -> Result<(String, File), StorageError> {
    let failed = |source| StorageError::DeviceMapper { op: "look at", device: name.to_owned(), source };
    let control = Control::open().map_err(failed)?;
    let info = control.info(name).map_err(failed)?;
    let info = info.ok_or_else(|| refused(POOL_KEY, format!("there is no active device-mapper device '{name}'")))?;
    let uuid = info.uuid().map(ToString::to_string).unwrap_or_default();
    if uuid.starts_with("LVM-") {
        let advice =
            format!("'{name}' is managed by LVM, which counts its transactions itself: use a pool of your own");
        return Err(refused(POOL_KEY, advice));
    }
    let table = control.table(name).map_err(failed)?.filter(|(target, _)| target == "thin-pool");
    let (_, params) = table.ok_or_else(|| refused(POOL_KEY, format!("'{name}' is no thin pool")))?;
    let number = params.split(' ').next().unwrap_or_default();
    let link = fs::read_link(format!("/sys/dev/block/{number}")).map_err(failed)?;
    let node = link.file_name().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let metadata = open(POOL_KEY, &Path::new("/dev").join(node))?;
    Ok((params, metadata))
}

/// An opened store of block devices.
pub(super) struct Opened {
    /// The device to read metadata from.
    pub(super) metadata: (PathBuf, File),
    /// `major:minor` of metadata and data, for the pool's table; None for a pool that is there.
    pub(super) numbers: Option<(String, String)>,
    /// Bytes of data.
    pub(super) length: u64,
    /// What it is.
    pub(super) parts: Parts,
    /// Keeps a node until the pool does.
    pub(super) _held: Option<File>,
}

/// Opens a store other than files. The nodes of a split device go by themselves with the pool.
pub(super) fn open_store(config: &ThinConfig, names: &Names, control: &Control) -> Result<Opened, StorageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StorageError::Io { op: "open", path, source }
    };
    match &config.store {
        Store::Files => unreachable!("files are opened elsewhere"),
        Store::Pair { data, metadata } => {
            let (data_file, file) = (open(DATA_KEY, data)?, open(METADATA_KEY, metadata)?);
            let numbers = (number_of(&file), number_of(&data_file));
            let numbers = (numbers.0.map_err(failed(metadata))?, numbers.1.map_err(failed(data))?);
            let length = block::size(&data_file).map_err(failed(data))?;
            let again = open(METADATA_KEY, metadata)?;
            let parts = Parts::Pair { data: data_file, metadata: again };
            Ok(Opened { metadata: (metadata.clone(), file), numbers: Some(numbers), length, parts, _held: None })
        }
        Store::Device(path) => {
            let device = open(DEVICE_KEY, path)?;
            let layout = Layout::read(&device).map_err(failed(path))?;
            let layout = layout.ok_or_else(|| refused(DEVICE_KEY, format!("{} is not ours", path.display())))?;
            let length = layout.total(Part::Data);
            let split = Split { device, layout: Mutex::new(layout), names: names.clone() };
            let (metadata, file, metadata_number) = split.activate(control, Part::Metadata)?;
            let (_, data, data_number) = split.activate(control, Part::Data)?;
            let numbers = Some((metadata_number, data_number));
            let parts = Parts::Split(split);
            Ok(Opened { metadata: (metadata, file), numbers, length, parts, _held: Some(data) })
        }
        Store::Pool(name) => {
            let (_, file) = given(name)?;
            let metadata = (place(config), file);
            Ok(Opened { metadata, numbers: None, length: 0, parts: Parts::Given, _held: None })
        }
    }
}

fn number_of(device: &File) -> io::Result<String> {
    let number = device.metadata()?.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

impl Split {
    fn names(&self, part: Part) -> (String, String) {
        let role = match part {
            Part::Data => Role::Data,
            Part::Metadata => Role::Metadata,
        };
        (self.names.name(role), self.names.uuid(role))
    }

    fn table(&self, layout: &Layout, part: Part) -> io::Result<Vec<(u64, u64, String, String)>> {
        let number = number_of(&self.device)?;
        let mut start = 0;
        let lines = layout.segments(part).iter().map(|segment| {
            let line = (start, segment.length / 512, "linear".to_owned(), format!("{number} {}", segment.start / 512));
            start += segment.length / 512;
            line
        });
        Ok(lines.collect())
    }

    /// The node of a part, open; it stays as long as that is, or the pool.
    fn activate(&self, control: &Control, part: Part) -> Result<(PathBuf, File, String), StorageError> {
        let (name, uuid) = self.names(part);
        let failed = |source| StorageError::DeviceMapper { op: "activate", device: name.clone(), source };
        let info = match control.info(&name).map_err(failed)? {
            Some(info) if info.uuid().is_some_and(|found| found.to_string() == uuid) => info,
            Some(_) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
            None => {
                let table = self.table(&lock(&self.layout), part).map_err(failed)?;
                control.create_from(&name, &uuid, &table).map_err(failed)?
            }
        };
        let path = PathBuf::from(format!("/dev/dm-{}", info.device().minor));
        let file = open(DEVICE_KEY, &path)?;
        control.remove(&name).map_err(failed)?;
        Ok((path, file, super::kernel::number(info.device())))
    }

    /// Makes a part `to` bytes long: first in the layout, then its node.
    pub(super) fn extend(&self, control: &Control, part: Part, to: Bytes) -> io::Result<()> {
        let size = block::size(&self.device)?;
        let mut layout = lock(&self.layout);
        if to.0 > layout.total(part) {
            let grown = layout.grown(part, to.0, size).ok_or(io::ErrorKind::StorageFull)?;
            grown.write(&self.device)?;
            *layout = grown;
        }
        control.replace_with(&self.names(part).0, &self.table(&layout, part)?)
    }

    /// Room on the device.
    pub(super) fn host(&self, part: Part) -> io::Result<Host> {
        let size = block::size(&self.device)?;
        Ok(alone(lock(&self.layout).room(part, size), size))
    }
}

/// Room that nobody else uses.
pub(super) fn alone(free: u64, total: u64) -> Host {
    Host { free: Bytes(free), total: Bytes(total), holes: Bytes(0), shared: false }
}

const DATA_KEY: &str = "the device of storage.data-device";
const METADATA_KEY: &str = "the device of storage.metadata-device";
const DEVICE_KEY: &str = "the device of storage.device";
const POOL_KEY: &str = "the pool of storage.pool";
