//! What a container's restart policy has its task do.

use tokio::time::Instant;
use tracing::{info, warn};

use super::task::Task;
use crate::engine::entries;
use crate::engine::error::EngineError;
use crate::engine::lifecycle::{Event, Next, State};
use crate::engine::outcome::{in_words, last_run};
use crate::engine::patience::until;
use crate::engine::restart::{self, Verdict};
use crate::model::{ErrorCode, StopCourse, Usec, now_usec};
use crate::records::{LastRun, Restarts};

impl Task {
    /// What its policy makes of the end of its run. It is on the record before that is written.
    pub(super) async fn after_end(&mut self) -> bool {
        let Some(run) = &self.run else { return false };
        let goes_on = matches!(self.state, State::Stopping { next: Next::Start | Next::Remove, .. });
        if goes_on || !self.record.restarts.wanted || self.engine.system_ends() {
            return false;
        }
        // As somebody's stop of a service is, one of its scope is the end of it, and one that a daemon before this was asked
        // for; but not if the system ends.
        let asked = matches!(self.state, State::Stopping { next: Next::Rest, .. });
        if asked || run.exit.as_ref().is_some_and(|exit| exit.stop != StopCourse::None) {
            if !matches!(self.engine.scopes.system_end().await, Ok(Some(_))) {
                restart::let_rest(&mut self.record.restarts);
            }
            return false;
        }
        let last = last_run((run.record.run, run.record.started_usec), Some(&run.record), run.exit.as_ref());
        let lasted = last.stopped_usec.saturating_sub(run.record.started_usec);
        self.is_tried_again(&last, lasted)
    }

    /// What it makes of a launch that failed.
    pub(super) fn after_no_launch(&mut self, error: &EngineError, last: &LastRun) -> bool {
        if !self.by_policy {
            restart::let_rest(&mut self.record.restarts);
            return false;
        }
        // At the system's end it is no failure of its own, and soon over for everybody.
        error.code() != ErrorCode::ShuttingDown && self.is_tried_again(last, 0)
    }

    fn is_tried_again(&mut self, last: &LastRun, lasted: Usec) -> bool {
        let policy = self.record.spec.restart;
        let name = &self.record.spec.name;
        match restart::after_end(&policy, &mut self.record.restarts, last, lasted, now_usec()) {
            Verdict::Rest => false,
            Verdict::Again => true,
            Verdict::GivenUp => {
                let text = format!("given up after {} tries to start it again", policy.limit);
                warn!(container = %name, op = "restart", message_id = entries::GIVEN_UP, "Container {name} ({}) is {text}.", in_words(last));
                self.record.status_text = text;
                false
            }
        }
    }

    /// Somebody asked for a run. What a unit runs is started again by that unit alone.
    pub(super) fn is_wanted(&mut self, by_unit: bool) {
        self.record.restarts = if by_unit { Restarts::default() } else { restart::asked_for() };
        (self.due, self.by_policy) = (None, false);
    }

    /// Somebody asked for an end.
    pub(super) fn is_not_wanted(&mut self) {
        self.due = None;
        if !self.engine.system_ends() {
            restart::let_rest(&mut self.record.restarts);
        }
    }

    /// The wait for the next try is over.
    pub(super) async fn due(&mut self) {
        self.due = None;
        if self.engine.check_open().is_err() {
            // The next daemon finds on the record that it waits.
            return;
        }
        restart::tried(&mut self.record.restarts);
        self.by_policy = true;
        self.happened(Event::Due).await;
    }

    pub(super) fn wait_for_next(&mut self) {
        let due = until(self.record.restarts.next_usec);
        let (name, wait) = (&self.record.spec.name, due.saturating_duration_since(Instant::now()));
        info!(container = %name, op = "restart", message_id = entries::RESTART, "Container {name} is started again in {} ms.", wait.as_millis());
        self.due = Some(due);
    }
}
