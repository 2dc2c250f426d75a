//! The console of a whole system.
//!
//! Its terminal's master stays open here as long as the system lives (C14), whatever becomes of holmd and of the caller. A
//! caller that wants a terminal is given it and shows it; otherwise, and when the caller has gone, it is emptied here into what
//! would be the payload's standard output, the journal as a rule: a system whose console is full stands still.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::sys::pty;

/// The console, and who empties it.
#[derive(Debug)]
pub(super) struct Console {
    master: OwnedFd,
    /// Without it a console that every process inside has closed would look hung up for ever.
    _other_side: OwnedFd,
    /// The caller's socket, as long as that shows the console.
    shown_to: Option<OwnedFd>,
    outlet: Option<Outlet>,
    /// What was read and not written yet.
    pending: Vec<u8>,
}

/// Where output goes.
#[derive(Debug)]
enum Outlet {
    Socket(OwnedFd),
    /// A description of our own, which does not block.
    Reopened(OwnedFd),
    /// A regular file never blocks.
    File(OwnedFd),
}

impl Console {
    /// `shown_to`: the socket of a caller that has been given the master. Without an `output` what is read is dropped.
    pub(super) fn new(master: OwnedFd, shown_to: Option<OwnedFd>, output: Option<OwnedFd>) -> std::io::Result<Self> {
        let other_side = pty::other_side(&master)?;
        let outlet = output.and_then(Outlet::new);
        Ok(Self { master, _other_side: other_side, shown_to, outlet, pending: Vec::new() })
    }

    /// What to wait for until [`go_on`](Self::go_on) can do something.
    pub(super) fn awaited(&self) -> PollFd<'_> {
        match (&self.shown_to, &self.outlet) {
            // Its end is told without being asked for.
            (Some(caller), _) => PollFd::new(caller, PollFlags::empty()),
            (None, Some(outlet)) if !self.pending.is_empty() => PollFd::new(outlet, PollFlags::OUT),
            (None, _) => PollFd::new(&self.master, PollFlags::IN),
        }
    }

    /// After what was awaited has come about: one read or write, which waits for nothing.
    pub(super) fn go_on(&mut self) {
        if self.shown_to.take().is_some() {
            return;
        }
        if self.pending.is_empty() {
            self.read();
        } else {
            self.write();
        }
    }

    /// What the system said last.
    pub(super) fn drain(&mut self) {
        if self.shown_to.is_some() {
            return;
        }
        self.write();
        while self.pending.is_empty() && self.has_more() {
            self.read();
            self.write();
        }
    }

    fn has_more(&self) -> bool {
        let mut events = [PollFd::new(&self.master, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut events, Some(&now)).is_ok() && events[0].revents().contains(PollFlags::IN)
    }

    fn read(&mut self) {
        let mut buffer = [0; MOST];
        // An error can only be a hang-up in this very moment.
        let length = rustix::io::read(&self.master, &mut buffer).unwrap_or(0);
        if self.outlet.is_some() {
            self.pending.extend_from_slice(&buffer[..length]);
        }
    }

    fn write(&mut self) {
        let Some(outlet) = self.outlet.as_ref().filter(|_| !self.pending.is_empty()) else { return };
        match outlet.write(&self.pending) {
            Ok(length) => drop(self.pending.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody takes it any more. The system goes on.
            Err(_) => {
                self.outlet = None;
                self.pending.clear();
            }
        }
    }
}

impl Outlet {
    /// The description that the caller passed is shared with the caller, so its flags are not ours to change.
    fn new(output: OwnedFd) -> Option<Self> {
        match FileType::from_raw_mode(rustix::fs::fstat(&output).ok()?.st_mode) {
            FileType::Socket => Some(Self::Socket(output)),
            FileType::RegularFile => Some(Self::File(output)),
            _ => {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&output));
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                rustix::fs::open(path, flags, Mode::empty()).ok().map(Self::Reopened)
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Socket(socket) => rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Self::Reopened(fd) | Self::File(fd) => rustix::io::write(fd, bytes),
        }
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Reopened(fd) | Self::File(fd) => fd.as_fd(),
        }
    }
}

/// A terminal holds no more (N_TTY_BUF_SIZE).
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    fn terminal() -> (OwnedFd, OwnedFd) {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let other_side = pty::other_side(&master).unwrap();
        (master, other_side)
    }

    fn read(fd: &OwnedFd) -> String {
        let mut buffer = [0; 100];
        let length = rustix::io::read(fd, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn what_is_said_on_a_console_goes_to_the_output() {
        let (master, inside) = terminal();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut console = Console::new(master, None, Some(writer)).unwrap();
        rustix::io::write(&inside, b"booting").unwrap();
        console.drain();
        assert_eq!(read(&reader), "booting");
        // Closed by everybody inside, it is not hung up: the next process may say something.
        drop(inside);
        assert!(!console.has_more());
    }

    #[test]
    fn a_console_that_nobody_reads_never_fills() {
        let (master, inside) = terminal();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        for output in [None, Some(writer)] {
            let mut console = Console::new(master.try_clone().unwrap(), None, output).unwrap();
            for _ in 0..20 {
                rustix::io::write(&inside, &[b'x'; 1000]).unwrap();
                console.drain();
            }
        }
    }

    #[test]
    fn a_console_is_the_callers_until_that_has_gone() {
        let (master, inside) = terminal();
        let (ours, theirs) = socket::packet_pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let shown = master.try_clone().unwrap();
        let mut console = Console::new(master, Some(ours), Some(writer)).unwrap();
        rustix::io::write(&inside, b"for you").unwrap();
        console.drain();
        assert_eq!(read(&shown), "for you");
        drop(theirs);
        let mut events = [console.awaited()];
        assert_eq!(rustix::event::poll(&mut events, None).unwrap(), 1);
        console.go_on();
        rustix::io::write(&inside, b"for the journal").unwrap();
        console.drain();
        assert_eq!(read(&reader), "for the journal");
    }
}
