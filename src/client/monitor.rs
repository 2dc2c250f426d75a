//! The socket on which a container's monitor tells its end: it needs neither the bus nor `holmd`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;

use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::ClientError;
use crate::model::{Exit, MonitorMessage};
use crate::sys::socket;

/// Our side of the socket that goes with a request as `Monitor`.
#[derive(Debug)]
pub struct Monitor {
    socket: UnixDatagram,
}

/// How a run ended, as its monitor tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorEnd {
    /// How the process ended.
    pub exit: Exit,
    /// Processes killed for lack of memory during the run.
    pub oom_kills: u64,
}

/// What the monitor says.
#[derive(Debug)]
pub enum MonitorEvent {
    /// The terminal's master.
    Terminal(OwnedFd),
    /// What the payload said about itself, as sd_notify(3) has it.
    Notified(String),
    /// The process ended.
    Exited(MonitorEnd),
    /// Nobody holds the other side any more: nothing was started, or the monitor was killed.
    Closed,
}

impl Monitor {
    /// Our side, and theirs for the request. Close theirs (drop the request) before waiting, or the end of the other
    /// side is never seen.
    pub fn pair() -> Result<(Self, OwnedFd), ClientError> {
        let io = |source| ClientError::Io { action: "make a socket pair", source };
        let (ours, theirs) = socket::packet_pair().map_err(io)?;
        // The type only says who waits for it: there is none for packet sockets.
        let ours = net::UnixDatagram::from(ours);
        ours.set_nonblocking(true).map_err(io)?;
        let socket = UnixDatagram::from_std(ours).map_err(io)?;
        Ok((Self { socket }, theirs))
    }

    /// Asks for a stop, in the way that needs nobody but the monitor: the run must be on behalf of a unit (`WantedBy`). Its end
    /// is told as ever.
    pub fn ask_to_stop(&self) -> Result<(), ClientError> {
        let action = "ask the container's monitor for a stop";
        socket::shut_down(self.socket.as_fd()).map_err(|source| ClientError::Io { action, source })
    }

    /// The next event. Messages of a later version of the monitor, which we cannot read, are skipped. May be cancelled.
    pub async fn next(&self) -> Result<MonitorEvent, ClientError> {
        loop {
            let mut buffer = [0; MonitorMessage::MAX];
            let received =
                self.socket.async_io(Interest::READABLE, || socket::receive_now(self.socket.as_fd(), &mut buffer));
            let (length, fds) = match received.await {
                Ok((0, _)) => return Ok(MonitorEvent::Closed),
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(MonitorEvent::Closed),
                Err(source) => return Err(ClientError::Io { action: "hear from the container's monitor", source }),
            };
            match (serde_json::from_slice(&buffer[..length]), fds.into_iter().next()) {
                (Ok(MonitorMessage::Terminal), Some(master)) => return Ok(MonitorEvent::Terminal(master)),
                (Ok(MonitorMessage::Exited { exit, oom_kills }), _) => {
                    return Ok(MonitorEvent::Exited(MonitorEnd { exit, oom_kills }));
                }
                (Ok(MonitorMessage::Notified(text)), _) => return Ok(MonitorEvent::Notified(text)),
                (Ok(MonitorMessage::Terminal), None) | (Err(_), _) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{SendFlags, send};

    use super::*;

    #[tokio::test]
    async fn the_end_is_read_as_the_page_says_it() {
        let (monitor, theirs) = Monitor::pair().unwrap();
        send(&theirs, br#"{"news":1}"#, SendFlags::empty()).unwrap();
        send(&theirs, br#"{"exited":{"exit":{"code":42},"oom_kills":0}}"#, SendFlags::empty()).unwrap();
        let MonitorEvent::Exited(end) = monitor.next().await.unwrap() else { panic!("not the end") };
        assert_eq!(end.exit, Exit::Code(42));
        drop(theirs);
        assert!(matches!(monitor.next().await.unwrap(), MonitorEvent::Closed));
    }
}
