//! How a container is held still, by somebody or for the pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedRwLockWriteGuard;
use tracing::{info, warn};

use super::task::Task;
use crate::engine::error::EngineError;
use crate::engine::lifecycle::{Event, State};
use crate::engine::{blocking, entries};

/// How long a freeze waits for processes that are entering.
const ENTERING: Duration = Duration::from_secs(10);

impl Task {
    pub(super) async fn freeze(&mut self, freeze: bool) -> Result<(), EngineError> {
        let Some(run) = &self.run else { return Err(EngineError::NotRunning(self.record.spec.name.clone())) };
        let handles = Arc::clone(&run.handles);
        let path = handles.cgroup.path().to_owned();
        let op = if freeze { "freeze" } else { "thaw" };
        self.shared.freezes.fetch_add(1, Ordering::AcqRel);
        let _closed = match freeze {
            true => Some(self.close_door().await?),
            false => None,
        };
        blocking(move || if freeze { handles.cgroup.freeze() } else { handles.cgroup.thaw() })
            .await
            .map_err(|source| EngineError::State { op, path, source })
    }

    pub(super) async fn held(&mut self) {
        let before = self.state;
        if before == State::Running {
            self.note_held(true);
            warn!(container = %self.record.spec.name, op = "hold", message_id = entries::HELD, object_systemd_unit = self.wanted_by(), "Container {} is held still: the pool has no room for what it writes.", self.record.spec.name);
        }
        self.happened(Event::Held).await;
    }

    /// The pool has room again: one that it held goes on, one that somebody froze meanwhile does not.
    pub(super) async fn released(&mut self) {
        if !self.run.as_ref().is_some_and(|run| run.record.held) {
            return;
        }
        self.note_held(false);
        self.happened(Event::Release).await;
        info!(container = %self.record.spec.name, op = "release", message_id = entries::RELEASED, object_systemd_unit = self.wanted_by(), "Container {} goes on: the pool has room again.", self.record.spec.name);
    }

    pub(super) fn note_held(&mut self, held: bool) {
        if let Some(run) = self.run.as_mut().filter(|run| run.record.held != held) {
            run.record.held = held;
            self.save_run();
        }
    }

    async fn close_door(&self) -> Result<OwnedRwLockWriteGuard<()>, EngineError> {
        let closed = Arc::clone(&self.shared.door).write_owned();
        tokio::time::timeout(ENTERING, closed).await.map_err(|_| EngineError::Timeout("a process that is entering"))
    }
}
