//! Unpacking one layer's tar stream below a root directory, which may hold the layers under it.
//!
//! The archive is not trusted. What keeps it inside the root is the kernel, not the look of a path: every parent
//! directory is opened by openat2(2) with the root as `/`, and the last component is only ever given to `*at` calls that
//! do not follow it. Nothing that exists is written to or written through: it is removed first, except that a directory
//! over a directory merges with it.
//!
//! Decisions where archives and readers differ:
//! - A name that comes twice: the later entry replaces the earlier, as in GNU tar. (Refusing them would refuse archives
//!   made with `tar --append`; the rules above make the second no more dangerous than a second layer.)
//! - `..` in a name or in a hard link's target is refused; a leading `/` is dropped. Symbolic links keep their target as
//!   it is, whatever it says: it is resolved inside the container.
//! - Device nodes are created as the archive has them, as other engines do. A tree must therefore only ever be mounted
//!   `nodev`, where they are inert; see [`LayerStore`](super::LayerStore).
//! - Sockets cannot be in a tar; a type that we do not know is refused.
//! - Of extended attributes those are set that mean the same on every host (`KEPT` in `metadata.rs`).

mod metadata;
mod place;
mod remove;
mod whiteout;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::ImageError;
use super::job::Job;
use super::tar::{Entry, Kind, Mtime, Reader, Stream};
use place::{Path, Places};
use whiteout::Whiteout;

/// Unpacks what `reader` gives below `root`; returns how many entries there were. `layer` is for messages.
///
/// After an error the tree is half filled: throw it away.
pub(super) fn unpack<S: Stream>(
    reader: &mut Reader<'_, S>,
    root: BorrowedFd<'_>,
    layer: &str,
    job: &Job<'_>,
) -> Result<u64, ImageError> {
    let mut unpacker = Unpacker { places: Places::new(root), directories: Vec::new(), names: 0, job };
    let mut entries = 0;
    while let Some(entry) = reader.next()? {
        job.check()?;
        unpacker.apply(&entry, reader).map_err(|fault| fault.of(&entry.path, layer))?;
        entries += 1;
    }
    unpacker.set_directory_times(layer)?;
    Ok(entries)
}

/// Why an entry was not unpacked; becomes an `ImageError` where its name and layer are known.
#[derive(Debug)]
enum Fault {
    Refused(String),
    Limit(String),
    Failed { op: &'static str, errno: Errno },
    Other(ImageError),
}

impl Fault {
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }

    /// For `map_err`: names the failed operation.
    fn failed(op: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::NAMETOOLONG => Self::refused("a name in it is longer than the file system allows"),
            Errno::LOOP => Self::refused("too many symbolic links on its way"),
            _ => Self::Failed { op, errno },
        }
    }

    fn of(self, path: &[u8], layer: &str) -> ImageError {
        let path = String::from_utf8_lossy(path).into_owned();
        match self {
            Self::Refused(reason) => ImageError::RefusedEntry { path, layer: layer.to_owned(), reason },
            Self::Limit(what) => ImageError::Limit(what),
            Self::Failed { op, errno } => ImageError::Io { op, path: PathBuf::from(path), source: errno.into() },
            Self::Other(error) => error,
        }
    }
}

struct Unpacker<'a> {
    places: Places<'a>,
    /// Set at the end, because unpacking into a directory changes its time.
    directories: Vec<(Vec<u8>, Mtime)>,
    /// Bytes of names and paths held in memory.
    names: usize,
    job: &'a Job<'a>,
}

/// Where an entry goes: a directory that is open, and a name in it.
#[derive(Debug)]
struct Place<'a> {
    parent: BorrowedFd<'a>,
    /// Inode of the parent.
    inode: u64,
    name: &'a [u8],
}

impl Unpacker<'_> {
    fn apply<S: Stream>(&mut self, entry: &Entry, reader: &mut Reader<'_, S>) -> Result<(), Fault> {
        let path = Path::parse(&entry.path, &self.job.limits)?;
        let Some(name) = path.name() else { return self.root(entry) };
        if let Some(whiteout) = Whiteout::parse(name, entry)? {
            return self.places.white_out(&path, whiteout);
        }
        self.places.open_parent(&path)?;
        self.remember(&path, entry)?;
        match entry.kind {
            Kind::File => self.file(name, entry, reader),
            Kind::Directory => self.directory(name, entry),
            Kind::Symlink => self.symlink(name, entry),
            Kind::HardLink => self.hard_link(name, entry),
            Kind::CharDevice => self.node(name, entry, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(name, entry, FileType::BlockDevice),
            Kind::Fifo => self.node(name, entry, FileType::Fifo),
            Kind::Unknown(flag) => Err(Fault::refused(format!("unknown type '{}'", flag.escape_ascii()))),
        }
    }

    /// Notes a directory's time, and keeps the memory that names take within bounds.
    fn remember(&mut self, path: &Path<'_>, entry: &Entry) -> Result<(), Fault> {
        self.names += path.name().map_or(0, <[u8]>::len);
        if entry.kind == Kind::Directory {
            let path = path.joined();
            self.names += path.len();
            self.directories.push((path, entry.mtime));
        }
        match self.job.limits.names {
            most if self.names > most => Err(Fault::Limit(format!("its names have more than {most} bytes"))),
            _ => Ok(()),
        }
    }

    /// The root keeps its type and gets the entry's owner, mode and times.
    fn root(&mut self, entry: &Entry) -> Result<(), Fault> {
        if entry.kind != Kind::Directory {
            return Err(Fault::refused("the root can only be a directory"));
        }
        let root = self.places.open_root()?;
        metadata::set_on_file(root.as_fd(), entry)?;
        self.directories.push((Vec::new(), entry.mtime));
        Ok(())
    }

    fn directory(&mut self, name: &[u8], entry: &Entry) -> Result<(), Fault> {
        if !self.places.is_directory(name)? {
            self.places.replace(name, |place| rustix::fs::mkdirat(place.parent, place.name, Mode::RWXU))?;
        }
        let place = self.places.unpacked(name);
        let directory = place.open_directory().map_err(Fault::failed("open"))?;
        metadata::set_on_file(directory.as_fd(), entry)
    }

    fn file<S: Stream>(&mut self, name: &[u8], entry: &Entry, reader: &mut Reader<'_, S>) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.places.replace(name, |place| rustix::fs::openat(place.parent, place.name, flags, mode))?;
        self.places.unpacked(name);
        fill(&file, entry, reader, self.job)?;
        metadata::set_on_file(file.as_fd(), entry)?;
        metadata::set_times(file.as_fd(), entry.mtime)
    }

    fn symlink(&mut self, name: &[u8], entry: &Entry) -> Result<(), Fault> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(Fault::refused("a symbolic link without a target"));
        }
        self.places.replace(name, |place| rustix::fs::symlinkat(&entry.link[..], place.parent, place.name))?;
        metadata::set_on_name(&self.places.unpacked(name), entry)
    }

    fn node(&mut self, name: &[u8], entry: &Entry, kind: FileType) -> Result<(), Fault> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.places.replace(name, |place| rustix::fs::mknodat(place.parent, place.name, kind, mode, device))?;
        metadata::set_on_name(&self.places.unpacked(name), entry)
    }

    /// Never falls back to a copy: that would read the target on behalf of the archive.
    fn hard_link(&mut self, name: &[u8], entry: &Entry) -> Result<(), Fault> {
        let target = Path::parse(&entry.link, &self.job.limits)?;
        let Some(target_name) = target.name() else { return Err(Fault::refused("a hard link to the root")) };
        let parent = self.places.open_other(&target).map_err(no_target)?;
        let wanted = rustix::fs::statat(&parent, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(no_target)?;
        if FileType::from_raw_mode(wanted.st_mode) == FileType::Directory {
            return Err(Fault::refused("a hard link to a directory"));
        }
        if self.places.is_inode(name, wanted.st_dev, wanted.st_ino)? {
            self.places.unpacked(name);
            return Ok(());
        }
        let link =
            |place: &Place<'_>| rustix::fs::linkat(&parent, target_name, place.parent, place.name, AtFlags::empty());
        self.places.replace(name, link).map_err(|fault| match fault {
            Fault::Failed { errno: Errno::NOENT, .. } => no_target(Errno::NOENT),
            other => other,
        })?;
        self.places.unpacked(name);
        Ok(())
    }

    /// Whatever is no directory any more lost its time with it.
    fn set_directory_times(&self, layer: &str) -> Result<(), ImageError> {
        for (path, mtime) in self.directories.iter().rev() {
            let set = match self.places.open_unpacked_directory(path) {
                Ok(directory) => metadata::set_times(directory.as_fd(), *mtime),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(Fault::failed("open")(errno)),
            };
            set.map_err(|fault| fault.of(path, layer))?;
        }
        Ok(())
    }
}

fn no_target(errno: Errno) -> Fault {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Fault::refused("a hard link to a file that is not there"),
        _ => Fault::failed("find the target of the hard link")(errno),
    }
}

impl Place<'_> {
    fn open_directory(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent, self.name, flags, Mode::empty())
    }
}

/// Writes the entry's data, leaving the holes of a sparse file.
fn fill<S: Stream>(file: &OwnedFd, entry: &Entry, reader: &mut Reader<'_, S>, job: &Job<'_>) -> Result<(), Fault> {
    let Some(sparse) = &entry.sparse else { return write(file, entry.size, reader, job) };
    for (offset, length) in &sparse.pieces {
        rustix::fs::seek(file, SeekFrom::Start(*offset)).map_err(Fault::failed("write"))?;
        write(file, *length, reader, job)?;
    }
    rustix::fs::ftruncate(file, sparse.size).map_err(Fault::failed("write"))
}

fn write<S: Stream>(file: &OwnedFd, mut left: u64, reader: &mut Reader<'_, S>, job: &Job<'_>) -> Result<(), Fault> {
    while left > 0 {
        job.check().map_err(Fault::Other)?;
        let data = reader.data().map_err(Fault::Other)?;
        let data = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let count = rustix::io::retry_on_intr(|| rustix::io::write(file, data)).map_err(Fault::failed("write"))?;
        reader.consume(count);
        left -= count as u64;
    }
    Ok(())
}
