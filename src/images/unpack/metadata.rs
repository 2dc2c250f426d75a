//! Owner, mode, extended attributes and times, in this order: changing the owner clears set-user-id bits (chown(2)) and
//! `security.capability`, and an access control list changes the group bits of the mode.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Fault, Place};
use crate::images::tar::{Entry, Kind, Mtime};

/// Attributes that mean the same on every host, by the start of their name. Labels of the builder's security module
/// (`security.selinux`), overlayfs' bookkeeping (`trusted.overlay.`) and attributes of other systems do not.
const KEPT: [&[u8]; 4] = [b"user.", b"trusted.", b"security.capability", b"system.posix_acl_"];
const DROPPED: &[u8] = b"trusted.overlay.";

/// Sets owner, mode and attributes of an open file or directory.
pub(super) fn set_on_file(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Fault> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(Fault::failed("set the owner of"))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(Fault::failed("set the mode of"))?;
    set_xattrs(entry, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))
}

/// Sets everything on what cannot be opened: a symbolic link or a special file. Not followed.
pub(super) fn set_on_name(place: &Place<'_>, entry: &Entry) -> Result<(), Fault> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::chownat(place.parent, place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Fault::failed("set the owner of"))?;
    if entry.kind != Kind::Symlink {
        // It is what we have just made, so there is no link to follow; fchmodat(2) has no flag for it before Linux 6.6.
        rustix::fs::chmodat(place.parent, place.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(Fault::failed("set the mode of"))?;
    }
    set_xattrs(entry, |name, value| lsetxattr(place, name, value))?;
    rustix::fs::utimensat(place.parent, place.name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Fault::failed("set the times of"))
}

/// Sets the time of modification; that of access becomes the same, so that the same archive makes the same tree.
pub(super) fn set_times(file: BorrowedFd<'_>, mtime: Mtime) -> Result<(), Fault> {
    rustix::fs::futimens(file, &timestamps(mtime)).map_err(Fault::failed("set the times of"))
}

fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// The greatest number stands for "unchanged" in chown(2), so that no file can have it.
fn owner(entry: &Entry) -> Result<(Uid, Gid), Fault> {
    let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (number(entry.uid), number(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(Fault::refused(format!("its owner {}:{} cannot be represented", entry.uid, entry.gid))),
    }
}

fn set_xattrs(entry: &Entry, set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> Result<(), Fault> {
    for (name, value) in &entry.xattrs {
        if !is_kept(name) || name.contains(&0) {
            tracing::debug!(path = %entry.path.escape_ascii(), xattr = %name.escape_ascii(), "attribute left out");
            continue;
        }
        match set(name, value) {
            // Attributes of users are a nicety, and cannot be on links and special files at all (xattr(7)).
            Err(Errno::OPNOTSUPP | Errno::PERM) if name.starts_with(b"user.") => {}
            result => result.map_err(Fault::failed("set an extended attribute of"))?,
        }
    }
    Ok(())
}

fn is_kept(name: &[u8]) -> bool {
    KEPT.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with(DROPPED)
}

/// There is no *at call for attributes before Linux 6.13; the way through `/proc/self/fd` ends at our own directory,
/// and the name in it is not followed.
fn lsetxattr(place: &Place<'_>, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    let path = [format!("/proc/self/fd/{}/", place.parent.as_raw_fd()).as_bytes(), place.name].concat();
    rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty())
}
