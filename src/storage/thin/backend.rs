//! What the driver needs from below: the pool's messages, the nodes, and the file systems on them.
//!
//! `kernel.rs` is the real one; `model.rs` keeps everything in memory for tests, with the kernel's error numbers:
//! EEXIST id in use, ENODATA no such id or origin, EBUSY delete while active, EINVAL stale transaction id or id of more
//! than 24 bits, EOPNOTSUPP the pool is read-only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::metadata::Listing;
use crate::model::Bytes;
use crate::storage::{Access, StorageError};

/// All of it.
pub(super) trait Backend: Pool + Nodes + Files + Send + Sync + std::fmt::Debug {}

impl<T: Pool + Nodes + Files + Send + Sync + std::fmt::Debug> Backend for T {}

/// The pool's messages and numbers. What a message did is on the disk when it returns: dm-thin commits first.
pub(super) trait Pool {
    /// Makes an empty device.
    fn create_thin(&self, thin: u32) -> io::Result<()>;
    /// Makes a snapshot of `origin`, which must not be written to meanwhile: inactive or suspended.
    fn create_snap(&self, thin: u32, origin: u32) -> io::Result<()>;
    /// Deletes an inactive device.
    fn delete(&self, thin: u32) -> io::Result<()>;
    /// Raises the transaction id if it is `from`; EINVAL if not.
    fn set_transaction_id(&self, from: u64, to: u64) -> io::Result<()>;
    /// The numbers now; commits nothing.
    fn numbers(&self) -> io::Result<Numbers>;
    /// Every device, read from a snapshot of the metadata that the kernel holds for us.
    fn listing(&self) -> Result<Listing, StorageError>;
    /// Pool blocks that one device alone maps, for each device that has any; at one moment. Devices can be written
    /// meanwhile.
    fn exclusive(&self) -> Result<BTreeMap<u32, u64>, StorageError>;
    /// Writes a backup of the metadata into `directory` and removes the oldest; false when there is no way to make one.
    fn back_up(&self, directory: &Path) -> Result<bool, StorageError>;
    /// Every device as of the last commit; asks nobody, so never blocks on the pool.
    fn glance(&self) -> Result<Listing, StorageError>;
    /// Makes a part of the pool `to` bytes large, with all its room reserved on the host. ENOSPC when the host has
    /// none. Nothing changes on an error, but that room may stay reserved for the next try.
    fn extend(&self, part: Part, to: Bytes) -> io::Result<()>;
    /// What there is for a part of the pool to grow: the file system of its files, or the rest of its block device.
    fn host(&self, part: Part) -> io::Result<Host>;
    /// Takes room of the host for everything that discards gave back to it. ENOSPC when it has less; what it has is
    /// taken then.
    fn reserve(&self) -> io::Result<()>;
    /// An upper bound of what the page cache has not written yet.
    fn dirty(&self) -> Bytes;
    /// The block device of the data.
    fn backing(&self) -> io::Result<PathBuf>;
    /// What the administrator should know about how this host is set up.
    fn warnings(&self) -> Vec<String>;
    /// Deactivates the pool as soon as no device of it is active; false when it is not ours to deactivate.
    fn deactivate(&self) -> io::Result<bool>;
}

/// Device-mapper nodes, by name.
pub(super) trait Nodes {
    /// The node, if there is one.
    fn node(&self, name: &str) -> io::Result<Option<Node>>;
    /// Makes a node. EBUSY if its name or UUID is taken, ENODATA if the pool has no such device.
    fn activate(&self, spec: &Spec<'_>) -> io::Result<Node>;
    /// How large the node is.
    fn size(&self, name: &str) -> io::Result<Bytes>;
    /// Makes a node larger that is in use.
    fn enlarge(&self, spec: &Spec<'_>) -> io::Result<()>;
    /// Who has the node open, in words; empty when that cannot be seen.
    fn users(&self, node: &Node) -> Vec<String>;
    /// Removes the node: now if nobody has it open, else at last close. ENXIO if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Takes a wish to remove at last close back. ENXIO if there is no node, EBUSY if it is going just now.
    fn keep(&self, name: &str) -> io::Result<()>;
    /// Writes out and freezes the file system on it, then holds I/O.
    fn suspend(&self, name: &str) -> io::Result<()>;
    /// Lets I/O through again.
    fn resume(&self, name: &str) -> io::Result<()>;
    /// Lets every I/O on it fail, also what is queued; its device is not in use by it any more.
    fn cut_off(&self, name: &str, size: Bytes) -> io::Result<()>;
    /// Every node of a device of this pool.
    fn ours(&self) -> io::Result<Vec<Node>>;
    /// The names of all nodes that carry this pool's prefix: one call however many there are.
    fn names(&self) -> io::Result<BTreeSet<String>>;
    /// Waits until the node is gone and lets go of its device; false when `limit` passed.
    fn wait_gone(&self, name: &str, limit: Duration) -> io::Result<bool>;
}

/// File systems on nodes.
pub(super) trait Files {
    /// Makes an empty file system.
    fn format(&self, node: &Node) -> Result<(), StorageError>;
    /// Mounts detached. EBUSY if it is mounted read-only already and is to be written.
    fn mount(&self, node: &Node, access: Access) -> io::Result<OwnedFd>;
    /// `length` bytes of the bare node, as they are on the disk.
    fn read_at(&self, node: &Node, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes bytes to the bare node, onto the disk.
    fn write_at(&self, node: &Node, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Mounts detached and read-only without as much as replaying the file system's journal; shares a mount that
    /// there is. EINVAL when there is no file system.
    fn peek(&self, node: &Node) -> io::Result<OwnedFd>;
    /// Writes `size` bytes to the bare node, onto the disk: `head`, and then something.
    fn fill(&self, node: &Node, head: &[u8], size: Bytes) -> io::Result<()>;
    /// Gives all blocks of a bare node back that only its device maps. Nothing is on it afterwards.
    fn discard(&self, node: &Node) -> io::Result<()>;
    /// Gives blocks that the file system does not use back to the pool; how many bytes.
    fn trim(&self, mount: BorrowedFd<'_>) -> io::Result<Bytes>;
    /// Makes the file system on a node that nobody has open `size` large, mostly smaller; what is behind it is given
    /// back to the pool. NotSupported, with the least size, when its content needs more; unchanged then.
    fn shrink(&self, node: &Node, size: Bytes) -> Result<(), StorageError>;
    /// Grows a mounted file system to `size`.
    fn grow(&self, mount: BorrowedFd<'_>, size: Bytes) -> io::Result<()>;
}

/// What a pool is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Data blocks.
    Data,
    /// Metadata blocks.
    Metadata,
}

/// Room on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    /// Bytes that are free.
    pub(super) free: Bytes,
    /// All bytes.
    pub(super) total: Bytes,
    /// Bytes of the pool's data that discards gave back to it: it must have them when the pool wants them again.
    pub(super) holes: Bytes,
    /// Whether others take of it too.
    pub(super) shared: bool,
}

/// A node to be made.
#[derive(Debug)]
pub(super) struct Spec<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its UUID.
    pub(super) uuid: &'a str,
    /// Which device.
    pub(super) thin: u32,
    /// Its size.
    pub(super) size: Bytes,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// Its UUID.
    pub(super) uuid: String,
    /// `/dev/dm-<minor>`.
    pub(super) minor: u32,
    /// Whether it has a table; without one its maker died in the middle.
    pub(super) live: bool,
    /// Whether it goes at last close.
    pub(super) leaving: bool,
    /// Whether I/O is held.
    pub(super) suspended: bool,
    /// How often it is open.
    pub(super) users: u32,
}

/// The pool's numbers: its status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Transaction id.
    pub(super) transaction: u64,
    /// Metadata blocks in use, and all.
    pub(super) metadata: (u64, u64),
    /// Data blocks in use, and all.
    pub(super) data: (u64, u64),
    /// What it can do now.
    pub(super) mode: Mode,
    /// Whether its metadata must be checked.
    pub(super) needs_check: bool,
    /// Whether somebody reserved a snapshot of its metadata.
    pub(super) held: bool,
    /// Whether discards go on to the data, so that the host gets room back.
    pub(super) passes_discards: bool,
}

/// What the pool can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything.
    Write,
    /// Everything but map new blocks.
    OutOfData,
    /// Only be read.
    ReadOnly,
    /// Nothing.
    Failed,
}

impl Numbers {
    /// Reads a status line as in Linux `Documentation/admin-guide/device-mapper/thin-provisioning.rst`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        if matches!(line.trim(), "Fail" | "Error") {
            let none = (0, 0);
            let mode = Mode::Failed;
            let (needs_check, passes_discards) = (true, false);
            let (transaction, metadata, data, held) = (0, none, none, false);
            return Some(Self { transaction, metadata, data, mode, needs_check, held, passes_discards });
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [transaction, metadata, data, held, mode, rest @ ..] = words.as_slice() else { return None };
        Some(Self {
            transaction: transaction.parse().ok()?,
            metadata: used_of(metadata)?,
            data: used_of(data)?,
            mode: match *mode {
                "rw" => Mode::Write,
                "out_of_data_space" => Mode::OutOfData,
                "ro" => Mode::ReadOnly,
                _ => return None,
            },
            needs_check: rest.contains(&"needs_check"),
            held: *held != "-",
            passes_discards: rest.contains(&"discard_passdown"),
        })
    }
}

fn used_of(text: &str) -> Option<(u64, u64)> {
    let (used, total) = text.split_once('/')?;
    Some((used.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_of_the_kernel_are_understood() {
        let line = "998 1648/16384 12/8192 - rw discard_passdown queue_if_no_space - 1024";
        let numbers = Numbers::parse(line).unwrap();
        assert_eq!((numbers.transaction, numbers.metadata, numbers.data), (998, (1648, 16384), (12, 8192)));
        assert_eq!((numbers.mode, numbers.needs_check, numbers.held), (Mode::Write, false, false));
        assert!(numbers.passes_discards);

        let line = "1 2/3 4/5 77 ro ignore_discard error_if_no_space needs_check 1024";
        let numbers = Numbers::parse(line).unwrap();
        assert_eq!((numbers.mode, numbers.needs_check, numbers.held), (Mode::ReadOnly, true, true));
        assert!(!numbers.passes_discards);
        assert_eq!(Numbers::parse("Fail").unwrap().mode, Mode::Failed);
        assert_eq!(Numbers::parse("1 2/3 4/5 - out_of_data_space no_discard_passdown").unwrap().mode, Mode::OutOfData);
    }

    #[test]
    fn other_lines_are_not() {
        for line in ["", "1 2 3", "1 2/3 4/5 - odd", "x 2/3 4/5 - rw"] {
            assert_eq!(Numbers::parse(line), None, "{line}");
        }
    }
}
