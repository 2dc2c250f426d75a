//! What a container's task does to its root and its record.

use tracing::warn;

use super::task::{Goal, Task};
use crate::engine::error::EngineError;
use crate::engine::lifecycle::{Refusal, State};
use crate::engine::steps::Steps;
use crate::engine::view::JobResult;
use crate::model::ContainerName;
use crate::records::Durability;

impl Task {
    /// The device first: a crash in between leaves a record without a device, which the next start takes as removed.
    pub(super) async fn delete(&mut self) {
        let mut steps = Steps::begin();
        match self.engine.delete_root(&self.record.spec.id).await {
            Ok(()) => {}
            Err(error) => {
                warn!(container = %self.record.spec.name, op = "remove", "{error}");
                self.start_error = Some(JobResult::from(&error));
                self.state = State::Resting;
                self.fail_waiters(Goal::Gone, &error);
                return;
            }
        }
        steps.lap("Root");
        let id = self.record.spec.id.clone();
        if let Err(error) = self.with_store(move |store| store.remove_container(&id)).await {
            warn!(container = %self.record.spec.name, op = "remove", "{error}: the next start of holmd removes it");
        }
        steps.lap("Record");
        self.engine.forget(&self.record.spec.name);
        steps.finish("remove", &self.record.spec.name);
    }

    /// On disk first, then in the table and the view at once.
    pub(super) async fn rename(&mut self, to: ContainerName) -> Result<(), EngineError> {
        if self.state != State::Resting {
            return Err(self.refusal(Refusal::Active));
        }
        let mut record = self.record.clone();
        record.spec.name = to.clone();
        self.with_store(move |store| store.put_container(&record, Durability::Synced)).await?;
        let from = std::mem::replace(&mut self.record.spec.name, to.clone());
        self.engine.rename(&from, to);
        Ok(())
    }
}
