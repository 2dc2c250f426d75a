//! Copies a whole tree: content with its holes, hard links, owners, modes, times, extended attributes (so capabilities
//! and ACLs), symbolic links, device nodes, fifos and sockets.
//!
//! Directories, and the files of large ones, are copied side by side by a few threads. Nothing is followed: every name is
//! opened below the two roots without symbolic links, so a hostile tree cannot lead out. A path of more than 4095 bytes is
//! an error. What vanishes while a tree in use is copied is left out.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::file::Content;
use super::lock;
use crate::model::Bytes;

/// Where a copy stopped.
#[derive(Debug)]
pub(super) struct CopyError {
    /// What was tried.
    pub(super) op: &'static str,
    /// On which path below the tree.
    pub(super) path: PathBuf,
    /// Why.
    pub(super) source: io::Error,
}

/// Copies the directory `from`, its own attributes too, to the empty directory `to`. Gives the bytes that its files hold.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Bytes, CopyError> {
    let copy = Copy {
        from,
        to,
        work: Mutex::new(Work { waiting: vec![Part::Directory(PathBuf::new())], busy: 0, failure: None }),
        news: Condvar::new(),
        links: Mutex::default(),
        directories: Mutex::default(),
        bytes: AtomicU64::new(0),
        content: Content::default(),
    };
    copy.on_threads(thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS)))
}

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    work: Mutex<Work>,
    news: Condvar,
    /// Where the first name of each file with several names went.
    links: Mutex<HashMap<(u64, u64), PathBuf>>,
    /// Directories whose times are set when everything is in them.
    directories: Mutex<Vec<(PathBuf, Stat)>>,
    bytes: AtomicU64,
    content: Content,
}

/// What waits to be copied; the last first, so that the list stays short.
struct Work {
    waiting: Vec<Part>,
    busy: usize,
    failure: Option<CopyError>,
}

enum Part {
    /// What is in a directory that exists on the other side.
    Directory(PathBuf),
    /// Some of the names in one.
    Names(PathBuf, Vec<CString>),
}

impl Copy<'_> {
    fn on_threads(&self, threads: usize) -> Result<Bytes, CopyError> {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.run());
            }
        });
        if let Some(failure) = lock(&self.work).failure.take() {
            return Err(failure);
        }
        self.top().map_err(|error| CopyError {
            op: "set the attributes of",
            path: PathBuf::new(),
            source: error.into(),
        })?;
        self.finish_directories()?;
        Ok(Bytes(self.bytes.load(Ordering::Relaxed)))
    }

    fn run(&self) {
        while let Some(part) = self.next() {
            let result = match part {
                Part::Directory(path) => self.fill(&path),
                Part::Names(path, names) => self.names(&path, &names),
            };
            let mut work = lock(&self.work);
            work.busy -= 1;
            if let Err(error) = result {
                work.failure.get_or_insert(error);
            }
            self.news.notify_all();
        }
    }

    fn next(&self) -> Option<Part> {
        let mut work = lock(&self.work);
        loop {
            if work.failure.is_some() || (work.waiting.is_empty() && work.busy == 0) {
                return None;
            }
            if let Some(part) = work.waiting.pop() {
                work.busy += 1;
                return Some(part);
            }
            work = self.news.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, part: Part) {
        lock(&self.work).waiting.push(part);
        self.news.notify_one();
    }

    fn fill(&self, path: &Path) -> Result<(), CopyError> {
        let at = |op| move |error: Errno| CopyError { op, path: path.to_owned(), source: error.into() };
        let from = match beneath(self.from, path) {
            // Removed since its parent was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.as_os_str().is_empty() => return Ok(()),
            other => other.map_err(at("open"))?,
        };
        let stat = rustix::fs::fstat(&from).map_err(at("look at"))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&from).map_err(at("list"))? {
            let entry = entry.map_err(at("list"))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            if names.len() == AT_ONCE {
                self.add(Part::Names(path.to_owned(), std::mem::take(&mut names)));
            }
        }
        lock(&self.directories).push((path.to_owned(), stat));
        self.names(path, &names)
    }

    fn names(&self, path: &Path, names: &[CString]) -> Result<(), CopyError> {
        let at = |error: Errno| CopyError { op: "open", path: path.to_owned(), source: error.into() };
        let from = match beneath(self.from, path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.as_os_str().is_empty() => return Ok(()),
            other => other.map_err(at)?,
        };
        let to = beneath(self.to, path).map_err(at)?;
        for name in names {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let pair = Pair { from: from.as_fd(), to: to.as_fd(), name };
            match self.entry(&pair, &path) {
                Err((_, error)) if error.raw_os_error() == Some(libc::ENOENT) && pair.has_vanished() => {
                    pair.forget().map_err(|error| CopyError { op: "remove", path, source: error.into() })?;
                }
                other => other.map_err(|(op, source)| CopyError { op, path, source })?,
            }
        }
        Ok(())
    }

    fn entry(&self, pair: &Pair<'_>, path: &Path) -> Result<(), (&'static str, io::Error)> {
        let failed = |op| move |error: Errno| (op, io::Error::from(error));
        let stat = rustix::fs::statat(pair.from, pair.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(pair.to, pair.name, Mode::RWXU).map_err(failed("make"))?;
            // Its times come last; what is in it does not change the rest.
            pair.attributes(&stat).map_err(failed("set the attributes of"))?;
            self.add(Part::Directory(path.to_owned()));
            return Ok(());
        }
        if stat.st_nlink > 1 {
            // Held over the copy: the next name must find the file whole.
            let mut links = lock(&self.links);
            if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
                return self.link(first, pair).map_err(failed("link"));
            }
            self.leaf(pair, &stat, kind)?;
            links.insert((stat.st_dev, stat.st_ino), path.to_owned());
            return Ok(());
        }
        self.leaf(pair, &stat, kind)
    }

    fn leaf(&self, pair: &Pair<'_>, stat: &Stat, kind: FileType) -> Result<(), (&'static str, io::Error)> {
        let failed = |op| move |error: Errno| (op, io::Error::from(error));
        match kind {
            FileType::RegularFile => self.file(pair, stat).map_err(failed("copy"))?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(pair.from, pair.name, Vec::new()).map_err(failed("read"))?;
                rustix::fs::symlinkat(&target, pair.to, pair.name).map_err(failed("make"))?;
            }
            _ => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(pair.to, pair.name, kind, mode, stat.st_rdev).map_err(failed("make"))?;
            }
        }
        pair.attributes(stat).map_err(failed("set the attributes of"))?;
        pair.times(stat).map_err(failed("set the times of"))
    }

    fn link(&self, first: &Path, pair: &Pair<'_>) -> rustix::io::Result<()> {
        let parent = beneath(self.to, first.parent().unwrap_or(Path::new("")))?;
        let name = first.file_name().ok_or(Errno::INVAL)?;
        rustix::fs::linkat(parent, name, pair.to, pair.name, AtFlags::empty())
    }

    fn file(&self, pair: &Pair<'_>, stat: &Stat) -> rustix::io::Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = rustix::fs::openat(pair.from, pair.name, OFlags::RDONLY | flags, Mode::empty())?;
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let to = rustix::fs::openat(pair.to, pair.name, create | flags, Mode::RUSR | Mode::WUSR)?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        self.bytes.fetch_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512, Ordering::Relaxed);
        self.content.copy(&from, &to, length)
    }

    fn top(&self) -> rustix::io::Result<()> {
        let pair = Pair { from: self.from, to: self.to, name: c"." };
        pair.attributes(&rustix::fs::fstat(self.from)?)
    }

    fn finish_directories(&self) -> Result<(), CopyError> {
        for (path, stat) in lock(&self.directories).iter() {
            let failed = |error: Errno| CopyError { op: "set the times of", path: path.clone(), source: error.into() };
            let directory = beneath(self.to, path).map_err(failed)?;
            rustix::fs::futimens(&directory, &times_of(stat)).map_err(failed)?;
        }
        Ok(())
    }
}

/// One name on both sides.
struct Pair<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Pair<'_> {
    /// Owner first, as a change of it clears set-user-id bits and capabilities; then the mode, then what refines it.
    fn attributes(&self, stat: &Stat) -> rustix::io::Result<()> {
        let owner = rustix::fs::Uid::from_raw(stat.st_uid);
        let group = rustix::fs::Gid::from_raw(stat.st_gid);
        rustix::fs::chownat(self.to, self.name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::chmodat(self.to, self.name, mode, AtFlags::empty())?;
        }
        copy_xattrs(&through(self.from, self.name), &through(self.to, self.name))
    }

    /// Whether it is not there any more.
    fn has_vanished(&self) -> bool {
        matches!(rustix::fs::statat(self.from, self.name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// Removes what was copied of a name that vanished. A directory is made before anything of it is read, and stays.
    fn forget(&self) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(self.to, self.name, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            other => other,
        }
    }

    fn times(&self, stat: &Stat) -> rustix::io::Result<()> {
        rustix::fs::utimensat(self.to, self.name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn copy_xattrs(from: &CStr, to: &CStr) -> rustix::io::Result<()> {
    let size = match rustix::fs::llistxattr_query(from) {
        // The file system has none.
        Err(Errno::OPNOTSUPP) | Ok(0) => return Ok(()),
        other => other?,
    };
    // What is added meanwhile, in a tree in use, must find room.
    let mut names = vec![0; size + SPARE];
    let size = rustix::fs::llistxattr(from, names.as_mut_slice())?;
    for name in names[..size].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
        let size = match rustix::fs::lgetxattr_query(from, name) {
            // Removed since the list was read.
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        let mut value = vec![0; size + SPARE];
        let size = match rustix::fs::lgetxattr(from, name, value.as_mut_slice()) {
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        match rustix::fs::lsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            // The kernel gives new files their own, and lets nobody without a policy set it.
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) if name == c"security.selinux" => {}
            other => other?,
        }
    }
    Ok(())
}

/// A path to `name` in an open directory, for the calls that have no `…at`; its last part is not followed by them.
fn through(directory: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend(name.to_bytes());
    CString::new(path).expect("neither part has a zero in it")
}

/// The directory `path` below `root`, through no symbolic link.
pub(super) fn beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).expect("nanoseconds of a second are few"),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// More only wait for the same disk.
const MAX_THREADS: usize = 8;

/// How many names of a directory are copied by one thread before another may take the next.
const AT_ONCE: usize = 64;

/// Bytes by which lists and values of attributes may grow while they are read.
const SPARE: usize = 256;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn copied(from: &Path) -> (tempfile::TempDir, Result<Bytes, CopyError>) {
        let to = tempfile::tempdir_in("/var/tmp").unwrap();
        let result = copy(File::open(from).unwrap().as_fd(), File::open(to.path()).unwrap().as_fd());
        (to, result)
    }

    #[test]
    fn everything_about_a_tree_is_copied() {
        let from = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| from.path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/file"), "text").unwrap();
        fs::set_permissions(at("a/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(at("a/file"), at("a/b/same")).unwrap();
        symlink("/etc/passwd", at("a/link")).unwrap();
        symlink("..", at("a/b/up")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("a/fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        rustix::fs::setxattr(at("a/file"), "user.note", b"kept", XattrFlags::empty()).unwrap();
        let past = Timespec { tv_sec: 1_000_000, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: past, last_modification: past };
        for name in ["a/file", "a/b", "a", "a/link"] {
            rustix::fs::utimensat(rustix::fs::CWD, at(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1751)).unwrap();
        let (to, result) = copied(from.path());
        result.unwrap();
        assert_eq!(fs::metadata(to.path()).unwrap().mode() & 0o7777, 0o1751);
        let now = |name: &str| to.path().join(name);
        assert_eq!(fs::read(now("a/b/same")).unwrap(), b"text");
        assert_eq!(fs::metadata(now("a/file")).unwrap().mode() & 0o7777, 0o4751);
        assert_eq!(fs::metadata(now("a/file")).unwrap().ino(), fs::metadata(now("a/b/same")).unwrap().ino());
        assert_eq!(fs::read_link(now("a/link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::symlink_metadata(now("a/fifo")).unwrap().mode(), 0o010_640);
        let mut value = [0; 16];
        let size = rustix::fs::getxattr(now("a/file"), "user.note", &mut value).unwrap();
        assert_eq!(&value[..size], b"kept");
        for name in ["a/file", "a/b", "a", "a/link"] {
            let meta = fs::symlink_metadata(now(name)).unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000, 123_456_789), "{name}");
        }
    }

    #[test]
    fn holes_stay_holes() {
        let from = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = File::create(from.path().join("sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 32 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
        let (to, result) = copied(from.path());
        assert!(result.unwrap().0 < 1 << 20);
        let meta = fs::metadata(to.path().join("sparse")).unwrap();
        assert_eq!(meta.len(), 64 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{}", meta.blocks());
        let text = fs::read(to.path().join("sparse")).unwrap();
        assert_eq!(&text[32 << 20..][..6], b"middle");
    }

    #[test]
    fn many_directories_are_all_copied() {
        let from = tempfile::tempdir_in("/var/tmp").unwrap();
        for outer in 0..40 {
            for inner in 0..10 {
                let path = from.path().join(format!("{outer}/{inner}"));
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("f"), format!("{outer}.{inner}")).unwrap();
            }
        }
        let (to, result) = copied(from.path());
        result.unwrap();
        for outer in 0..40 {
            for inner in 0..10 {
                let text = fs::read_to_string(to.path().join(format!("{outer}/{inner}/f"))).unwrap();
                assert_eq!(text, format!("{outer}.{inner}"));
            }
        }
    }

    #[test]
    fn a_large_directory_is_copied_whole() {
        let from = tempfile::tempdir_in("/var/tmp").unwrap();
        let count = 3 * AT_ONCE + 1;
        for number in 0..count {
            fs::write(from.path().join(number.to_string()), number.to_string()).unwrap();
        }
        let (to, result) = copied(from.path());
        result.unwrap();
        for number in 0..count {
            assert_eq!(fs::read_to_string(to.path().join(number.to_string())).unwrap(), number.to_string());
        }
    }

    #[test]
    fn a_failure_names_the_path() {
        let from = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "x").unwrap();
        let to = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(to.path().join("d")).unwrap();
        let error = copy(File::open(&from).unwrap().as_fd(), File::open(&to).unwrap().as_fd()).unwrap_err();
        assert_eq!((error.op, error.path.as_path()), ("make", Path::new("d")));
    }
}
