//! Paths below a root that somebody else filled: every lookup ends inside it (openat2(2), `RESOLVE_IN_ROOT`), magic links of
//! /proc lead nowhere, and what was looked up is used as a descriptor only.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// A directory taken as the root of paths.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Takes a directory.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// The root directory of the calling process.
    pub fn of_process() -> io::Result<Self> {
        Ok(Self(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// What is at `path`, as a place (`O_PATH`). Symbolic links are followed inside the root.
    pub fn place(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open(path.as_ref(), OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// The directory at `path`, made with its parents (mode 0755, owner the caller) where missing.
    pub fn make_directories(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut reached = std::path::PathBuf::from("/");
        let mut directory = self.place("/")?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                if component == Component::ParentDir {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                continue;
            };
            reached.push(name);
            directory = self.enter_or_make(&reached, directory.as_fd(), name)?;
        }
        Ok(directory)
    }

    fn enter_or_make(&self, path: &Path, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match self.open(path, flags, resolve) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                self.open(path, flags, resolve)
            }
            result => result,
        }
    }

    /// The file at `path` as a place, made empty with its parent directories where missing.
    pub fn make_file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.place(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.make_directories(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
        self.place(path)
    }

    /// The directory `name` directly below the root, made where missing. Anything else there, a symbolic link too, is an
    /// error: `ELOOP` or `ENOTDIR`.
    pub fn real_directory(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match self.open(Path::new(name), flags, resolve) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o755))?;
                self.open(Path::new(name), flags, resolve)
            }
            result => result,
        }
    }

    /// The bytes of the regular file at `path`; `None` if nothing is there. `EINVAL` for anything but a regular file,
    /// `EFBIG` for more than `limit` bytes.
    pub fn read_file(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // Non-blocking, so that a fifo in its place cannot hold us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = match self.open(Path::new(path), flags, resolve) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            fd => fd?,
        };
        let status = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        Ok(Some(bytes))
    }

    /// Replaces the content of the regular file at `path`. `EINVAL` for anything else, which is left as it is.
    pub fn overwrite_file(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open(Path::new(path), flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        rustix::fs::ftruncate(&fd, 0)?;
        io::Write::write_all(&mut std::fs::File::from(fd), content)
    }

    fn open(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(fd),
                // EAGAIN: a rename elsewhere raced with ".." (openat2(2)); nothing is wrong.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the place is a directory.
pub fn is_directory(place: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode) == FileType::Directory)
}

/// Makes a file with this content in a directory of our own.
pub fn write_new(directory: BorrowedFd<'_>, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode))?;
    let mut rest = content;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    Ok(())
}

/// A copy of the directory tree `from` in `to`: directories, regular files and symbolic links with owner and mode; other
/// kinds are left out. Stops with `EFBIG` after `limit` entries or bytes.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, limit: &mut u64) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(from, ".", flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&readable)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        take(limit, 1)?;
        let status = rustix::fs::statat(&readable, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(status.st_mode);
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let source = rustix::fs::openat(&readable, name, flags, Mode::empty())?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
                copy_tree(source.as_fd(), target.as_fd(), limit)?;
                own(target.as_fd(), &status)?;
            }
            FileType::RegularFile => copy_file(readable.as_fd(), to, name, &status, limit)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&readable, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
    status: &rustix::fs::Stat,
    limit: &mut u64,
) -> io::Result<()> {
    take(limit, u64::try_from(status.st_size).unwrap_or(u64::MAX))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target.try_clone()?))?;
    own(target.as_fd(), status)
}

/// Owner first: chown takes set-user-id away.
fn own(fd: BorrowedFd<'_>, status: &rustix::fs::Stat) -> io::Result<()> {
    let (user, group) = (rustix::fs::Uid::from_raw(status.st_uid), rustix::fs::Gid::from_raw(status.st_gid));
    rustix::fs::fchown(fd, Some(user), Some(group))?;
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(status.st_mode))?)
}

fn take(limit: &mut u64, amount: u64) -> io::Result<()> {
    *limit = limit.checked_sub(amount).ok_or_else(|| io::Error::from_raw_os_error(libc::EFBIG))?;
    Ok(())
}

#[cfg(test)]
mod tests;
