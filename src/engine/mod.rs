//! The engine: what Holm does, whoever asks.
//!
//! | file | what |
//! |---|---|
//! | `lifecycle.rs` | state + event → state + actions, pure |
//! | `container.rs` | one container: its record, its state, its queue of requests |
//! | `start.rs` | the start path, in order |
//! | `watch.rs` | waits for the end of a run |
//! | `reconcile.rs` | disk, kernel and systemd → the truth, at start |
//! | `images.rs` | import, tag, remove |
//! | `jobs.rs` | long operations |
//! | `events.rs` | what changed, for whoever listens |
//! | `error.rs` | every failure, with its code |

mod error;
mod request;
mod view;

pub use error::EngineError;
pub use request::{CreateRequest, ExecRequest, RemoveOptions, RunIo, StopOptions, Who};
pub use view::{ContainerView, Event, ImageView, JobId, JobKind, JobResult, JobView, ProcessId, ProcessView};

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::model::{ContainerName, ImageName, Signal};
use crate::model::{DeviceInfo, Driver, PoolStatus};

/// The engine. Cheap to clone; every clone is the same engine.
///
/// Methods that take longer than a moment return a [`JobId`] at once; the job's end is an [`Event::JobRemoved`].
#[derive(Debug, Clone)]
pub struct Engine {
    _inner: Arc<()>,
}

/// A process started by [`Engine::exec`].
#[derive(Debug)]
pub struct Executed {
    /// Its id.
    pub id: ProcessId,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Engine {
    /// Listens to everything that changes. A listener that falls behind by more than the channel's length gets
    /// `Lagged` and must read the state anew.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        unimplemented!()
    }

    /// Which driver keeps the roots.
    pub fn driver(&self) -> Driver {
        unimplemented!()
    }

    // ---- containers

    /// Every container, in order of name.
    pub fn containers(&self) -> Vec<ContainerView> {
        unimplemented!()
    }

    /// One container.
    pub fn container(&self, _name: &ContainerName) -> Result<ContainerView, EngineError> {
        unimplemented!()
    }

    /// The container that the process with this id (as the host sees it) is in.
    pub fn container_by_pid(&self, _pid: u32) -> Result<ContainerView, EngineError> {
        unimplemented!()
    }

    /// Defines a container: a record and a snapshot of the image. An absent name asks for a generated one.
    pub async fn create(&self, _request: CreateRequest) -> Result<ContainerView, EngineError> {
        unimplemented!()
    }

    /// Defines a container and starts it.
    pub async fn run(&self, _request: CreateRequest, _io: RunIo) -> Result<(ContainerView, JobId), EngineError> {
        unimplemented!()
    }

    /// Starts a container.
    pub fn start(&self, _name: &ContainerName, _io: RunIo) -> Result<JobId, EngineError> {
        unimplemented!()
    }

    /// Stops a container politely, then by force. Stopping one that does not run is done at once.
    pub fn stop(&self, _name: &ContainerName, _options: StopOptions) -> Result<JobId, EngineError> {
        unimplemented!()
    }

    /// Stops a container if it runs, and starts it.
    pub fn restart(&self, _name: &ContainerName, _options: StopOptions) -> Result<JobId, EngineError> {
        unimplemented!()
    }

    /// Sends a signal.
    pub fn kill(&self, _name: &ContainerName, _who: Who, _signal: Signal) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// Freezes the payload (cgroup.freeze) and waits until it is frozen.
    pub async fn freeze(&self, _name: &ContainerName) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// Lets a frozen payload go on.
    pub async fn thaw(&self, _name: &ContainerName) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// Removes a container and its root.
    pub fn remove(&self, _name: &ContainerName, _options: RemoveOptions) -> Result<JobId, EngineError> {
        unimplemented!()
    }

    /// Renames a container that does not run.
    pub async fn rename(&self, _name: &ContainerName, _to: ContainerName) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// Runs a process in a running container. It is killed when `end_exec` is called, unless it was detached.
    pub async fn exec(&self, _name: &ContainerName, _request: ExecRequest) -> Result<Executed, EngineError> {
        unimplemented!()
    }

    /// A process started by [`exec`](Self::exec).
    pub fn process(&self, _id: ProcessId) -> Result<ProcessView, EngineError> {
        unimplemented!()
    }

    /// Sends a signal to a process started by [`exec`](Self::exec); `all` reaches everything it started too.
    pub fn kill_process(&self, _id: ProcessId, _who: Who, _signal: Signal) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// The master of the container's terminal.
    pub fn attach(&self, _name: &ContainerName) -> Result<OwnedFd, EngineError> {
        unimplemented!()
    }

    /// Figures of the container's cgroup, by name: `(key, value)` with keys such as `MemoryCurrent`.
    pub fn stats(&self, _name: &ContainerName) -> Result<Vec<(&'static str, u64)>, EngineError> {
        unimplemented!()
    }

    /// Processes of the container: sub-cgroup, process id as the host sees it, command line.
    pub fn processes(&self, _name: &ContainerName) -> Result<Vec<(String, u32, String)>, EngineError> {
        unimplemented!()
    }

    /// The container's os-release as key and value.
    pub async fn os_release(&self, _name: &ContainerName) -> Result<Vec<(String, String)>, EngineError> {
        unimplemented!()
    }

    // ---- images

    /// Every image, in order of name.
    pub fn images(&self) -> Vec<ImageView> {
        unimplemented!()
    }

    /// One image.
    pub fn image(&self, _name: &ImageName) -> Result<ImageView, EngineError> {
        unimplemented!()
    }

    /// Imports an archive. An absent name takes the one in the archive.
    pub fn import_image(&self, _source: OwnedFd, _name: Option<ImageName>) -> Result<JobId, EngineError> {
        unimplemented!()
    }

    /// Gives an image a second name.
    pub async fn tag_image(&self, _name: &ImageName, _to: ImageName) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// Removes a name, and with the last one the layers nobody else needs.
    pub async fn remove_image(&self, _name: &ImageName) -> Result<(), EngineError> {
        unimplemented!()
    }

    // ---- devices

    /// Every device of the DeviceSet.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, EngineError> {
        unimplemented!()
    }

    /// The pool's numbers as of the last look, which is never older than a few seconds.
    pub fn pool(&self) -> PoolStatus {
        unimplemented!()
    }

    // ---- jobs

    /// Jobs under way.
    pub fn jobs(&self) -> Vec<JobView> {
        unimplemented!()
    }

    /// One job.
    pub fn job(&self, _id: JobId) -> Option<JobView> {
        unimplemented!()
    }

    /// Asks a job to end early.
    pub fn cancel_job(&self, _id: JobId) -> Result<(), EngineError> {
        unimplemented!()
    }
}
