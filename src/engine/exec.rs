//! Processes that enter a running container.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::error::EngineError;
use super::events::Events;
use super::request::{ExecRequest, Who};
use super::run::{Handles, reap};
use super::view::{ContainerView, Event, ProcessId, ProcessView};
use super::{Engine, blocking, create};
use crate::model::{ContainerName, Exit, Process, Signal, Status, now_usec};
use crate::runtime::{ExecFds, ExecPlan, Launched};
use crate::sys::pidfd;
use crate::sys::readiness::Readiness;

/// How long a process that ended is still shown.
const KEPT: Duration = Duration::from_secs(60);

/// A process started by [`Engine::exec`].
#[derive(Debug)]
pub struct Executed {
    /// Its id.
    pub id: ProcessId,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// The table of processes that entered.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    table: Arc<Mutex<Table>>,
    events: Events,
}

#[derive(Debug, Default)]
struct Table {
    last: ProcessId,
    processes: BTreeMap<ProcessId, Entry>,
}

#[derive(Debug)]
struct Entry {
    view: ProcessView,
    /// Until it has ended: then there is nobody to signal, and no descriptor to keep.
    live: Option<Arc<Live>>,
}

#[derive(Debug)]
struct Live {
    container: Arc<Handles>,
    pidfd: OwnedFd,
}

impl Engine {
    /// Runs a process in a running container. It goes on when its starter leaves: whoever wants it to end calls
    /// [`kill_process`](Self::kill_process).
    pub async fn exec(&self, name: &ContainerName, request: ExecRequest) -> Result<Executed, EngineError> {
        let container = self.inner.find(name)?;
        // Looked at only now: a freeze that was under way has ended, and none begins before the process is there.
        let _open = container.enter().await;
        let view = container.view();
        let handles = container.handles()?;
        check_enterable(&view)?;
        let leader = handles.leader.as_ref().ok_or_else(|| EngineError::NotRunning(name.clone()))?;
        let owner = request.owner.clone();
        let id = self.inner.processes.next_id();
        let plan = plan(&view, &request, id)?;
        let state = |op, source| EngineError::State { op, path: name.as_str().into(), source };
        let fds = ExecFds {
            leader: leader.try_clone().map_err(|error| state("enter", error))?,
            cgroup: File::open(handles.cgroup.path()).map(OwnedFd::from).map_err(|error| state("enter", error))?,
            stdio: request.io.stdio,
            client: request.io.monitor,
        };
        let command = plan.process.command.clone();
        let inner = Arc::clone(&self.inner);
        let mut launched = blocking(move || inner.launcher.spawn_exec()?.launch(&plan, fds)).await?;
        let terminal = launched.terminal.take();
        let process = ProcessView {
            id,
            container: name.clone(),
            command,
            pid: launched.leader,
            owner,
            started_usec: now_usec(),
            ended: false,
            exit: None,
        };
        info!(container = %name, op = "exec", pid = launched.leader, "Process {} entered container {name}.", launched.leader);
        match self.inner.processes.watch(process, Arc::clone(&handles), launched) {
            Ok(()) => Ok(Executed { id, terminal }),
            Err(error) => {
                // It runs and nobody would see its end.
                let killed = blocking(move || handles.cgroup.signal_entered(&cgroup_name(id), Signal::KILL)).await;
                if let Err(source) = killed {
                    warn!(container = %name, op = "exec", "cannot kill process {id}: {source}");
                }
                Err(error)
            }
        }
    }

    /// A process started by [`exec`](Self::exec); one that ended is shown for a minute.
    pub fn process(&self, id: ProcessId) -> Result<ProcessView, EngineError> {
        self.inner.processes.table().processes.get(&id).map(|entry| entry.view.clone()).ok_or_else(|| no_such(id))
    }

    /// Sends a signal to a process started by [`exec`](Self::exec). [`Who::All`] reaches everything it started too.
    pub async fn kill_process(&self, id: ProcessId, who: Who, signal: Signal) -> Result<(), EngineError> {
        let live = self.inner.processes.live(id)?;
        let sent = blocking(move || match who {
            Who::Leader => pidfd::send_signal(&live.pidfd, signal.number()),
            Who::All => live.container.cgroup.signal_entered(&cgroup_name(id), signal),
        });
        sent.await.map_err(|source| match source.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT | libc::ENODEV) => has_ended(id),
            _ => EngineError::State { op: "signal", path: format!("process {id}").into(), source },
        })
    }
}

impl Processes {
    pub(super) fn new(events: Events) -> Self {
        Self { table: Arc::default(), events }
    }

    fn next_id(&self) -> ProcessId {
        let mut table = self.table();
        table.last = table.last.wrapping_add(1).max(1);
        table.last
    }

    fn live(&self, id: ProcessId) -> Result<Arc<Live>, EngineError> {
        let table = self.table();
        let entry = table.processes.get(&id).ok_or_else(|| no_such(id))?;
        entry.live.clone().ok_or_else(|| has_ended(id))
    }

    /// Shows a process, waits for its end, shows that, and forgets it later.
    fn watch(&self, view: ProcessView, handles: Arc<Handles>, launched: Launched) -> Result<(), EngineError> {
        let state = |source| EngineError::State { op: "watch", path: format!("process {}", view.pid).into(), source };
        let keeper = launched.keeper;
        let watched = keeper.socket().try_clone_to_owned().and_then(Readiness::new).map_err(state)?;
        let id = view.id;
        let live = Arc::new(Live { container: handles, pidfd: launched.leader_pidfd });
        self.table().processes.insert(id, Entry { view: view.clone(), live: Some(live) });
        self.events.send(Event::ProcessNew(view));
        let this = self.clone();
        tokio::spawn(async move {
            if watched.readable().await.is_err() {
                return;
            }
            let exit = keeper.ended().map(|(exit, _)| exit);
            if exit.is_none() {
                warn!(op = "exec", process = id, "the keeper of process {id} was killed: how that ended is lost");
            }
            drop(watched);
            this.ended(id, exit);
            tokio::spawn(reap(keeper));
            tokio::time::sleep(KEPT).await;
            this.table().processes.remove(&id);
        });
        Ok(())
    }

    fn ended(&self, id: ProcessId, exit: Option<Exit>) {
        let view = {
            let mut table = self.table();
            let Some(entry) = table.processes.get_mut(&id) else { return };
            entry.view.exit = exit;
            entry.view.ended = true;
            entry.live = None;
            entry.view.clone()
        };
        self.events.send(Event::ProcessExited(view));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a process's own sub-cgroup.
fn cgroup_name(id: ProcessId) -> String {
    format!("exec-{id}")
}

/// A frozen container cannot be entered: what enters it would stand still with it, and its caller with that.
fn check_enterable(view: &ContainerView) -> Result<(), EngineError> {
    match view.status {
        Status::Running => Ok(()),
        // It runs, and is not ready yet.
        Status::Starting if view.leader != 0 => Ok(()),
        Status::Frozen => Err(EngineError::Running {
            name: view.spec.name.clone(),
            status: Status::Frozen.as_str(),
            advice: "thaw it first with 'holmctl thaw'",
        }),
        _ => Err(EngineError::NotRunning(view.spec.name.clone())),
    }
}

/// What is absent is as it is for the payload.
fn plan(view: &ContainerView, request: &ExecRequest, id: ProcessId) -> Result<ExecPlan, EngineError> {
    let payload = &view.spec.process;
    if request.command.first().is_none_or(String::is_empty) {
        return Err(EngineError::InvalidConfig("the command is empty: name a program".to_owned()));
    }
    Ok(ExecPlan {
        process: Process {
            command: request.command.clone(),
            environment: create::environment(&payload.environment, &request.environment)?,
            working_directory: request.working_directory.clone().or_else(|| payload.working_directory.clone()),
            user: request.user.clone().or_else(|| payload.user.clone()),
            terminal: request.terminal,
            init: false,
            capabilities: payload.capabilities.clone(),
            no_new_privileges: payload.no_new_privileges,
        },
        cgroup_name: cgroup_name(id),
        terminal_size: request.io.terminal_size,
    })
}

fn has_ended(id: ProcessId) -> EngineError {
    EngineError::NoSuchProcess(format!("process {id} has ended"))
}

fn no_such(id: ProcessId) -> EngineError {
    EngineError::NoSuchProcess(format!("no process has the number {id}"))
}
