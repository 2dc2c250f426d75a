//! A backend in memory, with the kernel's error numbers, that can crash before and after every step. What is on a
//! device is a real directory, so that mounts are real descriptors and trees real trees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::{Files, Host, Mode, Node, Nodes, Numbers, Part, Pool, Spec};
use super::core::lock;
use super::journal::Log;
use super::metadata::{Details, Listing};
use crate::model::Bytes;
use crate::storage::{Access, StorageError};

/// Counts steps down to a crash; after it nothing has any effect until the next start.
#[derive(Debug)]
pub(super) struct Crash {
    steps_left: AtomicI64,
    crashed: AtomicBool,
}

impl Crash {
    fn new() -> Arc<Self> {
        Arc::new(Self { steps_left: AtomicI64::new(i64::MAX), crashed: AtomicBool::new(false) })
    }

    /// Lets `steps` steps pass, then crashes.
    pub(super) fn after(&self, steps: i64) {
        self.steps_left.store(steps, Ordering::SeqCst);
    }

    pub(super) fn happened(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    fn step(&self) -> io::Result<()> {
        if self.happened() || self.steps_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.crashed.store(true, Ordering::SeqCst);
            return Err(io::Error::other("crashed"));
        }
        Ok(())
    }

    fn reset(&self) {
        self.after(i64::MAX);
        self.crashed.store(false, Ordering::SeqCst);
    }
}

/// How the machine or the process went down.
#[derive(Debug, Clone, Copy)]
pub(super) enum Death {
    /// Only the process: nodes and the page cache stay.
    Killed,
    /// The power: nodes go; of journal bytes not yet on the disk this many survive, and then zeros.
    PowerCut(usize),
}

/// A pool, its nodes and the journal beside it.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Model {
    pub(super) crash: Arc<Crash>,
    inner: Arc<Mutex<Inner>>,
    log: Arc<Mutex<LogState>>,
    directory: Arc<tempfile::TempDir>,
}

#[derive(Debug)]
struct Inner {
    transaction: u64,
    thins: BTreeMap<u32, Thin>,
    nodes: BTreeMap<String, ModelNode>,
    serial: u32,
    numbers: Numbers,
    /// Blocks that devices map, where it is not the usual.
    mapped: BTreeMap<u32, u64>,
    /// None of it is free, so the pool does not grow unless a test says otherwise.
    host: Host,
}

#[derive(Debug, Clone)]
struct Thin {
    stamp: u64,
    content: PathBuf,
}

#[derive(Debug, Clone)]
struct ModelNode {
    node: Node,
    thin: u32,
    content: PathBuf,
    size: Bytes,
}

#[derive(Debug, Default)]
struct LogState {
    durable: Option<Vec<u8>>,
    volatile: Vec<u8>,
}

impl Model {
    pub(in crate::storage) fn new() -> Self {
        let numbers = Numbers {
            transaction: 0,
            metadata: (100, 4096),
            data: (0, 8192),
            mode: Mode::Write,
            needs_check: false,
            held: false,
            passes_discards: true,
        };
        let host = Host { free: Bytes(0), total: Bytes(100 << 30), holes: Bytes(0), shared: true };
        let inner = Inner {
            transaction: 0,
            thins: BTreeMap::new(),
            nodes: BTreeMap::new(),
            serial: 0,
            numbers,
            mapped: BTreeMap::new(),
            host,
        };
        Self {
            crash: Crash::new(),
            inner: Arc::new(Mutex::new(inner)),
            log: Arc::default(),
            // In memory where there is such a place: crash tests make and remove thousands of directories.
            directory: Arc::new(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()),
        }
    }

    /// Everything starts again.
    pub(super) fn reboot(&self, death: Death) {
        self.crash.reset();
        let mut log = lock(&self.log);
        let mut rest = std::mem::take(&mut log.volatile);
        let mut inner = lock(&self.inner);
        if let Death::PowerCut(kept) = death {
            inner.nodes.clear();
            let kept = kept.min(rest.len());
            rest[kept..].fill(0);
        }
        if let Some(durable) = &mut log.durable {
            durable.extend(rest);
        }
        settle(&mut inner);
    }

    /// The pool as somebody else would change it.
    pub(super) fn tamper<T>(&self, change: impl FnOnce(&mut Tamper<'_>) -> T) -> T {
        change(&mut Tamper(&mut lock(&self.inner), self.directory.path()))
    }

    pub(super) fn set_journal(&self, bytes: Option<Vec<u8>>) {
        *lock(&self.log) = LogState { durable: bytes, volatile: Vec::new() };
    }

    pub(super) fn journal(&self) -> Vec<u8> {
        let log = lock(&self.log);
        [log.durable.clone().unwrap_or_default(), log.volatile.clone()].concat()
    }

    fn act<T>(&self, effect: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        self.crash.step()?;
        let mut inner = lock(&self.inner);
        settle(&mut inner);
        let result = effect(&mut inner);
        settle(&mut inner);
        drop(inner);
        self.crash.step()?;
        result
    }

    fn look<T>(&self, view: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        if self.crash.happened() {
            return Err(io::Error::other("crashed"));
        }
        let mut inner = lock(&self.inner);
        settle(&mut inner);
        view(&mut inner)
    }
}

/// Changes from outside.
pub(super) struct Tamper<'a>(&'a mut Inner, &'a Path);

impl Tamper<'_> {
    pub(super) fn numbers(&mut self) -> &mut Numbers {
        &mut self.0.numbers
    }

    pub(super) fn host(&mut self) -> &mut Host {
        &mut self.0.host
    }

    pub(super) fn map(&mut self, thin: u32, blocks: u64) {
        self.0.mapped.insert(thin, blocks);
    }

    pub(super) fn transaction(&mut self) -> &mut u64 {
        &mut self.0.transaction
    }

    pub(super) fn add_thin(&mut self, thin: u32, stamp: u64) {
        let content = fresh(self.0, self.1);
        self.0.thins.insert(thin, Thin { stamp, content });
    }

    pub(super) fn lose_thin(&mut self, thin: u32) {
        self.0.thins.remove(&thin);
    }

    pub(super) fn thins(&self) -> BTreeMap<u32, u64> {
        self.0.thins.iter().map(|(thin, device)| (*thin, device.stamp)).collect()
    }

    pub(super) fn nodes(&mut self) -> Vec<Node> {
        settle(self.0);
        self.0.nodes.values().map(|entry| entry.node.clone()).collect()
    }

    pub(super) fn suspend_all(&mut self) {
        self.0.nodes.values_mut().for_each(|entry| entry.node.suspended = true);
    }
}

fn errno<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

fn fresh(inner: &mut Inner, directory: &Path) -> PathBuf {
    inner.serial += 1;
    let content = directory.join(inner.serial.to_string());
    fs::create_dir(&content).unwrap();
    content
}

/// What the kernel does by itself: nodes marked for it go with their last user.
fn settle(inner: &mut Inner) {
    for entry in inner.nodes.values_mut() {
        entry.node.users = users(&entry.content);
    }
    inner.nodes.retain(|_, entry| !(entry.node.leaving && entry.node.users == 0));
}

/// How many descriptors of this process are at `content`.
fn users(content: &Path) -> u32 {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let count = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == content)).count();
    u32::try_from(count).unwrap()
}

fn writable(inner: &Inner) -> io::Result<()> {
    if matches!(inner.numbers.mode, Mode::ReadOnly | Mode::Failed) {
        return errno(libc::EOPNOTSUPP);
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Pool for Model {
    fn create_thin(&self, thin: u32) -> io::Result<()> {
        self.act(|inner| {
            writable(inner)?;
            if inner.thins.contains_key(&thin) {
                return errno(libc::EEXIST);
            }
            let content = fresh(inner, self.directory.path());
            inner.thins.insert(thin, Thin { stamp: inner.transaction, content });
            Ok(())
        })
    }

    fn create_snap(&self, thin: u32, origin: u32) -> io::Result<()> {
        self.act(|inner| {
            writable(inner)?;
            if thin >= 1 << 24 {
                return errno(libc::EINVAL);
            }
            if inner.thins.contains_key(&thin) {
                return errno(libc::EEXIST);
            }
            let Some(source) = inner.thins.get(&origin).cloned() else { return errno(libc::ENODATA) };
            let running = inner.nodes.values().any(|entry| entry.thin == origin && !entry.node.suspended);
            assert!(!running, "snapshot of {origin}, which is active and not suspended");
            let content = fresh(inner, self.directory.path());
            copy(&source.content, &content);
            inner.thins.insert(thin, Thin { stamp: inner.transaction, content });
            Ok(())
        })
    }

    fn delete(&self, thin: u32) -> io::Result<()> {
        self.act(|inner| {
            writable(inner)?;
            if inner.nodes.values().any(|entry| entry.thin == thin) {
                return errno(libc::EBUSY);
            }
            inner.thins.remove(&thin).map_or_else(|| errno(libc::ENODATA), |_| Ok(()))
        })
    }

    fn set_transaction_id(&self, from: u64, to: u64) -> io::Result<()> {
        self.act(|inner| {
            writable(inner)?;
            if inner.transaction != from {
                return errno(libc::EINVAL);
            }
            inner.transaction = to;
            Ok(())
        })
    }

    fn numbers(&self) -> io::Result<Numbers> {
        self.look(|inner| Ok(Numbers { transaction: inner.transaction, ..inner.numbers }))
    }

    fn listing(&self) -> Result<Listing, StorageError> {
        let details = |inner: &Inner, number: &u32, thin: &Thin| {
            let mapped_blocks = inner.mapped.get(number).copied().unwrap_or(16);
            Details { stamp: thin.stamp, mapped_blocks }
        };
        self.look(|inner| Ok(inner.thins.iter().map(|(thin, device)| (*thin, details(inner, thin, device))).collect()))
            .map_err(|source| StorageError::DeviceMapper { op: "list", device: "model".into(), source })
    }

    fn exclusive(&self) -> Result<BTreeMap<u32, u64>, StorageError> {
        self.look(|inner| Ok(inner.thins.keys().map(|thin| (*thin, 4)).collect()))
            .map_err(|source| StorageError::DeviceMapper { op: "read", device: "model".into(), source })
    }

    fn back_up(&self, _directory: &Path) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn glance(&self) -> Result<Listing, StorageError> {
        self.listing()
    }

    fn extend(&self, part: Part, to: Bytes) -> io::Result<()> {
        self.act(|inner| {
            let numbers = &mut inner.numbers;
            let (now, unit) = match part {
                Part::Data => (&mut numbers.data.1, 64 << 10),
                Part::Metadata => (&mut numbers.metadata.1, 4096),
            };
            let more = to.0 - *now * unit;
            if inner.host.free.0 < more {
                return errno(libc::ENOSPC);
            }
            inner.host.free.0 -= more;
            *now = to.0 / unit;
            numbers.mode = Mode::Write;
            Ok(())
        })
    }

    fn host(&self, _part: Part) -> io::Result<Host> {
        self.look(|inner| Ok(inner.host))
    }

    fn reserve(&self) -> io::Result<()> {
        self.act(|inner| {
            let taken = inner.host.holes.0.min(inner.host.free.0);
            inner.host.holes.0 -= taken;
            inner.host.free.0 -= taken;
            if inner.host.holes.0 > 0 { errno(libc::ENOSPC) } else { Ok(()) }
        })
    }

    fn dirty(&self) -> Bytes {
        Bytes(0)
    }

    fn backing(&self) -> io::Result<PathBuf> {
        Ok(PathBuf::from("/dev/loop0"))
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn deactivate(&self) -> io::Result<bool> {
        self.act(|inner| if inner.nodes.is_empty() { Ok(true) } else { errno(libc::EBUSY) })
    }
}

impl Nodes for Model {
    fn node(&self, name: &str) -> io::Result<Option<Node>> {
        self.look(|inner| Ok(inner.nodes.get(name).map(|entry| entry.node.clone())))
    }

    fn activate(&self, spec: &Spec<'_>) -> io::Result<Node> {
        self.act(|inner| {
            let Some(thin) = inner.thins.get(&spec.thin).cloned() else { return errno(libc::ENODATA) };
            if inner.nodes.iter().any(|(name, entry)| name == spec.name || entry.node.uuid == spec.uuid) {
                return errno(libc::EBUSY);
            }
            assert!(!inner.nodes.values().any(|entry| entry.thin == spec.thin), "{} is active twice", spec.thin);
            inner.serial += 1;
            let node = Node {
                name: spec.name.to_owned(),
                uuid: spec.uuid.to_owned(),
                minor: inner.serial,
                live: true,
                leaving: false,
                suspended: false,
                users: 0,
            };
            let entry = ModelNode { node: node.clone(), thin: spec.thin, content: thin.content, size: spec.size };
            inner.nodes.insert(spec.name.to_owned(), entry);
            Ok(node)
        })
    }

    fn size(&self, name: &str) -> io::Result<Bytes> {
        self.look(|inner| inner.nodes.get(name).map_or_else(|| errno(libc::ENXIO), |entry| Ok(entry.size)))
    }

    fn enlarge(&self, spec: &Spec<'_>) -> io::Result<()> {
        self.act(|inner| {
            let Some(entry) = inner.nodes.get_mut(spec.name) else { return errno(libc::ENXIO) };
            assert!(spec.size >= entry.size, "a node in use becomes smaller");
            entry.size = spec.size;
            Ok(())
        })
    }

    fn users(&self, node: &Node) -> Vec<String> {
        vec![format!("{} of this process", node.users)]
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.act(|inner| {
            let Some(entry) = inner.nodes.get_mut(name) else { return errno(libc::ENXIO) };
            entry.node.leaving = true;
            Ok(())
        })
    }

    fn keep(&self, name: &str) -> io::Result<()> {
        self.act(|inner| {
            let Some(entry) = inner.nodes.get_mut(name) else { return errno(libc::ENXIO) };
            entry.node.leaving = false;
            Ok(())
        })
    }

    fn suspend(&self, name: &str) -> io::Result<()> {
        self.act(|inner| {
            let Some(entry) = inner.nodes.get_mut(name) else { return errno(libc::ENXIO) };
            entry.node.suspended = true;
            Ok(())
        })
    }

    fn resume(&self, name: &str) -> io::Result<()> {
        self.act(|inner| {
            let Some(entry) = inner.nodes.get_mut(name) else { return errno(libc::ENXIO) };
            entry.node.suspended = false;
            Ok(())
        })
    }

    fn cut_off(&self, name: &str, _size: Bytes) -> io::Result<()> {
        self.act(|inner| {
            let Some(entry) = inner.nodes.get_mut(name) else { return errno(libc::ENXIO) };
            entry.thin = u32::MAX;
            Ok(())
        })
    }

    fn ours(&self) -> io::Result<Vec<Node>> {
        self.look(|inner| Ok(inner.nodes.values().map(|entry| entry.node.clone()).collect()))
    }

    fn names(&self) -> io::Result<BTreeSet<String>> {
        self.look(|inner| Ok(inner.nodes.keys().cloned().collect()))
    }

    fn wait_gone(&self, name: &str, _limit: Duration) -> io::Result<bool> {
        self.look(|inner| Ok(!inner.nodes.contains_key(name)))
    }
}

impl Files for Model {
    fn format(&self, node: &Node) -> Result<(), StorageError> {
        let failed = |error: io::Error| StorageError::Program { program: "mkfs", message: error.to_string() };
        self.act(|inner| set_file_system(&inner.nodes[&node.name].content, inner.nodes[&node.name].size))
            .map_err(failed)
    }

    fn mount(&self, node: &Node, _access: Access) -> io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        self.act(|inner| {
            let Some(entry) = inner.nodes.get(&node.name) else { return errno(libc::ENOENT) };
            assert!(!entry.node.suspended, "a mount of a suspended device hangs");
            if file_system(&entry.content)? > entry.size {
                return errno(libc::EINVAL);
            }
            Ok(rustix::fs::open(&entry.content, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        })
    }

    fn read_at(&self, node: &Node, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let path = self.look(|inner| Ok(inner.nodes[&node.name].content.join("raw")))?;
        let mut bytes = vec![0; length];
        let file = File::open(path)?;
        let end = file.metadata()?.len().saturating_sub(offset).min(length as u64);
        file.read_exact_at(&mut bytes[..usize::try_from(end).unwrap()], offset)?;
        Ok(bytes)
    }

    fn write_at(&self, node: &Node, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.act(|inner| {
            let path = inner.nodes[&node.name].content.join("raw");
            File::options().write(true).create(true).truncate(false).open(path)?.write_all_at(bytes, offset)
        })
    }

    fn peek(&self, node: &Node) -> io::Result<OwnedFd> {
        if self.look(|inner| Ok(inner.nodes[&node.name].content.join("raw").exists()))? {
            return errno(libc::EINVAL);
        }
        self.mount(node, Access::ReadOnly)
    }

    fn fill(&self, node: &Node, head: &[u8], size: Bytes) -> io::Result<()> {
        self.act(|inner| {
            fs::write(inner.nodes[&node.name].content.join("raw"), head)?;
            inner.numbers.data.0 += size.0 >> 16;
            Ok(())
        })
    }

    fn discard(&self, node: &Node) -> io::Result<()> {
        self.act(|inner| {
            let entry = &inner.nodes[&node.name];
            let (thin, content) = (entry.thin, entry.content.clone());
            let blocks = inner.mapped.insert(thin, 0).unwrap_or(16);
            inner.host.holes.0 += blocks << 16;
            inner.host.free.0 += blocks << 16;
            fs::remove_dir_all(&content)?;
            fs::create_dir(content)
        })
    }

    fn trim(&self, _mount: BorrowedFd<'_>) -> io::Result<Bytes> {
        self.act(|_| Ok(Bytes(4096)))
    }

    fn shrink(&self, node: &Node, size: Bytes) -> Result<(), StorageError> {
        let failed = |error: io::Error| StorageError::Program { program: "resize", message: error.to_string() };
        let content = self.look(|inner| Ok(inner.nodes[&node.name].content.clone())).map_err(failed)?;
        if size < LEAST {
            let advice = format!("its content needs at least {LEAST}");
            return Err(StorageError::NotSupported { what: "a device of this size", advice });
        }
        self.act(|_| set_file_system(&content, size)).map_err(failed)
    }

    fn grow(&self, mount: BorrowedFd<'_>, size: Bytes) -> io::Result<()> {
        let content = fs::read_link(format!("/proc/self/fd/{}", mount.as_raw_fd()))?;
        self.act(|inner| {
            let node = inner.nodes.values().find(|entry| entry.content == content).expect("it is mounted");
            assert!(size <= node.size && size >= file_system(&content)?, "grows to {size} on {}", node.size);
            set_file_system(&content, size)
        })
    }
}

/// The size of the file system on a device.
fn file_system(content: &Path) -> io::Result<Bytes> {
    match fs::read_to_string(content.join("size")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Bytes(0)),
        text => Ok(Bytes(text?.parse().map_err(io::Error::other)?)),
    }
}

fn set_file_system(content: &Path, size: Bytes) -> io::Result<()> {
    fs::write(content.join("size"), size.0.to_string())
}

/// What every content needs.
pub(super) const LEAST: Bytes = Bytes(64 << 20);

impl Log for Model {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let log = lock(&self.log);
        Ok(log.durable.as_ref().map(|durable| [durable.as_slice(), &log.volatile].concat()))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crash.step()?;
        lock(&self.log).volatile.extend(bytes);
        self.crash.step()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.crash.step()?;
        let mut log = lock(&self.log);
        let rest = std::mem::take(&mut log.volatile);
        log.durable.get_or_insert_default().extend(rest);
        drop(log);
        self.crash.step()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crash.step()?;
        *lock(&self.log) = LogState { durable: Some(bytes.to_vec()), volatile: Vec::new() };
        self.crash.step()
    }

    fn path(&self) -> PathBuf {
        "journal".into()
    }
}
