//! One container as the engine's table holds it; its task does the work.
//!
//! | file | what |
//! |---|---|
//! | this one | the way to the task, and what is shown without asking it |
//! | `task.rs` | the life of the container: owns its state, performs what `lifecycle` decides |
//! | `root.rs` | what is done to its root and its record |

mod root;
mod task;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedRwLockReadGuard, mpsc, oneshot};

use self::task::Task;
use super::Inner;
use super::error::EngineError;
use super::jobs::Job;
use super::request::{RunIo, StopOptions};
use super::run::{Handles, Run};
use super::view::{ContainerView, JobResult};
use crate::model::ContainerName;
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
    /// Give it another name.
    Rename {
        /// The new name, already reserved in the table.
        to: ContainerName,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
}

impl Container {
    /// Sets a container's task to work on `record`, with the run that was found under way, if any.
    pub(super) fn adopt(engine: &Arc<Inner>, mut record: ContainerRecord, run: Option<Run>) -> Arc<Self> {
        record.spec.size = record.spec.size.or_else(|| engine.root_size(&record.spec.id));
        let (requests, inbox) = mpsc::unbounded_channel();
        let shared = Task::begin(Arc::clone(engine), record, run, inbox);
        Arc::new(Self { requests, shared })
    }

    /// The container as it is now.
    pub(super) fn view(&self) -> ContainerView {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner).clone()
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
            Self::Freeze { reply, .. } | Self::Rename { reply, .. } => {
                // Who asked may have given up.
                let _ = reply.send(Err(gone));
            }
        }
    }
}
