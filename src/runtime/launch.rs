//! The daemon's side: spawning monitors and handing them their order.
//!
//! ```text
//!  InitImage::load ─► spawn_monitor ─► PendingMonitor (blocked; put it in its scope) ─► launch ─► Launched { keeper, … }
//! ```
//!
//! Synchronous: a call waits for the kernel and for the monitor, milliseconds as a rule. Call it where waiting is allowed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::plan::{self, PlanError};
use super::wire::{DaemonEnd, Report, Timings, WireError};
use super::{ExecFds, ExecPlan, LaunchError, LaunchFds, LaunchPlan};
use crate::model::Exit;
use crate::sys::cgroup::Cgroup;
use crate::sys::{memfd, pidfd, process, socket};

/// What starts the monitors; one real implementation, [`InitImage`], one fake for tests of policy.
pub trait Launcher: Send + Sync + std::fmt::Debug {
    /// Starts the monitor of a container. It waits for [`PendingMonitor::launch`]; meanwhile it can be put into its scope.
    fn spawn_monitor(&self) -> Result<PendingMonitor, LaunchError>;

    /// Starts the keeper of one more process in a container. It waits for [`PendingExec::launch`].
    fn spawn_exec(&self) -> Result<PendingExec, LaunchError>;
}

/// A copy of `holm-init` that nobody can change (R7): what the container sees of its keeper is not a file of the host, and an
/// upgrade of the package does not reach into running daemons.
#[derive(Debug)]
pub struct InitImage {
    path: PathBuf,
    file: OwnedFd,
}

impl InitImage {
    /// Copies the program into a sealed memory file.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, LaunchError> {
        let path = path.into();
        let copied = File::open(&path).and_then(|mut program| memfd::sealed("holm-init", &mut program));
        match copied {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(LaunchError::Spawn { path, source }),
        }
    }

    fn spawn(&self) -> Result<Pending, LaunchError> {
        self.try_spawn().map_err(|source| LaunchError::Spawn { path: self.path.clone(), source })
    }

    /// Without `pre_exec` and its like, the standard library takes posix_spawn(3): nothing of ours runs between fork and exec,
    /// and the cost does not grow with the daemon. Everything else is close-on-exec already.
    fn try_spawn(&self) -> io::Result<Pending> {
        let (ours, theirs) = socket::packet_pair()?;
        let child = Command::new(Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()))
            .arg0("holm-init")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Pending::new(&child, ours)
    }
}

impl Launcher for InitImage {
    fn spawn_monitor(&self) -> Result<PendingMonitor, LaunchError> {
        Ok(PendingMonitor(self.spawn()?))
    }

    fn spawn_exec(&self) -> Result<PendingExec, LaunchError> {
        Ok(PendingExec(self.spawn()?))
    }
}

/// A monitor, or the keeper of one more process, as the daemon holds it. Dropping it leaves the process alone; a daemon that was
/// restarted has the process's pidfd from elsewhere.
///
/// The process is the daemon's child: when [`pidfd`](Self::pidfd) becomes readable it has ended and [`reap`](Self::reap) takes it
/// away. A restarted daemon is not its parent; systemd reaps it then.
#[derive(Debug)]
pub struct Keeper {
    pid: u32,
    pidfd: OwnedFd,
    daemon: DaemonEnd,
}

impl Keeper {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor that becomes readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// A socket that becomes readable when the payload has ended and its record is written: somewhat earlier than the pidfd,
    /// because the keeper still has to sync the record.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.daemon.as_fd()
    }

    /// How the payload ended and how many processes were killed for lack of memory, if [`socket`](Self::socket) has that;
    /// `None` if not yet or not any more. The exit record says the same.
    pub fn ended(&self) -> Option<(Exit, u64)> {
        match self.daemon.report_now() {
            Ok((Report::Ended { exit, oom_kills }, _)) => Some((exit, oom_kills)),
            _ => None,
        }
    }

    /// Takes the ended process away; waits if it has not ended. `ECHILD` if it is not this process's child.
    pub fn reap(&self) -> io::Result<()> {
        process::reap(self.pidfd.as_fd()).map(drop)
    }

    /// Asks it to end: a monitor sends its leader the stop signal, the keeper of one more process kills that process and all it
    /// started. Both end when their payload has. `ESRCH` if it has ended.
    pub fn stop(&self) -> io::Result<()> {
        pidfd::send_signal(self.pidfd.as_fd(), libc::SIGTERM)
    }
}

/// A payload that runs.
#[derive(Debug)]
pub struct Launched {
    /// The leader's process id as the host sees it.
    pub leader: u32,
    /// A pidfd of the leader. It is the monitor's child: this tells that it ended, the exit record how.
    pub leader_pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// Who waits for it.
    pub keeper: Keeper,
    /// How long each step of the start took: name and µs.
    pub steps: Timings,
}

/// A monitor that waits for its order. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct PendingMonitor(pub(super) Pending);

impl PendingMonitor {
    /// Its process id: what to put into the scope.
    pub fn pid(&self) -> u32 {
        self.0.keeper().pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.0.keeper().pidfd.as_fd()
    }

    /// Starts the container and waits until its program is executed. The monitor must be in the scope whose directory is
    /// `fds.cgroup`, and has to be put there by number: it is this process's child and not reaped, so the number is its own (R17).
    /// After an error nothing of it runs any more, and the monitor is reaped. Who does not want to wait longer kills the monitor
    /// through a duplicate of [`pidfd`](Self::pidfd); the launch then fails.
    ///
    /// The root of `fds` can be used once: a mount that was attached in a container is gone with it.
    pub fn launch(self, plan: &LaunchPlan, fds: LaunchFds) -> Result<Launched, LaunchError> {
        // The monitor checks the same; here it costs no process.
        plan::launch_steps(plan)?;
        let cgroup = fds.cgroup.try_clone().map_err(|error| LaunchError::MonitorGone(error.to_string()))?;
        let sent = self.0.keeper().daemon.launch(plan, &fds);
        // The root must not be held here when the container has ended.
        drop(fds);
        self.0.started(sent, cgroup, &["payload"])
    }
}

/// The keeper of one more process, waiting for its order. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct PendingExec(pub(super) Pending);

impl PendingExec {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.keeper().pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.0.keeper().pidfd.as_fd()
    }

    /// Runs the process and waits until its program is executed; the "leader" of the result is this process. After an error
    /// nothing of it runs any more, and the keeper is reaped.
    pub fn launch(self, plan: &ExecPlan, fds: ExecFds) -> Result<Launched, LaunchError> {
        plan::exec_steps(plan)?;
        let cgroup = fds.cgroup.try_clone().map_err(|error| LaunchError::MonitorGone(error.to_string()))?;
        let sent = self.0.keeper().daemon.exec(plan, &fds);
        drop(fds);
        self.0.started(sent, cgroup, &[&plan.cgroup_name])
    }
}

/// A spawned `holm-init` without an order.
#[derive(Debug)]
pub(super) struct Pending {
    /// Taken when the payload runs.
    keeper: Option<Keeper>,
}

impl Pending {
    /// `child` is not reaped, so its id is still its own.
    pub(super) fn new(child: &Child, socket: OwnedFd) -> io::Result<Self> {
        let keeper = Keeper { pid: child.id(), pidfd: pidfd::open(child.id())?, daemon: DaemonEnd::new(socket) };
        Ok(Self { keeper: Some(keeper) })
    }

    fn keeper(&self) -> &Keeper {
        self.keeper.as_ref().expect("the keeper is taken only by started(), which takes self")
    }

    /// `parts`: the cgroups below the scope that this start may have filled.
    fn started(mut self, sent: Result<(), WireError>, scope: OwnedFd, parts: &[&str]) -> Result<Launched, LaunchError> {
        let answer = sent.and_then(|()| self.keeper().daemon.report());
        match answer {
            Ok((Report::Started { leader, steps }, fds)) => {
                let mut fds = fds.into_iter();
                let Some(leader_pidfd) = fds.next() else {
                    return Err(self.give_up(scope, parts, "it sent no pidfd".to_owned()));
                };
                let keeper = self.keeper.take().expect("see keeper()");
                Ok(Launched { leader, leader_pidfd, terminal: fds.next(), keeper, steps })
            }
            // The monitor has cleaned up before it said so.
            Ok((Report::Failed(failure), _)) => Err(failure.into()),
            Ok((Report::Ended { .. }, _)) => Err(self.give_up(scope, parts, "it spoke out of turn".to_owned())),
            // Nothing was sent.
            Err(WireError::TooLong(bytes)) => Err(PlanError::TooLong(bytes).into()),
            Err(error) => Err(self.give_up(scope, parts, error.to_string())),
        }
    }

    /// The monitor broke off, so what it has started is ours to kill: without it nobody would write down how it ended.
    fn give_up(self, scope: OwnedFd, parts: &[&str], why: String) -> LaunchError {
        drop(self);
        if let Ok(scope) = Cgroup::from_directory(scope) {
            for part in parts.iter().filter_map(|name| scope.child(name).ok()) {
                // A cgroup that cannot be killed is gone, or frozen in a way that no start survives.
                let _ = part.kill().and_then(|()| part.wait_until_empty());
            }
        }
        LaunchError::MonitorGone(why)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            // Either may find it already ended; there is nothing else to do about it.
            let _ = pidfd::send_signal(keeper.pidfd.as_fd(), libc::SIGKILL);
            let _ = keeper.reap();
        }
    }
}
