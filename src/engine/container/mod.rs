//! One container as the engine's table holds it; its task does the work.
//!
//! | file | what |
//! |---|---|
//! | this one | the way to the task, and what is shown without asking it |
//! | `task.rs` | the life of the container: owns its state, performs what `lifecycle` decides |
//! | `again.rs` | what its restart policy has the task do |
//! | `caller.rs` | a caller with whom a run ends |
//! | `checks.rs`, `health.rs` | the checks of its health, one after another; what comes of them |
//! | `end.rs` | what the task does when its run has ended |
//! | `freeze.rs` | how it is held still |
//! | `notified.rs` | what comes of what the payload says about itself |
//! | `root.rs` | what is done to its root and its record |
//! | `stop.rs` | how it is asked to end, and made to |

mod again;
mod caller;
mod checks;
mod end;
mod freeze;
mod health;
mod notified;
mod root;
mod stop;
mod task;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, mpsc, oneshot};

use self::task::Task;
use super::Inner;
use super::error::EngineError;
use super::jobs::Job;
use super::request::{RunIo, StopOptions};
use super::run::{Handles, Run};
use super::view::{ContainerView, JobResult};
use crate::model::{Bytes, Checked, ContainerName, HealthState, Limits, SnapshotName, Status};
use crate::records::ContainerRecord;
use crate::systemd::scope_name;

/// A container as the engine's table holds it: its view, its handles, and the way to its task.
#[derive(Debug)]
pub(super) struct Container {
    requests: mpsc::UnboundedSender<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: RwLock<ContainerView>,
    handles: RwLock<Option<Arc<Handles>>>,
    /// Held for reading by whoever enters, for writing by a freeze: nobody enters a container that is being frozen.
    door: Arc<tokio::sync::RwLock<()>>,
    /// How often it was frozen: a check of its health that saw that says nothing.
    freezes: AtomicU64,
    health: RwLock<HealthState>,
    /// Held by whoever makes a device of the root, or takes the root away. Nobody who holds it waits for the task.
    root: Arc<tokio::sync::Mutex<()>>,
}

/// What a container's task is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Start it.
    Start {
        /// This run's input and output.
        io: RunIo,
        /// The job that ends when it runs.
        job: Job,
    },
    /// Stop it.
    Stop {
        /// How.
        options: StopOptions,
        /// The job that ends when it rests.
        job: Job,
    },
    /// Stop it if it runs, and start it.
    Restart {
        /// How to stop.
        options: StopOptions,
        /// The job that ends when it runs again.
        job: Job,
    },
    /// Remove it.
    Remove {
        /// Even if it runs.
        force: bool,
        /// The job that ends when it is gone.
        job: Job,
    },
    /// Freeze (`true`) or thaw it.
    Freeze {
        /// Which of the two.
        freeze: bool,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Take over that it has been frozen because the pool has no room.
    Held,
    /// Thaw it if that is why it is frozen.
    Release,
    /// Take over that the caller whom a run is tied to has gone, or asks for its end: the monitor stops it.
    CallerLeft {
        /// Which run.
        run: u64,
    },
    /// Take over how a check of its health went.
    Checked {
        /// Of which run.
        run: u64,
        /// How it went.
        checked: Checked,
        /// Whether a failure counts.
        counts: bool,
    },
    /// Change what its record says of its snapshots.
    Snapshots {
        /// How.
        change: SnapshotChange,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Bring its root back to a snapshot.
    Rollback {
        /// Which.
        snapshot: SnapshotName,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Change what it may use.
    Limit {
        /// What it may use from now on.
        limits: Limits,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Note that its root has another size.
    Resized {
        /// The size now.
        size: Bytes,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Give it another name.
    Rename {
        /// The new name, already reserved in the table.
        to: ContainerName,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
}

/// What happens to a snapshot.
#[derive(Debug, Clone)]
pub(super) enum SnapshotChange {
    /// It is about to be made.
    Begin(SnapshotName),
    /// It was made; refused when the container has forgotten it meanwhile.
    Made(SnapshotName),
    /// It was not made.
    Failed(SnapshotName),
    /// It is to be removed.
    Remove(SnapshotName),
}

impl Container {
    /// Sets a container's task to work on `record`, with the run that was found under way, if any.
    pub(super) fn adopt(engine: &Arc<Inner>, mut record: ContainerRecord, run: Option<Run>) -> Arc<Self> {
        // The device is right: it may have grown just before the daemon ended.
        record.spec.size = engine.root_size(&record.spec.id).or(record.spec.size);
        let (requests, inbox) = mpsc::unbounded_channel();
        let shared = Task::begin(Arc::clone(engine), record, run, (requests.downgrade(), inbox));
        Arc::new(Self { requests, shared })
    }

    /// The container as it is now.
    pub(super) fn view(&self) -> ContainerView {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it stands with its health.
    pub(super) fn health(&self) -> HealthState {
        self.shared.health.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What signals and entering need; `NotRunning` while there is no payload.
    pub(super) fn handles(&self) -> Result<Arc<Handles>, EngineError> {
        let handles = self.shared.handles.read().unwrap_or_else(PoisonError::into_inner).clone();
        handles.ok_or_else(|| EngineError::NotRunning(self.view().name().clone()))
    }

    /// Keeps the container from being frozen, while somebody enters.
    pub(super) async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.shared.door).read_owned().await
    }

    /// Keeps the root where it is.
    pub(super) async fn hold_root(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.shared.root).lock_owned().await
    }

    /// Freezes the payload if it runs, at once and without waiting for anything; its task is told. Whether it ran.
    pub(super) fn hold(&self) -> std::io::Result<bool> {
        if self.view().status != Status::Running {
            return Ok(false);
        }
        let Ok(handles) = self.handles() else { return Ok(false) };
        self.shared.freezes.fetch_add(1, Ordering::AcqRel);
        handles.cgroup.hold()?;
        self.ask(Request::Held);
        Ok(true)
    }

    /// Asks its task, and waits for the answer.
    pub(super) async fn ask_and_wait(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), EngineError>>) -> Request,
    ) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.ask(request(reply));
        answer.await.map_err(|_| EngineError::NoSuchContainer(self.view().name().to_string()))?
    }

    /// Asks its task. The answer comes by the request's own means, also when the container is gone.
    pub(super) fn ask(&self, request: Request) {
        if let Err(mpsc::error::SendError(request)) = self.requests.send(request) {
            request.refuse(self.view().name());
        }
    }

    /// Shows it under another name; the caller holds the table.
    pub(super) fn show_as(&self, name: ContainerName) -> ContainerView {
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        view.unit = scope_name(&name);
        Arc::make_mut(&mut view.spec).name = name;
        view.clone()
    }
}

impl Request {
    /// The answer of a container that is gone.
    fn refuse(self, name: &ContainerName) {
        let gone = EngineError::NoSuchContainer(name.to_string());
        match self {
            Self::Start { job, .. } | Self::Stop { job, .. } | Self::Restart { job, .. } | Self::Remove { job, .. } => {
                job.finish(JobResult::from(&gone));
            }
            // Nobody waits for an answer.
            Self::Held | Self::Release | Self::CallerLeft { .. } | Self::Checked { .. } => {}
            Self::Freeze { reply, .. }
            | Self::Snapshots { reply, .. }
            | Self::Rollback { reply, .. }
            | Self::Limit { reply, .. }
            | Self::Resized { reply, .. }
            | Self::Rename { reply, .. } => {
                // Who asked may have given up.
                let _ = reply.send(Err(gone));
            }
        }
    }
}
