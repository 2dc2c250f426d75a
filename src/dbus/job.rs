//! `org.holm1.Job`.

use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;

use super::auth::{Action, Wish};
use super::door::Door;
use super::error::Result;
use super::table::Latest;
use crate::engine::{JobKind, JobResult, JobView};
use crate::model::ErrorCode;

/// A long operation.
#[derive(Debug)]
pub(super) struct Job {
    door: Door,
    view: Arc<Latest<JobView>>,
}

impl Job {
    pub(super) fn new(door: Door, view: Arc<Latest<JobView>>) -> Self {
        Self { door, view }
    }
}

#[interface(name = "org.holm1.Job", introspection_docs = false)]
impl Job {
    /// Asks the job to end early.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let view = self.view.get();
        let room = self.door.authorize(&header, cancel(&view)).await?;
        room.engine.cancel_job(view.id)?;
        Ok(())
    }

    /// Number, unique while holmd runs.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.view.get().id
    }

    /// start, stop, restart, remove, snapshot, remove-snapshot, rollback, clone, import-image, grow, check, repair or trim.
    #[zbus(property(emits_changed_signal = "const"), name = "Type")]
    fn kind(&self) -> &str {
        self.view.get().kind.as_str()
    }

    /// Name of the container, image or pool it is about.
    #[zbus(property)]
    fn subject(&self) -> String {
        self.view.get().subject.clone()
    }

    /// Bytes done, for jobs that count them.
    #[zbus(property)]
    fn progress(&self) -> u64 {
        self.view.get().progress
    }

    /// Bytes there are; 0 when unknown.
    #[zbus(property)]
    fn total(&self) -> u64 {
        self.view.get().total
    }

    /// When it began.
    #[zbus(property(emits_changed_signal = "const"), name = "StartedUSec")]
    fn started_usec(&self) -> u64 {
        self.view.get().started_usec
    }

    /// How long a running container was held still for it, in µs; 0 when none was.
    #[zbus(property, name = "FrozenUSec")]
    fn frozen_usec(&self) -> u64 {
        self.view.get().frozen_usec
    }

    /// Empty while it runs; then done, failed, canceled or timeout.
    #[zbus(property)]
    fn result(&self) -> &str {
        self.view.get().result.as_ref().map_or("", JobResult::as_str)
    }

    /// Name of the error it failed with, or empty.
    #[zbus(property)]
    fn error(&self) -> String {
        self.view.get().result.as_ref().and_then(code).map(ErrorCode::bus_name).unwrap_or_default()
    }

    /// What happened, or empty.
    #[zbus(property)]
    fn message(&self) -> String {
        self.view.get().result.as_ref().map(message).unwrap_or_default()
    }
}

/// Who may begin a job may end it.
fn cancel(view: &JobView) -> Wish {
    match view.kind {
        JobKind::Start
        | JobKind::Stop
        | JobKind::Restart
        | JobKind::Remove
        | JobKind::Snapshot
        | JobKind::RemoveSnapshot
        | JobKind::Rollback
        | JobKind::Clone => Wish::new(Action::ManageContainers, "cancel").container(view.subject.as_str()),
        JobKind::ImportImage => Wish::new(Action::ManageImages, "cancel").image(view.subject.as_str()),
        JobKind::Grow | JobKind::Check | JobKind::Repair | JobKind::Trim => Wish::new(Action::ManageStorage, "cancel"),
    }
}

fn code(result: &JobResult) -> Option<ErrorCode> {
    match result {
        JobResult::Done => None,
        JobResult::Failed { code, .. } => Some(*code),
        JobResult::Canceled => Some(ErrorCode::Canceled),
        JobResult::Timeout => Some(ErrorCode::Timeout),
    }
}

fn message(result: &JobResult) -> String {
    match result {
        JobResult::Done => String::new(),
        JobResult::Failed { message, .. } => message.clone(),
        JobResult::Canceled => "the job was cancelled".to_owned(),
        JobResult::Timeout => "the job took longer than allowed".to_owned(),
    }
}
