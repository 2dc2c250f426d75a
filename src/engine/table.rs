//! What the engine's parts share: its tables, its tools, its settings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::container::Container;
use super::devices::{self, Devices};
use super::error::EngineError;
use super::events::Events;
use super::exec::Processes;
use super::jobs::Jobs;
use super::run::{self, Run};
use super::steps::Steps;
use super::view::{ContainerView, Event, ImageView};
use super::{Engine, pressure, reconcile};
use crate::model::{Bytes, ContainerId, ContainerName, ContainerSpec, DeviceId, ImageName, PoolStatus, SnapshotName};
use crate::records::{ContainerRecord, Durability, Store};
use crate::runtime::Launcher;
use crate::storage::{AddOptions, Added, DeviceSet};
use crate::sys::proc;
use crate::systemd::{Machine, Machines, Scopes, notify, scope_name};

/// More than any os-release has.
const OS_RELEASE_LIMIT: u64 = 64 * 1024;

/// How long journald may take to read the last lines of a container that is gone. It reads what it adds to them only then.
const LAST_LINES: Duration = Duration::from_secs(30);

/// What the configuration says about containers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The slice of scopes.
    pub slice: String,
    /// Stop timeout in µs.
    pub stop_timeout_usec: u64,
    /// Largest number of tasks of a container.
    pub pids_limit: Option<u64>,
    /// How many of its last runs a container remembers.
    pub keep_runs: usize,
    /// Whether an image may make itself a whole system, with the privileges of one.
    pub images_may_boot: bool,
}

/// What the engine works with; made by the daemon.
#[derive(Debug)]
pub struct Parts {
    /// The settings.
    pub settings: Settings,
    /// The roots.
    pub devices: Arc<dyn DeviceSet>,
    /// systemd's scopes.
    pub scopes: Arc<dyn Scopes>,
    /// machined, which may be absent or away.
    pub machines: Arc<dyn Machines>,
    /// What starts monitors.
    pub launcher: Arc<dyn Launcher>,
    /// The records.
    pub store: Store,
    /// What an earlier daemon left with the service manager: masters of terminals.
    pub stored: Vec<(String, OwnedFd)>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) devices: Arc<dyn DeviceSet>,
    pub(super) scopes: Arc<dyn Scopes>,
    pub(super) machines: Arc<dyn Machines>,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) store: Store,
    pub(super) events: Events,
    pub(super) jobs: Jobs,
    pub(super) processes: Processes,
    pub(super) closing: AtomicBool,
    /// Whether everything is stopped because the system ends.
    pub(super) system_ends: AtomicBool,
    /// Whether containers may be started that nobody asks for at this moment.
    pub(super) restarts_begun: watch::Sender<bool>,
    /// Told when `closing` becomes true.
    pub(super) closed: tokio::sync::Notify,
    /// Held by whatever changes images.
    pub(super) image_changes: tokio::sync::Mutex<()>,
    /// `None`: the name is reserved by a creation or a renaming that is under way.
    containers: RwLock<BTreeMap<ContainerName, Option<Arc<Container>>>>,
    images: Mutex<BTreeMap<ImageName, ImageView>>,
    /// What is remembered of devices.
    pub(super) held: Devices,
    stored: Mutex<Vec<(String, OwnedFd)>>,
}

impl Engine {
    /// Brings everything back as it is, and starts looking after it. Must be called inside a tokio runtime, where waiting
    /// for the disk is allowed.
    pub fn open(parts: Parts) -> Result<Self, EngineError> {
        let events = Events::new();
        let pool = parts.devices.status()?;
        let inner = Arc::new(Inner {
            settings: parts.settings,
            devices: parts.devices,
            scopes: parts.scopes,
            machines: parts.machines,
            launcher: parts.launcher,
            store: parts.store,
            jobs: Jobs::new(events.clone()),
            processes: Processes::new(events.clone()),
            events,
            closing: AtomicBool::new(false),
            system_ends: AtomicBool::new(false),
            restarts_begun: watch::Sender::new(false),
            closed: tokio::sync::Notify::new(),
            image_changes: tokio::sync::Mutex::default(),
            containers: RwLock::default(),
            images: Mutex::default(),
            held: Devices::new(devices::Pool::new(pool)),
            stored: Mutex::new(parts.stored),
        });
        inner.load_images()?;
        inner.remove_orphaned_layers();
        reconcile::containers(&inner)?;
        inner.forget_stored();
        inner.sweep_logs();
        devices::health::at_start(&inner);
        pressure::watch(&inner);
        tokio::spawn(devices::watch_pool(Arc::clone(&inner)));
        tokio::spawn(clear_empty_scopes(Arc::clone(&inner)));
        Ok(Self { inner })
    }
}

async fn clear_empty_scopes(inner: Arc<Inner>) {
    match inner.scopes.clear_empty().await {
        Ok(0) => {}
        Ok(count) => info!(op = "reconcile", count, "let go of {count} scopes that nobody was in"),
        Err(error) => warn!(op = "reconcile", "cannot look for scopes that nobody is in: {error}, ignoring"),
    }
}

/// A name kept for a container that is being made; given back when dropped.
pub(super) struct Reserved<'a> {
    inner: &'a Inner,
    name: ContainerName,
    kept: bool,
}

impl Inner {
    /// Refuses to start anything once the daemon's end has begun.
    pub(super) fn check_open(&self) -> Result<(), EngineError> {
        if self.closing.load(Ordering::Acquire) { Err(EngineError::ShuttingDown) } else { Ok(()) }
    }

    /// Returns when containers may be started that nobody asks for at this moment.
    pub(super) async fn restarts_may_begin(&self) {
        // The sender is ours.
        let _ = self.restarts_begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Whether stops are because the system ends, and not because somebody asked for them.
    pub(super) fn system_ends(&self) -> bool {
        self.system_ends.load(Ordering::Acquire)
    }

    /// Completes when the daemon's end has begun.
    pub(super) async fn closing(&self) {
        let mut closed = std::pin::pin!(self.closed.notified());
        // Before the look: what is told after it is not missed.
        closed.as_mut().enable();
        if !self.closing.load(Ordering::Acquire) {
            closed.await;
        }
    }

    /// A container by name.
    pub(super) fn find(&self, name: &ContainerName) -> Result<Arc<Container>, EngineError> {
        let table = self.containers.read().unwrap_or_else(PoisonError::into_inner);
        table.get(name).cloned().flatten().ok_or_else(|| EngineError::NoSuchContainer(name.to_string()))
    }

    /// Every container as it is now.
    pub(super) fn views(&self) -> Vec<ContainerView> {
        let table = self.containers.read().unwrap_or_else(PoisonError::into_inner);
        table.values().flatten().map(|container| container.view()).collect()
    }

    /// Every container.
    pub(super) fn all(&self) -> Vec<Arc<Container>> {
        let table = self.containers.read().unwrap_or_else(PoisonError::into_inner);
        table.values().flatten().cloned().collect()
    }

    /// Keeps a name.
    pub(super) fn reserve(&self, name: &ContainerName) -> Result<Reserved<'_>, EngineError> {
        let mut table = self.containers.write().unwrap_or_else(PoisonError::into_inner);
        if table.contains_key(name) {
            return Err(EngineError::NameInUse(name.to_string()));
        }
        table.insert(name.clone(), None);
        Ok(Reserved { inner: self, name: name.clone(), kept: false })
    }

    /// Adds a container that was found at start.
    pub(super) fn insert(&self, name: &ContainerName, container: Arc<Container>) {
        self.containers.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Some(container));
    }

    /// Keeps a name from being taken while its container cannot be shown.
    pub(super) fn block(&self, name: &ContainerName) {
        self.containers.write().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_insert(None);
    }

    /// Moves the container that was called `from` to `to`, which is reserved; its view changes at the same moment.
    pub(super) fn rename(&self, from: &ContainerName, to: ContainerName) {
        let mut table = self.containers.write().unwrap_or_else(PoisonError::into_inner);
        let Some(Some(container)) = table.remove(from) else { return };
        let view = container.show_as(to.clone());
        table.insert(to, Some(container));
        // Under the lock: whoever takes the old name next must be announced after this.
        self.events.send(Event::ContainerRenamed { from: from.clone(), to: view });
    }

    /// Forgets what the journal knows of the lines of a container that is gone, when journald has read the last of them.
    pub(super) fn forget_log_later(self: &Arc<Self>, name: &ContainerName) {
        let (inner, name) = (Arc::clone(self), name.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LAST_LINES).await;
            if inner.find(&name).is_ok() {
                // Somebody else has the name, and the lines, by now.
                return;
            }
            if let Err(error) = inner.scopes.forget_log(&scope_name(&name)) {
                warn!(container = %name, op = "remove", "what the journal knows of its lines stays: {error}, ignoring");
            }
        });
    }

    /// Forgets what the journal knows of containers that went while no daemon ran.
    fn sweep_logs(&self) {
        let units: std::collections::BTreeSet<_> = self.views().into_iter().map(|view| view.unit).collect();
        if let Err(error) = self.scopes.sweep_logs(&|unit| units.contains(unit)) {
            warn!(op = "reconcile", "cannot look at what the journal knows of containers: {error}, ignoring");
        }
    }

    /// Frees the name of a container that is gone.
    pub(super) fn forget(&self, name: &ContainerName) {
        let mut table = self.containers.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(name);
        // Under the lock: whoever takes the name next must be announced after this.
        self.events.send(Event::ContainerRemoved(name.clone()));
    }

    /// The record first, then the root: a crash in between leaves a record without a root, which the next start takes
    /// away.
    pub(super) async fn make_root(
        self: &Arc<Self>,
        record: ContainerRecord,
        origin: DeviceId,
        options: AddOptions,
        mut steps: Steps,
    ) -> Result<(ContainerRecord, Added, Steps), EngineError> {
        let inner = Arc::clone(self);
        blocking(move || {
            let id = record.spec.id.clone();
            let written = inner.store.put_container(&record, Durability::Synced).map_err(EngineError::from);
            steps.lap("Record");
            let made =
                written.and_then(|()| Ok(inner.devices.add_device(&container_device(&id), &origin, &options)?));
            steps.lap("Snapshot");
            made.map(|added| (record, added, steps)).inspect_err(|_| {
                if let Err(kept) = inner.store.remove_container(&id) {
                    warn!(op = "create", "{kept}: the next start of holmd removes it");
                }
            })
        })
        .await
    }

    /// Removes a container's root, and its snapshots after that: what a crash leaves is a record without a root, and
    /// the next start removes the rest. The other way round the container would be there again without its snapshots.
    pub(super) async fn delete_root(
        self: &Arc<Self>,
        id: &ContainerId,
        snapshots: Vec<SnapshotName>,
    ) -> Result<(), EngineError> {
        let (inner, id) = (Arc::clone(self), id.clone());
        blocking(move || {
            inner.devices.remove_device(&container_device(&id))?;
            inner.delete_snapshots(&id, snapshots.iter())
        })
        .await
    }

    /// Removes snapshots of a container.
    pub(super) fn delete_snapshots<'a>(
        &self,
        id: &ContainerId,
        mut snapshots: impl Iterator<Item = &'a SnapshotName>,
    ) -> Result<(), EngineError> {
        snapshots.try_for_each(|snapshot| Ok(self.devices.remove_device(&snapshot_device(id, snapshot)).map(drop)?))
    }

    /// Removes a container that was to live for one run, which ended while no daemon ran.
    pub(super) fn remove_leftover(&self, record: &ContainerRecord) {
        let id = &record.spec.id;
        let removed = self
            .devices
            .remove_device(&container_device(id))
            .map_err(EngineError::from)
            .and_then(|_| self.delete_snapshots(id, record.snapshots.keys()))
            .and_then(|()| Ok(self.store.remove_container(&record.spec.id)?));
        if let Err(error) = removed {
            warn!(container = %record.spec.name, op = "reconcile", "{error}: the next start tries again");
        }
    }

    /// Tells machined, without waiting for it.
    pub(super) fn register_machine(self: &Arc<Self>, spec: &ContainerSpec, leader: u32) {
        let name = spec.name.clone();
        let machine = Machine { name: name.clone(), id: spec.id.to_bytes(), leader, interfaces: Vec::new() };
        // The list is changed now, in the order of starts and ends; only machined is told later.
        let registered = self.machines.register(machine);
        tokio::spawn(async move {
            if let Err(error) = registered.await {
                if proc::stat(leader).is_err() {
                    // It had ended before machined came to look.
                    return;
                }
                warn!(container = %name, op = "register-machine", "machined did not take the container: {error}, ignoring");
            }
        });
    }

    /// Takes a container's machine off machined's list, without waiting for it. The next run has to: see [`Machines::see_off`].
    pub(super) fn unregister_machine(self: &Arc<Self>, name: &ContainerName) -> JoinHandle<()> {
        tokio::spawn(self.machines.unregister(name))
    }

    /// The terminal that an earlier daemon kept for the container.
    pub(super) fn stored_terminal(&self, spec: &ContainerSpec) -> Option<OwnedFd> {
        self.take_stored(&terminal_name(spec))
    }

    /// The socket that an earlier daemon kept for what the container's payload says about itself.
    pub(super) fn stored_notified(&self, spec: &ContainerSpec) -> Option<OwnedFd> {
        self.take_stored(&notified_name(spec))
    }

    /// The pidfd of the run's leader that an earlier daemon kept.
    pub(super) fn stored_leader(&self, spec: &ContainerSpec, run: u64) -> Option<OwnedFd> {
        self.take_stored(&leader_name(spec, run))
    }

    /// Looks at it without taking it: what is not taken is given back when all containers are known.
    pub(super) fn with_stored_leader<T>(
        &self,
        spec: &ContainerSpec,
        run: u64,
        look: impl FnOnce(&OwnedFd) -> T,
    ) -> Option<T> {
        let wanted = leader_name(spec, run);
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.iter().find(|(name, _)| *name == wanted).map(|(_, leader)| look(leader))
    }

    fn take_stored(&self, wanted: &str) -> Option<OwnedFd> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let index = stored.iter().position(|(name, _)| name == wanted)?;
        Some(stored.swap_remove(index).1)
    }

    /// Drops, here and at the service manager, what belongs to no container that runs.
    fn forget_stored(&self) {
        let stored = std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, _) in stored {
            if let Err(error) = notify::forget(&name) {
                warn!(op = "reconcile", "the service manager keeps '{name}': {error}, ignoring");
            }
        }
    }

    /// The images, locked.
    pub(super) fn images(&self) -> MutexGuard<'_, BTreeMap<ImageName, ImageView>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How large a container's root is; `None` where the driver sets no bound.
    pub(super) fn root_size(&self, id: &ContainerId) -> Option<Bytes> {
        self.devices.device(&container_device(id)).ok().map(|device| device.size).filter(|size| size.0 > 0)
    }

    /// The pool's numbers as of the last look.
    pub(super) fn pool(&self) -> PoolStatus {
        self.held.pool.get()
    }

    fn load_images(&self) -> Result<(), EngineError> {
        for image in self.store.images()? {
            match image {
                Ok(image) => {
                    self.images().insert(image.name.clone(), Arc::new(image));
                }
                Err(error) => warn!(op = "load-images", "{error}, ignoring this image"),
            }
        }
        Ok(())
    }
}

impl Reserved<'_> {
    /// The name.
    pub(super) fn name(&self) -> &ContainerName {
        &self.name
    }

    /// Puts the container in the name's place.
    pub(super) fn fill(mut self, container: Arc<Container>) -> ContainerView {
        self.kept = true;
        let view = container.view();
        self.inner.insert(&self.name, container);
        self.inner.events.send(Event::ContainerNew(view.clone()));
        view
    }

    /// Leaves the name to the container that has been renamed to it.
    pub(super) fn given_away(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut table = self.inner.containers.write().unwrap_or_else(PoisonError::into_inner);
        if !self.kept && table.get(&self.name).is_some_and(Option::is_none) {
            table.remove(&self.name);
        }
    }
}

/// The device of a container's root.
pub(super) fn container_device(id: &ContainerId) -> DeviceId {
    DeviceId::parse(&format!("container:{id}")).expect("an id is 32 hexadecimal digits")
}

/// The device of a snapshot of a container.
pub(super) fn snapshot_device(id: &ContainerId, snapshot: &SnapshotName) -> DeviceId {
    DeviceId::parse(&format!("snapshot:{id}:{snapshot}")).expect("both names are letters of a device id, and short")
}

/// The name under which the service manager keeps a container's terminal.
fn terminal_name(spec: &ContainerSpec) -> String {
    format!("terminal-{}", spec.id)
}

/// Lets the service manager keep the master of a container's terminal over a restart of the daemon: it must stay open
/// as long as the container lives.
pub(super) fn keep_terminal(spec: &ContainerSpec, terminal: &OwnedFd) {
    if let Err(error) = notify::store(&terminal_name(spec), terminal) {
        warn!(container = %spec.name, op = "start", "the service manager does not keep the terminal: {error}, ignoring");
    }
}

/// Gives it back.
pub(super) fn release_terminal(spec: &ContainerSpec) {
    if let Err(error) = notify::forget(&terminal_name(spec)) {
        warn!(container = %spec.name, op = "end", "the service manager keeps the terminal: {error}, ignoring");
    }
}

/// As the terminal: what the payload says while no daemon runs is heard by the next.
pub(super) fn keep_notified(spec: &ContainerSpec, socket: &OwnedFd) {
    if let Err(error) = notify::store(&notified_name(spec), socket) {
        warn!(container = %spec.name, op = "start", "the service manager does not keep the socket for notifications: {error}, ignoring");
    }
}

/// Gives it back.
pub(super) fn release_notified(spec: &ContainerSpec) {
    if let Err(error) = notify::forget(&notified_name(spec)) {
        warn!(container = %spec.name, op = "end", "the service manager keeps the socket for notifications: {error}, ignoring");
    }
}

fn notified_name(spec: &ContainerSpec) -> String {
    format!("notify-{}", spec.id)
}

/// The name under which the service manager keeps the pidfd of a run's leader.
fn leader_name(spec: &ContainerSpec, run: u64) -> String {
    format!("leader-{}-{run}", spec.id)
}

/// Lets the service manager keep the leader's pidfd over a death of the daemon, a moment from now: should the monitor be
/// killed as well, the kernel tells through it how the leader ended.
pub(super) fn keep_leader(spec: &ContainerSpec, run: &Run) {
    let (spec, number, handles) = (spec.clone(), run.record.run, Arc::clone(&run.handles));
    tokio::spawn(async move {
        tokio::time::sleep(run::MOMENT).await;
        handles.store_leader(|leader| {
            if let Err(error) = notify::store(&leader_name(&spec, number), leader) {
                warn!(container = %spec.name, op = "start", "the service manager does not keep the leader: {error}, ignoring");
            }
        });
    });
}

/// Gives it back.
pub(super) fn release_leader(spec: &ContainerSpec, run: &Run) {
    if !run.handles.stop_storing() {
        return;
    }
    if let Err(error) = notify::forget(&leader_name(spec, run.record.run)) {
        warn!(container = %spec.name, op = "end", "the service manager keeps the leader: {error}, ignoring");
    }
}

/// The one place where blocking work leaves the async world.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads a container's os-release with every link resolved below its root (rule R2).
pub(super) fn os_release(leader: u32) -> Vec<(String, String)> {
    let Ok(root) = rustix::fs::openat(
        CWD,
        Path::new(&format!("/proc/{leader}/root")),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return Vec::new();
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| openat2(&root, *path, flags, Mode::empty(), resolve).ok())
        .map(|file| parse_os_release(File::from(file)))
        .unwrap_or_default()
}

fn parse_os_release(file: File) -> Vec<(String, String)> {
    let mut text = String::new();
    let regular = file.metadata().is_ok_and(|data| data.is_file());
    if !regular || file.take(OS_RELEASE_LIMIT).read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    let unquote = |value: &str| value.trim_matches(['"', '\'']).to_owned();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), unquote(value.trim())))
        .collect()
}
