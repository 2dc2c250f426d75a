//! Mounts that are in no mount namespace: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), mount_setattr(2).
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

/// Whether the superblock or only the mount is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writable {
    /// Both may be written.
    Yes,
    /// The superblock may be written, this mount of it not.
    NotThroughThisMount,
    /// Neither.
    No,
}

/// Makes a superblock of type `fs` from `source` and mounts it, attached nowhere. The mount goes when the descriptor
/// is closed and nobody moved or opened it. An option with an empty value is a flag. EBUSY when the source is mounted already with the other [`Writable`].
pub fn detached(fs: &str, source: &Path, options: &[(&str, &str)], writable: Writable) -> io::Result<OwnedFd> {
    let context = mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    for (key, value) in options {
        match *value {
            "" => mount::fsconfig_set_flag(context.as_fd(), *key)?,
            value => mount::fsconfig_set_string(context.as_fd(), *key, value)?,
        }
    }
    if writable == Writable::No {
        mount::fsconfig_set_flag(context.as_fd(), "ro")?;
    }
    mount::fsconfig_create(context.as_fd())?;
    let attributes = match writable {
        Writable::Yes => MountAttrFlags::empty(),
        Writable::NotThroughThisMount | Writable::No => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    Ok(mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached mount of the directory `name` below `parent`, without the mounts below it.
pub fn clone_tree(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    Ok(mount::open_tree(parent.as_fd(), name, flags)?)
}

/// Makes this mount, not the file system, read-only.
pub fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a constant with a final zero, and the kernel reads as many bytes of the live local as its own
    // size says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
