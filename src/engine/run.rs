//! A run: one life of a container's payload, from launch to end.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::Timespec;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

use super::cgroup::Cgroup;
use super::patience;
use super::request::Who;
use crate::model::{Exit, ExitRecord, MonitorMessage, Notification, Signal, StopCourse, now_usec};
use crate::records::RunRecord;
use crate::runtime::{Keeper, Launched};
use crate::sys::pidfd;
use crate::sys::proc;
use crate::sys::readiness::Readiness;
use crate::sys::socket;

/// How long a parent may take to reap; the service manager does it at once.
const REAPED: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long a container must live for its leader to be handed to the service manager: nothing of that is on the way of
/// a start, and most of those that end at once cost it nothing.
pub(super) const MOMENT: Duration = Duration::from_millis(50);

/// What exists while a payload runs.
#[derive(Debug)]
pub(super) struct Run {
    /// What is remembered of it until reboot.
    pub(super) record: RunRecord,
    /// Its processes and terminal; shared with whoever sends signals or attaches.
    pub(super) handles: Arc<Handles>,
    /// How it ended, once that is known.
    pub(super) exit: Option<ExitRecord>,
    watched: Readiness,
    /// What the payload says about itself, if it was given a way to; nothing more when it is closed.
    notified: Option<UnixDatagram>,
    /// Whether there was such a way.
    spoke_to: bool,
    /// Whether it said how it is.
    pub(super) has_spoken: bool,
    /// The monitor, when it is this daemon's child.
    keeper: Option<Keeper>,
}

/// What signals, attaching and entering need, without asking the container's task.
#[derive(Debug)]
pub(super) struct Handles {
    /// A pidfd of the leader; absent when it had ended before we could look.
    pub(super) leader: Option<OwnedFd>,
    /// The scope's control group.
    pub(super) cgroup: Cgroup,
    /// The master of the payload's terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// Whether the service manager has the leader's pidfd.
    stored: Mutex<Stored>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stored {
    #[default]
    No,
    Yes,
    /// The run is over.
    NoMore,
}

impl Run {
    /// A run that has just been launched. Its end is seen on the monitor's socket, before the monitor itself ends.
    pub(super) fn launched(record: RunRecord, launched: Launched, notified: Option<OwnedFd>) -> std::io::Result<Self> {
        let watched = launched.keeper.socket().try_clone_to_owned()?;
        let run = Self::adopted(record, watched, Some(launched.leader_pidfd), launched.terminal, notified)?;
        Ok(Self { keeper: Some(launched.keeper), ..run })
    }

    /// A run that was found at start. `watched`: a pidfd of the monitor, or of the leader when the monitor is gone.
    pub(super) fn adopted(
        record: RunRecord,
        watched: OwnedFd,
        leader: Option<OwnedFd>,
        terminal: Option<OwnedFd>,
        notified: Option<OwnedFd>,
    ) -> std::io::Result<Self> {
        let notified = notified.map(listening).transpose()?;
        let cgroup = Cgroup::new(Path::new(&record.control_group));
        let handles = Arc::new(Handles { leader, cgroup, terminal, stored: Mutex::default() });
        Ok(Self {
            record,
            handles,
            exit: None,
            watched: Readiness::new(watched)?,
            spoke_to: notified.is_some(),
            notified,
            has_spoken: false,
            keeper: None,
        })
    }

    /// Waits for the end of what is watched, the monitor as a rule: then the run's exit record is there, or never will be.
    pub(super) async fn ended(&self) {
        // An error can only mean that the reactor is shutting down with the daemon.
        if self.watched.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The next that the payload says about itself. May be cancelled.
    pub(super) async fn notified(&self) -> Option<Notification> {
        let Some(socket) = &self.notified else { return std::future::pending().await };
        let mut buffer = [0; MonitorMessage::MAX];
        let received = socket.async_io(Interest::READABLE, || socket::receive_now(socket.as_fd(), &mut buffer)).await;
        match received {
            Ok((length, _)) if length > 0 => Some(Notification::parse(&buffer[..length])),
            _ => None,
        }
    }

    /// What it has said and nobody has heard yet.
    pub(super) fn notified_now(&self) -> Option<Notification> {
        let mut buffer = [0; MonitorMessage::MAX];
        match socket::receive_now(self.notified.as_ref()?.as_fd(), &mut buffer) {
            Ok((length, _)) if length > 0 => Some(Notification::parse(&buffer[..length])),
            _ => None,
        }
    }

    /// When it is given up if it is not ready by then; `None` when it is, or may take for ever.
    pub(super) fn ready_by(&self) -> Option<Instant> {
        let RunRecord { unready, stopping, ready_by_usec, .. } = self.record;
        (unready && !stopping && ready_by_usec > 0).then(|| patience::until(ready_by_usec))
    }

    /// Whether it was given a way to say something.
    pub(super) fn can_speak(&self) -> bool {
        self.spoke_to
    }

    /// The way is closed.
    pub(super) fn is_silent(&mut self) {
        self.notified = None;
    }

    /// What the monitor says of the end on its socket, for when its record could not be written: it has no figures. Can be
    /// asked once.
    pub(super) fn told(&self) -> Option<ExitRecord> {
        let (exit, oom_kills) = self.keeper.as_ref()?.ended()?;
        Some(bare_record(self.record.run, exit, oom_kills))
    }

    /// With the monitor gone: whether the payload runs on, and if so, watches its leader from now on.
    pub(super) fn watch_leader(&mut self) -> std::io::Result<bool> {
        let Some(leader) = &self.handles.leader else { return Ok(false) };
        if pidfd::has_ended(leader)? {
            return Ok(false);
        }
        self.watched = Readiness::new(leader.try_clone()?)?;
        Ok(true)
    }

    /// Reaps the monitor, when it has ended, if it is our child. One that an earlier daemon started is not; systemd
    /// reaps that.
    pub(super) fn reap_later(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            tokio::spawn(reap(keeper));
        }
    }
}

/// The type only says who waits for it: there is none for packet sockets.
fn listening(socket: OwnedFd) -> std::io::Result<UnixDatagram> {
    let socket = net::UnixDatagram::from(socket);
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// A record of an end that has just been seen, without figures.
pub(super) fn bare_record(run: u64, exit: Exit, oom_kills: u64) -> ExitRecord {
    ExitRecord {
        version: ExitRecord::VERSION,
        run,
        exit,
        reboot: false,
        exited_usec: now_usec(),
        oom_kills,
        figures: Default::default(),
        stop: StopCourse::None,
        unheard: false,
    }
}

/// How an ended process ended, if the kernel tells. A moment is given to its parent to reap it: the service manager, when
/// the monitor was killed.
pub(super) fn asked_of_kernel(process: &OwnedFd) -> Option<Exit> {
    let reaped = pidfd::wait_until_reaped(process, REAPED);
    let told = reaped.and_then(|_| pidfd::exit_status(process));
    match told {
        Ok(status) => Exit::from_wait_status(status?),
        Err(error) => {
            tracing::debug!("cannot ask the kernel how a process ended: {error}, ignoring");
            None
        }
    }
}

impl Handles {
    /// Does `store` with the leader's pidfd, unless the run is over.
    pub(super) fn store_leader(&self, store: impl FnOnce(&OwnedFd)) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Stored::No, Some(leader)) = (&*stored, &self.leader) {
            store(leader);
            *stored = Stored::Yes;
        }
    }

    /// The run is over: whether the pidfd was stored. It is not from now on.
    pub(super) fn stop_storing(&self) -> bool {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *stored, Stored::NoMore) == Stored::Yes
    }

    /// Sends a signal to the leader, or to every process of the payload.
    pub(super) fn signal(&self, who: Who, signal: Signal) -> std::io::Result<()> {
        match who {
            Who::Leader => match &self.leader {
                Some(leader) => pidfd::send_signal(leader, signal.number()),
                None => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            },
            Who::All => self.cgroup.signal_all(signal),
        }
    }

    /// Kills everything but the monitor. The leader is killed by its pidfd too: with it goes the pid namespace, even if
    /// the control group cannot be used.
    pub(super) fn kill(&self) -> std::io::Result<()> {
        let killed = self.cgroup.kill_all();
        // Nearly always it was just killed.
        let _ = self.signal(Who::Leader, Signal::KILL);
        killed
    }
}

/// Waits until a child of ours has ended, and takes it away.
pub(super) async fn reap(keeper: Keeper) {
    let ended = keeper.pidfd().try_clone_to_owned().and_then(Readiness::new);
    match ended {
        Ok(ended) if ended.readable().await.is_ok() => {
            if let Err(error) = keeper.reap() {
                tracing::debug!(pid = keeper.pid(), "cannot reap: {error}, ignoring");
            }
        }
        _ => tracing::debug!(pid = keeper.pid(), "cannot wait for a monitor's end, ignoring"),
    }
}

/// A pidfd of the process with this id that started at `start`; `None` when that process is gone.
pub(super) fn open_process(pid: u32, start: u64) -> Option<OwnedFd> {
    let pidfd = pidfd::open(pid).ok()?;
    // Checked after opening: the pidfd cannot be of a later process with the same id and this start time.
    proc::stat(pid).is_ok_and(|stat| stat.start == start && stat.state != 'Z').then_some(pidfd)
}

/// When the process started; 0 when it is gone.
pub(super) fn start_time(pid: u32) -> u64 {
    proc::stat(pid).map_or(0, |stat| stat.start)
}
