//! What a task does when its run has ended.

use std::sync::Arc;

use tracing::{info, warn};

use super::task::Task;
use crate::engine::lifecycle::{Event, State};
use crate::engine::outcome::{belongs, in_words, last_run};
use crate::engine::run::{Run, asked_of_kernel, bare_record};
use crate::engine::steps::Steps;
use crate::engine::view::Event as Change;
use crate::engine::{blocking, entries, start, table};
use crate::model::{Exit, ExitRecord, Lifetime};
use crate::records::{ContainerRecord, Durability, LastRun, Store};

impl Task {
    /// What is watched has ended. A payload may outlive its monitor, if that was killed.
    pub(super) async fn ended(&mut self) {
        let Some(run) = &mut self.run else { return };
        run.exit = find_exit(&self.engine.store, &self.record, run).await;
        if run.exit.is_none() {
            match run.watch_leader() {
                Ok(true) => {
                    warn!(container = %self.record.spec.name, op = "watch", "The monitor of container {} was killed: its payload runs on, and how that ends is known only if the kernel tells.", self.record.spec.name);
                    self.counts_as_ready().await;
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(container = %self.record.spec.name, op = "watch", "cannot watch the leader: {error}: it is killed");
                }
            }
            // Without a monitor nobody else ends what the leader left behind.
            self.kill_group().await;
            self.ask_kernel().await;
        }
        let event = self.end_or_reboot().await;
        self.happened(event).await;
    }

    /// Nobody wrote down how the run ended; the kernel may know.
    async fn ask_kernel(&mut self) {
        let Some(run) = &mut self.run else { return };
        let handles = Arc::clone(&run.handles);
        let exit = blocking(move || handles.leader.as_ref().and_then(asked_of_kernel)).await;
        run.exit = exit.map(|exit| bare_record(run.record.run, exit, 0));
    }

    /// A system that asked to be rebooted is started again, with the input and output that it had; not one that is being
    /// stopped, nor on a machine that is.
    async fn end_or_reboot(&mut self) -> Event {
        let again = self.again.take();
        let Some(exit) = self.run.as_ref().and_then(|run| run.exit.as_ref()).filter(|exit| exit.reboot) else {
            return Event::Ended { again: self.after_end().await };
        };
        let runs = matches!(self.state, State::Readying | State::Running | State::Frozen);
        if runs && self.engine.check_open().is_ok() {
            info!(container = %self.record.spec.name, op = "reboot", "Container {} reboots.", self.record.spec.name);
            self.next_io = again;
            return Event::Rebooted;
        }
        // Its monitor left that to us.
        if let Some(caller) = again.and_then(|io| io.monitor) {
            start::tell_end(&caller, exit);
        }
        Event::Ended { again: self.after_end().await }
    }

    /// Remembers how the run ended, and forgets the run.
    pub(super) async fn record_end(&mut self) {
        (self.deadline, self.unheard) = (None, None);
        (self.checks, self.caller) = (None, None);
        // Its monitor stopped it.
        if self.run.as_ref().and_then(|run| run.exit.as_ref()).is_some_and(|exit| exit.unheard) {
            self.tell_unheard(self.record.spec.stop.signal);
        }
        let Some(mut run) = self.run.take() else { return };
        let mut steps = Steps::begin();
        self.set_handles(None);
        run.reap_later();
        self.left = Some(run.handles.cgroup.clone());
        if run.handles.terminal.is_some() {
            table::release_terminal(&self.record.spec);
        }
        table::release_leader(&self.record.spec, &run);
        self.forget_notified(&run);
        self.left_machine = Some(self.engine.unregister_machine(&self.record.spec.name));
        self.engine.machines.hide(&self.record.spec.name, &self.record.spec.id);
        let last = last_run((run.record.run, run.record.started_usec), Some(&run.record), run.exit.as_ref());
        if run.record.unready && (last.failed || self.ended_unannounced(&run)) {
            self.never_ready(&last);
        }
        self.show_health();
        self.record.note_end(last, self.engine.settings.keep_runs);
        if self.record.spec.lifetime == Lifetime::Kept {
            self.save(Durability::Synced).await;
        }
        if let Err(error) = self.engine.store.remove_run(&self.record.spec.id) {
            warn!(container = %self.record.spec.name, op = "end", "{error}, ignoring");
        }
        self.publish();
        // A reboot is no end to those who wait for one.
        if self.state != State::Starting || !run.exit.as_ref().is_some_and(|exit| exit.reboot) {
            self.announce_end(&last, run.record.wanted_by.as_deref());
        }
        steps.lap("Record");
        steps.finish("end", &self.record.spec.name);
    }

    /// `unit` hears of what went wrong: the rest it sees itself.
    fn announce_end(&self, last: &LastRun, unit: Option<&str>) {
        let failed_unit = unit.filter(|_| last.failed);
        let name = self.record.spec.name.clone();
        let status = last.exit.map_or(-1, Exit::status);
        let id = if last.failed { entries::FAILED } else { entries::ENDED };
        info!(container = %name, op = "end", message_id = id, object_systemd_unit = failed_unit, status, result = last.result.as_str(), "Container {name} ended: {}.", in_words(last));
        if last.oom_kills > 0 {
            let killed = match last.oom_kills {
                1 => "a process".to_owned(),
                several => format!("{several} processes"),
            };
            warn!(container = %name, op = "end", message_id = entries::OUT_OF_MEMORY, object_systemd_unit = unit, "The kernel killed {killed} of container {name} for lack of memory.");
            self.engine.events.send(Change::OutOfMemory { name: name.clone(), count: last.oom_kills });
        }
        self.engine.events.send(Change::ContainerExited { name, status, result: last.result });
    }
}

/// How a run ended: from the monitor's record, or from its own mouth.
async fn find_exit(store: &Store, record: &ContainerRecord, run: &Run) -> Option<ExitRecord> {
    let (store, id) = (store.clone(), record.spec.id.clone());
    let written = match blocking(move || store.exit(&id)).await {
        Ok(written) => belongs(written, run.record.run),
        Err(error) => {
            warn!(container = %record.spec.name, op = "end", "{error}, ignoring");
            None
        }
    };
    written.or_else(|| run.told())
}
