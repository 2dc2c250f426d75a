//! Mounts of block devices that are in no mount namespace: fsopen(2), fsconfig(2), fsmount(2).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};

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
