//! The driver over any backend. Locks, always taken in this order:
//!
//! 1. a slot: one device's node and mount; held over I/O on that device, so a stuck device stops only its own users;
//! 2. the writer: journal and pool messages, one change of the pool at a time;
//! 3. the table: what is on record; never held over I/O, so that reads never wait for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Backend, Mode, Numbers};
use super::check::is_of_another_pool;
use super::duplicate::Written;
use super::journal::Journal;
use super::keeper::Keep;
use super::metadata::Listing;
use super::names::{Names, Role};
use super::recovery::{self, Action, Mismatch, Plan};
use super::scribe::News;
use super::space;
use super::state::{Device, Op, Phase, State};
use crate::model::{Bytes, DeviceId};
use crate::storage::leases::Leases;
use crate::storage::{BASE, Removal, StorageError};

/// Everything but the thread.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) names: Names,
    pub(super) settings: Settings,
    writer: Mutex<Writer>,
    table: Mutex<Table>,
    /// Users are not counted here: the kernel knows them, also those of a former daemon.
    slots: Mutex<BTreeMap<u32, Slot>>,
    /// Told when there is something for the remover to do.
    pub(super) bell: Box<dyn Bell>,
    /// What the keeper remembers.
    pub(super) keep: Keep,
    /// Who uses which device.
    pub(super) leases: Leases,
    /// Told when the table has changed.
    pub(super) news: Arc<News>,
    /// What is known of the table's copy; locked while it is written.
    pub(super) copy: Mutex<Written>,
}

/// Wakes the remover.
pub(super) trait Bell: Send + Sync + std::fmt::Debug {
    /// Never blocks.
    fn ring(&self);
}

/// What does not change while it runs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// For messages.
    pub(super) pool_name: String,
    /// Bytes in a pool block.
    pub(super) block_size: Bytes,
    /// Virtual size of the base.
    pub(super) base_size: Bytes,
    /// The pool's data does not grow beyond this by itself.
    pub(super) data_max: Option<Bytes>,
    /// Where backups of the metadata go; None for none.
    pub(super) directory: Option<PathBuf>,
}

/// Who may change the pool: one at a time.
#[derive(Debug)]
pub(super) struct Writer {
    journal: Journal,
    /// The pool's transaction id, as far as is known.
    transaction: u64,
    /// Why it may not be changed any more.
    stopped: Option<Stop>,
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    Mismatch(Mismatch),
    Stale { expected: u64, found: u64 },
    Closed,
}

/// What is on record.
#[derive(Debug)]
pub(super) struct Table {
    /// The journal's table.
    pub(super) state: State,
    /// Devices that the pool does not have.
    pub(super) lost: BTreeSet<u32>,
    /// Devices of the pool that are not ours.
    pub(super) foreign: BTreeSet<u32>,
    /// Whether the pool may be changed.
    pub(super) read_only: bool,
}

/// One device's node and mount, held over I/O on the device.
type Slot = Arc<Mutex<()>>;

/// Whether a step must be on the disk before anything else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Yes.
    Now,
    /// With the next one: losing it loses nothing.
    Later,
}

impl Core {
    /// Brings journal and pool together, then makes sure that there is a base.
    pub(super) fn open(
        backend: Arc<dyn Backend>,
        names: Names,
        settings: Settings,
        journal: Journal,
        state: State,
        bell: Box<dyn Bell>,
    ) -> Result<Arc<Self>, StorageError> {
        resume_suspended(&*backend, &settings)?;
        let transaction = backend.numbers().map_err(|source| settings.failed("ask the status of", source))?.transaction;
        let pool = backend.listing()?;
        let base = base_of(&state);
        let mut plan = recovery::plan(&state, base.map(|device| device.thin), transaction, &pool);
        // Numbers and stamps of two pools may be the same; a label says whose it is.
        if plan.read_only.is_none() && base.is_some_and(|base| is_of_another_pool(&*backend, &names, base, &state.uuid))
        {
            plan.refuse(Mismatch::AnotherPool);
        }
        let table = Table { state, lost: plan.lost, foreign: plan.foreign, read_only: plan.read_only.is_some() };
        let writer = Writer { journal, transaction, stopped: plan.read_only.map(Stop::Mismatch) };
        let core = Arc::new(Self {
            backend,
            names,
            settings,
            writer: Mutex::new(writer),
            table: Mutex::new(table),
            slots: Mutex::new(BTreeMap::new()),
            bell,
            keep: Keep::default(),
            leases: Leases::default(),
            news: Arc::default(),
            copy: Mutex::default(),
        });
        core.recover(&plan.actions)?;
        if plan.read_only.is_none() {
            core.ensure_base()?;
        }
        Ok(core)
    }

    fn recover(&self, actions: &[Action]) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        // Cuts a torn end off; before any step, which would be written behind it.
        if writer.stopped.is_none() {
            self.checkpoint(&mut writer)?;
        }
        for action in actions {
            match *action {
                Action::Abort(thin) => self.record(&mut writer, &Op::Aborted { thin }, Durability::Later)?,
                Action::Finish(thin) => self.record(&mut writer, &Op::Created { thin }, Durability::Later)?,
                Action::Gone(thin) => self.record(&mut writer, &Op::Deleted { thin }, Durability::Later)?,
                Action::Remove(thin) => self.intend_removal(&mut writer, thin)?,
                Action::Delete(_) => {}
            }
        }
        drop(writer);
        if self.table().read_only {
            return self.drop_stray_nodes();
        }
        self.release_inactive()?;
        self.drop_stray_nodes()?;
        for thin in self.removing() {
            self.try_delete(thin)?;
        }
        Ok(())
    }

    /// Nodes that outlived the last daemon are not leased: they go as soon as nobody has them open.
    fn drop_stray_nodes(&self) -> Result<(), StorageError> {
        let held = self.held_nodes();
        for node in self.backend.ours().map_err(|source| self.settings.failed("list the devices of", source))? {
            if !node.leaving
                && !held.values().any(|name| *name == node.name)
                && let Err(error) = self.backend.remove(&node.name)
            {
                tracing::debug!(node.name, %error, "cannot ask for removal, ignoring");
            }
        }
        Ok(())
    }

    /// Makes a device and records it. Its origin is not written to until this returns.
    pub(super) fn create(&self, draft: &Draft<'_>) -> Result<Device, StorageError> {
        let mut writer = lock(&self.writer);
        let device = self.make_drafted(&mut writer, draft)?;
        let done = self.record(&mut writer, &Op::Created { thin: device.thin }, Durability::Later);
        done.inspect_err(|_| self.undo(&mut writer, device.thin)).map(|()| device)
    }

    /// As [`create`](Self::create), but the device stays one that is being made, which nobody can use, until
    /// [`created`](Self::created).
    pub(super) fn begin(&self, draft: &Draft<'_>) -> Result<Device, StorageError> {
        self.make_drafted(&mut lock(&self.writer), draft)
    }

    /// Records that a device that was begun is there.
    pub(super) fn created(&self, device: &Device) -> Result<(), StorageError> {
        self.record(&mut lock(&self.writer), &Op::Created { thin: device.thin }, Durability::Later)
    }

    /// Gives up a device that was begun.
    pub(super) fn abandon(&self, device: &Device) {
        let intended = self.intend_removal(&mut lock(&self.writer), device.thin);
        if let Err(error) = intended.and_then(|()| self.try_delete(device.thin)) {
            tracing::debug!(%error, device.thin, "cannot delete a device that was not finished yet");
        }
        self.bell.ring();
    }

    fn make_drafted(&self, writer: &mut Writer, draft: &Draft<'_>) -> Result<Device, StorageError> {
        self.check(writer)?;
        loop {
            let device = self.draft(draft)?;
            let thin = device.thin;
            self.record(writer, &Op::Create(device.clone()), Durability::Now)?;
            match self.make(writer, &device) {
                Ok(Made::Yes) => return Ok(device),
                Ok(Made::IdTaken) => {
                    self.record(writer, &Op::Aborted { thin }, Durability::Later)?;
                    self.table().foreign.insert(thin);
                }
                Err(error) => {
                    self.undo(writer, thin);
                    return Err(error);
                }
            }
        }
    }

    fn draft(&self, draft: &Draft<'_>) -> Result<Device, StorageError> {
        let Draft { id, origin, size, pending, replaces } = *draft;
        let table = self.table();
        match (table.state.names.get(id), replaces) {
            (Some(_), None) => return Err(StorageError::DeviceExists(id.clone())),
            (now, Some(former)) if now != Some(&former) => return Err(StorageError::NoSuchDevice(id.clone())),
            _ => {}
        }
        let thin = table.state.free_thin(&table.foreign).ok_or_else(|| StorageError::NotSupported {
            what: "one more device",
            advice: "the pool numbers devices with 24 bits and all are in use: remove some".to_owned(),
        })?;
        Ok(Device {
            id: id.clone(),
            thin,
            stamp: table.state.transaction + 1,
            base: origin.map(|origin| (origin.id.clone(), origin.thin)),
            size,
            pending,
            replaces,
        })
    }

    /// Transaction id first: the kernel stamps the new device with it.
    fn make(&self, writer: &mut Writer, device: &Device) -> Result<Made, StorageError> {
        self.raise(writer, device.stamp)?;
        let result = match device.base {
            None => self.backend.create_thin(device.thin),
            Some((_, origin)) => self.backend.create_snap(device.thin, origin),
        };
        match result {
            Ok(()) => Ok(Made::Yes),
            // Not ours: every number of ours is on record.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(Made::IdTaken),
            Err(source) => Err(self.settings.failed("make a device in", source)),
        }
    }

    /// Best effort: what cannot be undone now is undone by the next recovery, as the intent is on record.
    fn undo(&self, writer: &mut Writer, thin: u32) {
        let gone = match self.backend.delete(thin) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENODATA),
        };
        if gone && let Err(error) = self.record(writer, &Op::Aborted { thin }, Durability::Later) {
            tracing::debug!(%error, thin, "cannot record that a device was not made, ignoring");
        }
    }

    /// Compare-and-swap of the pool's transaction id: fails when somebody else changed the pool.
    fn raise(&self, writer: &mut Writer, to: u64) -> Result<(), StorageError> {
        let expected = writer.transaction;
        match self.backend.set_transaction_id(expected, to) {
            Ok(()) => {
                writer.transaction = to;
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let found = self.backend.numbers().map_or(0, |numbers| numbers.transaction);
                writer.stopped = Some(Stop::Stale { expected, found });
                self.table().read_only = true;
                self.check(writer)
            }
            Err(source) => Err(self.settings.failed("raise the transaction id of", source)),
        }
    }

    /// Records the intent to delete `id`: its name is free then.
    pub(super) fn begin_removal(&self, id: &DeviceId) -> Result<Option<Device>, StorageError> {
        let mut writer = lock(&self.writer);
        let Some((device, phase)) = self.table().state.find(id).cloned() else { return Ok(None) };
        if phase == Phase::Creating {
            return Err(StorageError::WrongState { id: id.clone(), state: "being made" });
        }
        if id.as_str() == BASE {
            return Err(StorageError::InUse { id: id.clone(), by: "every other device descends from it".to_owned() });
        }
        self.check(&writer)?;
        self.intend_removal(&mut writer, device.thin)?;
        Ok(Some(device))
    }

    fn intend_removal(&self, writer: &mut Writer, thin: u32) -> Result<(), StorageError> {
        let transaction = self.table().state.transaction + 1;
        self.record(writer, &Op::Delete { thin, transaction }, Durability::Now)
    }

    /// Before anything is deleted: a journal of an earlier time, which does not know of the deletion, is behind the pool
    /// from here on. Not when the deletion is intended, so that nobody waits for the pool to hear that a name is free.
    fn raise_to_intended(&self) -> Result<bool, StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        let intended = self.table().state.transaction;
        if writer.transaction == intended {
            return Ok(true);
        }
        match self.raise(&mut writer, intended) {
            Ok(()) => Ok(true),
            // A pool without room for it takes no message; the intent stands, and the deletion is tried again later.
            Err(StorageError::DeviceMapper { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                tracing::debug!("the pool is read-only; nothing is deleted now");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a device whose removal is on record; false while it is in use.
    pub(super) fn try_delete(&self, thin: u32) -> Result<bool, StorageError> {
        let Some(device) = self.removable(thin) else { return Ok(true) };
        let slot = self.slot(thin);
        let Ok(held) = slot.try_lock() else { return Ok(false) };
        if !self.deactivate(&device) && !self.cut_off(&device) {
            return Ok(false);
        }
        if !self.raise_to_intended()? {
            return Ok(false);
        }
        // The number may be somebody else's by now, when the pool lost our device.
        let foreign = self.table().foreign.contains(&thin);
        if !foreign && self.is_worth_discarding(&device) && !self.discard(&device) {
            return Ok(false);
        }
        if !foreign
            && let Err(error) = self.backend.delete(thin)
            && error.raw_os_error() != Some(libc::ENODATA)
        {
            tracing::debug!(%error, thin, "cannot delete a device yet");
            return Ok(false);
        }
        self.record(&mut lock(&self.writer), &Op::Deleted { thin }, Durability::Later)?;
        drop(held);
        lock(&self.slots).remove(&thin);
        Ok(true)
    }

    fn is_worth_discarding(&self, device: &Device) -> bool {
        let passes = |numbers: Numbers| numbers.passes_discards && numbers.mode == Mode::Write;
        if !self.numbers().is_ok_and(passes) {
            return false;
        }
        let listing = self.backend.glance().unwrap_or_default();
        let bytes = |thin: &u32| {
            listing.get(thin).map_or(0, |details| details.mapped_blocks).saturating_mul(self.settings.block_size.0)
        };
        let (mapped, shared) = (bytes(&device.thin), device.base.as_ref().map_or(0, |(_, thin)| bytes(thin)));
        space::is_worth_discarding(Bytes(mapped.saturating_sub(shared)), Bytes(mapped))
    }

    /// Gives the room of a device that is to be deleted back to the host; false while its node does not go. The slot is
    /// locked.
    fn discard(&self, device: &Device) -> bool {
        let discarded = self.activate(device).map(|node| self.backend.discard(&node));
        if let Ok(Err(error)) = discarded {
            tracing::debug!(%error, device.thin, "cannot discard a device before it is deleted, ignoring");
        }
        self.deactivate(device)
    }

    fn removable(&self, thin: u32) -> Option<Device> {
        let table = self.table();
        table.state.devices.get(&thin).filter(|(_, phase)| *phase == Phase::Removing).map(|(device, _)| device.clone())
    }

    /// Records that what was written to a pending device is on the disk.
    pub(super) fn ready(&self, id: &DeviceId) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        let device = self.find(id, &[Phase::Pending])?;
        self.record(&mut writer, &Op::Ready { thin: device.thin }, Durability::Now)
    }

    /// Gives the name of the device that `device` replaces to it; that one is to be deleted.
    pub(super) fn replace(&self, device: &Device) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        let (now, transaction) = {
            let state = &self.table().state;
            (state.names.get(&device.id).copied(), state.transaction + 1)
        };
        if now != device.replaces {
            return Err(StorageError::NoSuchDevice(device.id.clone()));
        }
        self.record(&mut writer, &Op::Created { thin: device.thin }, Durability::Later)?;
        self.record(&mut writer, &Op::Replace { thin: device.thin, transaction }, Durability::Now)
    }

    /// Records another size of a device.
    pub(super) fn record_size(&self, device: &Device, size: Bytes) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        self.record(&mut writer, &Op::Resize { thin: device.thin, size }, Durability::Now)
    }

    /// Records whether a device stays active although nobody uses it. Need not outlive the power: nodes do not either.
    pub(super) fn record_hold(&self, thin: u32, hold: bool) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        if self.table().state.held.contains(&thin) == hold {
            return Ok(());
        }
        let op = if hold { Op::Hold { thin } } else { Op::Release { thin } };
        self.record(&mut writer, &op, Durability::Later)
    }

    /// Journal first, then the table.
    fn record(&self, writer: &mut Writer, op: &Op, durability: Durability) -> Result<(), StorageError> {
        writer.journal.append(op)?;
        if durability == Durability::Now {
            writer.journal.sync()?;
        }
        self.table().state.apply(op).expect("every step is checked under the writer's lock before it is recorded");
        self.news.changed();
        let devices = self.table().state.devices.len();
        if writer.journal.is_long(devices) {
            self.checkpoint(writer)?;
        }
        Ok(())
    }

    fn checkpoint(&self, writer: &mut Writer) -> Result<(), StorageError> {
        let state = self.table().state.clone();
        writer.journal.checkpoint(&state)
    }

    fn check(&self, writer: &Writer) -> Result<(), StorageError> {
        let state = |state, advice| StorageError::PoolState { pool: self.settings.pool_name.clone(), state, advice };
        match writer.stopped {
            None => Ok(()),
            Some(Stop::Stale { expected, found }) => {
                Err(StorageError::Stale { pool: self.settings.pool_name.clone(), expected, found })
            }
            Some(Stop::Closed) => Err(state("closed", "the daemon is shutting down")),
            Some(Stop::Mismatch(Mismatch::JournalBehind)) => Err(state(
                "newer than its journal",
                "the journal was restored from an earlier time; put the newest copy of it back, or stop holmd and run 'holmctl device salvage'",
            )),
            Some(Stop::Mismatch(Mismatch::PoolBehind)) => Err(state(
                "older than its journal",
                "the metadata is of an earlier time or of another pool; put the newest copy of it back, or move the directory away to begin with an empty pool",
            )),
            Some(Stop::Mismatch(Mismatch::AnotherPool)) => Err(state(
                "another pool",
                "its base device is not that of this journal: 'metadata' or 'data' was exchanged; put the right file back",
            )),
            Some(Stop::Mismatch(Mismatch::BaseLost)) => Err(state(
                "without its base device",
                "the metadata is of another pool or was reset; put the right files back, or move the directory away to begin with an empty pool",
            )),
        }
    }

    /// Nothing is changed from here on. The journal is left as short as can be.
    pub(super) fn stop(&self) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        if writer.stopped.is_none() {
            self.checkpoint(&mut writer)?;
            writer.stopped = Some(Stop::Closed);
        }
        Ok(())
    }

    /// Notes that the pool is not active any more, after [`stop`](Self::stop). A journal that does not fit the pool is
    /// left as it is.
    pub(super) fn note_clean(&self) -> Result<(), StorageError> {
        let mut writer = lock(&self.writer);
        match writer.stopped {
            Some(Stop::Closed) => self.record(&mut writer, &Op::Clean, Durability::Now),
            _ => Ok(()),
        }
    }

    /// What journal and pool say at one moment.
    pub(super) fn compare(&self) -> Result<Compared, StorageError> {
        // Nobody makes a device meanwhile.
        let _writer = lock(&self.writer);
        let state = self.table().state.clone();
        let numbers = self.backend.numbers().map_err(|source| self.settings.failed("ask the status of", source))?;
        let pool = self.backend.glance()?;
        let base = base_of(&state).map(|device| device.thin);
        let plan = recovery::plan(&state, base, numbers.transaction, &pool);
        Ok(Compared { state, pool, transaction: numbers.transaction, plan })
    }

    /// Puts a device of the pool onto the record that is on none; false when its id or number is taken by now.
    pub(super) fn take_back(&self, device: &Device) -> Result<bool, StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        let taken = {
            let table = self.table();
            !table.foreign.contains(&device.thin) || table.state.names.contains_key(&device.id)
        };
        if taken {
            return Ok(false);
        }
        self.record(&mut writer, &Op::Keep { device: device.clone(), phase: Phase::Ready }, Durability::Now)?;
        self.table().foreign.remove(&device.thin);
        Ok(true)
    }

    /// Deletes a device that is on no record, by hand only. EBUSY while somebody uses it.
    pub(super) fn remove_foreign(&self, thin: u32) -> Result<Removal, StorageError> {
        let mut writer = lock(&self.writer);
        self.check(&writer)?;
        if !self.table().foreign.contains(&thin) {
            return Ok(Removal::NotThere);
        }
        let transaction = self.table().state.transaction + 1;
        // The number is not given to anybody again, and the journal knows the transaction.
        let counters = Op::Counters { next_thin: thin.saturating_add(1), transaction };
        self.record(&mut writer, &counters, Durability::Now)?;
        self.raise(&mut writer, transaction)?;
        match self.backend.delete(thin) {
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {}
            other => other.map_err(|source| self.settings.failed("delete a foreign device of", source))?,
        }
        self.table().foreign.remove(&thin);
        Ok(Removal::Removed)
    }

    /// The device `id` if it is in one of `phases`.
    pub(super) fn find(&self, id: &DeviceId, phases: &[Phase]) -> Result<Device, StorageError> {
        let table = self.table();
        let (device, phase) = table.state.find(id).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))?;
        let wrong = |state| StorageError::WrongState { id: id.clone(), state };
        if table.lost.contains(&device.thin) {
            return Err(wrong("lost: the pool does not have it"));
        }
        if phases.contains(phase) {
            return Ok(device.clone());
        }
        Err(wrong(match phase {
            Phase::Creating => "being made",
            Phase::Pending => "not complete",
            Phase::Ready => "complete",
            Phase::Removing => "being removed",
        }))
    }

    /// Devices to be deleted; none while nothing may be changed.
    pub(super) fn removing(&self) -> Vec<u32> {
        let table = self.table();
        if table.read_only {
            return Vec::new();
        }
        table.state.devices.iter().filter(|(_, (_, phase))| *phase == Phase::Removing).map(|(thin, _)| *thin).collect()
    }

    /// The table; never held over I/O.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// The slot of a device.
    pub(super) fn slot(&self, thin: u32) -> Slot {
        lock(&self.slots).entry(thin).or_default().clone()
    }

    /// The name and UUID of a device's node.
    pub(super) fn node_names(&self, device: &Device) -> (String, String) {
        let role = Role::Device(&device.id, device.thin, device.stamp);
        (self.names.name(role), self.names.uuid(role))
    }
}

/// Journal and pool at one moment.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) state: State,
    pub(super) pool: Listing,
    /// The pool's.
    pub(super) transaction: u64,
    /// What a recovery would do now; what is under way is among it.
    pub(super) plan: Plan,
}

/// A device to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    /// Its id.
    pub(super) id: &'a DeviceId,
    /// What it is a snapshot of; empty without.
    pub(super) origin: Option<&'a Device>,
    /// Its size.
    pub(super) size: Bytes,
    /// Whether it starts pending.
    pub(super) pending: bool,
    /// The device whose name it is to take.
    pub(super) replaces: Option<u32>,
}

/// What came of making a device.
enum Made {
    Yes,
    IdTaken,
}

impl Settings {
    /// A failure of the pool.
    pub(super) fn failed(&self, op: &'static str, source: std::io::Error) -> StorageError {
        StorageError::DeviceMapper { op, device: self.pool_name.clone(), source }
    }
}

/// The base, once it was made.
fn base_of(state: &State) -> Option<&Device> {
    let id = DeviceId::parse(BASE).expect("the base has a valid id");
    state.find(&id).filter(|(_, phase)| *phase == Phase::Ready).map(|(device, _)| device)
}

/// First of all: a daemon that died inside a snapshot left the origin suspended, and every reader of it hangs.
fn resume_suspended(backend: &dyn Backend, settings: &Settings) -> Result<(), StorageError> {
    let nodes = backend.ours().map_err(|source| settings.failed("list the devices of", source))?;
    for node in nodes.iter().filter(|node| node.suspended && node.live) {
        backend.resume(&node.name).map_err(|source| StorageError::DeviceMapper {
            op: "resume",
            device: node.name.clone(),
            source,
        })?;
    }
    Ok(())
}

/// A lock whose data is whole even when a holder panicked: every change under these locks is one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
