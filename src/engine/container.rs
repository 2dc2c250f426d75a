//! One container: a task that owns its state and performs what `lifecycle` decides, one thing after another.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::EngineError;
use super::jobs::Job;
use super::lifecycle::{Action, Event, Next, Refusal, State, step};
use super::request::{RunIo, StopOptions, Who};
use super::run::{Handles, Run, belongs};
use super::view::{ContainerView, Event as Change, JobResult};
use super::{Inner, blocking};
use crate::model::{ContainerName, Exit, ExitRecord, Lifetime, RunResult, Signal, now_usec};
use crate::records::{ContainerRecord, Durability, LastRun};
use crate::systemd::scope_name;

/// A container as the engine's table holds it: its view, its handles, and the way to its task.
#[derive(Debug)]
pub(super) struct Container {
    requests: mpsc::UnboundedSender<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: RwLock<ContainerView>,
    handles: RwLock<Option<Arc<Handles>>>,
}

/// What a container's task is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Start it.
    Start {
        /// This run's input and output.
        io: RunIo,
        /// The job that ends when it runs.
        job: Job,
    },
    /// Stop it.
    Stop {
        /// How.
        options: StopOptions,
        /// The job that ends when it rests.
        job: Job,
    },
    /// Stop it if it runs, and start it.
    Restart {
        /// How to stop.
        options: StopOptions,
        /// The job that ends when it runs again.
        job: Job,
    },
    /// Remove it.
    Remove {
        /// Even if it runs.
        force: bool,
        /// The job that ends when it is gone.
        job: Job,
    },
    /// Freeze (`true`) or thaw it.
    Freeze {
        /// Which of the two.
        freeze: bool,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    /// Give it another name.
    Rename {
        /// The new name, already reserved in the table.
        to: ContainerName,
        /// The answer.
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
}

impl Container {
    /// Sets a container's task to work on `record`, with the run that was found under way, if any.
    pub(super) fn adopt(engine: &Arc<Inner>, record: ContainerRecord, run: Option<Run>) -> Arc<Self> {
        let state = match &run {
            None => State::Resting,
            Some(run) if run.handles.cgroup.is_frozen() => State::Frozen,
            Some(run) if run.record.stopping => State::Stopping { forced: run.record.forced, next: Next::Rest },
            Some(_) => State::Running,
        };
        let shared = Arc::new(Shared {
            view: RwLock::new(view(&record, state, run.as_ref())),
            handles: RwLock::new(run.as_ref().map(|run| Arc::clone(&run.handles))),
        });
        let (requests, inbox) = mpsc::unbounded_channel();
        let deadline = matches!(state, State::Stopping { .. }).then(|| Instant::now() + record.spec.stop.timeout());
        let task = Task {
            engine: Arc::clone(engine),
            shared: Arc::clone(&shared),
            inbox,
            record,
            state,
            run,
            deadline,
            waiters: Vec::new(),
            next_io: None,
            stop: StopOptions::default(),
            start_error: None,
        };
        tokio::spawn(task.work());
        Arc::new(Self { requests, shared })
    }

    /// The container as it is now.
    pub(super) fn view(&self) -> ContainerView {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What signals and entering need; `NotRunning` while there is no payload.
    pub(super) fn handles(&self) -> Result<Arc<Handles>, EngineError> {
        let handles = self.shared.handles.read().unwrap_or_else(PoisonError::into_inner).clone();
        handles.ok_or_else(|| EngineError::NotRunning(self.view().name().clone()))
    }

    /// Asks its task. The answer comes by the request's own means; a task that is gone fails the job by dropping it.
    pub(super) fn ask(&self, request: Request) {
        let _ = self.requests.send(request);
    }
}

/// What the owner of a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Running,
    Resting,
    Gone,
}

#[derive(Debug)]
struct Task {
    engine: Arc<Inner>,
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Request>,
    record: ContainerRecord,
    state: State,
    run: Option<Run>,
    deadline: Option<Instant>,
    waiters: Vec<(Goal, Job)>,
    next_io: Option<RunIo>,
    stop: StopOptions,
    start_error: Option<JobResult>,
}

enum Input {
    Asked(Request),
    Ended,
    Deadline,
    Closed,
}

impl Task {
    async fn work(mut self) {
        // A container that died while nobody looked is brought to rest before anything else is heard.
        while self.state != State::Gone {
            match self.next_input().await {
                Input::Asked(request) => self.asked(request).await,
                Input::Ended => self.happened(Event::Ended).await,
                Input::Deadline => {
                    self.deadline = None;
                    self.happened(Event::Deadline).await;
                }
                Input::Closed => return,
            }
        }
        self.inbox.close();
        while let Some(request) = self.inbox.recv().await {
            self.refuse(request, &EngineError::NoSuchContainer(self.record.spec.name.to_string()));
        }
    }

    async fn next_input(&mut self) -> Input {
        let ended = async {
            match &self.run {
                Some(run) => run.ended().await,
                None => std::future::pending().await,
            }
        };
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = ended => Input::Ended,
            () = deadline => Input::Deadline,
            request = self.inbox.recv() => request.map_or(Input::Closed, Input::Asked),
        }
    }

    async fn asked(&mut self, request: Request) {
        match request {
            Request::Start { io, job } => {
                self.next_io = Some(io);
                self.toward(Event::Start, Goal::Running, job).await;
            }
            Request::Stop { options, job } => {
                self.stop = options;
                self.toward(Event::Stop, Goal::Resting, job).await;
            }
            Request::Restart { options, job } => {
                self.stop = options;
                self.toward(Event::Restart, Goal::Running, job).await;
            }
            Request::Remove { force, job } => self.toward(Event::Remove { force }, Goal::Gone, job).await,
            Request::Freeze { freeze, reply } => {
                let event = if freeze { Event::Freeze } else { Event::Thaw };
                let result = self.apply(event).await;
                let _ = reply.send(result);
            }
            Request::Rename { to, reply } => {
                let result = self.rename(to);
                let _ = reply.send(result);
            }
        }
    }

    /// Feeds an event whose job ends when `goal` is reached.
    async fn toward(&mut self, event: Event, goal: Goal, job: Job) {
        match step(self.state, event, self.record.spec.lifetime) {
            Err(refusal) => job.finish(JobResult::from(&self.refusal(refusal))),
            Ok(_) => {
                self.waiters.push((goal, job));
                self.happened(event).await;
            }
        }
    }

    async fn happened(&mut self, event: Event) {
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
            let before = self.state;
            self.state = state;
            // Shown on the way, unless a run has just ended: then it is shown only once it is known how.
            if matches!(state, State::Starting | State::Stopping { .. }) && !actions.contains(&Action::RecordEnd) {
                self.publish();
            }
            for action in actions {
                match self.perform(*action).await {
                    Ok(follows) => event = follows.or(event),
                    Err(error) => {
                        if matches!(action, Action::Freeze | Action::Thaw) {
                            self.state = before;
                            self.publish();
                        }
                        return Err(error);
                    }
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
            Action::AskToEnd => self.ask_to_end(),
            Action::KillAll => self.kill_all().await,
            Action::Freeze => self.freeze(true).await?,
            Action::Thaw => self.freeze(false).await?,
            Action::RecordEnd => self.record_end().await,
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
        match super::start::launch(&self.engine, &self.record, io).await {
            Ok(run) => {
                self.set_handles(Some(Arc::clone(&run.handles)));
                self.run = Some(run);
                self.save(Durability::Eventual);
                info!(container = %self.record.spec.name, op = "start", "Container {} started.", self.record.spec.name);
                Event::Launched
            }
            Err(error) => {
                self.start_failed(&error);
                Event::LaunchFailed
            }
        }
    }

    fn start_failed(&mut self, error: &EngineError) {
        warn!(container = %self.record.spec.name, op = "start", "Container {} did not start: {error}", self.record.spec.name);
        self.start_error = Some(JobResult::from(error));
        self.record.status_text = error.to_string();
        self.record.last = Some(LastRun {
            run: self.record.run,
            exit: None,
            result: RunResult::None,
            failed: true,
            stopped_usec: now_usec(),
            oom_kills: 0,
            figures: Default::default(),
        });
        if self.record.spec.lifetime == Lifetime::Kept {
            self.save(Durability::Eventual);
        }
    }

    fn ask_to_end(&mut self) {
        let signal = self.stop.signal.unwrap_or(self.record.spec.stop.signal);
        let timeout = self.stop.timeout_usec.map_or(self.record.spec.stop.timeout(), Duration::from_micros);
        self.stop = StopOptions::default();
        self.deadline = Some(Instant::now() + timeout);
        let Some(run) = &mut self.run else { return };
        run.record.stopping = true;
        if let Err(error) = run.handles.signal(Who::Leader, signal) {
            // It has just ended by itself: the end will be seen.
            tracing::debug!(container = %self.record.spec.name, "the leader could not be signalled: {error}, ignoring");
        }
        self.save_run();
    }

    async fn kill_all(&mut self) {
        self.deadline = None;
        let Some(run) = &mut self.run else { return };
        // A removal by force is no stop that timed out.
        run.record.forced = matches!(self.state, State::Stopping { next: Next::Rest | Next::Start, .. });
        run.record.stopping = true;
        let handles = Arc::clone(&run.handles);
        self.save_run();
        if let Err(error) = blocking(move || handles.signal(Who::All, Signal::KILL)).await {
            warn!(container = %self.record.spec.name, op = "stop", "cannot kill the control group: {error}");
        }
    }

    async fn freeze(&mut self, freeze: bool) -> Result<(), EngineError> {
        let Some(run) = &self.run else { return Err(EngineError::NotRunning(self.record.spec.name.clone())) };
        let handles = Arc::clone(&run.handles);
        let path = handles.cgroup.path().to_owned();
        let op = if freeze { "freeze" } else { "thaw" };
        blocking(move || if freeze { handles.cgroup.freeze() } else { handles.cgroup.thaw() })
            .await
            .map_err(|source| EngineError::State { op, path, source })
    }

    /// Reads how the run ended, and forgets the run.
    async fn record_end(&mut self) {
        self.deadline = None;
        let Some(mut run) = self.run.take() else { return };
        self.set_handles(None);
        run.reap_later();
        if run.handles.terminal.is_some() {
            super::table::release_terminal(&self.record.spec);
        }
        self.engine.unregister_machine(&self.record.spec.name);
        let record = self.exit_record(&run);
        let last = last_run(&run, record.as_ref());
        self.record.last = Some(last);
        if self.record.spec.lifetime == Lifetime::Kept {
            self.save(Durability::Synced);
        }
        if let Err(error) = self.engine.store.remove_run(&self.record.spec.id) {
            warn!(container = %self.record.spec.name, op = "end", "{error}, ignoring");
        }
        self.publish();
        self.announce_end(&last);
    }

    fn exit_record(&self, run: &Run) -> Option<ExitRecord> {
        match self.engine.store.exit(&self.record.spec.id) {
            Ok(record) => belongs(record, run.record.run),
            Err(error) => {
                warn!(container = %self.record.spec.name, op = "end", "{error}: the exit status is lost");
                None
            }
        }
    }

    fn announce_end(&self, last: &LastRun) {
        let name = self.record.spec.name.clone();
        let status = last.exit.map_or(-1, Exit::status);
        info!(container = %name, op = "end", status, result = last.result.as_str(), "Container {name} ended: {}.", ending(last));
        if last.oom_kills > 0 {
            self.engine.events.send(Change::OutOfMemory { name: name.clone(), count: last.oom_kills });
        }
        self.engine.events.send(Change::ContainerExited { name, status, result: last.result });
    }

    /// The device first: a crash in between leaves a record without a device, which the next start takes as removed.
    async fn delete(&mut self) {
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
        if let Err(error) = self.engine.store.remove_container(&self.record.spec.id) {
            warn!(container = %self.record.spec.name, op = "remove", "{error}, ignoring");
        }
        self.engine.forget(&self.record.spec.name);
    }

    fn rename(&mut self, to: ContainerName) -> Result<(), EngineError> {
        if self.state != State::Resting {
            return Err(self.refusal(Refusal::Active));
        }
        let from = std::mem::replace(&mut self.record.spec.name, to);
        if let Err(error) = self.engine.store.put_container(&self.record, Durability::Synced) {
            self.record.spec.name = from;
            return Err(error.into());
        }
        let view = view(&self.record, self.state, None);
        *self.shared.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Ok(())
    }

    /// Ends every job whose goal is reached or can no longer be.
    fn settle(&mut self) {
        let reached = match self.state {
            State::Running | State::Frozen => Goal::Running,
            State::Resting => Goal::Resting,
            State::Gone => Goal::Gone,
            State::Starting | State::Stopping { .. } => return,
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

    fn fail_waiters(&mut self, goal: Goal, error: &EngineError) {
        for (wanted, job) in std::mem::take(&mut self.waiters) {
            if wanted == goal {
                job.finish(JobResult::from(error));
            } else {
                self.waiters.push((wanted, job));
            }
        }
    }

    fn refuse(&self, request: Request, error: &EngineError) {
        match request {
            Request::Start { job, .. }
            | Request::Stop { job, .. }
            | Request::Restart { job, .. }
            | Request::Remove { job, .. } => job.finish(JobResult::from(error)),
            Request::Freeze { reply, .. } | Request::Rename { reply, .. } => {
                let _ = reply.send(Err(EngineError::NoSuchContainer(self.record.spec.name.to_string())));
            }
        }
    }

    fn refusal(&self, refusal: Refusal) -> EngineError {
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
    fn publish(&self) {
        let now = view(&self.record, self.state, self.run.as_ref());
        let mut shown = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        if *shown != now {
            shown.clone_from(&now);
            drop(shown);
            self.engine.events.send(Change::ContainerChanged(now));
        }
    }

    fn set_handles(&self, handles: Option<Arc<Handles>>) {
        *self.shared.handles.write().unwrap_or_else(PoisonError::into_inner) = handles;
    }

    fn save(&self, durability: Durability) {
        if let Err(error) = self.engine.store.put_container(&self.record, durability) {
            warn!(container = %self.record.spec.name, op = "save", "{error}");
        }
    }

    fn save_run(&self) {
        let Some(run) = &self.run else { return };
        if let Err(error) = self.engine.store.put_run(&self.record.spec.id, &run.record) {
            warn!(container = %self.record.spec.name, op = "save", "{error}");
        }
    }
}

/// How a run ended, in words.
fn ending(last: &LastRun) -> String {
    match last.exit {
        None => last.result.as_str().to_owned(),
        Some(Exit::Code(code)) => format!("{}, status {code}", last.result.as_str()),
        Some(Exit::Signal { number, .. }) => format!("{}, signal {number}", last.result.as_str()),
    }
}

/// How a run ended, as the records keep it. Without an exit record nobody knows.
pub(super) fn last_run(run: &Run, record: Option<&ExitRecord>) -> LastRun {
    let oom_kills = record.map_or(0, |record| record.oom_kills);
    let result = record.map_or(RunResult::Lost, |record| RunResult::of(record.exit, oom_kills > 0, run.record.forced));
    LastRun {
        run: run.record.run,
        exit: record.map(|record| record.exit),
        result,
        failed: failed(result, run.record.stopping),
        stopped_usec: record.map_or_else(now_usec, |record| record.exited_usec),
        oom_kills,
        figures: record.map(|record| record.figures).unwrap_or_default(),
    }
}

/// As with services: an end that nobody asked for and that is no success is a failure, and so is a stop that had to
/// be forced.
pub(super) fn failed(result: RunResult, stopping: bool) -> bool {
    match result {
        RunResult::None | RunResult::Success => false,
        RunResult::Timeout | RunResult::Lost | RunResult::OomKill | RunResult::CoreDump => true,
        RunResult::ExitCode | RunResult::Signal => !stopping,
    }
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
        status_text: record.status_text.clone(),
    }
}
