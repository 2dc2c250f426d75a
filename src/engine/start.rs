//! The start path, from a record to a running payload.
//!
//! ```text
//!  activate + detached mount ─┐
//!                             ├─► hand over: plan, root, scope's cgroup, stdio ─► exec seen
//!  monitor ─► scope ──────────┘
//! ```
//!
//! The two branches overlap. A failure at any point ends the monitor, and with it the scope; the device is given back
//! by its lease.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::cgroup::Cgroup;
use super::error::EngineError;
use super::request::RunIo;
use super::run::{Run, start_time};
use super::steps::Steps;
use super::{Inner, blocking, container_device, table};
use crate::model::ContainerSpec;
use crate::records::{ContainerRecord, RunRecord};
use crate::runtime::{LaunchError, LaunchFds, LaunchPlan, Launched, PendingMonitor, Timings};
use crate::storage::{Access, MountedDevice};
use crate::sys::pidfd;
use crate::systemd::journal::{self, Priority};
use crate::systemd::{Scope, ScopeRequest, scope_name};

/// How much longer systemd waits than we do, so that it is us who kill.
const STOP_MARGIN_USEC: u64 = 5_000_000;
/// How long a container may take to be set up; milliseconds as a rule.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// Launches the payload of `record`'s current run.
pub(super) async fn launch(engine: &Arc<Inner>, record: &ContainerRecord, io: RunIo) -> Result<Run, EngineError> {
    engine.check_open()?;
    let mut steps = Steps::begin();
    let spec = &record.spec;
    // Both to their ends, whatever becomes of one: after a failure nothing of the other is under way.
    let (root, scope) = tokio::join!(mount_root(engine, spec), make_scope(engine, spec, io.wanted_by.clone()));
    let ((root, mounting), (monitor, scope, scoping)) = (root?, scope?);
    steps.inside("Root", &mounting.into_laps());
    steps.inside("Scope", &scoping.into_laps());
    steps.lap("Prepare");
    let run = RunRecord {
        version: RunRecord::VERSION,
        run: record.run,
        unit: scope.unit.clone(),
        control_group: scope.control_group.to_string_lossy().into_owned(),
        monitor: monitor.pid(),
        monitor_start: start_time(monitor.pid()),
        leader: 0,
        leader_start: 0,
        started_usec: record.started_usec,
        stopping: false,
        deadline_usec: None,
        unheard: None,
        forced: false,
        held: false,
    };
    // Before the plan goes out: a daemon that starts anew must find a payload that may run from here on.
    engine.store.put_run(&spec.id, &run)?;
    let (run, launched) = match hand_over(engine, record, io, root, monitor, &scope, run).await {
        Ok(launched) => launched,
        Err(error) => {
            if let Err(kept) = engine.store.remove_run(&spec.id) {
                warn!(container = %spec.name, op = "start", "{kept}, ignoring");
            }
            return Err(error);
        }
    };
    steps.inside("Monitor", &launched);
    steps.lap("HandOver");
    steps.finish("start", &spec.name);
    if let Some(terminal) = &run.handles.terminal {
        table::keep_terminal(spec, terminal);
    }
    table::keep_leader(spec, &run);
    engine.register_machine(spec, run.record.leader);
    Ok(run)
}

async fn mount_root(engine: &Arc<Inner>, spec: &ContainerSpec) -> Result<(MountedDevice, Steps), EngineError> {
    let mut steps = Steps::begin();
    let devices = Arc::clone(&engine.devices);
    let id = container_device(&spec.id);
    let root = blocking(move || devices.mount_device_for(&id, Access::ReadWrite, "start")).await?;
    steps.lap("Mount");
    Ok((root, steps))
}

/// Spawns the monitor and starts the scope around it. The monitor stays blocked until it is handed the plan.
async fn make_scope(
    engine: &Arc<Inner>,
    spec: &ContainerSpec,
    wanted_by: Option<String>,
) -> Result<(PendingMonitor, Scope, Steps), EngineError> {
    if let Some(unit) = wanted_by.as_deref().filter(|_| spec.survive_soft_reboot) {
        let message =
            format!("{unit}, which it is run by, is stopped at a soft-reboot: run it detached to survive one");
        return Err(EngineError::InvalidConfig(message));
    }
    let mut steps = Steps::begin();
    let monitor = engine.launcher.spawn_monitor()?;
    steps.lap("SpawnMonitor");
    let request = ScopeRequest {
        unit: scope_name(&spec.name),
        description: format!("Container {}", spec.name),
        pid: monitor.pid(),
        slice: spec.slice.clone().unwrap_or_else(|| engine.settings.slice.clone()),
        limits: spec.limits,
        timeout_stop_usec: spec.stop.timeout_usec.saturating_add(STOP_MARGIN_USEC),
        wanted_by,
        survive_soft_reboot: spec.survive_soft_reboot,
    };
    let scope = tokio::select! {
        biased;
        scope = engine.scopes.start(&request) => scope?,
        // It is ordered after our own unit: systemd would let it wait for our end, and we for it.
        () = engine.closing(), if request.wanted_by.is_some() => return Err(EngineError::ShuttingDown),
    };
    steps.lap("Start");
    Ok((monitor, scope, steps))
}

async fn hand_over(
    engine: &Arc<Inner>,
    record: &ContainerRecord,
    io: RunIo,
    root: MountedDevice,
    monitor: PendingMonitor,
    scope: &Scope,
    mut run: RunRecord,
) -> Result<(Run, Timings), EngineError> {
    let (mount, lease) = root.into_parts();
    let plan = plan(record, io.terminal_size);
    let fds = LaunchFds {
        root: mount,
        cgroup: open_cgroup(scope)?,
        record_dir: engine.store.exit_directory(&record.spec.id)?,
        stdio: stdio(&record.spec, scope, io.stdio),
        client: io.monitor,
    };
    let mut launched = in_time(monitor, move |monitor| {
        let launched = monitor.launch(&plan, fds)?;
        // From here on the device belongs to the container's own mount: the kernel deactivates it when that is gone.
        drop(lease);
        Ok(launched)
    })
    .await?;
    run.leader = launched.leader;
    run.leader_start = start_time(launched.leader);
    if let Err(error) = engine.store.put_run(&record.spec.id, &run) {
        // The payload runs. A daemon that starts anew finds the leader as the monitor's child.
        warn!(container = %record.spec.name, op = "start", "{error}, ignoring");
    }
    let steps = std::mem::take(&mut launched.steps);
    let cgroup = Cgroup::new(&scope.control_group);
    match Run::launched(run, launched) {
        Ok(run) => Ok((run, steps)),
        Err(source) => {
            // It runs and nobody would see its end.
            if let Err(error) = blocking(move || cgroup.kill_all()).await {
                warn!(container = %record.spec.name, op = "start", "cannot kill the control group: {error}");
            }
            Err(EngineError::State { op: "watch", path: "the monitor".into(), source })
        }
    }
}

/// Runs the launch, and gives a monitor up that does not come to its end: a bind mount's file server may be gone, say.
async fn in_time(
    monitor: PendingMonitor,
    work: impl FnOnce(PendingMonitor) -> Result<Launched, LaunchError> + Send + 'static,
) -> Result<Launched, EngineError> {
    let watched = |source| EngineError::State { op: "watch", path: "the monitor".into(), source };
    let pidfd = monitor.pidfd().try_clone_to_owned().map_err(watched)?;
    let launch = blocking(move || work(monitor));
    tokio::pin!(launch);
    if let Ok(launched) = tokio::time::timeout(SETUP_LIMIT, &mut launch).await {
        return Ok(launched?);
    }
    pidfd::send_signal(&pidfd, libc::SIGKILL).map_err(watched)?;
    launch.await.map_err(|error| {
        debug!(op = "start", %error, "was given up");
        EngineError::Timeout("setting the container up")
    })
}

fn plan(record: &ContainerRecord, terminal_size: Option<(u16, u16)>) -> LaunchPlan {
    let spec = &record.spec;
    LaunchPlan {
        name: spec.name.clone(),
        id: spec.id.clone(),
        run: record.run,
        hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.to_string()),
        process: spec.process.clone(),
        network: spec.network,
        read_only: spec.read_only,
        mounts: spec.mounts.clone(),
        stop: spec.stop,
        survive_soft_reboot: spec.survive_soft_reboot,
        terminal_size,
    }
}

fn open_cgroup(scope: &Scope) -> Result<OwnedFd, EngineError> {
    let cgroup = Cgroup::new(&scope.control_group);
    File::open(cgroup.path()).map(OwnedFd::from).map_err(|source| EngineError::State {
        op: "open",
        path: cgroup.path().to_owned(),
        source,
    })
}

/// What the caller passed goes to the payload unchanged; what it did not pass is the journal's for output, and
/// nothing for input. A terminal replaces all three. Without a journal the container is as good, but for its log.
fn stdio(spec: &ContainerSpec, scope: &Scope, [input, output, error]: [Option<OwnedFd>; 3]) -> [Option<OwnedFd>; 3] {
    if spec.process.terminal {
        return [None, None, None];
    }
    let journal = |priority| match journal::stream(spec.name.as_str(), &scope.unit, priority) {
        Ok(stream) => Some(stream),
        Err(error) => {
            warn!(container = %spec.name, op = "start", "{error}: its output is lost");
            None
        }
    };
    [input, output.or_else(|| journal(Priority::Info)), error.or_else(|| journal(Priority::Error))]
}
