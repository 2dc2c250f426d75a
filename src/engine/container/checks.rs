//! The checks of a container's health: one after another, beside its task and never in its way.
//!
//! One task per run: it waits, has the check run inside in a sub-cgroup of its own, and tells the container's task how that
//! went. There is never more than one check of a container, however long it hangs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{Request, Shared};
use crate::engine::cgroup::CHECK;
use crate::engine::run::{Handles, reap};
use crate::engine::{Inner, blocking};
use crate::model::{Checked, ContainerSpec, Exit, HealthCheck, Process, Signal, Status, Usec, in_usec, now_usec};
use crate::runtime::{ExecFds, ExecPlan, Launched};
use crate::sys::pidfd;
use crate::sys::readiness::Readiness;

/// How much of what a check writes is kept, in bytes.
const OUTPUT_LIMIT: usize = 4096;
/// How long a check that was killed may take to be gone before that is said.
const LEAVING: Duration = Duration::from_secs(1);

/// The checks of one run; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Checks {
    _stop: oneshot::Sender<()>,
}

/// What they need.
#[derive(Debug)]
pub(super) struct Checker {
    pub(super) engine: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) handles: Arc<Handles>,
    pub(super) requests: mpsc::WeakUnboundedSender<Request>,
    pub(super) spec: ContainerSpec,
    pub(super) check: HealthCheck,
    pub(super) run: u64,
    /// When the run began.
    pub(super) started_usec: Usec,
    /// Whether a check passed or counted already, under a daemon before this one.
    pub(super) settled: bool,
    pub(super) checks: u32,
}

impl Checker {
    /// Sets the checks to work.
    pub(super) fn begin(self) -> Checks {
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(self.work(stopped));
        Checks { _stop: stop }
    }

    async fn work(mut self, mut stopped: oneshot::Receiver<()>) {
        self.clear_leftovers().await;
        loop {
            let wait = self.check.wait(self.settled, self.checks);
            tokio::select! {
                // By its sender's drop.
                _ = &mut stopped => return,
                () = tokio::time::sleep(wait) => {}
            }
            self.checks = self.checks.saturating_add(1);
            let Some((checked, left)) = self.look().await else { continue };
            let counts = now_usec().saturating_sub(self.started_usec) > in_usec(self.check.grace());
            self.settled |= checked.passed() || counts;
            let Some(requests) = self.requests.upgrade() else { return };
            // A task that is gone needs no word.
            let _ = requests.send(Request::Checked { run: self.run, checked, counts });
            drop(requests);
            tokio::select! {
                _ = &mut stopped => return,
                () = left.gone() => {}
            }
        }
    }

    /// A check of a daemon that was killed is nobody's any more.
    async fn clear_leftovers(&self) {
        let cgroup = self.handles.cgroup.clone();
        if let Err(error) = blocking(move || cgroup.kill_checks()).await {
            debug!(container = %self.spec.name, op = "health", "cannot kill checks that were left: {error}, ignoring");
        }
    }

    /// One check; `None` when it says nothing: the container stands still, or did meanwhile, or has ended.
    async fn look(&self) -> Option<(Checked, Left)> {
        let began = Instant::now();
        let freezes = self.shared.freezes.load(Ordering::Acquire);
        let (exit, output, left) = match self.run_it(began + self.check.timeout()).await? {
            Ok(ended) => ended,
            Err(why) => (None, why, Left(None)),
        };
        let still = freezes == self.shared.freezes.load(Ordering::Acquire) && self.is_awake();
        if !still {
            tokio::spawn(left.gone());
            return None;
        }
        let took_usec = in_usec(began.elapsed());
        Some((Checked { at_usec: now_usec(), took_usec, exit, output }, left))
    }

    /// Whether the payload runs, and may be asked something.
    fn is_awake(&self) -> bool {
        let view = self.shared.view.read().unwrap_or_else(PoisonError::into_inner);
        view.leader != 0 && matches!(view.status, Status::Running | Status::Starting)
    }

    /// How it ended, and what it wrote; or why it could not be begun.
    async fn run_it(&self, end: Instant) -> Option<Result<(Option<Exit>, String, Left), String>> {
        let open = Arc::clone(&self.shared.door).read_owned().await;
        if !self.is_awake() {
            return None;
        }
        let name = format!("{CHECK}{}", now_usec());
        let launched = self.launch(&name, end).await;
        drop(open);
        Some(match launched {
            Ok((launched, reader)) => self.follow(launched, reader, &name, end).await,
            Err(why) => Err(why),
        })
    }

    async fn launch(&self, name: &str, end: Instant) -> Result<(Launched, pipe::Receiver), String> {
        let (reader, writer) = std::io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
        let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(|error| error.to_string())?;
        let fds = self.descriptors(writer.into()).map_err(|error| format!("cannot enter the container: {error}"))?;
        let pending = self.engine.launcher.spawn_exec().map_err(|error| error.to_string())?;
        let keeper = pending.pidfd().try_clone_to_owned().map_err(|error| error.to_string())?;
        let plan = ExecPlan { process: self.process(), cgroup_name: name.to_owned(), terminal_size: None };
        let launch = blocking(move || pending.launch(&plan, fds));
        tokio::pin!(launch);
        let launched = match timeout_at(end, &mut launch).await {
            Ok(launched) => launched,
            Err(_) => {
                self.kill(name).await;
                // It may hang before there is anything in the cgroup.
                let _ = pidfd::send_signal(&keeper, libc::SIGKILL);
                return match launch.await {
                    Ok(launched) => {
                        reap(launched.keeper).await;
                        Err("it could not be begun in time".to_owned())
                    }
                    Err(_) => Err("it could not be begun in time".to_owned()),
                };
            }
        };
        launched.map(|launched| (launched, reader)).map_err(|error| error.to_string())
    }

    fn descriptors(&self, writer: OwnedFd) -> std::io::Result<ExecFds> {
        let leader = self.handles.leader.as_ref().ok_or(std::io::ErrorKind::NotFound)?.try_clone()?;
        let cgroup = File::open(self.handles.cgroup.path()).map(OwnedFd::from)?;
        let stdio = [None, Some(writer.try_clone()?), Some(writer)];
        Ok(ExecFds { leader, cgroup, stdio, client: None })
    }

    /// As the payload is, but for the command.
    fn process(&self) -> Process {
        Process { command: self.check.command.clone(), terminal: false, init: false, ..self.spec.process.clone() }
    }

    async fn follow(
        &self,
        launched: Launched,
        reader: pipe::Receiver,
        name: &str,
        end: Instant,
    ) -> Result<(Option<Exit>, String, Left), String> {
        let keeper = launched.keeper;
        let socket = keeper.socket().try_clone_to_owned().and_then(Readiness::new);
        let ended = socket.map_err(|error| format!("cannot wait for its end: {error}"))?;
        let (tell, told) = oneshot::channel();
        let output = tokio::spawn(read(reader, told));
        let in_time = timeout_at(end, ended.readable()).await.is_ok();
        if !in_time {
            self.kill(name).await;
            // What was killed is gone in a moment, unless it hangs in the kernel.
            let _ = tokio::time::timeout(LEAVING, ended.readable()).await;
        }
        let exit = keeper.ended().map(|(exit, _)| exit).filter(|_| in_time);
        drop((ended, tell));
        let mut text = output.await.unwrap_or_default();
        if !in_time {
            text = format!("took longer than {:?} and was killed\n{text}", self.check.timeout());
        }
        Ok((exit, text, Left(Some(tokio::spawn(reap(keeper))))))
    }

    async fn kill(&self, name: &str) {
        let (cgroup, name) = (self.handles.cgroup.clone(), name.to_owned());
        let killed = blocking(move || cgroup.signal_entered(&name, Signal::KILL)).await;
        if let Err(error) = killed {
            debug!(container = %self.spec.name, op = "health", "cannot kill a check: {error}, ignoring");
        }
    }
}

/// What may be left of a check: its keeper.
#[derive(Debug)]
struct Left(Option<tokio::task::JoinHandle<()>>);

impl Left {
    /// Returns when nothing is.
    async fn gone(self) {
        if let Some(keeper) = self.0 {
            // It cannot be cancelled, and a panic is told by the runtime.
            let _ = keeper.await;
        }
    }
}

/// Reads until everybody has let go of the other end, or until `told` after the end of the process that is asked: whoever
/// it left behind is killed, but may hang in the kernel. More than is kept is thrown away, so that no writer waits.
async fn read(mut reader: pipe::Receiver, mut told: oneshot::Receiver<()>) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = tokio::select! {
            biased;
            count = reader.read(&mut buffer) => count.unwrap_or(0),
            _ = &mut told => 0,
        };
        if count == 0 {
            return shown(&kept);
        }
        let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
}

/// As text, without what a terminal would obey.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end().chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_does_not_move_a_cursor() {
        assert_eq!(shown(b"all\tis\nwell\x1b[2J\x07\n\n"), "all\tis\nwell[2J");
        assert_eq!(shown(b"\xff"), "\u{fffd}");
    }

    #[tokio::test]
    async fn the_beginning_is_kept_and_nobody_waits() {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = pipe::Receiver::from_owned_fd(reader.into()).unwrap();
        let (tell, told) = oneshot::channel();
        let writing = tokio::task::spawn_blocking(move || {
            std::io::Write::write_all(&mut File::from(OwnedFd::from(writer)), &vec![b'x'; 1 << 20]).unwrap();
        });
        let reading = tokio::spawn(read(reader, told));
        writing.await.unwrap();
        drop(tell);
        assert_eq!(reading.await.unwrap().len(), OUTPUT_LIMIT);
    }
}
