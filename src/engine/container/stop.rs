//! How a container is asked to end, and made to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::task::{LEAVING, Task};
use crate::engine::lifecycle::{Next, State};
use crate::engine::request::{StopOptions, Who};
use crate::engine::{blocking, entries};
use crate::model::{PoolState, Signal, in_usec};
use crate::records::RunRecord;
use crate::sys::{clock, signal};

/// A stop signal that the leader does not take yet. Nothing tells when a process begins to catch a signal: it has to be looked
/// at, often at first and then rarely.
#[derive(Debug)]
pub(super) struct Unheard {
    signal: Signal,
    pause: Duration,
    pub(super) next: Instant,
}

impl Unheard {
    pub(super) fn new(signal: Signal) -> Self {
        Self { signal, pause: FIRST_LOOK, next: Instant::now() }
    }
}

const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(250);

/// When a run that was found being stopped is killed.
pub(super) fn deadline(run: &RunRecord, timeout: Duration) -> Option<Instant> {
    let now = Instant::now();
    match run.deadline_usec {
        _ if !run.stopping => None,
        _ if run.forced => Some(now),
        Some(usec) => now.checked_add(Duration::from_micros(usec).saturating_sub(clock::since_boot())),
        None => now.checked_add(timeout),
    }
}

impl Task {
    pub(super) async fn ask_to_end(&mut self) {
        self.thaw_scope().await;
        let signal = self.stop.signal.unwrap_or(self.record.spec.stop.signal);
        let timeout = self.stop.timeout_usec.map_or(self.record.spec.stop.timeout(), Duration::from_micros);
        self.stop = StopOptions::default();
        self.set_deadline(timeout);
        if let Some(run) = &mut self.run {
            run.record.stopping = true;
        }
        self.unheard = Some(Unheard::new(signal));
        self.speak();
        self.save_run();
    }

    /// Sends the stop signal if the leader takes it, or looks again later: a payload that is stopped while it still begins
    /// is stopped as soon as it can be.
    pub(super) fn speak(&mut self) {
        let (Some(unheard), Some(run)) = (&mut self.unheard, &mut self.run) else { return };
        // What cannot be looked at has ended, and that will be seen.
        let heard = signal::is_heard(run.record.leader, unheard.signal.number()).unwrap_or(true);
        // What waits for signals in sigwaitinfo(2) takes it and is not seen to; to what does not, the kernel does not give it.
        if (heard || unheard.pause == FIRST_LOOK)
            && let Err(error) = run.handles.signal(Who::Leader, unheard.signal)
        {
            // It has just ended by itself: the end will be seen.
            tracing::debug!(container = %self.record.spec.name, "the leader could not be signalled: {error}, ignoring");
        }
        if heard {
            (run.record.unheard, self.unheard) = (None, None);
            return;
        }
        unheard.next = Instant::now() + unheard.pause;
        unheard.pause = (unheard.pause * 2).min(LAST_LOOK);
        run.record.unheard = Some(unheard.signal);
    }

    /// Why the stop timeout passes, if it is that the signal was never taken.
    pub(super) fn tell_if_unheard(&mut self) {
        // Of one that was looked at only once, and killed at once, nothing is known.
        if let Some(unheard) = self.unheard.as_ref().filter(|unheard| unheard.pause > 2 * FIRST_LOOK) {
            self.tell_unheard(unheard.signal);
        }
    }

    pub(super) fn tell_unheard(&mut self, signal: Signal) {
        let name = &self.record.spec.name;
        let text = format!(
            "killed after its stop timeout: its first process was never seen to take {signal}; with --init it would have ended at once"
        );
        warn!(container = %name, op = "stop", message_id = entries::UNHEARD, object_systemd_unit = self.wanted_by(), "Container {name} is {text}");
        self.record.status_text = text;
    }

    /// A timeout that is too long to be counted is none.
    fn set_deadline(&mut self, timeout: Duration) {
        self.deadline = Instant::now().checked_add(timeout);
        let at = clock::since_boot().saturating_add(timeout);
        if let Some(run) = &mut self.run {
            run.record.deadline_usec = Some(in_usec(at));
        }
    }

    /// The monitor has asked, and kills when the time is over; if it does not, we do a little later.
    pub(super) fn await_end(&mut self) {
        self.set_deadline(self.record.spec.stop.timeout().saturating_add(LEAVING));
        if let Some(run) = &mut self.run {
            run.record.stopping = true;
        }
        self.save_run();
    }

    /// A stop that joins one under way: no later than it asks for.
    pub(super) fn hurry(&mut self) {
        let Some(timeout) = std::mem::take(&mut self.stop).timeout_usec else { return };
        let timeout = Duration::from_micros(timeout);
        let sooner =
            Instant::now().checked_add(timeout).is_some_and(|wanted| self.deadline.is_none_or(|set| wanted < set));
        // One that was killed has no deadline any more.
        if sooner && matches!(self.state, State::Stopping { forced: false, .. }) {
            self.set_deadline(timeout);
            self.save_run();
        }
    }

    pub(super) async fn kill_all(&mut self) {
        (self.deadline, self.unheard) = (None, None);
        let Some(run) = &mut self.run else { return };
        // A removal by force is no stop that timed out.
        run.record.forced = !matches!(self.state, State::Stopping { next: Next::Remove, .. });
        run.record.stopping = true;
        self.save_run();
        if matches!(self.state, State::Stopping { next: Next::Remove, .. }) {
            self.give_root_up_if_full().await;
        }
        self.thaw_scope().await;
        self.kill_group().await;
    }

    /// A process that waits for room in a full pool cannot even be killed. What it waits to write is to be removed: with
    /// the root marked for that, its I/O fails now instead of never.
    async fn give_root_up_if_full(&self) {
        if self.engine.pool().state != PoolState::OutOfData {
            return;
        }
        if let Err(error) = self.engine.delete_root(&self.record.spec.id, Vec::new()).await {
            warn!(container = %self.record.spec.name, op = "remove", "the root cannot be given up: {error}, ignoring");
        }
    }

    /// A payload that is frozen with its scope hears no signal, and a monitor that is tells nobody of the end.
    async fn thaw_scope(&self) {
        let Some(run) = &self.run else { return };
        // A slice holds others as well, who go on with this one: only at the end of all is that meant.
        let mut units = match self.engine.check_open() {
            Ok(()) => Vec::new(),
            Err(_) => run.handles.cgroup.frozen_slices(),
        };
        if run.handles.cgroup.is_frozen_from_outside() {
            units.push(run.record.unit.clone());
        }
        for unit in units {
            if let Err(error) = self.engine.scopes.thaw(&unit).await {
                warn!(container = %self.record.spec.name, op = "stop", "the frozen {unit} cannot be thawed: {error}, ignoring");
            }
        }
    }

    pub(super) async fn kill_group(&self) {
        let Some(run) = &self.run else { return };
        let handles = Arc::clone(&run.handles);
        if let Err(error) = blocking(move || handles.kill()).await {
            warn!(container = %self.record.spec.name, op = "stop", "cannot kill the control group: {error}");
        }
    }
}
