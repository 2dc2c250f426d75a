//! Mounts by descriptor: fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).
//!
//! For file systems that need no block device. Nothing here follows a symbolic link or takes an absolute path of somebody
//! else's making: where a mount goes is a directory descriptor and one name, or the descriptor itself.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
pub use rustix::mount::MountAttrFlags as Attributes;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

/// Makes every mount of the namespace private: nothing propagates from or to another namespace (mount_namespaces(7)).
pub fn make_all_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes a mount of a file system, not yet attached anywhere.
pub fn create(file_system: &str, options: &[(&str, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match *value {
            "" => rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?,
            value => rustix::mount::fsconfig_set_string(context.as_fd(), *key, value)?,
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches an unattached mount on the directory or file `place`.
pub fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", place, c"", flags)?)
}

/// Attaches an unattached mount on `name` in `directory`; a symbolic link there is not followed.
pub fn attach_at(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, c"", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Attaches an unattached mount on an absolute path of the caller's own root; symbolic links are not followed at its end.
pub fn attach_on_path(mount: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What of a tree of mounts to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one mount that the place is on.
    One,
    /// And everything mounted below.
    Tree,
}

/// An unattached copy of the mount at `place`, rooted there, as a bind mount is (open_tree(2), `OPEN_TREE_CLONE`). The mount must
/// be of this namespace.
pub fn copy(place: BorrowedFd<'_>, depth: Depth) -> io::Result<OwnedFd> {
    let flags = copy_flags(depth) | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(place, c"", flags)?)
}

/// As [`copy`], of `name` in `directory`; a symbolic link there is not followed.
pub fn copy_at(directory: BorrowedFd<'_>, name: impl AsRef<OsStr>, depth: Depth) -> io::Result<OwnedFd> {
    let flags = copy_flags(depth) | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    Ok(rustix::mount::open_tree(directory, name.as_ref(), flags)?)
}

/// As [`copy`], of an absolute path in the caller's own root; symbolic links are followed.
pub fn copy_path(path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(CWD, path, copy_flags(depth))?)
}

fn copy_flags(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match depth {
        Depth::One => flags,
        Depth::Tree => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// Adds attributes to a mount, and with [`Depth::Tree`] to all below it (mount_setattr(2), Linux 5.12).
pub fn add_attributes(mount: BorrowedFd<'_>, attributes: Attributes, depth: Depth) -> io::Result<()> {
    set(mount, u64::from(attributes.bits()), 0, depth)
}

/// Makes a mount private: nothing propagates from or to another. A copy of a mount is a peer of that, if that is shared, and
/// pivot_root(2) does not take one.
pub fn make_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, 0, libc::MS_PRIVATE, Depth::One)
}

/// Makes a mount a slave: what is mounted below its peers shows below it too, and never the other way round.
pub fn make_slave(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, 0, libc::MS_SLAVE, Depth::One)
}

/// Makes a mount and all below it shared: copies of them in namespaces made later are their peers.
pub fn make_shared(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, 0, libc::MS_SHARED, Depth::Tree)
}

fn set(mount: BorrowedFd<'_>, attributes: u64, propagation: u64, depth: Depth) -> io::Result<()> {
    let request = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if depth == Depth::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty C string; the struct has the kernel's layout and the size given, and outlives the
    // call, which only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&request),
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the topmost mount at `path` away (umount2(2)); a symbolic link at its end is not followed. EBUSY when somebody uses
/// what is mounted.
pub fn detach_at(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)?)
}

/// Makes the attached mount `root` the root of the namespace and drops the old one with all that is mounted on it
/// (pivot_root(2), "pivot_root(".", ".")"). The process stands in the new root afterwards.
///
/// Nothing may be mounted over the old root directory: the final umount takes the topmost mount there, so it would take only
/// that and leave the old tree in reach.
pub fn pivot_into(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies over the new one.
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
