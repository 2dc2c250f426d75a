//! Hears what the payload says about itself, and tells it to whoever wants to know (C5).
//!
//! Here and not in holmd, so that a service's watchdog hears its payload while holmd is restarted. Everything in the container may
//! speak: nobody else reaches the socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::wire::ClientEnd;
use crate::model::Notification;
use crate::sys::socket;

/// The payload's socket, and who listens.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: OwnedFd,
    daemon: Option<OwnedFd>,
    caller: Option<ClientEnd>,
}

/// Longest message of sd_notify(3) in bytes (NOTIFY_BUFFER_MAX of systemd).
const MAX: usize = 4096;
/// Most messages taken at once: the end of the payload is to be seen too.
const AT_ONCE: usize = 64;

impl Notifier {
    /// The socket; init gives it its name.
    pub(super) fn socket() -> io::Result<OwnedFd> {
        Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
    }

    pub(super) fn new(socket: OwnedFd, daemon: Option<OwnedFd>, caller: Option<ClientEnd>) -> Self {
        Self { socket, daemon, caller }
    }

    /// What to wait for.
    pub(super) fn awaited(&self) -> PollFd<'_> {
        PollFd::new(&self.socket, PollFlags::IN)
    }

    /// Passes on what has been said. Who is gone or does not listen misses it; descriptors that came along are closed, which is what
    /// sd_notify_barrier(3) waits for.
    pub(super) fn go_on(&mut self) {
        let mut buffer = [0; MAX];
        for _ in 0..AT_ONCE {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let Ok((_, length)) = rustix::net::recv(&self.socket, &mut buffer[..], flags) else { return };
            // One that is too long is none.
            let said = Notification::parse(buffer.get(..length).unwrap_or_default());
            let text = said.text();
            if text.is_empty() {
                continue;
            }
            if let Some(caller) = &self.caller {
                caller.notified(&text);
            }
            if let Some(daemon) = self.daemon.as_ref().filter(|_| !said.is_pulse()) {
                let _ = socket::send_now(daemon.as_fd(), text.as_bytes(), &[]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &OwnedFd) -> Option<String> {
        let mut buffer = [0; MAX];
        let (length, _) = socket::receive_now(socket.as_fd(), &mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn what_is_said_goes_to_both_and_a_pulse_to_the_caller_alone() {
        let directory = tempfile::tempdir().unwrap();
        let name = rustix::net::SocketAddrUnix::new(directory.path().join("notify")).unwrap();
        let payloads = Notifier::socket().unwrap();
        rustix::net::bind(&payloads, &name).unwrap();
        let ((daemon, ours), (caller, callers)) = (socket::packet_pair().unwrap(), socket::packet_pair().unwrap());
        let mut notifier = Notifier::new(payloads, Some(ours), Some(ClientEnd::new(Some(callers))));
        let speaker = Notifier::socket().unwrap();
        for text in ["READY=1\nMAINPID=7", "WATCHDOG=1", "FDSTORE=1", &"x".repeat(MAX + 1), "STATUS=well"] {
            rustix::net::sendto(&speaker, text.as_bytes(), rustix::net::SendFlags::empty(), &name).unwrap();
        }
        notifier.go_on();
        let all: Vec<_> = std::iter::from_fn(|| heard(&daemon)).collect();
        assert_eq!(all, ["READY=1", "STATUS=well"]);
        let all: Vec<_> = std::iter::from_fn(|| heard(&caller)).collect();
        assert_eq!(all, [r#"{"notified":"READY=1"}"#, r#"{"notified":"WATCHDOG=1"}"#, r#"{"notified":"STATUS=well"}"#]);
    }
}
