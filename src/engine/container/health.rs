//! What comes of the checks of a container's health.

use std::sync::{Arc, PoisonError};

use tracing::{info, warn};

use super::checks::{Checker, Checks};
use super::task::Task;
use crate::engine::entries;
use crate::engine::lifecycle::{Event, State};
use crate::engine::outcome::in_words;
use crate::engine::restart;
use crate::engine::run::Run;
use crate::engine::view::JobResult;
use crate::model::{Checked, ErrorCode, Health, HealthAction, HealthState, Ready, RunResult};
use crate::records::LastRun;

impl Task {
    /// Begins the checks of a run, if the container has one.
    pub(super) fn checks_of(&self, run: &Run) -> Option<Checks> {
        let check = self.record.spec.health.clone()?;
        let state = &run.record.health;
        let checker = Checker {
            engine: Arc::clone(&self.engine),
            shared: Arc::clone(&self.shared),
            handles: Arc::clone(&run.handles),
            requests: self.requests.clone(),
            spec: self.record.spec.clone(),
            check,
            run: run.record.run,
            started_usec: run.record.started_usec,
            settled: state.health != Health::Starting || state.failures > 0,
            checks: state.checks,
        };
        Some(checker.begin())
    }

    /// A run that begins is not known to be well.
    pub(super) fn begin_health(&mut self) {
        let Some(run) = self.run.as_mut().filter(|_| self.record.spec.health.is_some()) else { return };
        run.record.health = HealthState::starting();
        self.save_run();
        self.show_health();
        self.checks = self.run.as_ref().and_then(|run| self.checks_of(run));
    }

    /// Takes the result of a check over, and does what is to be done about it.
    pub(super) async fn checked(&mut self, number: u64, checked: Checked, counts: bool) {
        let Some(check) = self.record.spec.health.clone() else { return };
        // Of this run, and of one that nobody ends already.
        let lives = matches!(self.state, State::Running | State::Readying);
        let Some(run) = self.run.as_mut().filter(|run| lives && run.record.run == number) else { return };
        let before = run.record.health.health;
        run.record.health.take(&check, checked, counts);
        let now = run.record.health.health;
        self.save_run();
        self.show_health();
        if now == before {
            return;
        }
        self.publish();
        self.tell_health(now, before);
        match (now, self.state) {
            (Health::Healthy, State::Readying) if self.record.spec.ready == Ready::Healthy => self.ready().await,
            (Health::Unhealthy, State::Readying) if self.record.spec.ready == Ready::Healthy => self.not_ready().await,
            (Health::Unhealthy, _) => self.act_on_health(check.action).await,
            _ => {}
        }
    }

    /// It counts as started from now on.
    pub(super) async fn ready(&mut self) {
        self.deadline = None;
        if let Some(run) = &mut self.run {
            run.record.unready = false;
        }
        self.save_run();
        self.happened(Event::Ready).await;
    }

    /// It was given the time that it has, and is ended.
    pub(super) async fn not_ready(&mut self) {
        if let Some(run) = &mut self.run {
            run.record.given_up = true;
        }
        self.happened(Event::NotReady).await;
    }

    /// Its start has failed, though its program ran.
    pub(super) fn never_ready(&mut self, last: &LastRun) {
        let (said, words) = (self.run_said(), in_words(last));
        let text = match last.result {
            RunResult::Timeout => format!("it was not ready in time and was stopped ({words}){said}"),
            _ => format!("it was not ready before its end ({words}){said}"),
        };
        self.start_error = Some(JobResult::Failed { code: ErrorCode::StartFailed, message: text.clone() });
        self.record.status_text = text;
    }

    /// What its last check said, for a message.
    fn run_said(&self) -> String {
        let health = self.shared.health.read().unwrap_or_else(PoisonError::into_inner);
        let line = health.last.as_ref().and_then(|last| last.output.lines().next().map(str::to_owned));
        line.map(|line| format!(": its last check said '{line}'")).unwrap_or_default()
    }

    fn tell_health(&self, now: Health, before: Health) {
        let name = &self.record.spec.name;
        let unit = self.wanted_by();
        if now == Health::Unhealthy {
            let last = self.run.as_ref().and_then(|run| run.record.health.last.as_ref());
            let output = last.and_then(|last| last.output.lines().next()).unwrap_or_default();
            warn!(container = %name, op = "health", message_id = entries::UNHEALTHY, object_systemd_unit = unit, "Container {name} is unhealthy: {output}");
        } else if before == Health::Unhealthy {
            info!(container = %name, op = "health", message_id = entries::HEALTHY, object_systemd_unit = unit, "Container {name} is healthy again.");
        }
    }

    async fn act_on_health(&mut self, action: HealthAction) {
        match action {
            HealthAction::None => {}
            HealthAction::Kill => self.kill_group().await,
            HealthAction::Restart => {
                restart::tried(&mut self.record.restarts);
                self.by_policy = true;
                self.happened(Event::Restart).await;
            }
            HealthAction::Stop => {
                restart::let_rest(&mut self.record.restarts);
                self.happened(Event::Stop).await;
            }
        }
    }

    /// For who asks for more than the word.
    pub(super) fn show_health(&self) {
        let state = self.run.as_ref().map(|run| run.record.health.clone()).unwrap_or_default();
        *self.shared.health.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
