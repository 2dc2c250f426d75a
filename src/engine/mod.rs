//! The engine: what Holm does, whoever asks.
//!
//! | file | what |
//! |---|---|
//! | `lifecycle.rs` | state + event → state + actions, pure |
//! | `container/` | one container: its record, its state, its queue of requests |
//! | `create.rs` | request + image → definition, pure |
//! | `boot.rs` | whether the payload is the init of a whole system, and what that means, pure |
//! | `start.rs` | the start path, in order |
//! | `steps.rs` | how long its steps took |
//! | `run.rs` | what exists while a payload runs |
//! | `outcome.rs` | how a run ended, pure |
//! | `restart.rs` | whether and when its policy starts a container again, pure |
//! | `cgroup.rs` | freeze, kill, figures |
//! | `limits.rs` | limits on their way to systemd, and those without effect |
//! | `exec.rs` | processes that enter a running container |
//! | `table.rs` | what the parts share: tables, tools, settings |
//! | `reconcile.rs` | disk, kernel and systemd → the truth, at start |
//! | `devices/` | the DeviceSet for others, its upkeep |
//! | `images.rs` | import, tag, remove |
//! | `snapshots.rs` | snapshots of containers, the way back to one, and containers made of others |
//! | `resources.rs` | what a container may use, changed while it runs |
//! | `pressure.rs` | what to do with containers when the pool is full |
//! | `jobs.rs` | long operations |
//! | `events.rs` | what changed, for whoever listens |
//! | `entries.rs` | the ids of the journal's entries about containers |
//! | `error.rs` | every failure, with its code |

mod boot;
mod cgroup;
mod container;
mod create;
mod devices;
mod entries;
mod error;
mod events;
mod exec;
mod images;
mod jobs;
mod lifecycle;
mod limits;
mod outcome;
mod patience;
mod pressure;
mod reconcile;
mod request;
mod resources;
mod restart;
mod run;
mod snapshots;
mod start;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use devices::{CheckView, DeviceError, DeviceView, FindingView, ForeignView, TrimView};
pub use error::EngineError;
pub use exec::Executed;
pub use request::{
    CloneRequest, CreateRequest, ExecRequest, HealthRequest, Passed, RemoveOptions, ResourceRequest, RunIo,
    StopOptions, WantedBy, Who,
};
pub use table::{Parts, Settings};
pub use view::{ContainerView, Event, ImageView, JobId, JobKind, JobResult, JobView, LastRun, ProcessId, ProcessView};

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast;
use tracing::{info, warn};

use self::boot::Said;
use self::container::Request;
use self::create::Defaults;
use self::steps::Steps;
use self::table::{Inner, blocking, container_device};
use crate::model::{
    ContainerId, ContainerName, DeviceInfo, Driver, HealthState, ImageName, PoolStatus, Signal, now_usec,
};
use crate::records::ContainerRecord;
use crate::storage::AddOptions;
use crate::sys::proc;
use crate::systemd::SystemEnd;

/// How much longer than the longest stop timeout the end of all containers may take: a start may be under way, and a kill
/// takes its time.
const STOP_ALL_MARGIN: Duration = Duration::from_secs(30);

/// The engine. Cheap to clone; every clone is the same engine.
///
/// Methods that take longer than a moment return a [`JobId`] at once; the job's end is an [`Event::JobRemoved`].
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Engine {
    /// Listens to everything that changes. A listener that falls behind by more than the channel's length gets
    /// `Lagged` and must read the state anew.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Which driver keeps the roots.
    pub fn driver(&self) -> Driver {
        self.inner.devices.driver()
    }

    // ---- containers

    /// Every container, in order of name.
    pub fn containers(&self) -> Vec<ContainerView> {
        self.inner.views()
    }

    /// One container.
    pub fn container(&self, name: &ContainerName) -> Result<ContainerView, EngineError> {
        Ok(self.inner.find(name)?.view())
    }

    /// The container that the process with this id (as the host sees it) is in.
    pub fn container_by_pid(&self, pid: u32) -> Result<ContainerView, EngineError> {
        let group = proc::control_group(pid)
            .map_err(|error| EngineError::NoSuchProcess(format!("process {pid} cannot be read: {error}")))?;
        let contains = |view: &ContainerView| !view.control_group.is_empty() && group.starts_with(&view.control_group);
        self.containers()
            .into_iter()
            .find(contains)
            .ok_or_else(|| EngineError::NoSuchProcess(format!("process {pid} is in no container of Holm's")))
    }

    /// Defines a container: a record and a snapshot of the image. An absent name asks for a generated one. After an
    /// error nothing of it is left.
    pub async fn create(&self, request: CreateRequest) -> Result<ContainerView, EngineError> {
        let view = self.make(request).await?;
        info!(container = %view.name(), op = "create", image = %view.spec.image, "Container {} created.", view.name());
        Ok(view)
    }

    async fn make(&self, request: CreateRequest) -> Result<ContainerView, EngineError> {
        let inner = &self.inner;
        inner.check_open()?;
        let image = match &request.image {
            Some(image) => self.image(image)?,
            None => return Err(EngineError::InvalidConfig("no image was named".to_owned())),
        };
        let defaults = Defaults {
            stop_timeout_usec: inner.settings.stop_timeout_usec,
            pids_limit: inner.settings.pids_limit,
            images_may_boot: inner.settings.images_may_boot,
        };
        let said = Said::of(&request, &image.config);
        let spec = create::define(request, &image, new_id()?, &defaults)?;
        if !spec.boot && said.is_left_to(&spec.process, &image.config) {
            warn!(
                container = %spec.name, op = "create", image = %spec.image,
                "Image {} calls itself a whole system, and nobody else says so: {} runs as any program does, without what an \
                 init needs. To boot it, use 'holmctl run --systemd=always' (Boot=yes in a unit's file).",
                spec.image, spec.name
            );
        }
        let reserved = inner.reserve(&spec.name)?;
        let options = AddOptions { size: spec.size, pending: false };
        let record = ContainerRecord::new(spec, now_usec());
        let (record, _, steps) = inner.make_root(record, image.device.clone(), options, Steps::begin()).await?;
        steps.finish("create", reserved.name());
        Ok(reserved.fill(container::Container::adopt(inner, record, None)))
    }

    /// Defines a container and starts it.
    pub async fn run(&self, request: CreateRequest, io: RunIo) -> Result<(ContainerView, JobId), EngineError> {
        // Its start says enough in the journal, a moment later.
        let view = self.make(request).await?;
        let job = self.start(view.name(), io)?;
        Ok((view, job))
    }

    /// Starts a container.
    pub fn start(&self, name: &ContainerName, io: RunIo) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        let view = self.container(name)?;
        // One that only waits to be started again is started now.
        if view.status.is_active() && view.next_restart_usec == 0 {
            return Err(EngineError::Running {
                name: name.clone(),
                status: view.status.as_str(),
                advice: "stop it first with 'holmctl stop', or use 'holmctl restart'",
            });
        }
        self.ask(name, JobKind::Start, |job| Request::Start { io, job })
    }

    /// Stops a container politely, then by force. Stopping one that does not run is done at once.
    pub fn stop(&self, name: &ContainerName, options: StopOptions) -> Result<JobId, EngineError> {
        self.ask(name, JobKind::Stop, |job| Request::Stop { options, job })
    }

    /// Stops a container if it runs, and starts it.
    pub fn restart(&self, name: &ContainerName, options: StopOptions) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        self.ask(name, JobKind::Restart, |job| Request::Restart { options, job })
    }

    /// Sends a signal.
    pub async fn kill(&self, name: &ContainerName, who: Who, signal: Signal) -> Result<(), EngineError> {
        let handles = self.inner.find(name)?.handles()?;
        blocking(move || handles.signal(who, signal)).await.map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => EngineError::NotRunning(name.clone()),
            _ => EngineError::State { op: "signal", path: name.as_str().into(), source: error },
        })
    }

    /// Freezes the payload (cgroup.freeze) and waits until it is frozen.
    pub async fn freeze(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.freeze_or_thaw(name, true).await
    }

    /// Lets a frozen payload go on.
    pub async fn thaw(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.freeze_or_thaw(name, false).await
    }

    async fn freeze_or_thaw(&self, name: &ContainerName, freeze: bool) -> Result<(), EngineError> {
        self.inner.find(name)?.ask_and_wait(|reply| Request::Freeze { freeze, reply }).await
    }

    /// Removes a container and its root.
    pub fn remove(&self, name: &ContainerName, options: RemoveOptions) -> Result<JobId, EngineError> {
        let view = self.container(name)?;
        if view.status.is_active() && !options.force {
            return Err(EngineError::Running {
                name: name.clone(),
                status: view.status.as_str(),
                advice: "stop it first, or remove it by force with 'holmctl rm --force'",
            });
        }
        self.ask(name, JobKind::Remove, |job| Request::Remove { force: options.force, job })
    }

    /// Renames a container that does not run.
    pub async fn rename(&self, name: &ContainerName, to: ContainerName) -> Result<(), EngineError> {
        let container = self.inner.find(name)?;
        let reserved = self.inner.reserve(&to)?;
        container.ask_and_wait(|reply| Request::Rename { to, reply }).await?;
        reserved.given_away();
        Ok(())
    }

    /// The master of the container's terminal.
    pub fn attach(&self, name: &ContainerName) -> Result<OwnedFd, EngineError> {
        let container = self.inner.find(name)?;
        let handles = container.handles()?;
        if container.view().spec.boot {
            return Err(EngineError::NoConsole(name.clone()));
        }
        let terminal = handles.terminal.as_ref().ok_or_else(|| EngineError::NoTerminal(name.clone()))?;
        terminal.try_clone().map_err(|source| EngineError::State { op: "open", path: "the terminal".into(), source })
    }

    /// Figures of the container's cgroup, by name: `(key, value)` with keys such as `MemoryCurrent`; sizes in bytes,
    /// times in µs. A figure the kernel does not have is left out.
    pub async fn stats(&self, name: &ContainerName) -> Result<Vec<(&'static str, u64)>, EngineError> {
        let handles = self.inner.find(name)?.handles()?;
        Ok(blocking(move || handles.cgroup.figures()).await)
    }

    /// Processes of the container: sub-cgroup, process id as the host sees it, command line.
    pub async fn processes(&self, name: &ContainerName) -> Result<Vec<(String, u32, String)>, EngineError> {
        let handles = self.inner.find(name)?.handles()?;
        let path = handles.cgroup.path().to_owned();
        blocking(move || handles.cgroup.processes()).await.map_err(|source| EngineError::State {
            op: "list",
            path,
            source,
        })
    }

    /// How it stands with the container's health, and what the last check said.
    pub fn health(&self, name: &ContainerName) -> Result<HealthState, EngineError> {
        Ok(self.inner.find(name)?.health())
    }

    /// The running container's os-release as key and value (os-release(5)); empty when it has none.
    pub async fn os_release(&self, name: &ContainerName) -> Result<Vec<(String, String)>, EngineError> {
        let view = self.container(name)?;
        if view.leader == 0 {
            return Err(EngineError::NotRunning(name.clone()));
        }
        Ok(blocking(move || table::os_release(view.leader)).await)
    }

    fn ask(
        &self,
        name: &ContainerName,
        kind: JobKind,
        request: impl FnOnce(jobs::Job) -> Request,
    ) -> Result<JobId, EngineError> {
        let container = self.inner.find(name)?;
        let job = self.inner.jobs.begin(kind, name.as_str());
        let id = job.id();
        container.ask(request(job));
        Ok(id)
    }

    // ---- images

    /// Every image, in order of name.
    pub fn images(&self) -> Vec<ImageView> {
        self.inner.images().values().cloned().collect()
    }

    /// One image.
    pub fn image(&self, name: &ImageName) -> Result<ImageView, EngineError> {
        self.inner.images().get(name).cloned().ok_or_else(|| EngineError::NoSuchImage(name.to_string()))
    }

    // ---- devices

    /// Every device of the DeviceSet.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, EngineError> {
        let devices = Arc::clone(&self.inner.devices);
        Ok(blocking(move || devices.devices()).await?)
    }

    /// The pool's numbers as of the last look, which is never older than a few seconds.
    pub fn pool(&self) -> PoolStatus {
        self.inner.pool()
    }

    // ---- jobs

    /// Jobs under way.
    pub fn jobs(&self) -> Vec<JobView> {
        self.inner.jobs.list()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.inner.jobs.find(id)
    }

    /// Asks a job to end early.
    pub fn cancel_job(&self, id: JobId) -> Result<(), EngineError> {
        self.inner.jobs.cancel(id)
    }

    // ---- the daemon's beginning and end

    /// Lets containers be started that their policy wants to run. To be called when the daemon has said that it is ready:
    /// systemd holds scopes back that are ordered after a service which is not.
    pub fn begin_restarts(&self) {
        self.inner.restarts_begun.send_replace(true);
    }

    /// Refuses whatever would start something, from now on.
    pub fn begin_shutdown(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.jobs.close();
        self.inner.closed.notify_waiters();
    }

    /// Waits until no start is under way, at most this long.
    pub async fn finish_starts(&self, limit: Duration) {
        let mut events = self.subscribe();
        let none = async {
            while self.jobs().iter().any(|job| job.kind == JobKind::Start) {
                // Every end is an event; the interval only covers a listener that fell behind.
                let _ = tokio::time::timeout(Duration::from_secs(1), events.recv()).await;
            }
        };
        if tokio::time::timeout(limit, none).await.is_err() {
            warn!(op = "daemon", "Starts that are under way are given up.");
        }
    }

    /// Stops every container at once, each with its own signal and timeout, and returns when all rest. Takes as long as the
    /// longest, and not much longer: what cannot even be killed then (a process that hangs in the kernel) is left.
    ///
    /// At the end of userspace alone those that are to survive that are left alone.
    pub async fn stop_all(&self, end: SystemEnd) {
        // Nobody asked for these stops: what always runs comes back with the system.
        self.inner.system_ends.store(true, Ordering::Release);
        let mut events = self.subscribe();
        let survives = |view: &ContainerView| end == SystemEnd::Userspace && view.spec.survive_soft_reboot;
        let ends = |view: &ContainerView| view.status.is_active() && !survives(view);
        let active: Vec<_> = self.containers().into_iter().filter(&ends).collect();
        for view in &active {
            // One that has just been removed needs no stop.
            let _ = self.stop(view.name(), StopOptions::default());
        }
        let longest = active.iter().map(|view| view.spec.stop.timeout()).max().unwrap_or_default();
        let all_rest = async {
            while self.containers().iter().any(&ends) {
                // Every end is an event; the interval only covers a listener that fell behind.
                let _ = tokio::time::timeout(Duration::from_secs(1), events.recv()).await;
            }
        };
        if tokio::time::timeout(longest.saturating_add(STOP_ALL_MARGIN), all_rest).await.is_err() {
            let left = self.containers().into_iter().filter(&ends);
            let names: Vec<_> = left.map(|view| view.spec.name.to_string()).collect();
            warn!(op = "daemon", "Cannot be stopped, and are left: {}.", names.join(", "));
        }
    }

    /// Stops the containers that machined wants to end: see [`Machines::closing`](crate::systemd::Machines::closing).
    pub async fn stop_closing_machines(&self) {
        for name in self.inner.machines.closing().await {
            info!(container = %name, op = "stop", "machined asks container {name} to end.");
            // One that has just been removed needs no stop.
            let _ = self.stop(&name, StopOptions::default());
        }
    }

    /// Gives the DeviceSet back: every idle device is deactivated, and the pool when none is in use.
    pub async fn close_devices(&self) -> Result<(), EngineError> {
        let devices = Arc::clone(&self.inner.devices);
        Ok(blocking(move || devices.close()).await?)
    }
}

fn new_id() -> Result<ContainerId, EngineError> {
    let bytes =
        random_bytes().map_err(|source| EngineError::State { op: "read", path: "/dev/urandom".into(), source })?;
    Ok(ContainerId::from_random(bytes))
}

/// Bytes that nobody can guess and that will not come again.
fn random_bytes() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes))?;
    Ok(bytes)
}
