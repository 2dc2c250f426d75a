//! How a pool is made larger, on a real kernel.
//!
//! Only room that the host has given becomes part of the pool: the file is allocated first, so that the pool is full
//! before the host's file system is, and never the other way round. What discards give back to the host later is counted
//! (see `space`), and taken again before somebody else has it all. Then the loop device learns its new size,
//! and the pool, stopped for some 50 ms, gets a table of the new length. Linux `dm-thin.c`: `pool_preresume` enlarges
//! data and metadata, and a pool that was out of either works again; writers that waited go on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::FallocateFlags;

use super::backend::{Host, Part, Pool};
use super::kernel::Kernel;
use super::space;
use super::store::{self, Parts};
use crate::model::Bytes;
use crate::sys::{block, loopdev};

/// See [`super::backend::Pool::extend`].
pub(super) fn extend(kernel: &Kernel, part: Part, to: Bytes) -> io::Result<()> {
    let (target, params) = kernel.control.table(&kernel.pool)?.ok_or(io::ErrorKind::NotFound)?;
    let table = Table::parse(&params).filter(|_| target == "thin-pool");
    let table = table.ok_or_else(|| io::Error::other(format!("the table '{target} {params}' is not understood")))?;
    match (&kernel.parts, part) {
        (Parts::Files { data }, Part::Data) => extend_file(data, table.data, to)?,
        (Parts::Files { .. }, Part::Metadata) => extend_file(&kernel.metadata.1, table.metadata, to)?,
        (Parts::Pair { data: device, .. }, Part::Data) | (Parts::Pair { metadata: device, .. }, Part::Metadata) => {
            if block::size(device)? < to.0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
        }
        (Parts::Split(split), part) => split.extend(&kernel.control, part, to)?,
        (Parts::Given, _) => return Err(io::ErrorKind::Unsupported.into()),
    }
    // A file that an interrupted growth left longer stays a part of the pool's future only.
    let length = match part {
        Part::Data => to.0,
        Part::Metadata => kernel.control.sectors(&kernel.pool)? * 512,
    };
    let params = table.with_low_water(space::data_mark(Bytes(length)).0 / kernel.block_size.0);
    kernel.control.replace(&kernel.pool, length / 512, ("thin-pool", &params))
}

fn extend_file(file: &File, device: &str, to: Bytes) -> io::Result<()> {
    let number = device.strip_prefix("7:").and_then(|minor| minor.parse().ok());
    let number = number.ok_or_else(|| io::Error::other(format!("{device} is no loop device")))?;
    allocate(file, to)?;
    loopdev::follow_size(number)
}

/// Makes the file at least `to` bytes long, all reserved, and on the disk: the pool will count on it.
fn allocate(file: &File, to: Bytes) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length >= to.0 {
        return Ok(());
    }
    if let Err(error) = rustix::fs::fallocate(file, FallocateFlags::empty(), length, to.0 - length) {
        // It may have become longer in part.
        file.set_len(length)?;
        return Err(error.into());
    }
    file.sync_all()
}

/// See [`super::backend::Pool::host`].
pub(super) fn host(kernel: &Kernel, part: Part) -> io::Result<Host> {
    match (&kernel.parts, part) {
        (Parts::Files { data }, _) => host_of(data),
        (Parts::Pair { data: device, .. }, Part::Data) => {
            let (size, now) = (block::size(device)?, kernel.control.sectors(&kernel.pool)? * 512);
            Ok(store::alone(size.saturating_sub(now), size))
        }
        (Parts::Pair { metadata: device, .. }, Part::Metadata) => {
            let now = kernel.numbers()?.metadata.1 * super::metadata::BLOCK as u64;
            let size = block::size(device)?;
            Ok(store::alone(size.saturating_sub(now), size))
        }
        (Parts::Split(split), part) => split.host(part),
        (Parts::Given, _) => Ok(store::alone(0, 0)),
    }
}

/// The file system of `file`.
fn host_of(file: &File) -> io::Result<Host> {
    let status = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(status.f_frsize));
    let meta = file.metadata()?;
    let holes = Bytes(meta.len().saturating_sub(meta.blocks().saturating_mul(512)));
    Ok(Host { free: bytes(status.f_bavail), total: bytes(status.f_blocks), holes, shared: true })
}

/// Allocates the holes of a file, from its start, as far as there is room. It can be in use: what is written is kept.
pub(super) fn reserve(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    for start in (0..length).step_by(STEP) {
        rustix::fs::fallocate(file, FallocateFlags::empty(), start, (length - start).min(STEP as u64))?;
    }
    file.sync_all()
}

/// So much at once: what was taken before an error stays taken.
const STEP: usize = 256 << 20;

/// `Dirty` and `Writeback` of proc_meminfo(5); everything when it cannot be read.
pub(super) fn dirty() -> Bytes {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| dirty_of(&text)).unwrap_or(Bytes(u64::MAX / 2))
}

fn dirty_of(meminfo: &str) -> Option<Bytes> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(Bytes((field("Dirty:")? + field("Writeback:")?) * Bytes::KIB))
}

/// What is wrong with the host for a pool.
pub(super) fn warnings() -> Vec<String> {
    let timeout = fs::read_to_string(NO_SPACE_TIMEOUT);
    let never = timeout.is_ok_and(|text| text.trim() == "0");
    let text = format!("writers to a full pool wait for ever: {NO_SPACE_TIMEOUT} is 0; write 60 to it");
    never.then_some(text).into_iter().collect()
}

const NO_SPACE_TIMEOUT: &str = "/sys/module/dm_thin_pool/parameters/no_space_timeout";

/// `<metadata> <data> <block sectors> <low water> <options>`, as in thin-provisioning.rst.
#[derive(Debug, PartialEq, Eq)]
struct Table<'a> {
    metadata: &'a str,
    data: &'a str,
    block_sectors: &'a str,
    options: &'a str,
}

impl<'a> Table<'a> {
    fn parse(params: &'a str) -> Option<Self> {
        let mut words = params.trim().splitn(5, ' ');
        let mut device = || words.next().filter(|word| word.split_once(':').is_some_and(|(_, minor)| is_number(minor)));
        let (metadata, data) = (device()?, device()?);
        let (block_sectors, _low_water) = (words.next()?, words.next()?);
        Some(Self { metadata, data, block_sectors, options: words.next().unwrap_or("0") })
    }

    /// The options stay: whether discards are passed on cannot be changed while the pool is active.
    fn with_low_water(&self, blocks: u64) -> String {
        let Self { metadata, data, block_sectors, options } = self;
        format!("{metadata} {data} {block_sectors} {blocks} {options}")
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_kept_but_for_its_mark() {
        let table = Table::parse("7:4 7:5 128 1024 1 no_discard_passdown").unwrap();
        assert_eq!((table.metadata, table.data), ("7:4", "7:5"));
        assert_eq!(table.with_low_water(2048), "7:4 7:5 128 2048 1 no_discard_passdown");
        assert_eq!(Table::parse("7:4 7:5 128 1024").unwrap().with_low_water(1), "7:4 7:5 128 1 0");
        for other in ["/dev/x 7:5 128 1 0", "7:1", "7:x 7:1 128 1"] {
            assert_eq!(Table::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_dirty_is_read_from_the_kernels_numbers() {
        let text = "MemTotal: 9 kB\nDirty:               500 kB\nWriteback:            12 kB\nWritebackTmp: 7 kB\n";
        assert_eq!(dirty_of(text), Some(Bytes(512 << 10)));
        assert_eq!(dirty_of("Dirty: x"), None);
    }

    #[test]
    fn a_file_grows_with_all_its_room() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        allocate(&file, Bytes(Bytes::MIB)).unwrap();
        let meta = file.metadata().unwrap();
        assert!(meta.len() == Bytes::MIB && meta.blocks() * 512 >= Bytes::MIB);
        assert!(allocate(&file, Bytes(1 << 60)).is_err());
        assert_eq!(file.metadata().unwrap().len(), Bytes::MIB);
    }

    #[test]
    fn holes_are_counted_and_filled_without_touching_what_is_written() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        allocate(&file, Bytes(4 * Bytes::MIB)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"kept", 0).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, Bytes::MIB, 2 * Bytes::MIB).unwrap();
        assert_eq!(host_of(&file).unwrap().holes, Bytes(2 * Bytes::MIB));
        reserve(&file).unwrap();
        assert_eq!(host_of(&file).unwrap().holes, Bytes(0));
        let mut text = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 0).unwrap();
        assert_eq!(&text, b"kept");
    }
}
