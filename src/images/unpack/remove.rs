//! Removing what stands in the way, or what a whiteout names. No path is followed: directories are entered by their
//! open parent and name, never through a symbolic link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::place::inode;
use super::{Fault, Place};

/// Directories inside one another that are open at once while a tree is removed.
const DEPTH: usize = 4096;

/// What is not to be removed: by inode of the directory, and name.
type Keep<'k> = &'k dyn Fn(u64, &[u8]) -> bool;

/// Removes whatever is at `place`; nothing there is no error.
pub(super) fn everything(place: &Place<'_>) -> Result<(), Fault> {
    lower(place, &|_, _| false)
}

/// Removes what is at `place` and below, except what `keep` names and the directories on the way to it.
pub(super) fn lower(place: &Place<'_>, keep: Keep<'_>) -> Result<(), Fault> {
    if keep(place.inode, place.name) {
        // Of this layer. If it is a directory it may have merged with a lower one, whose contents go.
        return match place.open_directory() {
            Ok(directory) => lower_contents(directory.as_fd(), keep),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
            Err(errno) => Err(Fault::failed("open")(errno)),
        };
    }
    match rustix::fs::unlinkat(place.parent, place.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR for a directory, POSIX would have EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(Fault::failed("remove")(errno)),
    }
    let directory = place.open_directory().map_err(Fault::failed("remove"))?;
    lower_contents(directory.as_fd(), keep)?;
    remove_directory(place.parent, place.name)
}

/// Removes everything in `directory` that `keep` does not name, and nothing that it is needed for.
///
/// Goes down without recursion, because how deep a tree is was up to whoever made it.
pub(super) fn lower_contents(directory: BorrowedFd<'_>, keep: Keep<'_>) -> Result<(), Fault> {
    let mut levels = vec![Level::new(directory.try_clone_to_owned().map_err(failed)?, Vec::new(), keep)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.directories.pop() {
            let place = Place { parent: level.fd.as_fd(), inode: 0, name: &name };
            let below = Level::new(place.open_directory().map_err(Fault::failed("remove"))?, name, keep)?;
            levels.push(below);
            if levels.len() > DEPTH {
                return Err(Fault::Limit(format!("directories nested more than {DEPTH} deep")));
            }
            continue;
        }
        let done = levels.pop().expect("it was just looked at");
        match levels.last() {
            Some(above) if !keep(above.inode, &done.name) => remove_directory(above.fd.as_fd(), &done.name)?,
            _ => {}
        }
    }
    Ok(())
}

/// A directory that is being emptied; its files are gone.
struct Level {
    fd: OwnedFd,
    inode: u64,
    /// Its name in the level above.
    name: Vec<u8>,
    /// Directories in it that are still to be emptied.
    directories: Vec<Vec<u8>>,
}

impl Level {
    fn new(fd: OwnedFd, name: Vec<u8>, keep: Keep<'_>) -> Result<Self, Fault> {
        let inode = inode(fd.as_fd()).map_err(Fault::failed("inspect"))?;
        let mut level = Self { fd, inode, name, directories: Vec::new() };
        for (name, kind) in list(&level.fd)? {
            if kind == FileType::Directory {
                level.directories.push(name);
            } else if !keep(inode, &name) {
                rustix::fs::unlinkat(&level.fd, &name, AtFlags::empty()).map_err(Fault::failed("remove"))?;
            }
        }
        Ok(level)
    }
}

/// Names and types of what is in a directory, as lstat would have them.
fn list(directory: &OwnedFd) -> Result<Vec<(Vec<u8>, FileType)>, Fault> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory).map_err(Fault::failed("list"))? {
        let entry = entry.map_err(Fault::failed("list"))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => kind_of(directory, name)?,
            known => known,
        };
        found.push((name.to_vec(), kind));
    }
    Ok(found)
}

fn kind_of(directory: &OwnedFd, name: &[u8]) -> Result<FileType, Fault> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Fault::failed("inspect"))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// One that still holds what was kept stays.
fn remove_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Fault> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(Fault::failed("remove")(errno)),
    }
}

fn failed(error: std::io::Error) -> Fault {
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    Fault::failed("open")(errno)
}
