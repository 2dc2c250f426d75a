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
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::cgroup::Cgroup;
use super::error::EngineError;
use super::request::{RunIo, WantedBy};
use super::run::{Run, start_time};
use super::steps::Steps;
use super::{Inner, blocking, container_device, limits, patience, table};
use crate::model::{ContainerSpec, ExitRecord, HealthState, Limits, MonitorMessage, Ready};
use crate::records::{ContainerRecord, RunRecord};
use crate::runtime::{LaunchError, LaunchFds, LaunchPlan, Launched, PendingMonitor, Timings};
use crate::storage::{Access, MountedDevice};
use crate::sys::{pidfd, socket};
use crate::systemd::journal::{self, Priority};
use crate::systemd::{Scope, ScopeRequest, SystemdError, UnitLog, scope_name};

/// How much longer systemd waits than we do, so that it is us who kill.
const STOP_MARGIN_USEC: u64 = 5_000_000;
/// How long the monitor of an earlier run may take to end after its payload: it waits for the disk.
const MONITOR_LIMIT: Duration = Duration::from_secs(5);
/// How long a container may take to be set up; milliseconds as a rule.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// Launches the payload of `record`'s current run.
pub(super) async fn launch(engine: &Arc<Inner>, record: &ContainerRecord, io: RunIo) -> Result<Run, EngineError> {
    engine.check_open()?;
    let mut steps = Steps::begin();
    let spec = &record.spec;
    // Both to their ends, whatever becomes of one: after a failure nothing of the other is under way.
    let (root, scope) = tokio::join!(mount_root(engine, spec), make_scope(engine, record, io.wanted_by.as_ref()));
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
        wanted_by: io.wanted_by.as_ref().map(|wanted_by| wanted_by.unit.clone()),
        held: false,
        unready: spec.ready != Ready::Exec,
        given_up: false,
        ready_by_usec: patience::ready_by(spec, record.started_usec, has_its_own(&io)),
        health: HealthState::default(),
    };
    // Before the plan goes out: a daemon that starts anew must find a payload that may run from here on.
    engine.store.put_run(&spec.id, &run)?;
    let (run, launched) = match hand_over(engine, record, io, root, monitor, &scope, run).await {
        Ok(launched) => launched,
        Err(error) => {
            table::release_notified(spec);
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
    if spec.boot
        && let Err(error) = engine.machines.show(&spec.name, &spec.id, run.record.leader)
    {
        warn!(container = %spec.name, op = "start", "its journal or its sockets are not shown on the host: {error}, ignoring");
    }
    Ok(run)
}

/// Whether somebody else looks to how long a start takes: the unit that waits for it (TimeoutStartSec= in systemd.service(5)).
fn has_its_own(io: &RunIo) -> bool {
    io.wanted_by.is_some() && io.monitor.is_some()
}

/// Says how a run ended on the socket of its caller, in place of the monitor. A caller that is gone or stuck is told nothing.
pub(super) fn tell_end(caller: &OwnedFd, end: &ExitRecord) {
    let message = MonitorMessage::Exited { exit: end.exit, oom_kills: end.oom_kills };
    if let Ok(text) = serde_json::to_vec(&message) {
        let _ = socket::send_now(caller.as_fd(), &text, &[]);
    }
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
    record: &ContainerRecord,
    wanted_by: Option<&WantedBy>,
) -> Result<(PendingMonitor, Scope, Steps), EngineError> {
    let spec = &record.spec;
    if let Some(wanted_by) = wanted_by.filter(|_| spec.survive_soft_reboot) {
        let message = format!(
            "{}, which it is run by, is stopped at a soft-reboot: run it detached to survive one",
            wanted_by.unit
        );
        return Err(EngineError::InvalidConfig(message));
    }
    let mut steps = Steps::begin();
    let monitor = engine.launcher.spawn_monitor()?;
    steps.lap("SpawnMonitor");
    let request = ScopeRequest {
        unit: scope_name(&spec.name),
        description: format!("Container {}", spec.name),
        pid: monitor.pid(),
        slice: slice(spec, wanted_by).unwrap_or(&engine.settings.slice).to_owned(),
        limits: limits::with_devices(engine, &within_service(spec, wanted_by)).await?,
        timeout_stop_usec: spec.stop.timeout_usec.saturating_add(STOP_MARGIN_USEC),
        wanted_by: wanted_by.map(|wanted_by| wanted_by.unit.clone()),
        log: UnitLog { fields: log_fields(spec, record.run, wanted_by), rate: spec.log_rate },
        survive_soft_reboot: spec.survive_soft_reboot,
    };
    let scope = tokio::select! {
        biased;
        scope = start_scope(engine, &request) => scope?,
        // It is ordered after our own unit: systemd would let it wait for our end, and we for it.
        () = engine.closing(), if request.wanted_by.is_some() => return Err(EngineError::ShuttingDown),
    };
    steps.lap("Start");
    limits::tell_without_effect(spec, &scope.control_group, "start");
    Ok((monitor, scope, steps))
}

/// Starts the scope; where that of an earlier run of the name is there, after its monitor, the last to end, has let go of it. For a
/// container that was removed after its run nobody has waited for that.
async fn start_scope(engine: &Inner, request: &ScopeRequest) -> Result<Scope, SystemdError> {
    match engine.scopes.start(request).await {
        Err(SystemdError::UnitExists(unit)) if is_let_go(engine, &unit).await => engine.scopes.start(request).await,
        started => started,
    }
}

async fn is_let_go(engine: &Inner, unit: &str) -> bool {
    match engine.scopes.find(unit).await {
        Ok(Some(scope)) => {
            let group = Cgroup::new(&scope.control_group);
            blocking(move || group.is_over() && group.wait_until_empty(MONITOR_LIMIT).is_ok()).await
        }
        // Gone meanwhile.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// A service has the limits of its slice for all that it runs.
fn slice<'a>(spec: &'a ContainerSpec, wanted_by: Option<&'a WantedBy>) -> Option<&'a str> {
    spec.slice.as_deref().or(wanted_by.and_then(|wanted_by| wanted_by.slice.as_deref()))
}

/// And its own for all that it runs: the container is beside its control group, where the kernel does not see to that.
fn within_service(spec: &ContainerSpec, wanted_by: Option<&WantedBy>) -> Limits {
    let group = wanted_by.and_then(|wanted_by| wanted_by.control_group.as_ref());
    let own = spec.limits.clone();
    match group {
        Some(group) => own.within(Cgroup::new(group.as_ref()).limits()),
        None => own,
    }
}

/// What each of its lines in the journal says, with names that other container tools use, beside `_SYSTEMD_UNIT` and what
/// else journald finds out. `OBJECT_SYSTEMD_UNIT` has `journalctl --unit` show them with those of the unit that wants the run,
/// where root writes them (systemd.journal-fields(7)).
fn log_fields(spec: &ContainerSpec, run: u64, wanted_by: Option<&WantedBy>) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("CONTAINER_NAME", spec.name.to_string()),
        ("CONTAINER_ID", spec.id.to_string()),
        ("IMAGE_NAME", spec.image.to_string()),
        ("HOLM_RUN", run.to_string()),
    ];
    fields.extend(wanted_by.map(|wanted_by| ("OBJECT_SYSTEMD_UNIT", wanted_by.unit.clone())));
    fields
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
    if let Err(error) = engine.machines.prepare(&record.spec.name) {
        warn!(container = %record.spec.name, op = "start", "nothing can be mounted into it from the host: {error}, ignoring");
    }
    let (mount, lease) = root.into_parts();
    let plan = plan(record, &io);
    let (ours, theirs) = match plan.notify {
        true => notified(&record.spec).map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        false => (None, None),
    };
    let fds = LaunchFds {
        root: mount,
        cgroup: open_cgroup(scope)?,
        record_dir: engine.store.exit_directory(&record.spec.id)?,
        stdio: stdio(&record.spec, scope, io.stdio),
        client: io.monitor,
        passed: io.passed.into_iter().map(|passed| passed.fd).collect(),
        credentials: io.credentials.into_iter().map(|credential| credential.fd).collect(),
        notified: theirs,
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
    match Run::launched(run, launched, ours) {
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

/// The way from the monitor to the daemon for what the payload says; kept over a restart before anything is said.
fn notified(spec: &ContainerSpec) -> Result<(OwnedFd, OwnedFd), EngineError> {
    let failed = |source| EngineError::State { op: "make", path: "a pair of sockets".into(), source };
    let (ours, theirs) = socket::packet_pair().map_err(failed)?;
    table::keep_notified(spec, &ours);
    Ok((ours, theirs))
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

fn plan(record: &ContainerRecord, io: &RunIo) -> LaunchPlan {
    let spec = &record.spec;
    LaunchPlan {
        name: spec.name.clone(),
        id: spec.id.clone(),
        run: record.run,
        hostname: spec.hostname.clone().unwrap_or_else(|| spec.name.to_string()),
        process: spec.process.clone(),
        boot: spec.boot,
        network: spec.network,
        read_only: spec.read_only,
        mounts: spec.mounts.clone(),
        stop: spec.stop,
        survive_soft_reboot: spec.survive_soft_reboot,
        terminal_size: io.terminal_size,
        fd_names: io.passed.iter().map(|passed| passed.name.clone()).collect(),
        credentials: io.credentials.iter().map(|credential| credential.name.clone()).collect(),
        notify: io.notify || spec.ready == Ready::Notify,
        notify_caller: io.notify,
        stop_with_caller: io.wanted_by.is_some(),
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
/// nothing for input. A terminal replaces all three; that of a system is emptied into the output when nobody shows it. Without a journal the container is as good, but for its log.
fn stdio(spec: &ContainerSpec, scope: &Scope, [input, output, error]: [Option<OwnedFd>; 3]) -> [Option<OwnedFd>; 3] {
    if spec.process.terminal && !spec.boot {
        return [None, None, None];
    }
    let journal = |priority| match journal::stream(spec.name.as_str(), &scope.unit, priority) {
        Ok(stream) => Some(stream),
        Err(error) => {
            warn!(container = %spec.name, op = "start", "{error}: its output is lost");
            None
        }
    };
    let output = output.or_else(|| journal(Priority::Info));
    // A system has a console, and one place for what it says there.
    if spec.boot { [None, output, None] } else { [input, output, error.or_else(|| journal(Priority::Error))] }
}
