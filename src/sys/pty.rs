//! Pseudo-terminals in a devpts of one's choice (pty(7), devpts in the kernel's documentation).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// A new terminal.
#[derive(Debug)]
pub struct Pty {
    /// The side that a person or a program drives.
    pub master: OwnedFd,
    /// The side that the payload sees. Not yet anybody's controlling terminal.
    pub slave: OwnedFd,
    /// Its name in the devpts.
    pub number: u32,
}

/// Opens a terminal through `ptmx` in the devpts mount `devpts`. Both ends are close-on-exec.
///
/// `ENODEV` if `devpts` is no devpts. The slave is opened from the master (`TIOCGPTPEER`), never by path, so nobody can put
/// another file in its place.
pub fn open_in(devpts: BorrowedFd<'_>) -> io::Result<Pty> {
    if rustix::fs::fstatfs(devpts)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let number = number_of(master.as_fd())?;
    let slave = other_side(&master)?;
    Ok(Pty { master, slave, number })
}

impl Pty {
    /// Sets its size.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }
}

/// Opens the other side of a master (`TIOCGPTPEER`), wherever its devpts is; close-on-exec.
pub fn other_side(master: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(rustix::pty::ioctl_tiocgptpeer(master.as_fd(), flags)?)
}

/// Makes `terminal` the controlling terminal of the calling process, which leads a session (`TIOCSCTTY`).
pub fn take_control(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

fn number_of(master: BorrowedFd<'_>) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN stores one unsigned int at the address, which is valid and outlives the call.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) } {
        0 => Ok(number),
        _ => Err(io::Error::last_os_error()),
    }
}

/// linux/magic.h.
const DEVPTS_SUPER_MAGIC: rustix::fs::FsWord = 0x1cd1;
