//! The task of one container: it owns its state and performs what `lifecycle` decides, one thing after another.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::caller::Caller;
use super::checks::Checks;
use super::stop::{Unheard, deadline};
use super::{Request, Shared};
use crate::engine::cgroup::Cgroup;
use crate::engine::error::EngineError;
use crate::engine::jobs::Job;
use crate::engine::lifecycle::{Action, Event, Next, Refusal, State, step};
use crate::engine::outcome::never_started;
use crate::engine::patience::until;
use crate::engine::request::{RunIo, StopOptions};
use crate::engine::run::{Handles, Run};
use crate::engine::view::{ContainerView, Event as Change, JobResult};
use crate::engine::{Inner, blocking, entries, start};
use crate::model::{Health, Lifetime, Notification, RunResult, now_usec};
use crate::records::{ContainerRecord, Durability, RecordError, Store};
use crate::systemd::scope_name;

/// How long what is left of a run may take to be gone before the next one begins.
pub(super) const LEAVING: Duration = Duration::from_secs(5);
/// What is said of a container that is held.
const HELD: &str = "held still: the pool has no room; remove containers, images or snapshots, or grow it";

/// The state of a container that was found running. A removal or restart that was to follow is forgotten: the job that
/// asked for it ended with the daemon that had it.
fn found(run: &Run) -> State {
    match run.record.stopping {
        // Killed again if need be: whether it was is not known.
        true => State::Stopping { forced: false, next: Next::Rest },
        // One that is held may not stand still yet: it waits for the pool.
        false if run.record.held || run.handles.cgroup.is_frozen() => State::Frozen,
        false if run.record.unready => State::Readying,
        false => State::Running,
    }
}

/// What the owner of a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Running,
    Resting,
    Gone,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) engine: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Request>,
    /// The way to itself, which does not keep it alive.
    pub(super) requests: mpsc::WeakUnboundedSender<Request>,
    /// Of the run under way.
    pub(super) checks: Option<Checks>,
    pub(super) caller: Option<Caller>,
    pub(super) record: ContainerRecord,
    pub(super) state: State,
    pub(super) run: Option<Run>,
    /// When it is killed, if it is being stopped; when it is given up, if it is not ready.
    pub(super) deadline: Option<Instant>,
    pub(super) unheard: Option<Unheard>,
    /// When its policy starts it again.
    pub(super) due: Option<Instant>,
    /// Whether the launch under way is its policy's.
    pub(super) by_policy: bool,
    waiters: Vec<(Goal, Job)>,
    pub(super) next_io: Option<RunIo>,
    /// The input and output of a system's run, for the one after a reboot: who follows it follows it on.
    pub(super) again: Option<RunIo>,
    pub(super) stop: StopOptions,
    pub(super) start_error: Option<JobResult>,
    /// Where the last run was: its scope may not be gone yet.
    pub(super) left: Option<Cgroup>,
    /// The end of its machine.
    pub(super) left_machine: Option<JoinHandle<()>>,
}

enum Input {
    Asked(Request),
    Ended,
    Notified(Option<Notification>),
    Deadline,
    Look,
    Due,
    Closed,
}

impl Task {
    /// Sets it to work.
    pub(super) fn begin(
        engine: Arc<Inner>,
        record: ContainerRecord,
        run: Option<Run>,
        (requests, inbox): (mpsc::WeakUnboundedSender<Request>, mpsc::UnboundedReceiver<Request>),
    ) -> Arc<Shared> {
        let state = match &run {
            Some(run) => found(run),
            None if record.restarts.next_usec > 0 => State::Waiting,
            None => State::Resting,
        };
        let shared = Arc::new(Shared {
            view: RwLock::new(view(&record, state, run.as_ref())),
            handles: RwLock::new(run.as_ref().map(|run| Arc::clone(&run.handles))),
            door: Arc::default(),
            freezes: AtomicU64::default(),
            health: RwLock::default(),
            root: Arc::default(),
        });
        let deadline = run.as_ref().and_then(|run| deadline(&run.record, record.spec.stop.timeout()));
        let deadline = deadline.or_else(|| run.as_ref().and_then(Run::ready_by));
        let unheard = run.as_ref().and_then(|run| run.record.unheard).map(Unheard::new);
        let due = (state == State::Waiting).then(|| until(record.restarts.next_usec));
        let mut task = Self {
            engine,
            shared: Arc::clone(&shared),
            inbox,
            requests,
            checks: None,
            caller: None,
            record,
            state,
            run,
            deadline,
            unheard,
            due,
            by_policy: false,
            waiters: Vec::new(),
            next_io: None,
            again: None,
            stop: StopOptions::default(),
            start_error: None,
            left: None,
            left_machine: None,
        };
        task.checks = task.run.as_ref().and_then(|run| task.checks_of(run));
        task.show_health();
        tokio::spawn(task.work());
        shared
    }

    async fn work(mut self) {
        while self.state != State::Gone {
            match self.next_input().await {
                Input::Asked(request) => self.asked(request).await,
                Input::Ended => {
                    self.hear_the_rest().await;
                    self.ended().await;
                }
                Input::Notified(said) => self.notified(said).await,
                Input::Deadline => {
                    self.deadline = None;
                    match self.state {
                        State::Readying => self.not_ready().await,
                        _ => {
                            self.tell_if_unheard();
                            self.happened(Event::Deadline).await;
                        }
                    }
                }
                Input::Look => {
                    self.speak();
                    if self.unheard.is_none() {
                        self.save_run();
                    }
                }
                Input::Due => self.due().await,
                Input::Closed => return,
            }
        }
        self.inbox.close();
        while let Some(request) = self.inbox.recv().await {
            request.refuse(&self.record.spec.name);
        }
    }

    /// The unit on whose behalf it runs: what holmd logs of it is shown with that unit's own lines.
    pub(super) fn wanted_by(&self) -> Option<&str> {
        self.run.as_ref()?.record.wanted_by.as_deref()
    }

    async fn next_input(&mut self) -> Input {
        let ended = async {
            match &self.run {
                Some(run) => run.ended().await,
                None => std::future::pending().await,
            }
        };
        let notified = async {
            match &self.run {
                Some(run) => run.notified().await,
                None => std::future::pending().await,
            }
        };
        let at = async |moment: Option<Instant>| match moment {
            Some(moment) => tokio::time::sleep_until(moment).await,
            None => std::future::pending().await,
        };
        let due = async {
            match self.due {
                Some(due) => {
                    self.engine.restarts_may_begin().await;
                    tokio::time::sleep_until(due).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = ended => Input::Ended,
            () = at(self.deadline) => Input::Deadline,
            () = due => Input::Due,
            () = at(self.unheard.as_ref().map(|unheard| unheard.next)) => Input::Look,
            request = self.inbox.recv() => request.map_or(Input::Closed, Input::Asked),
            // Last, so that one that talks without end is stopped all the same.
            said = notified => Input::Notified(said),
        }
    }

    async fn asked(&mut self, request: Request) {
        match request {
            Request::Start { io, job } => {
                let accepted = |task: &mut Self| {
                    task.is_wanted(io.wanted_by.is_some());
                    task.next_io = Some(io);
                };
                self.toward(Event::Start, Goal::Running, job, accepted).await;
            }
            Request::Stop { options, job } => {
                let waited = self.state == State::Waiting;
                let accepted = |task: &mut Self| {
                    task.stop = options;
                    task.is_not_wanted();
                };
                self.toward(Event::Stop, Goal::Resting, job, accepted).await;
                if waited {
                    self.save(Durability::Synced).await;
                }
            }
            Request::Restart { options, job } => {
                let accepted = |task: &mut Self| {
                    task.stop = options;
                    task.is_wanted(false);
                };
                self.toward(Event::Restart, Goal::Running, job, accepted).await;
            }
            Request::Remove { force, job } => self.toward(Event::Remove { force }, Goal::Gone, job, |_| {}).await,
            Request::Freeze { freeze, reply } => {
                let event = if freeze { Event::Freeze } else { Event::Thaw };
                // From now on it is as somebody wants it to be.
                self.note_held(false);
                let result = self.apply(event).await;
                let _ = reply.send(result);
            }
            Request::Held => self.held().await,
            Request::Release => self.released().await,
            Request::CallerLeft { run } => self.caller_left(run).await,
            Request::Checked { run, checked, counts } => self.checked(run, checked, counts).await,
            Request::Snapshots { change, reply } => {
                let result = self.change_snapshots(change).await;
                let _ = reply.send(result);
            }
            Request::Rollback { snapshot, reply } => {
                let result = self.roll_back(&snapshot).await;
                let _ = reply.send(result);
            }
            Request::Limit { limits, reply } => {
                let result = self.limit(*limits).await;
                let _ = reply.send(result);
            }
            Request::Resized { size, reply } => {
                let result = self.resized(size).await;
                let _ = reply.send(result);
            }
            Request::Rename { to, reply } => {
                let result = self.rename(to).await;
                let _ = reply.send(result);
            }
        }
    }

    /// Feeds an event whose job ends when `goal` is reached. `accepted` is done only if the event is not refused: what a
    /// refused request brought is dropped with it.
    async fn toward(&mut self, event: Event, goal: Goal, job: Job, accepted: impl FnOnce(&mut Self)) {
        match step(self.state, event, self.record.spec.lifetime) {
            Err(refusal) => job.finish(JobResult::from(&self.refusal(refusal))),
            Ok(_) => {
                accepted(self);
                self.waiters.push((goal, job));
                self.happened(event).await;
            }
        }
    }

    pub(super) async fn happened(&mut self, event: Event) {
        if let Err(error) = self.apply(event).await {
            warn!(container = %self.record.spec.name, op = "lifecycle", "{error}");
        }
    }

    /// Takes a step, performs its actions, and the steps that follow from them.
    async fn apply(&mut self, event: Event) -> Result<(), EngineError> {
        let mut event = Some(event);
        while let Some(now) = event.take() {
            let (state, actions) =
                step(self.state, now, self.record.spec.lifetime).map_err(|refusal| self.refusal(refusal))?;
            let before = std::mem::replace(&mut self.state, state);
            // Shown on the way, unless a run has just ended: then it is shown only once it is known how.
            // A launch shows itself.
            if matches!(state, State::Stopping { .. }) && !actions.contains(&Action::RecordEnd) {
                self.publish();
            }
            for action in actions {
                match self.perform(*action).await {
                    Ok(follows) => event = follows.or(event),
                    Err(error) if matches!(now, Event::Freeze | Event::Thaw) => {
                        self.state = before;
                        return Err(error);
                    }
                    // A stop goes on: what cannot be thawed is killed at the deadline, frozen or not.
                    Err(error) => warn!(container = %self.record.spec.name, op = "lifecycle", "{error}"),
                }
            }
        }
        if self.state != State::Gone {
            self.publish();
        }
        self.settle();
        Ok(())
    }

    async fn perform(&mut self, action: Action) -> Result<Option<Event>, EngineError> {
        match action {
            Action::Launch => return Ok(Some(self.launch().await)),
            Action::AskToEnd => self.ask_to_end().await,
            Action::AwaitEnd => self.await_end(),
            Action::Hurry => self.hurry(),
            Action::KillAll => self.kill_all().await,
            Action::Freeze => self.freeze(true).await?,
            Action::Thaw => self.freeze(false).await?,
            Action::RecordEnd => self.record_end().await,
            Action::Wait => self.wait_for_next(),
            Action::Delete => self.delete().await,
        }
        Ok(None)
    }

    async fn launch(&mut self) -> Event {
        let io = self.next_io.take().unwrap_or_default();
        self.record.run += 1;
        self.record.started_usec = now_usec();
        self.record.status_text.clear();
        self.start_error = None;
        self.publish();
        self.see_off_last_run().await;
        let again = self.record.spec.boot.then(|| io.duplicate());
        let caller = Caller::socket(&io);
        match start::launch(&self.engine, &self.record, io).await {
            Ok(run) => {
                // Without it a reboot is followed by the journal alone.
                self.again = again.and_then(Result::ok);
                self.set_handles(Some(Arc::clone(&run.handles)));
                self.deadline = run.ready_by();
                let number = run.record.run;
                self.caller = caller.and_then(|socket| Caller::watch(socket, number, self.requests.clone()));
                self.run = Some(run);
                let ready = !run_is_unready(self.run.as_ref());
                self.begin_health();
                self.save(Durability::Eventual).await;
                info!(container = %self.record.spec.name, op = "start", message_id = entries::STARTED, "Container {} started.", self.record.spec.name);
                Event::Launched { ready }
            }
            Err(error) => Event::LaunchFailed { again: self.start_failed(&error).await },
        }
    }

    /// The end is told before the monitor and the keepers of exec are gone, and a scope's name is free only after.
    async fn see_off_last_run(&mut self) {
        if let Some(machine) = self.left_machine.take() {
            // It ends in any case, and only a panic would be told here.
            let _ = machine.await;
        }
        let Some(cgroup) = self.left.take() else { return };
        if let Err(error) = blocking(move || cgroup.wait_until_empty(LEAVING)).await {
            warn!(container = %self.record.spec.name, op = "start", "the last run's control group is not empty: {error}, ignoring");
        }
    }

    /// Whether it is tried again: not a start that somebody asked for and is told of.
    async fn start_failed(&mut self, error: &EngineError) -> bool {
        warn!(container = %self.record.spec.name, op = "start", message_id = entries::NOT_STARTED, "Container {} did not start: {error}", self.record.spec.name);
        self.start_error = Some(JobResult::from(error));
        self.record.status_text = error.to_string();
        let last = never_started((self.record.run, self.record.started_usec));
        self.record.note_end(last, self.engine.settings.keep_runs);
        let again = self.after_no_launch(error, &last);
        if self.record.spec.lifetime == Lifetime::Kept {
            self.save(Durability::Eventual).await;
        }
        again
    }

    /// Ends every job whose goal is reached or can no longer be.
    fn settle(&mut self) {
        let reached = match self.state {
            State::Running | State::Frozen => Goal::Running,
            State::Resting | State::Waiting => Goal::Resting,
            State::Gone => Goal::Gone,
            State::Starting | State::Readying | State::Stopping { .. } => return,
        };
        for (goal, job) in std::mem::take(&mut self.waiters) {
            match (goal, reached) {
                (Goal::Running, Goal::Running)
                | (Goal::Resting, Goal::Resting)
                | (Goal::Gone | Goal::Resting, Goal::Gone) => {
                    job.finish(JobResult::Done);
                }
                (Goal::Running, _) => job.finish(self.start_error.clone().unwrap_or(JobResult::Canceled)),
                (Goal::Resting | Goal::Gone, _) => self.waiters.push((goal, job)),
            }
        }
    }

    pub(super) fn fail_waiters(&mut self, goal: Goal, error: &EngineError) {
        for (wanted, job) in std::mem::take(&mut self.waiters) {
            if wanted == goal {
                job.finish(JobResult::from(error));
            } else {
                self.waiters.push((wanted, job));
            }
        }
    }

    pub(super) fn refusal(&self, refusal: Refusal) -> EngineError {
        let name = self.record.spec.name.clone();
        match refusal {
            Refusal::NotRunning => EngineError::NotRunning(name),
            Refusal::Gone => EngineError::NoSuchContainer(name.to_string()),
            Refusal::Active => EngineError::Running {
                status: self.state.status(true, false).as_str(),
                advice: "stop it first with 'holmctl stop', or remove it with 'holmctl rm --force'",
                name,
            },
        }
    }

    /// Shows the container as it is now, to readers and listeners.
    pub(super) fn publish(&self) {
        let now = view(&self.record, self.state, self.run.as_ref());
        let mut shown = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        if *shown != now {
            shown.clone_from(&now);
            drop(shown);
            self.engine.events.send(Change::ContainerChanged(now));
        }
    }

    pub(super) fn set_handles(&self, handles: Option<Arc<Handles>>) {
        *self.shared.handles.write().unwrap_or_else(PoisonError::into_inner) = handles;
    }

    pub(super) async fn save(&self, durability: Durability) {
        let record = self.record.clone();
        if let Err(error) = self.with_store(move |store| store.put_container(&record, durability)).await {
            warn!(container = %self.record.spec.name, op = "save", "{error}");
        }
    }

    /// What goes to the disk may take as long as the disk likes.
    pub(super) async fn with_store(
        &self,
        work: impl FnOnce(&Store) -> Result<(), RecordError> + Send + 'static,
    ) -> Result<(), RecordError> {
        let store = self.engine.store.clone();
        blocking(move || work(&store)).await
    }

    /// Not to the disk: to a file in memory.
    pub(super) fn save_run(&self) {
        let Some(run) = &self.run else { return };
        if let Err(error) = self.engine.store.put_run(&self.record.spec.id, &run.record) {
            warn!(container = %self.record.spec.name, op = "save", "{error}");
        }
    }
}

fn run_is_unready(run: Option<&Run>) -> bool {
    run.is_some_and(|run| run.record.unready)
}

/// A container's view, made of all that is known about it.
fn view(record: &ContainerRecord, state: State, run: Option<&Run>) -> ContainerView {
    let last = record.last.as_ref();
    // While a run goes on nothing is said of the end of the one before, but when that was.
    let ended = last.filter(|_| run.is_none());
    ContainerView {
        spec: Arc::new(record.spec.clone()),
        status: state.status(record.run > 0, last.is_some_and(|last| last.failed)),
        unit: scope_name(&record.spec.name),
        control_group: run.map(|run| run.record.control_group.clone()).unwrap_or_default(),
        leader: run.map_or(0, |run| run.record.leader),
        created_usec: record.created_usec,
        started_usec: record.started_usec,
        stopped_usec: last.map_or(0, |last| last.stopped_usec),
        exit: ended.and_then(|last| last.exit),
        result: ended.map_or(RunResult::None, |last| last.result),
        oom_kills: ended.map_or(0, |last| last.oom_kills),
        status_text: match run {
            Some(run) if run.record.held => HELD.to_owned(),
            _ => record.status_text.clone(),
        },
        health: run.map_or(Health::None, |run| run.record.health.health),
        restart_count: record.restarts.count,
        next_restart_usec: if state == State::Waiting { record.restarts.next_usec } else { 0 },
        run: record.run,
        runs: Arc::new(record.runs.clone()),
        snapshots: Arc::new(record.snapshots.clone()),
    }
}
