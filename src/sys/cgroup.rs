//! Control groups, version 2 (the kernel's cgroup-v2 documentation), by directory descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

/// A cgroup's directory.
#[derive(Debug)]
pub struct Cgroup(OwnedFd);

impl Cgroup {
    /// Takes a directory of a cgroup2 file system; `ENODEV` for any other.
    pub fn from_directory(directory: OwnedFd) -> io::Result<Self> {
        if rustix::fs::fstatfs(&directory)?.f_type != CGROUP2_SUPER_MAGIC {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(Self(directory))
    }

    /// Makes a cgroup below this one, or takes the one that is there.
    pub fn make_child(&self, name: &str) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => self.child(name),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a cgroup below this one.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Removes an empty cgroup below this one. `EBUSY` while it has processes or cgroups of its own.
    pub fn remove_child(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// The names of the cgroups below this one.
    pub fn children(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Moves the calling process into this cgroup.
    pub fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Kills every process in this cgroup and below, also those being forked (cgroup.kill, Linux 5.14).
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Whether a process lives here or below (cgroup.events). This is an event file: it polls `PRI` on a change.
    pub fn is_populated(&self) -> io::Result<bool> {
        let events = self.read("cgroup.events")?.ok_or(io::ErrorKind::NotFound)?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// Waits until no process lives here or below, or the cgroup is gone.
    pub fn wait_until_empty(&self) -> io::Result<()> {
        let events = match self.open_file("cgroup.events", OFlags::RDONLY) {
            Err(error) if is_gone(&error) => return Ok(()),
            events => events?,
        };
        let mut buffer = [0; 256];
        loop {
            // The read before the poll arms it: a change after this read is not missed.
            let text = match rustix::io::pread(&events, &mut buffer, 0) {
                Err(errno) if is_gone(&errno.into()) => return Ok(()),
                length => &buffer[..length?],
            };
            if !text.split(|byte| *byte == b'\n').any(|line| line == b"populated 1") {
                return Ok(());
            }
            let mut polled = [rustix::event::PollFd::new(&events, rustix::event::PollFlags::PRI)];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sets an extended attribute of the group (xattr(7); `user.` ones from Linux 5.7 on).
    pub fn set_attribute(&self, name: &str, value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(&self.0, name, value, XattrFlags::empty())?)
    }

    /// Whether the group has an extended attribute.
    pub fn has_attribute(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::fgetxattr(&self.0, name, &mut [0; 256]) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes a control file in one write, as the kernel wants it.
    pub fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let fd = self.open_file(file, OFlags::WRONLY)?;
        rustix::io::write(&fd, text.as_bytes())?;
        Ok(())
    }

    /// Reads a control file; `None` if it does not exist here. At most 64 KiB.
    pub fn read(&self, file: &str) -> io::Result<Option<String>> {
        let fd = match self.open_file(file, OFlags::RDONLY) {
            Err(error) if is_gone(&error) => return Ok(None),
            fd => fd?,
        };
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while text.len() < 0x1_0000 {
            match rustix::io::read(&fd, &mut buffer) {
                Ok(0) => break,
                Ok(length) => text.extend_from_slice(&buffer[..length]),
                // ENODEV: the cgroup was removed under the open file. EOPNOTSUPP: the controller is off (io.stat, psi).
                Err(rustix::io::Errno::NODEV | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    fn open_file(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.0, file, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// linux/magic.h.
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
