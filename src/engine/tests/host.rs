//! A host for one test: the true engine and records, with fakes below it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use crate::engine::{
    ContainerView, CreateRequest, Engine, EngineError, Event, JobId, JobResult, Parts, RemoveOptions, RunIo, Settings,
    StopOptions,
};
use crate::model::{
    Bytes, ContainerName, DeviceId, DeviceInfo, DeviceState, Driver, ImageConfig, ImageInfo, ImageName, PoolState,
    PoolStatus, RunResult, Status,
};
use crate::records::Store;
use crate::runtime::fake::FakeLauncher;
use crate::storage::{
    self, Access, AddOptions, Added, BASE, DeviceGrowth, DeviceSet, LeaseInfo, MountedDevice, PressureListener,
    Removal, Report, StorageError, Trimmed,
};
use crate::sys::pidfd;
use crate::systemd::fake::{FakeMachines, FakeScopes};

/// What survives a daemon.
pub(super) struct Host {
    pub(super) devices: Arc<Faulty>,
    pub(super) scopes: Arc<FakeScopes>,
    pub(super) machines: Arc<FakeMachines>,
    pub(super) launcher: FakeLauncher,
    /// What a daemon left with the service manager.
    stored: Mutex<Vec<(String, OwnedFd)>>,
    directory: tempfile::TempDir,
}

/// Long enough for anything on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

impl Host {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = DeviceId::parse(BASE).unwrap();
        let config = ImageConfig { command: vec!["sleep".into(), "1000".into()], ..ImageConfig::default() };
        let image = ImageInfo {
            name: ImageName::parse("box").unwrap(),
            digest: "sha256:0".into(),
            size: Bytes(0),
            created_usec: 0,
            layers: Vec::new(),
            device: base,
            devices: Vec::new(),
            config,
        };
        let host = Self {
            devices: Arc::new(Faulty {
                set: storage::in_memory(),
                failing: Mutex::default(),
                read_only: AtomicBool::default(),
            }),
            scopes: Arc::new(FakeScopes::with_control_groups(&directory.path().join("cgroup"))),
            machines: Arc::default(),
            launcher: FakeLauncher::default(),
            stored: Mutex::default(),
            directory,
        };
        host.store().put_image(&image).unwrap();
        host
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.path("state"), &self.path("run")).unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A daemon starts.
    pub(super) fn open(&self) -> Engine {
        let parts = Parts {
            settings: Settings {
                slice: "holm.slice".into(),
                stop_timeout_usec: 20_000_000,
                pids_limit: None,
                keep_runs: 3,
                images_may_boot: false,
            },
            devices: Arc::clone(&self.devices) as Arc<dyn DeviceSet>,
            scopes: Arc::clone(&self.scopes) as _,
            machines: Arc::clone(&self.machines) as _,
            launcher: Arc::new(self.launcher.clone()),
            store: self.store(),
            stored: std::mem::take(&mut *self.stored.lock().unwrap()),
        };
        let engine = Engine::open(parts).unwrap();
        engine.begin_restarts();
        engine
    }

    /// The next daemon gets this from the service manager.
    pub(super) fn leave_with_service_manager(&self, name: &str, fd: OwnedFd) {
        self.stored.lock().unwrap().push((name.to_owned(), fd));
    }

    /// Does something with a daemon, which is killed then.
    pub(super) fn with_daemon<T>(&self, work: impl AsyncFnOnce(Engine) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let result = runtime.block_on(async { work(self.open()).await });
        runtime.shutdown_background();
        result
    }

    /// What is left of any container, eventually: nothing.
    pub(super) async fn nothing_is_left(&self) {
        let end = Instant::now() + PATIENCE;
        while let Some(left) = self.left() {
            assert!(Instant::now() < end, "left: {left}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn left(&self) -> Option<String> {
        let devices: Vec<_> = self.devices.devices().unwrap().into_iter().map(|device| device.id.to_string()).collect();
        let records = names(&self.path("state/containers"));
        let runs = names(&self.path("run/run"));
        let (units, machines) = (self.scopes.units(), self.machines.list());
        let alive = self.launcher.alive();
        let clean = devices == [BASE]
            && records.is_empty()
            && runs.is_empty()
            && units.is_empty()
            && machines.is_empty()
            && alive == 0;
        let left = || format!("{devices:?} {records:?} {runs:?} {units:?} {machines:?}, {alive} processes");
        (!clean).then(left)
    }
}

pub(super) fn names(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Whether this kernel tells how a process of others ended (Linux 6.15).
pub(super) fn kernel_tells() -> bool {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pidfd = pidfd::open(child.id()).unwrap();
    child.wait().unwrap();
    pidfd::exit_status(&pidfd).unwrap().is_some()
}

/// What is known of a stop whose end nobody saw.
pub(super) fn killed_unseen() -> (RunResult, Status) {
    if kernel_tells() { (RunResult::Signal, Status::Stopped) } else { (RunResult::Lost, Status::Failed) }
}

pub(super) fn name(text: &str) -> ContainerName {
    ContainerName::parse(text).unwrap()
}

/// A container of `box` that runs this in a shell; without a text, what the image says.
pub(super) fn request(container: &str, shell: &str) -> CreateRequest {
    let command = if shell.is_empty() { Vec::new() } else { ["sh", "-c", shell].map(str::to_owned).to_vec() };
    CreateRequest {
        name: Some(name(container)),
        image: Some(ImageName::parse("box").unwrap()),
        command,
        ..CreateRequest::default()
    }
}

/// The verbs, each to its end.
pub(super) trait Verbs {
    async fn done(&self, ask: impl FnOnce(&Engine) -> Result<JobId, EngineError>) -> Result<JobResult, EngineError>;
    async fn started(&self, container: &str);
    /// Starts one that ignores SIGTERM, and waits until it does.
    async fn started_deaf(&self, container: &str);
    async fn stopped(&self, container: &str);
    async fn removed(&self, container: &str);
    async fn reaches(&self, container: &str, status: Status) -> ContainerView;
    fn look(&self, container: &str) -> ContainerView;
}

impl Verbs for Engine {
    async fn done(&self, ask: impl FnOnce(&Engine) -> Result<JobId, EngineError>) -> Result<JobResult, EngineError> {
        let events = self.subscribe();
        let id = ask(self)?;
        Ok(end_of(events, id).await)
    }

    async fn started(&self, container: &str) {
        let result = self.done(|engine| engine.start(&name(container), RunIo::default())).await.unwrap();
        assert_eq!(result, JobResult::Done);
    }

    async fn started_deaf(&self, container: &str) {
        self.started(container).await;
        let status = format!("/proc/{}/status", self.look(container).leader);
        let ignored = || {
            let text = std::fs::read_to_string(&status).unwrap();
            let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap() & 1 << (libc::SIGTERM - 1) != 0
        };
        let deaf = async {
            while !ignored() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, deaf).await.unwrap();
    }

    async fn stopped(&self, container: &str) {
        let result = self.done(|engine| engine.stop(&name(container), StopOptions::default())).await.unwrap();
        assert_eq!(result, JobResult::Done);
    }

    async fn removed(&self, container: &str) {
        let result = self.done(|engine| engine.remove(&name(container), RemoveOptions { force: true })).await.unwrap();
        assert_eq!(result, JobResult::Done);
    }

    async fn reaches(&self, container: &str, status: Status) -> ContainerView {
        let end = Instant::now() + PATIENCE;
        loop {
            let view = self.look(container);
            if view.status == status {
                return view;
            }
            assert!(Instant::now() < end, "{container} is {:?}, not {status:?}", view.status);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn look(&self, container: &str) -> ContainerView {
        self.container(&name(container)).unwrap()
    }
}

pub(super) async fn end_of(mut events: broadcast::Receiver<Event>, id: JobId) -> JobResult {
    let end = async {
        loop {
            if let Event::JobRemoved(job) = events.recv().await.unwrap()
                && job.id == id
            {
                return job.result.unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("every job ends")
}

/// A DeviceSet that fails when told to.
#[derive(Debug)]
pub(super) struct Faulty {
    set: Arc<dyn DeviceSet>,
    failing: Mutex<BTreeMap<&'static str, usize>>,
    read_only: AtomicBool,
}

impl Faulty {
    /// From now on it says that it is read-only, or not.
    pub(super) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// The next call of this method fails.
    pub(super) fn fail_next(&self, method: &'static str) {
        *self.failing.lock().unwrap().entry(method).or_default() += 1;
    }

    fn fail_at(&self, method: &'static str) -> Result<(), StorageError> {
        match self.failing.lock().unwrap().get_mut(method) {
            Some(left) if *left > 0 => {
                *left -= 1;
                let advice = "as the test wants it";
                Err(StorageError::PoolState { pool: "t-pool".into(), state: "failed", advice })
            }
            _ => Ok(()),
        }
    }
}

impl DeviceSet for Faulty {
    fn driver(&self) -> Driver {
        self.set.driver()
    }

    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError> {
        self.fail_at("add").and_then(|()| self.set.add_device(id, base, options))
    }

    fn resize_device(&self, id: &DeviceId, size: Bytes) -> Result<DeviceInfo, StorageError> {
        self.set.resize_device(id, size)
    }

    fn rollback_device(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError> {
        self.set.rollback_device(id, to)
    }

    fn activate_device(&self, id: &DeviceId) -> Result<PathBuf, StorageError> {
        self.set.activate_device(id)
    }

    fn deactivate_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.set.deactivate_device(id)
    }

    fn backing(&self) -> Result<PathBuf, StorageError> {
        self.set.backing()
    }

    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        self.set.exclusive()
    }

    fn complete_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.set.complete_device(id)
    }

    fn remove_device(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        self.fail_at("remove").and_then(|()| self.set.remove_device(id))
    }

    fn mount_device_for(&self, id: &DeviceId, access: Access, purpose: &str) -> Result<MountedDevice, StorageError> {
        self.fail_at("mount").and_then(|()| self.set.mount_device_for(id, access, purpose))
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        self.set.leases()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, StorageError> {
        let mut devices = self.set.devices()?;
        devices.retain(|device| device.state != DeviceState::Removing);
        Ok(devices)
    }

    fn device(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError> {
        self.set.device(id)
    }

    fn status(&self) -> Result<PoolStatus, StorageError> {
        let mut status = self.set.status()?;
        if self.read_only.load(Ordering::Relaxed) {
            status.state = PoolState::ReadOnly;
        }
        Ok(status)
    }

    fn grow(&self, data: Bytes, metadata: Bytes) -> Result<PoolStatus, StorageError> {
        self.set.grow(data, metadata)
    }

    fn trim(&self) -> Result<Trimmed, StorageError> {
        self.set.trim()
    }

    fn trim_device(&self, id: &DeviceId) -> Result<Bytes, StorageError> {
        self.set.trim_device(id)
    }

    fn check(&self) -> Result<Report, StorageError> {
        self.set.check()
    }

    fn repair(&self) -> Result<Report, StorageError> {
        self.set.repair()
    }

    fn foreign(&self) -> Vec<u32> {
        self.set.foreign()
    }

    fn remove_foreign(&self, thin_id: u32) -> Result<Removal, StorageError> {
        self.set.remove_foreign(thin_id)
    }

    fn growth(&self) -> Vec<DeviceGrowth> {
        self.set.growth()
    }

    fn on_pressure(&self, listener: PressureListener) {
        self.set.on_pressure(listener);
    }

    fn warnings(&self) -> Vec<String> {
        self.set.warnings()
    }

    fn close(&self) -> Result<(), StorageError> {
        self.set.close()
    }
}
