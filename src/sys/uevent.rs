//! Device events straight from the kernel (netlink, group 1), so that nobody depends on udevd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

/// A subscription to every device event.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

/// What happened to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, …
    pub action: String,
    /// The kernel's name of the device, the last part of its path in sysfs.
    pub name: String,
}

impl Uevents {
    /// Subscribes: events after this call are seen. EPERM in most containers.
    pub fn open() -> io::Result<Self> {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        const KERNEL: u32 = 1;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self { socket })
    }

    /// The next event; None when there is none now. Events that were lost because the buffer was full are reported
    /// as [`io::ErrorKind::OutOfMemory`] or ENOBUFS once: look at the devices themselves then.
    pub fn next(&self) -> io::Result<Option<Uevent>> {
        let mut buffer = [0; 8192];
        match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(length) => Ok(Some(parse(&buffer[..length]))),
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The first line is `ACTION@PATH`. Lines after it are not needed.
fn parse(message: &[u8]) -> Uevent {
    let line = message.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let (action, path) = line.split_once('@').unwrap_or((&line, ""));
    Uevent { action: action.to_owned(), name: path.rsplit('/').next().unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_the_device() {
        let event = parse(b"remove@/devices/virtual/block/dm-3\0ACTION=remove\0");
        assert_eq!(event, Uevent { action: "remove".into(), name: "dm-3".into() });
        assert_eq!(parse(b"").action, "");
    }
}
