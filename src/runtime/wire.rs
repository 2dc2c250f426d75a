//! The messages between daemon, monitor, init and caller.
//!
//! ```text
//!  holmd: DaemonEnd ── Order ──► MonitorEnd :monitor: InitSide ◄── InitReport ── InitEnd :init
//!         DaemonEnd ◄── Report ─ MonitorEnd :monitor: ClientEnd ── model::MonitorMessage ──► the caller
//! ```
//!
//! Each message is one JSON packet on a SOCK_SEQPACKET pair, its descriptors beside it; the pairs are inherited and have no name
//! that anybody else could open (R13). An order longer than a packet travels
//! in a sealed memory file, at most [`MAX_ORDER`] bytes (R14). A message that does not fit its place is an error.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

mod order;

pub(super) use order::{MAX_ORDER, Order, Role};

use super::{LaunchError, StepError};
use crate::model::{Exit, MonitorMessage};
use crate::sys::{process, socket};

/// Longest packet in bytes; well below the default send buffer of a socket (net.core.wmem_default).
const MAX_PACKET: usize = 64 << 10;

/// Why a message could not be sent or taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The other end is closed.
    #[error("the other end is closed")]
    Closed,
    /// The packet is not the JSON that belongs here.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The order is longer than [`MAX_ORDER`].
    #[error("the order has {0} bytes, more than {MAX_ORDER}")]
    TooLong(usize),
    /// The descriptors are not those that the message names.
    #[error("the message came with {got} descriptors and names {named}")]
    Descriptors {
        /// How many came.
        got: usize,
        /// How many it names.
        named: usize,
    },
    /// A descriptor that must be there is not.
    #[error("the descriptor '{0:?}' is missing")]
    Missing(Role),
}

/// Why a start failed, as it travels. The same cases as [`LaunchError`], which it becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(super) enum Failure {
    CommandNotFound(String),
    CommandNotExecutable { command: String, reason: String },
    NoSuchUser(String),
    Step(StepError),
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::CommandNotFound(command) => Self::CommandNotFound(command),
            Failure::CommandNotExecutable { command, reason } => Self::CommandNotExecutable { command, reason },
            Failure::NoSuchUser(user) => Self::NoSuchUser(user),
            Failure::Step(error) => Self::Step(error),
        }
    }
}

/// How long each step took, in order: name and µs.
pub type Timings = Vec<(String, u64)>;

/// What the monitor tells the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The payload runs. Comes with its pidfd, and the master of its terminal if it has one.
    Started {
        /// Its process id.
        leader: u32,
        /// What took how long.
        steps: Timings,
    },
    /// It could not be started; the monitor ends.
    Failed(Failure),
    /// It ended, and its exit record, if it was a container, is written; the monitor ends.
    Ended {
        /// How.
        exit: Exit,
        /// Processes that the kernel killed for lack of memory.
        oom_kills: u64,
    },
}

/// What init tells the monitor. After `Ready` the end of the stream means that the program was executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum InitReport {
    /// Everything is set up, the program is executed next. Comes with the master of the terminal if there is one.
    Ready {
        /// What took how long.
        steps: Timings,
    },
    /// A step failed; init ends.
    Failed(Failure),
}

/// The daemon's end towards a monitor.
#[derive(Debug)]
pub(super) struct DaemonEnd(OwnedFd);

impl DaemonEnd {
    /// Takes the daemon's side of a pair made by [`socket::packet_pair`].
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits for the next report and its descriptors.
    pub(super) fn report(&self) -> Result<(Report, Vec<OwnedFd>), WireError> {
        take(self.0.as_fd(), socket::receive)
    }

    /// The next report if there is one already; a socket error of kind `WouldBlock` if not.
    pub(super) fn report_now(&self) -> Result<(Report, Vec<OwnedFd>), WireError> {
        take(self.0.as_fd(), socket::receive_now)
    }
}

impl AsFd for DaemonEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The monitor's end towards the daemon. Its sends never wait: a daemon that is gone or stuck holds nothing up.
#[derive(Debug)]
pub(super) struct MonitorEnd(OwnedFd);

impl MonitorEnd {
    /// Takes the monitor's side of the pair.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Says that the payload runs.
    pub(super) fn started(
        &self,
        leader: u32,
        pidfd: BorrowedFd<'_>,
        terminal: Option<&OwnedFd>,
        steps: Timings,
    ) -> Result<(), WireError> {
        let mut fds = vec![pidfd];
        fds.extend(terminal.map(AsFd::as_fd));
        give(self.0.as_fd(), &Report::Started { leader, steps }, &fds)
    }

    /// Says that it could not be started.
    pub(super) fn failed(&self, failure: Failure) -> Result<(), WireError> {
        give(self.0.as_fd(), &Report::Failed(failure), &[])
    }

    /// Says that it ended.
    pub(super) fn ended(&self, exit: Exit, oom_kills: u64) -> Result<(), WireError> {
        give(self.0.as_fd(), &Report::Ended { exit, oom_kills }, &[])
    }
}

/// Init's end towards the monitor.
#[derive(Debug)]
pub(super) struct InitEnd(OwnedFd);

impl InitEnd {
    /// Takes init's side of a pair made by [`socket::packet_pair`].
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The same under a number that is not below `first`.
    pub(super) fn above(self, first: i32) -> io::Result<Self> {
        process::above(first, self.0).map(Self)
    }

    /// Says that the program is executed next. Fails if the monitor is gone: then nobody keeps this container.
    pub(super) fn ready(&self, steps: Timings, terminal: Option<&OwnedFd>) -> Result<(), WireError> {
        let fds: Vec<_> = terminal.map(AsFd::as_fd).into_iter().collect();
        give(self.0.as_fd(), &InitReport::Ready { steps }, &fds)
    }

    /// Says that a step failed.
    pub(super) fn failed(&self, failure: Failure) -> Result<(), WireError> {
        give(self.0.as_fd(), &InitReport::Failed(failure), &[])
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The monitor's end towards init.
#[derive(Debug)]
pub(super) struct InitSide(OwnedFd);

/// How init's set-up went.
#[derive(Debug)]
pub(super) struct Executed {
    /// What took how long.
    pub(super) steps: Timings,
    /// The master of the terminal, if there is one.
    pub(super) terminal: Option<OwnedFd>,
}

impl InitSide {
    /// Takes the monitor's side of the pair.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits until the program is executed, or init has failed. [`WireError::Closed`] if init ended without a word.
    pub(super) fn outcome(self) -> Result<Result<Executed, Failure>, WireError> {
        let (report, mut fds) = take(self.0.as_fd(), socket::receive)?;
        let steps = match report {
            InitReport::Failed(failure) => return Ok(Err(failure)),
            InitReport::Ready { steps } => steps,
        };
        match take::<InitReport>(self.0.as_fd(), socket::receive) {
            // The close-on-exec flag of init's end did this.
            Err(WireError::Closed) => Ok(Ok(Executed { steps, terminal: fds.pop() })),
            Ok((InitReport::Failed(failure), _)) => Ok(Err(failure)),
            Ok((InitReport::Ready { .. }, fds)) => Err(WireError::Descriptors { got: fds.len(), named: 0 }),
            Err(error) => Err(error),
        }
    }
}

/// The monitor's end towards the caller. It may be gone or stuck: sends never wait, and their failure is nobody's concern.
#[derive(Debug)]
pub(super) struct ClientEnd(Option<OwnedFd>);

impl ClientEnd {
    /// Takes the caller's socket, if it gave one.
    pub(super) fn new(socket: Option<OwnedFd>) -> Self {
        Self(socket)
    }

    /// The socket itself, which is closed at the other end when the caller has gone.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Hands the terminal's master over.
    pub(super) fn terminal(&self, master: &OwnedFd) {
        self.say(&MonitorMessage::Terminal, &[master.as_fd()]);
    }

    /// Says how the process ended.
    pub(super) fn exited(&self, exit: Exit, oom_kills: u64) {
        self.say(&MonitorMessage::Exited { exit, oom_kills }, &[]);
    }

    /// Passes on what the payload said.
    pub(super) fn notified(&self, text: &str) {
        self.say(&MonitorMessage::Notified(text.to_owned()), &[]);
    }

    fn say(&self, message: &MonitorMessage, fds: &[BorrowedFd<'_>]) {
        if let (Some(socket), Ok(text)) = (&self.0, serde_json::to_vec(message)) {
            // A caller that is gone wants nothing any more.
            let _ = socket::send_now(socket.as_fd(), &text, fds);
        }
    }
}

fn give(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), WireError> {
    Ok(socket::send_now(socket, &serde_json::to_vec(message)?, fds)?)
}

type Receive = fn(BorrowedFd<'_>, &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)>;

fn take<T: DeserializeOwned>(socket: BorrowedFd<'_>, receive: Receive) -> Result<(T, Vec<OwnedFd>), WireError> {
    let mut buffer = vec![0; MAX_PACKET];
    match receive(socket, &mut buffer) {
        // A peer that died with our packet unread resets the connection.
        Ok((0, _)) => Err(WireError::Closed),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(WireError::Closed),
        Err(error) => Err(error.into()),
        Ok((length, fds)) => Ok((serde_json::from_slice(&buffer[..length])?, fds)),
    }
}

#[cfg(test)]
mod tests;
