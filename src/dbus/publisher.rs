//! Events of the engine → objects and signals. One task does it, in the order in which things happened.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, Variant, fdo};

use super::container::Container;
use super::device_set::DeviceSet;
use super::door::{Door, Settle};
use super::image::Image;
use super::job::Job;
use super::manager::Manager;
use super::paths::{self, Path};
use super::process::Process;
use super::standard;
use super::table::{Latest, Table};
use super::tree::{self, Tree};
use crate::engine::{ContainerView, Engine, Event, ImageView, JobId, JobResult, JobView, ProcessId, ProcessView};
use crate::model::{ContainerName, ErrorCode, Exit, ImageName, PoolStatus};

/// How long the object of a process stays after its end.
const LINGER: Duration = Duration::from_secs(60);

/// Where the truth is read when events are not enough: at the beginning, and after some were missed.
pub(super) trait Truth: Send + Sync {
    fn containers(&self) -> Vec<ContainerView>;
    fn images(&self) -> Vec<ImageView>;
    fn jobs(&self) -> Vec<JobView>;
    fn process(&self, id: ProcessId) -> Option<ProcessView>;
    fn pool(&self) -> PoolStatus;
}

impl Truth for Engine {
    fn containers(&self) -> Vec<ContainerView> {
        Engine::containers(self)
    }
    fn images(&self) -> Vec<ImageView> {
        Engine::images(self)
    }
    fn jobs(&self) -> Vec<JobView> {
        Engine::jobs(self)
    }
    fn process(&self, id: ProcessId) -> Option<ProcessView> {
        Engine::process(self, id).ok()
    }
    fn pool(&self) -> PoolStatus {
        Engine::pool(self)
    }
}

/// The only one who adds and removes objects and sets their views.
pub(super) struct Publisher<T> {
    pub(super) truth: T,
    pub(super) connection: Connection,
    pub(super) table: Arc<Table>,
    pub(super) tree: Arc<Tree>,
    pub(super) pool: Arc<Latest<PoolStatus>>,
    pub(super) door: Door,
    /// Processes that have ended, oldest first, and when their objects go.
    pub(super) ended: VecDeque<(Instant, ProcessId)>,
}

impl<T: Truth> Publisher<T> {
    /// Publishes what is there, then what happens, until the engine is gone. Answers each `settle` when all that was
    /// sent before it is on the bus.
    pub(super) async fn run(
        mut self,
        mut events: broadcast::Receiver<Event>,
        mut settle: mpsc::UnboundedReceiver<Settle>,
    ) {
        loop {
            let next_to_go = self.ended.front().map(|(when, _)| *when);
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => self.publish(event).await,
                    Err(RecvError::Lagged(missed)) => self.catch_up(missed, &mut events).await,
                    Err(RecvError::Closed) => return,
                },
                Some(waiter) = settle.recv() => {
                    let missed = self.drain(&mut events).await;
                    if missed > 0 {
                        self.catch_up(missed, &mut events).await;
                    }
                    // A waiter who is gone needs no answer.
                    let _ = waiter.send(());
                },
                () = sleep_until(next_to_go.unwrap_or_else(Instant::now)), if next_to_go.is_some() => {
                    let result = self.forget_oldest_process().await;
                    self.log(result);
                }
            }
        }
    }

    /// Publishes what is queued now, and not what comes while it does so. Returns how many events were missed.
    async fn drain(&mut self, events: &mut broadcast::Receiver<Event>) -> u64 {
        let mut missed = 0;
        for _ in 0..events.len() {
            match events.try_recv() {
                Ok(event) => self.publish(event).await,
                Err(TryRecvError::Lagged(more)) => missed += more,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        missed
    }

    async fn publish(&mut self, event: Event) {
        let result = self.apply(event).await;
        self.log(result);
    }

    /// A signal that cannot be sent means that the bus is gone; whoever holds the connection notices that.
    fn log(&self, result: zbus::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("cannot tell the bus what happened, ignoring: {error}");
        }
    }

    pub(super) async fn apply(&mut self, event: Event) -> zbus::Result<()> {
        match event {
            Event::ContainerNew(view) | Event::ContainerChanged(view) => self.container(view).await,
            Event::ContainerExited { name, status, result } => {
                Container::exited(&self.at(paths::container(&name)), status, result.as_str()).await
            }
            Event::OutOfMemory { name, count } => {
                Container::out_of_memory(&self.at(paths::container(&name)), count).await
            }
            Event::ContainerRemoved(name) => self.container_removed(&name).await,
            Event::ContainerRenamed { from, to } => {
                self.container_removed(&from).await?;
                self.container(to).await
            }
            Event::ImageNew(view) => self.image(view).await,
            Event::ImageRemoved(name) => self.image_removed(&name).await,
            Event::JobNew(view) | Event::JobChanged(view) => self.job(view).await,
            Event::JobRemoved(view) => self.job_removed(view).await,
            Event::ProcessNew(view) => self.process(view).await,
            Event::ProcessExited(view) => self.process_exited(view).await,
            Event::PoolChanged => self.pool().await,
        }
    }

    // ---- containers

    async fn container(&self, view: ContainerView) -> zbus::Result<()> {
        let name = view.name().clone();
        let path = paths::container(&name);
        if let Some(latest) = self.table.containers.get(&name) {
            if latest.get().id() == view.id() {
                return self.update::<Container, _>(path, &latest, view).await;
            }
            // The end of the former one of this name was missed.
            self.container_removed(&name).await?;
        }
        let latest = self.table.containers.insert(name.clone(), view);
        self.add(&path, Container::new(self.door.clone(), latest)).await?;
        Manager::container_new(&self.root(), name.as_str(), path).await
    }

    async fn container_removed(&self, name: &ContainerName) -> zbus::Result<()> {
        if !self.table.containers.remove(name) {
            return Ok(());
        }
        for process in self.table.processes.views().into_iter().filter(|process| process.container == *name) {
            self.forget_process(process.id).await?;
        }
        let path = paths::container(name);
        self.remove::<Container>(&path).await?;
        Manager::container_removed(&self.root(), name.as_str(), path).await
    }

    // ---- processes

    async fn process(&self, view: ProcessView) -> zbus::Result<()> {
        let path = paths::process(&view.container, view.id);
        if let Some(latest) = self.table.processes.get(&view.id) {
            return self.update::<Process, _>(path, &latest, view).await;
        }
        if self.table.containers.get(&view.container).is_none() {
            // Its container went first: an object that nobody can find is of no use.
            return Ok(());
        }
        let latest = self.table.processes.insert(view.id, view);
        self.add(&path, Process::new(self.door.clone(), latest)).await
    }

    async fn process_exited(&mut self, view: ProcessView) -> zbus::Result<()> {
        let (id, status) = (view.id, view.exit.map_or(-1, Exit::status));
        if let (Some(owner), Ok(room)) = (&view.owner, self.door.open()) {
            room.callers.ended(owner, id);
        }
        let path = paths::process(&view.container, id);
        self.ended.push_back((Instant::now() + LINGER, id));
        self.process(view).await?;
        Process::exited(&self.at(path), status).await
    }

    pub(super) async fn forget_oldest_process(&mut self) -> zbus::Result<()> {
        match self.ended.pop_front() {
            Some((_, id)) => self.forget_process(id).await,
            None => Ok(()),
        }
    }

    async fn forget_process(&self, id: ProcessId) -> zbus::Result<()> {
        let Some(latest) = self.table.processes.get(&id) else { return Ok(()) };
        self.table.processes.remove(&id);
        self.remove::<Process>(&paths::process(&latest.get().container, id)).await
    }

    // ---- images

    async fn image(&self, view: ImageView) -> zbus::Result<()> {
        let name = view.name.clone();
        let path = paths::image(&name);
        if let Some(latest) = self.table.images.get(&name) {
            return self.update::<Image, _>(path, &latest, view).await;
        }
        let latest = self.table.images.insert(name.clone(), view);
        self.add(&path, Image::new(self.door.clone(), latest)).await?;
        Manager::image_new(&self.root(), name.as_str(), path).await
    }

    async fn image_removed(&self, name: &ImageName) -> zbus::Result<()> {
        if !self.table.images.remove(name) {
            return Ok(());
        }
        let path = paths::image(name);
        self.remove::<Image>(&path).await?;
        Manager::image_removed(&self.root(), name.as_str(), path).await
    }

    // ---- jobs

    async fn job(&self, view: JobView) -> zbus::Result<()> {
        let (id, path) = (view.id, paths::job(view.id));
        if let Some(latest) = self.table.jobs.get(&id) {
            return self.update::<Job, _>(path, &latest, view).await;
        }
        let latest = self.table.jobs.insert(id, view);
        self.add(&path, Job::new(self.door.clone(), latest)).await?;
        Manager::job_new(&self.root(), id, path).await
    }

    /// The object is brought to its end state first, so that whoever follows its properties has the result and the
    /// message when `JobRemoved` comes.
    async fn job_removed(&self, view: JobView) -> zbus::Result<()> {
        let (id, path) = (view.id, paths::job(view.id));
        let subject = view.subject.clone();
        let result = view.result.as_ref().map_or("done", JobResult::as_str);
        self.job(view).await?;
        Manager::job_removed(&self.root(), id, path.clone(), &subject, result).await?;
        self.table.jobs.remove(&id);
        self.remove::<Job>(&path).await
    }

    // ---- the pool

    async fn pool(&self) -> zbus::Result<()> {
        self.update::<DeviceSet, _>(path_of(paths::DEVICE_SET), &self.pool, self.truth.pool()).await
    }

    // ---- everything

    /// Makes the bus true after events were missed. What is still queued goes first, because it is older than the truth.
    async fn catch_up(&mut self, missed: u64, events: &mut broadcast::Receiver<Event>) {
        tracing::warn!(missed, "the bus fell behind the engine by {missed} events: comparing everything anew");
        self.drain(events).await;
        let result = self.reconcile().await;
        self.log(result);
        // A job that is gone has its end in the queue by now, or it was among the missed.
        let gone = self.jobs_that_are_gone();
        self.drain(events).await;
        let result = self.end_unseen(gone).await;
        self.log(result);
    }

    /// Makes the bus true without events. Signals that were missed are not made up, with one exception: a job that is
    /// gone gets its end (see [`catch_up`](Self::catch_up)), because somebody may be waiting for it.
    pub(super) async fn reconcile(&mut self) -> zbus::Result<()> {
        self.reconcile_containers().await?;
        self.reconcile_images().await?;
        self.reconcile_processes().await?;
        self.pool().await?;
        for view in self.truth.jobs() {
            self.job(view).await?;
        }
        Ok(())
    }

    async fn reconcile_containers(&self) -> zbus::Result<()> {
        let views = self.truth.containers();
        let there: BTreeSet<_> = views.iter().map(|view| view.name().clone()).collect();
        for name in self.table.containers.keys().iter().filter(|name| !there.contains(name)) {
            self.container_removed(name).await?;
        }
        for view in views {
            self.container(view).await?;
        }
        Ok(())
    }

    async fn reconcile_images(&self) -> zbus::Result<()> {
        let views = self.truth.images();
        let there: BTreeSet<_> = views.iter().map(|view| view.name.clone()).collect();
        for name in self.table.images.keys().iter().filter(|name| !there.contains(name)) {
            self.image_removed(name).await?;
        }
        for view in views {
            self.image(view).await?;
        }
        Ok(())
    }

    async fn reconcile_processes(&mut self) -> zbus::Result<()> {
        for before in self.table.processes.views() {
            match self.truth.process(before.id) {
                None => self.forget_process(before.id).await?,
                Some(now) if now.ended && !before.ended => self.process_exited(now).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn jobs_that_are_gone(&self) -> Vec<JobId> {
        let there: BTreeSet<JobId> = self.truth.jobs().iter().map(|view| view.id).collect();
        self.table.jobs.keys().into_iter().filter(|id| !there.contains(id)).collect()
    }

    /// Ends those of the jobs that have not ended meanwhile.
    pub(super) async fn end_unseen(&self, gone: Vec<JobId>) -> zbus::Result<()> {
        for latest in gone.iter().filter_map(|id| self.table.jobs.get(id)) {
            self.job_removed(ended_unseen(&latest.get())).await?;
        }
        Ok(())
    }

    // ---- objects

    async fn add<I: Interface>(&self, path: &Path, object: I) -> zbus::Result<()> {
        standard::add(&self.connection, &self.tree, path, object).await
    }

    async fn remove<I: Interface>(&self, path: &Path) -> zbus::Result<()> {
        standard::remove::<I>(&self.connection, &self.tree, path).await
    }

    /// Sets an object's view and sends one `PropertiesChanged` with the properties that are different now.
    async fn update<I: Interface, V: PartialEq>(&self, path: Path, latest: &Latest<V>, view: V) -> zbus::Result<()> {
        if *latest.get() == view {
            return Ok(());
        }
        let before = tree::properties::<I>(&self.connection, &path).await?;
        latest.set(view);
        let after = tree::properties::<I>(&self.connection, &path).await?;
        let changed: HashMap<&str, Variant<'_>> = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            .map(|(name, value)| Ok((name.as_str(), value.try_clone()?.into())))
            .collect::<zbus::Result<_>>()?;
        if changed.is_empty() {
            return Ok(());
        }
        let name: InterfaceName<'_> = I::name();
        fdo::Properties::properties_changed(&self.at(path), name, changed, Cow::Borrowed(&[])).await
    }

    fn root(&self) -> SignalEmitter<'static> {
        self.at(path_of(paths::ROOT))
    }

    fn at(&self, path: Path) -> SignalEmitter<'static> {
        SignalEmitter::from_parts(self.connection.clone(), path)
    }
}

fn path_of(path: &'static str) -> Path {
    Path::from_static_str_unchecked(path)
}

/// The end of a job whose end was missed. What it did is not known here, so it is not called done.
fn ended_unseen(before: &JobView) -> JobView {
    let message = "the bus missed how the job ended: look at the state of what it was about".to_owned();
    let failed = JobResult::Failed { code: ErrorCode::StateFailed, message };
    JobView { result: Some(before.result.clone().unwrap_or(failed)), ..before.clone() }
}
