//! Trees of devices as mounts: detached, put on a directory of somebody's, and taken away again.
//!
//! move_mount(2) puts a mount only on a directory of the mount namespace that its caller is in, so it is called from a
//! thread that has joined the right one. Which that is, is tried: the calling client's, then the daemon's own. Where a mount
//! is, is never remembered: the kernel knows, also after a restart of the daemon.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};

use crate::storage::{Access, TREE};
use crate::sys::mount::{self, Attributes, Depth};
use crate::sys::{mountinfo, mountspace, pidfd};

/// The tree of a device, as a mount that is attached nowhere and shows nothing else of the device. `device` is its
/// detached mount, which is of no use afterwards. Set-user-id programs and device nodes in it have no power.
pub(super) fn tree(device: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd> {
    // Before Linux 6.15 only a mount of this namespace can be copied, so it is attached in one that nobody sees: any
    // directory that every host has will do.
    mountspace::in_a_copy(|| {
        mount::attach_on_path(device, "/proc")?;
        let tree = mount::copy(open_tree(device)?.as_fd(), Depth::One)?;
        let mut attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
        attributes.set(Attributes::MOUNT_ATTR_RDONLY, access == Access::ReadOnly);
        mount::add_attributes(tree.as_fd(), attributes, Depth::One)?;
        Ok(tree)
    })
}

fn open_tree(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(device, TREE, flags, Mode::empty(), resolve)?)
}

/// Whether a descriptor is that of a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Puts a tree on a directory of the mount namespace of the process `pid`, or of this process's own. EINVAL when it is in
/// neither.
pub(super) fn attach(tree: BorrowedFd<'_>, directory: BorrowedFd<'_>, pid: u32) -> io::Result<()> {
    match in_namespace_of(pid, || mount::attach(tree, directory)) {
        // It is not in that one; or whoever called is gone, and with it the namespace's last name.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ESRCH)) => {
            mount::attach(tree, directory)
        }
        other => other,
    }
}

/// What tells one tree from all others: the device number and the inode of its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// That of the tree of a device, by the device's detached mount.
    pub(super) fn of(device: BorrowedFd<'_>) -> io::Result<Self> {
        let top = rustix::fs::fstat(open_tree(device)?)?;
        Ok(Self(top.st_dev, top.st_ino))
    }

    /// That of whatever is at a path, if anything can be found there without waiting for it.
    fn at(path: &Path) -> Option<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let top = rustix::fs::statat(CWD, path, flags).ok()?;
        Some(Self(top.st_dev, top.st_ino))
    }
}

/// Why a tree could not be taken away.
#[derive(Debug)]
pub(super) enum DetachError {
    /// Somebody uses the mount on this path.
    Busy(PathBuf),
    /// The kernel refused.
    Other(io::Error),
}

impl From<io::Error> for DetachError {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

/// Takes every mount of a tree away that is in the mount namespace of the process `pid` or in this process's own; how many
/// that were.
pub(super) fn detach(tree: Identity, pid: u32) -> Result<usize, DetachError> {
    // This process's view of processes: what is mounted on /proc elsewhere proves nothing.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).map_err(io::Error::from)?;
    let there = match in_namespace_of(pid, || Ok(detach_here(tree, proc.as_fd()))) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(0),
        other => other?,
    };
    Ok(there? + detach_here(tree, proc.as_fd())?)
}

fn detach_here(tree: Identity, proc: BorrowedFd<'_>) -> Result<usize, DetachError> {
    let places = mount_points(&mount_table(proc)?);
    // The newest first: it may lie over another.
    let ours = places.into_iter().rev().filter(|place| Identity::at(place) == Some(tree));
    let mut count = 0;
    for place in ours {
        match mount::detach_at(&place) {
            Ok(()) => count += 1,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(DetachError::Busy(place)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// This thread's proc_pid_mountinfo(5).
fn mount_table(proc: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, "thread-self/mountinfo", flags, Mode::empty())?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut fs::File::from(file), &mut text)?;
    Ok(text)
}

/// Where a directory called as our trees are is mounted. No other is looked at: the server of a network file system may be
/// gone, and a look would wait for it.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    mountinfo::parse(table).into_iter().filter(|mount| mount.root.ends_with(TREE)).map(|mount| mount.point).collect()
}

/// Works in the mount namespace of a process. ESRCH when the process is gone.
fn in_namespace_of<T: Send>(pid: u32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    mountspace::in_that_of(pidfd::open(pid)?.as_fd(), work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trees_are_looked_for_and_their_names_are_read() {
        let table = b"36 35 98:0 / / rw - ext4 /dev/x rw\n\
            40 36 253:2 /rootfs /mnt/a\\040b rw shared:1 - ext4 /dev/dm-2 rw\n\
            41 36 8:1 /var/lib/holm/pool/trees/x/rootfs /mnt/c rw - ext4 /dev/sda1 rw\n\
            42 36 0:9 / /mnt/far rw - nfs far:/ rw\n";
        assert_eq!(mount_points(table), [PathBuf::from("/mnt/a b"), PathBuf::from("/mnt/c")]);
    }

    #[test]
    fn this_process_has_a_table_of_mounts() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).unwrap();
        assert!(!mount_table(proc.as_fd()).unwrap().is_empty());
        assert_eq!(detach_here(Identity(0, 0), proc.as_fd()).unwrap(), 0);
    }
}
