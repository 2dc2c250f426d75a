//! What comes of what a payload says about itself.

use tracing::warn;

use super::task::Task;
use crate::engine::lifecycle::State;
use crate::engine::run::Run;
use crate::engine::{patience, table};
use crate::model::{Notification, Ready, Usec, now_usec};

impl Task {
    /// Takes a message over; none means that there will be no more.
    pub(super) async fn notified(&mut self, said: Option<Notification>) {
        let Some(run) = self.run.as_mut() else { return };
        let Some(said) = said else {
            run.is_silent();
            return;
        };
        if let Some(status) = said.status() {
            run.has_spoken = true;
            status.clone_into(&mut self.record.status_text);
        }
        if let Some(more) = said.more_time() {
            self.wait_longer(more);
        }
        if said.is_ready() && self.awaits_word() {
            self.ready().await;
        }
        self.publish();
    }

    /// What it said last comes before its end.
    pub(super) async fn hear_the_rest(&mut self) {
        for _ in 0..MOST_AT_END {
            let Some(said) = self.run.as_ref().and_then(Run::notified_now) else { return };
            self.notified(Some(said)).await;
        }
    }

    /// The monitor was killed, and with it went the way to hear of it.
    pub(super) async fn counts_as_ready(&mut self) {
        // Its caller waits for the end of the monitor's socket, of which we have a copy.
        self.caller = None;
        if self.awaits_word() {
            let name = &self.record.spec.name;
            warn!(container = %name, op = "start", "nobody will hear whether container {name} is ready: it counts as started");
            self.ready().await;
        }
    }

    /// Whether it ended before it said that it was ready, while somebody waited for that and nobody had asked it to end.
    pub(super) fn ended_unannounced(&self, run: &Run) -> bool {
        self.record.spec.ready == Ready::Notify && !run.record.stopping
    }

    /// What it said of itself was of this run.
    pub(super) fn forget_notified(&mut self, run: &Run) {
        if run.has_spoken {
            self.record.status_text.clear();
        }
        if run.can_speak() {
            table::release_notified(&self.record.spec);
        }
    }

    /// As for a service (`EXTEND_TIMEOUT_USEC=` in sd_notify(3)).
    fn wait_longer(&mut self, more: Usec) {
        let awaited = self.awaits_word();
        let Some(run) = self.run.as_mut().filter(|run| awaited && run.record.ready_by_usec > 0) else { return };
        run.record.ready_by_usec =
            patience::extended(&self.record.spec, run.record.started_usec, now_usec().saturating_add(more));
        self.deadline = run.ready_by();
        self.save_run();
    }

    fn awaits_word(&self) -> bool {
        self.state == State::Readying && self.record.spec.ready == Ready::Notify
    }
}

/// More than a socket holds of the shortest.
const MOST_AT_END: usize = 1024;
