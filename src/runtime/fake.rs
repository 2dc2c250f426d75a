//! [`Launcher`] without containers, for tests of policy: the daemon's half is the real one, a thread plays the monitor, and
//! payloads are plain processes of the host.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

use super::launch::Pending;
use super::monitor::{End, end_of_system};
use super::wire::{Failure, MonitorEnd, Order};
use super::{LaunchError, Launcher, PendingExec, PendingMonitor, StepError, record};
use crate::model::{Exit, ExitRecord, Process, StopCourse, now_usec};
use crate::sys::{pidfd, socket};

/// Starts monitors that are played.
#[derive(Debug, Default, Clone)]
pub(crate) struct FakeLauncher(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    refuse_spawns: usize,
    failures: VecDeque<Failure>,
    no_records: bool,
    monitors: Vec<u32>,
    processes: Vec<OwnedFd>,
}

impl FakeLauncher {
    /// The next spawn fails.
    pub(crate) fn refuse_next_spawn(&self) {
        self.script().refuse_spawns += 1;
    }

    /// The next launch fails at this step.
    pub(crate) fn fail_next_launch(&self, step: &str) {
        let error = StepError { step: step.to_owned(), errno: libc::EIO, message: "as the test wants it".to_owned() };
        self.script().failures.push_back(Failure::Step(error));
    }

    /// From now on monitors cannot write their records, as with a full disk.
    pub(crate) fn lose_records(&self) {
        self.script().no_records = true;
    }

    /// The process ids of all monitors so far.
    pub(crate) fn monitors(&self) -> Vec<u32> {
        self.script().monitors.clone()
    }

    /// How many monitors and payloads have not ended.
    pub(crate) fn alive(&self) -> usize {
        self.script().processes.iter().filter(|process| !pidfd::has_ended(process).unwrap()).count()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> Result<Pending, LaunchError> {
        let failed = |source| LaunchError::Spawn { path: "holm-init".into(), source };
        if self.script().refuse_spawns > 0 {
            self.script().refuse_spawns -= 1;
            return Err(failed(std::io::Error::from_raw_os_error(libc::EAGAIN)));
        }
        let (ours, theirs) = socket::packet_pair().map_err(failed)?;
        let monitor = quiet("sleep", &["1000".to_owned()]).spawn().map_err(failed)?;
        let pending = Pending::new(&monitor, ours).map_err(failed)?;
        let played = Monitor { end: MonitorEnd::new(theirs), own: self.watch(&monitor), launcher: self.clone() };
        self.script().monitors.push(monitor.id());
        thread::spawn(move || played.play());
        Ok(pending)
    }

    fn watch(&self, child: &Child) -> OwnedFd {
        let opened = pidfd::open(child.id()).unwrap();
        self.script().processes.push(opened.try_clone().unwrap());
        opened
    }
}

impl Launcher for FakeLauncher {
    fn spawn_monitor(&self) -> Result<PendingMonitor, LaunchError> {
        Ok(PendingMonitor(self.spawn()?))
    }

    fn spawn_exec(&self) -> Result<PendingExec, LaunchError> {
        Ok(PendingExec(self.spawn()?))
    }
}

struct Monitor {
    end: MonitorEnd,
    /// Of the process that stands for the monitor. The daemon's half reaps it.
    own: OwnedFd,
    launcher: FakeLauncher,
}

impl Monitor {
    fn play(self) {
        match self.end.order() {
            Ok(Order::Launch(plan, fds)) => {
                let (run, boot, directory) = (plan.run, plan.boot, fds.record_dir);
                // The payload's is the caller's; nobody else keeps it open.
                drop((fds.stdio, fds.client));
                self.keep(&plan.process, |exit| {
                    let figures = Default::default();
                    let End { exit, reboot } = if boot { end_of_system(exit) } else { End { exit, reboot: false } };
                    let record = ExitRecord {
                        version: ExitRecord::VERSION,
                        run,
                        exit,
                        reboot,
                        exited_usec: now_usec(),
                        oom_kills: 0,
                        figures,
                        stop: StopCourse::None,
                        unheard: false,
                    };
                    record::write(directory, &record).unwrap();
                });
            }
            Ok(Order::Exec(plan, _)) => self.keep(&plan.process, |_| {}),
            // The daemon thought better of it, and kills the process.
            Err(_) => {}
        }
    }

    fn keep(self, process: &Process, write_record: impl FnOnce(Exit)) {
        let failure = self.launcher.script().failures.pop_front();
        let mut leader = match (failure, quiet(&process.command[0], &process.command[1..]).spawn()) {
            (None, Ok(leader)) => leader,
            (failure, spawned) => {
                if let Ok(mut unwanted) = spawned {
                    unwanted.kill().unwrap();
                    unwanted.wait().unwrap();
                }
                self.end_process();
                let failure = failure.unwrap_or_else(|| Failure::CommandNotFound(process.command[0].clone()));
                return self.end.failed(failure).unwrap();
            }
        };
        let ended = self.launcher.watch(&leader);
        self.end.started(leader.id(), ended.as_fd(), None, Vec::new()).unwrap();
        let mut events = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&self.own, PollFlags::IN)];
        poll(&mut events, None).unwrap();
        if pidfd::has_ended(&self.own).unwrap() {
            // Killed: it says no more, and its child is somebody else's.
            drop(self);
            leader.wait().unwrap();
            return;
        }
        let status = leader.wait().unwrap();
        let exit = Exit::from_wait_status(status.into_raw()).unwrap();
        if !self.launcher.script().no_records {
            write_record(exit);
        }
        self.end_process();
        // A daemon that is gone has no use for it.
        let _ = self.end.ended(exit, 0);
    }

    fn end_process(&self) {
        pidfd::send_signal(&self.own, libc::SIGKILL).unwrap();
        poll(&mut [PollFd::new(&self.own, PollFlags::IN)], None).unwrap();
    }
}

fn quiet(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
