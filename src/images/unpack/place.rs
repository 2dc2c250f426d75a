//! Finding the place of an entry: paths as the archive has them, and directories opened below the root.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::whiteout::PREFIX;
use super::{Fault, Place, remove};
use crate::images::limits::Limits;
use crate::sys::openat2::open_in_root;

/// A path below the root, split at its slashes; no component is empty, `.` or `..`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    components: Vec<&'a [u8]>,
}

impl<'a> Path<'a> {
    /// Takes a path of the archive. Absolute ones are taken below the root.
    pub(super) fn parse(path: &'a [u8], limits: &Limits) -> Result<Self, Fault> {
        if path.len() > limits.path {
            return Err(Fault::Limit(format!("a path of {} bytes, more than {}", path.len(), limits.path)));
        }
        if path.is_empty() || path.contains(&0) {
            return Err(Fault::refused("its name is empty or has a zero byte"));
        }
        let components: Vec<_> = path.split(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b".")).collect();
        if components.contains(&&b".."[..]) {
            return Err(Fault::refused("'..' in its name"));
        }
        if components.len() > limits.depth {
            return Err(Fault::Limit(format!("a path of {} levels, more than {}", components.len(), limits.depth)));
        }
        if components.iter().rev().skip(1).any(|c| c.starts_with(PREFIX)) {
            return Err(Fault::refused("a whiteout cannot have anything below it"));
        }
        Ok(Self { components })
    }

    /// The last component; `None` for the root.
    pub(super) fn name(&self) -> Option<&'a [u8]> {
        self.components.last().copied()
    }

    /// The path with single slashes and none at its ends.
    pub(super) fn joined(&self) -> Vec<u8> {
        self.components.join(&b'/')
    }

    fn parents(&self) -> &[&'a [u8]] {
        self.components.split_last().map_or(&[], |(_, parents)| parents)
    }
}

/// The tree being filled, with the directory of the last entry kept open: entries mostly come directory by directory.
pub(super) struct Places<'a> {
    root: BorrowedFd<'a>,
    parent: Option<Parent>,
    /// What this layer unpacked: inode of the directory, and name. An alias of the directory has the same inode.
    unpacked: HashSet<(u64, Box<[u8]>)>,
}

struct Parent {
    path: Vec<u8>,
    fd: OwnedFd,
    inode: u64,
    /// Something was removed since: its path may lead elsewhere now.
    stale: bool,
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

impl<'a> Places<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, parent: None, unpacked: HashSet::new() }
    }

    /// Opens the directory that `path` lies in, making what is missing on the way, for the calls that follow.
    pub(super) fn open_parent(&mut self, path: &Path<'_>) -> Result<(), Fault> {
        let wanted = path.parents().join(&b'/');
        if self.parent.as_ref().is_some_and(|parent| parent.path == wanted && !parent.stale) {
            return Ok(());
        }
        self.parent = None;
        let fd = match open(self.root, &wanted) {
            Err(Errno::NOENT) => self.make(path.parents())?,
            result => result.map_err(no_parent)?,
        };
        let inode = inode(fd.as_fd()).map_err(Fault::failed("inspect"))?;
        self.parent = Some(Parent { path: wanted, fd, inode, stale: false });
        Ok(())
    }

    /// Opens the directory that `path` lies in, if it is there, and makes nothing.
    pub(super) fn open_other(&self, path: &Path<'_>) -> Result<OwnedFd, Errno> {
        open(self.root, &path.parents().join(&b'/'))
    }

    /// The root, opened so that its attributes can be set.
    pub(super) fn open_root(&self) -> Result<OwnedFd, Fault> {
        open_in_root(self.root, b".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(Fault::failed("open"))
    }

    /// A directory by its joined path, unless its last component is a symbolic link by now.
    pub(super) fn open_unpacked_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        open_in_root(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    }

    /// Makes the directories that no entry announced: of root, mode 0755.
    fn make(&mut self, components: &[&[u8]]) -> Result<OwnedFd, Fault> {
        let mut above = open(self.root, b"").map_err(no_parent)?;
        for (index, name) in components.iter().enumerate() {
            let path = components[..=index].join(&b'/');
            above = match open(self.root, &path) {
                Err(Errno::NOENT) => self.make_one(&above, name, &path)?,
                result => result.map_err(no_parent)?,
            };
        }
        Ok(above)
    }

    fn make_one(&mut self, above: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Fault> {
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(above, name, mode).map_err(|errno| match errno {
            Errno::EXIST => Fault::refused("its parent is a symbolic link that leads nowhere"),
            other => Fault::failed("create a directory for")(other),
        })?;
        // The mode given to mkdirat was cut by the umask.
        rustix::fs::chmodat(above, name, mode, AtFlags::empty()).map_err(Fault::failed("set the mode of"))?;
        let inode = inode(above.as_fd()).map_err(Fault::failed("inspect"))?;
        self.unpacked.insert((inode, name.into()));
        open(self.root, path).map_err(no_parent)
    }

    /// Where `name` in the open directory is.
    pub(super) fn place<'p>(&'p self, name: &'p [u8]) -> Place<'p> {
        let parent = self.parent.as_ref().expect("open_parent comes before any use of the place");
        Place { parent: parent.fd.as_fd(), inode: parent.inode, name }
    }

    /// Notes that `name` in the open directory is of this layer.
    pub(super) fn unpacked<'p>(&'p mut self, name: &'p [u8]) -> Place<'p> {
        let inode = self.place(name).inode;
        self.unpacked.insert((inode, name.into()));
        self.place(name)
    }

    /// Whether `name` in the open directory is a directory.
    pub(super) fn is_directory(&self, name: &[u8]) -> Result<bool, Fault> {
        let stat = self.stat(name)?;
        Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
    }

    /// Whether `name` in the open directory is this very file.
    pub(super) fn is_inode(&self, name: &[u8], device: u64, inode: u64) -> Result<bool, Fault> {
        Ok(self.stat(name)?.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode)))
    }

    fn stat(&self, name: &[u8]) -> Result<Option<rustix::fs::Stat>, Fault> {
        match rustix::fs::statat(self.place(name).parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::failed("inspect")(errno)),
        }
    }

    /// Makes `name` in the open directory with `make`, which must not replace or follow what exists; that is removed.
    pub(super) fn replace<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(&Place<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Fault> {
        match make(&self.place(name)) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(Fault::failed("create")),
        }
        remove::everything(&self.place(name))?;
        if let Some(parent) = &mut self.parent {
            parent.stale = true;
        }
        make(&self.place(name)).map_err(Fault::failed("create"))
    }

    /// Removes what lower layers have at `path`: itself, or only what is in it.
    pub(super) fn white_out(&mut self, path: &Path<'_>, whiteout: super::Whiteout<'_>) -> Result<(), Fault> {
        self.parent = None;
        let parent = match self.open_other(path) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(no_parent(errno)),
        };
        let keep = |inode: u64, name: &[u8]| self.unpacked.contains(&(inode, Box::from(name)));
        match whiteout {
            super::Whiteout::Name(name) => {
                let inode = inode(parent.as_fd()).map_err(Fault::failed("inspect"))?;
                remove::lower(&Place { parent: parent.as_fd(), inode, name }, &keep)
            }
            super::Whiteout::Contents => remove::lower_contents(parent.as_fd(), &keep),
        }
    }
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_in_root(root, if path.is_empty() { b"." } else { path }, DIRECTORY)
}

fn no_parent(errno: Errno) -> Fault {
    match errno {
        Errno::NOTDIR => Fault::refused("its parent is not a directory"),
        Errno::NOENT => Fault::refused("its parent is a symbolic link that leads nowhere"),
        _ => Fault::failed("open the parent of")(errno),
    }
}

pub(super) fn inode(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(path: &str) -> Option<String> {
        Path::parse(path.as_bytes(), &Limits::default()).ok().map(|p| String::from_utf8(p.joined()).unwrap())
    }

    #[test]
    fn paths_are_taken_below_the_root() {
        for (path, wanted) in [("./a//b/", "a/b"), ("/etc/passwd", "etc/passwd"), ("./", ""), ("/", ""), ("...", "...")]
        {
            assert_eq!(joined(path).as_deref(), Some(wanted), "{path}");
        }
    }

    #[test]
    fn names_that_climb_or_are_no_names_are_refused() {
        for path in ["..", "../a", "a/..", "a/../b", "/..", "", "a\0b", ".wh.a/b", ".wh..wh..opq/a"] {
            assert_eq!(joined(path), None, "{path:?}");
        }
    }

    #[test]
    fn long_and_deep_paths_are_over_the_limit() {
        for path in ["a".repeat(4096), "a/".repeat(1025)] {
            assert!(matches!(Path::parse(path.as_bytes(), &Limits::default()), Err(Fault::Limit(_))));
        }
    }
}
