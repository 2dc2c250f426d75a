//! Long operations: numbered, listed, cancellable, and certain to end in a result.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::info;

use super::error::EngineError;
use super::events::Events;
use super::view::{Event, JobId, JobKind, JobResult, JobView};
use crate::images::Progress;
use crate::model::{ErrorCode, in_usec, now_usec};

/// The table of jobs under way.
#[derive(Debug, Clone)]
pub(super) struct Jobs {
    table: Arc<Mutex<Table>>,
    events: Events,
}

#[derive(Debug, Default)]
struct Table {
    /// Whether what is given up is given up for the daemon's end.
    closing: bool,
    last: JobId,
    jobs: BTreeMap<JobId, Entry>,
}

#[derive(Debug)]
struct Entry {
    view: JobView,
    progress: Option<Arc<Progress>>,
}

/// A job under way. Dropped without [`finish`](Self::finish), it is failed: no job is left behind for ever.
#[derive(Debug)]
pub(super) struct Job {
    id: JobId,
    jobs: Jobs,
    finished: bool,
}

impl Jobs {
    pub(super) fn new(events: Events) -> Self {
        Self { table: Arc::default(), events }
    }

    /// From now on jobs are given up because the daemon ends.
    pub(super) fn close(&self) {
        self.table().closing = true;
    }

    /// Begins a job about `subject`.
    pub(super) fn begin(&self, kind: JobKind, subject: &str) -> Job {
        self.insert(kind, subject, None)
    }

    /// Begins a job that counts bytes and can be cancelled.
    pub(super) fn begin_counted(&self, kind: JobKind, subject: &str, progress: Arc<Progress>) -> Job {
        self.insert(kind, subject, Some(progress))
    }

    fn insert(&self, kind: JobKind, subject: &str, progress: Option<Arc<Progress>>) -> Job {
        let view = {
            let mut table = self.table();
            table.last = table.last.wrapping_add(1).max(1);
            let view = JobView {
                id: table.last,
                kind,
                subject: subject.to_owned(),
                progress: 0,
                total: 0,
                started_usec: now_usec(),
                frozen_usec: 0,
                result: None,
            };
            table.jobs.insert(view.id, Entry { view: view.clone(), progress });
            view
        };
        let id = view.id;
        self.events.send(Event::JobNew(view));
        Job { id, jobs: self.clone(), finished: false }
    }

    /// Jobs under way.
    pub(super) fn list(&self) -> Vec<JobView> {
        self.table().jobs.values().map(Entry::current).collect()
    }

    /// One job under way.
    pub(super) fn find(&self, id: JobId) -> Option<JobView> {
        self.table().jobs.get(&id).map(Entry::current)
    }

    /// Asks a job to end early. Only jobs that count bytes can.
    pub(super) fn cancel(&self, id: JobId) -> Result<(), EngineError> {
        let table = self.table();
        let entry =
            table.jobs.get(&id).ok_or_else(|| EngineError::InvalidConfig(format!("job {id} is over, or never was")))?;
        let progress = entry.progress.as_ref().ok_or_else(|| {
            EngineError::InvalidConfig(format!("a {} job cannot be cancelled: it ends soon", entry.view.kind.as_str()))
        })?;
        progress.canceled.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn current(&self) -> JobView {
        let mut view = self.view.clone();
        if let Some(progress) = &self.progress {
            view.progress = progress.read.load(Ordering::Relaxed);
            view.total = progress.total.load(Ordering::Relaxed);
        }
        view
    }
}

impl Job {
    /// Its number.
    pub(super) fn id(&self) -> JobId {
        self.id
    }

    /// Says how far it has come, to whoever listens.
    pub(super) fn report(&self) {
        if let Some(view) = self.jobs.find(self.id) {
            self.jobs.events.send(Event::JobChanged(view));
        }
    }

    /// Gives it another subject, once that is known.
    pub(super) fn rename(&self, subject: &str) {
        if let Some(entry) = self.jobs.table().jobs.get_mut(&self.id) {
            subject.clone_into(&mut entry.view.subject);
        }
    }

    /// Notes how long a running container was held still for it.
    pub(super) fn held_still(&self, time: Duration) {
        if let Some(entry) = self.jobs.table().jobs.get_mut(&self.id) {
            entry.view.frozen_usec = in_usec(time);
        }
    }

    /// Ends it as `result` says.
    pub(super) fn finish_with(self, result: Result<(), EngineError>) {
        self.finish(result.as_ref().map_or_else(JobResult::from, |()| JobResult::Done));
    }

    /// Ends it.
    pub(super) fn finish(mut self, result: JobResult) {
        self.end(result);
    }

    fn end(&mut self, result: JobResult) {
        self.finished = true;
        let entry = self.jobs.table().jobs.remove(&self.id);
        let Some(entry) = entry else { return };
        let view = JobView { result: Some(result), ..entry.current() };
        if let Some(JobResult::Failed { message, .. }) = &view.result {
            info!(
                op = view.kind.as_str(),
                subject = view.subject,
                "{} {} failed: {message}",
                view.kind.as_str(),
                view.subject
            );
        }
        self.jobs.events.send(Event::JobChanged(view.clone()));
        self.jobs.events.send(Event::JobRemoved(view));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let closing = self.jobs.table().closing;
        self.end(match closing {
            true => JobResult::from(&EngineError::ShuttingDown),
            false => JobResult::Failed {
                code: ErrorCode::StateFailed,
                message: "the operation was given up: the daemon met a bug".into(),
            },
        });
    }
}

impl From<&EngineError> for JobResult {
    fn from(error: &EngineError) -> Self {
        match error.code() {
            ErrorCode::Canceled => Self::Canceled,
            ErrorCode::Timeout => Self::Timeout,
            code => Self::Failed { code, message: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_dropped_has_failed() {
        let events = Events::new();
        let mut listener = events.subscribe();
        let jobs = Jobs::new(events);
        let id = jobs.begin(JobKind::Start, "web").id();
        assert!(jobs.find(id).is_none());
        assert!(matches!(listener.try_recv(), Ok(Event::JobNew(_))));
        assert!(matches!(listener.try_recv(), Ok(Event::JobChanged(view)) if view.result.is_some()));
        assert!(matches!(listener.try_recv(), Ok(Event::JobRemoved(_))));
    }

    #[test]
    fn only_a_counted_job_can_be_cancelled() {
        let jobs = Jobs::new(Events::new());
        let progress = Arc::new(Progress::default());
        let start = jobs.begin(JobKind::Start, "web");
        let import = jobs.begin_counted(JobKind::ImportImage, "debian", Arc::clone(&progress));
        assert!(jobs.cancel(start.id()).is_err());
        jobs.cancel(import.id()).unwrap();
        assert!(progress.canceled.load(Ordering::Relaxed));
        assert_eq!(jobs.list().len(), 2);
    }
}
