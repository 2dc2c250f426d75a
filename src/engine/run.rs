//! A run: one life of a container's payload, from launch to end.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cgroup::Cgroup;
use super::request::Who;
use crate::model::{ExitRecord, Signal};
use crate::records::RunRecord;
use crate::runtime::{Keeper, Launched};
use crate::sys::kill::pidfd_signal;
use crate::sys::proc;
use crate::sys::readiness::Readiness;

/// What exists while a payload runs.
#[derive(Debug)]
pub(super) struct Run {
    /// What is remembered of it until reboot.
    pub(super) record: RunRecord,
    /// Its processes and terminal; shared with whoever sends signals or attaches.
    pub(super) handles: Arc<Handles>,
    watched: Readiness,
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
}

impl Run {
    /// A run that has just been launched. Its end is seen on the monitor's socket, before the monitor itself ends.
    pub(super) fn launched(record: RunRecord, launched: Launched) -> std::io::Result<Self> {
        let watched = launched.keeper.socket().try_clone_to_owned()?;
        let run = Self::adopted(record, watched, Some(launched.leader_pidfd), launched.terminal)?;
        Ok(Self { keeper: Some(launched.keeper), ..run })
    }

    /// A run that was found at start. `watched`: a pidfd of the monitor, or of the leader when the monitor is gone.
    pub(super) fn adopted(
        record: RunRecord,
        watched: OwnedFd,
        leader: Option<OwnedFd>,
        terminal: Option<OwnedFd>,
    ) -> std::io::Result<Self> {
        let cgroup = Cgroup::new(Path::new(&record.control_group));
        let handles = Arc::new(Handles { leader, cgroup, terminal });
        Ok(Self { record, handles, watched: Readiness::new(watched)?, keeper: None })
    }

    /// Waits for the end of the run: then its exit record is there, or never will be.
    pub(super) async fn ended(&self) {
        // An error can only mean that the reactor is shutting down with the daemon.
        if self.watched.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reaps the monitor, when it has ended, if it is our child. One that an earlier daemon started is not; systemd
    /// reaps that.
    pub(super) fn reap_later(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            tokio::spawn(reap(keeper));
        }
    }
}

impl Handles {
    /// Sends a signal to the leader, or to every process of the payload.
    pub(super) fn signal(&self, who: Who, signal: Signal) -> std::io::Result<()> {
        match who {
            Who::Leader => match &self.leader {
                Some(leader) => pidfd_signal(leader, signal.number()),
                None => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            },
            Who::All => self.cgroup.signal_all(signal),
        }
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
    let pidfd = open(pid)?;
    // Checked after opening: the pidfd cannot be of a later process with the same id and this start time.
    proc::stat(pid).is_ok_and(|stat| stat.start == start && stat.state != 'Z').then_some(pidfd)
}

/// When the process started; 0 when it is gone.
pub(super) fn start_time(pid: u32) -> u64 {
    proc::stat(pid).map_or(0, |stat| stat.start)
}

/// Whether an exit record belongs to this run.
pub(super) fn belongs(record: Option<ExitRecord>, run: u64) -> Option<ExitRecord> {
    record.filter(|record| record.run == run)
}

fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}
