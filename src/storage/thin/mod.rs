//! Driver `thin`: devices are snapshots in a device-mapper thin pool.
//!
//! | file | what |
//! |---|---|
//! | this one | the driver as the rest of the program sees it |
//! | `core` | create and delete: intent, transaction id, message, done |
//! | `lease` | nodes and mounts: activated on demand, removed at last close |
//! | `hold`, `users` | nodes for other software, which stay until they are given back; who uses a node |
//! | `resize`, `rollback` | another size, another content under the same id |
//! | `hidden` | ids that nobody is shown |
//! | `still` | a device in use is held still for a snapshot |
//! | `remover` | the thread that gives back what nobody uses |
//! | `space` | numbers, marks and admission: pure but for the asking |
//! | `keeper`, `meter`, `ballast` | the thread that keeps room in the pool, and tells when it cannot |
//! | `recovery` | what to do at start: a pure function |
//! | `scribe`, `duplicate` | the thread that copies the journal's table into the pool, and that copy |
//! | `check`, `salvage` | compare the copies of the truth, and rebuild the journal from the others |
//! | `health`, `backup` | the check of the metadata before it is used; copies of it for the worst day |
//! | `state`, `journal`, `label`, `metadata`, `mappings` | the three copies of the truth: journal, labels, the pool's own metadata |
//! | `names` | every device-mapper name |
//! | `backend` | what is needed from below; `kernel`, `growth`, `ext4`, `xfs` and `setup` are the real one |
//! | `store`, `layout` | pools on block devices; one that is split |
//!
//! The protocol: an intent goes to the journal and the disk; the pool's transaction id is raised, which fails when
//! somebody else changed the pool; the device is made, and the kernel stamps it with that id; a done record follows.
//! A deletion is the same, but for its caller it is over with the intent: the remover does the rest.
//! After a crash the stamp tells whose a device is, so nothing is ever deleted that cannot be proven ours.

mod backend;
mod backup;
mod ballast;
mod check;
mod core;
mod duplicate;
mod ext4;
mod growth;
mod health;
mod hidden;
mod hold;
mod journal;
mod keeper;
mod kernel;
mod label;
mod layout;
mod lease;
mod mappings;
mod metadata;
mod meter;
mod names;
mod recovery;
mod remover;
mod resize;
mod rollback;
mod salvage;
mod scribe;
mod setup;
mod space;
mod state;
mod still;
mod store;
mod users;
mod xfs;

#[cfg(test)]
pub(super) mod model;
#[cfg(test)]
mod tests;

pub use self::names::is_any_active;
pub use self::salvage::{adopt, salvage};
pub(super) use self::setup::available;
#[cfg(test)]
pub(super) use self::tests::over;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use self::core::{Core, Settings, lock};
use self::health::Depth;
use self::journal::{FileLog, Journal};
use self::keeper::Keeper;
use self::kernel::Control;
use self::metadata::Listing;
use self::names::{Names, Role};
use self::remover::{Doorbell, Remover};
use self::scribe::Scribe;
use self::state::{Device, Phase};
use super::{
    Access, AddOptions, Added, DeviceGrowth, DeviceSet, LeaseInfo, MountedDevice, PressureListener, Removal, Report,
    StorageError, Trimmed, lock_directory,
};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState, Driver, FileSystem, PoolStatus};

/// Where the pool is and how it is made. Sizes matter only when it is made.
#[derive(Debug, Clone)]
pub struct ThinConfig {
    /// Directory of the loop files and the journal; made when missing.
    pub directory: PathBuf,
    /// What the pool lies on.
    pub store: Store,
    /// What every device-mapper name starts with: 1 to 32 of a-z, 0-9 and `_`.
    pub prefix: String,
    /// Size of the data at first; it grows by itself. 2 GiB when absent, or 40 % of the file system's free space if that
    /// is less, but at least 512 MiB.
    pub data_size: Option<Bytes>,
    /// The data does not grow beyond this by itself; when absent, until the file system has only a tenth left (from 1 to
    /// 50 GiB), which is never taken.
    pub data_max_size: Option<Bytes>,
    /// Size of the metadata; 1/256 of the data, at least 16 MiB, when absent.
    pub metadata_size: Option<Bytes>,
    /// Virtual size of the base, and so of every device unless it asks for more.
    pub base_size: Bytes,
    /// File system of the base when it is made, and so of every device.
    pub file_system: FileSystem,
    /// Bytes in a pool block: a multiple of 64 KiB, at most 1 GiB.
    pub block_size: Bytes,
}

impl ThinConfig {
    /// The defaults, in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            store: Store::Files,
            prefix: "holm".to_owned(),
            data_size: None,
            data_max_size: None,
            metadata_size: None,
            base_size: Bytes(10 * Bytes::GIB),
            file_system: FileSystem::Ext4,
            block_size: Bytes(64 * Bytes::KIB),
        }
    }
}

/// What a pool lies on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Store {
    /// Two files in the directory, in loop devices; they grow with the room of their file system.
    #[default]
    Files,
    /// Two block devices. Where one becomes larger the pool grows.
    Pair {
        /// For the data.
        data: PathBuf,
        /// For the metadata.
        metadata: PathBuf,
    },
    /// One block device, which is split: metadata at its head, data behind it, and further pieces of both.
    Device(PathBuf),
    /// An active thin pool that nobody else manages, by its device-mapper name. Its owner activates it, and makes it
    /// larger.
    Pool(String),
}

/// The driver. Dropping it leaves pool and devices as they are, for the next daemon; [`DeviceSet::close`] does not.
#[derive(Debug)]
pub struct ThinDeviceSet {
    /// Before `core`, all: they must have stopped when that goes.
    keeper: Mutex<Option<Keeper>>,
    scribe: Mutex<Option<Scribe>>,
    _remover: Remover,
    core: Arc<Core>,
    /// Its lock keeps other daemons out of the directory.
    _lock: Option<File>,
}

impl ThinDeviceSet {
    /// Opens the pool in `config.directory`, making it on first use, and brings it together with its journal.
    ///
    /// Another daemon in the same directory is an error. When the journal and the pool are not of the same time the
    /// set opens, but refuses every change with [`StorageError::PoolState`].
    pub fn open(config: &ThinConfig) -> Result<Arc<Self>, StorageError> {
        let lock = lock_directory(&config.directory)?;
        let failed = |op| move |source| StorageError::Io { op, path: config.directory.join("journal"), source };
        let log = FileLog::new(&config.directory).map_err(failed("open"))?;
        let (mut journal, state) = Journal::open(Box::new(log))?;
        let state = setup::prepare_files(config, &mut journal, state)?;
        let names = Names::new(&config.prefix, &state.uuid)?;
        let depth = if state.clean { Depth::Quick } else { Depth::Full };
        let kernel = setup::activate(config, names.clone(), depth)?;
        let settings = Settings {
            pool_name: kernel.pool.clone(),
            block_size: kernel.block_size(),
            base_size: config.base_size,
            data_max: config.data_max_size,
            directory: Some(config.directory.clone()),
        };
        let bell = Doorbell::new().map_err(failed("watch"))?;
        let core = Core::open(Arc::new(kernel), names, settings, journal, state, Box::new(bell.clone()))?;
        let remover = Remover::start(Arc::downgrade(&core), bell).map_err(failed("watch"))?;
        let control = Control::open().inspect_err(|error| tracing::debug!(%error, "no pool events, ignoring")).ok();
        let keeper = Keeper::start(Arc::downgrade(&core), control).map_err(failed("watch"))?;
        let scribe = Mutex::new(Some(Scribe::start(&core).map_err(failed("watch"))?));
        Ok(Arc::new(Self { keeper: Mutex::new(Some(keeper)), scribe, _remover: remover, core, _lock: Some(lock) }))
    }
}

impl DeviceSet for ThinDeviceSet {
    fn driver(&self) -> Driver {
        Driver::Thin
    }

    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError> {
        if hidden::is_hidden(id) {
            return Err(StorageError::DeviceExists(id.clone()));
        }
        hidden::check(base)?;
        self.core.add(id, base, options)
    }

    fn complete_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.core.finish(id)
    }

    fn resize_device(&self, id: &DeviceId, size: Bytes) -> Result<DeviceInfo, StorageError> {
        hidden::check(id)?;
        self.core.resize(id, size)?;
        self.device(id)
    }

    fn rollback_device(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError> {
        hidden::check(id)?;
        hidden::check(to)?;
        self.core.rollback(id, to)
    }

    fn activate_device(&self, id: &DeviceId) -> Result<PathBuf, StorageError> {
        hidden::check(id)?;
        self.core.hold(id)
    }

    fn deactivate_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        hidden::check(id)?;
        self.core.release(id)
    }

    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        self.core.exclusive()
    }

    fn remove_device(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        if hidden::is_hidden(id) {
            return Ok(Removal::NotThere);
        }
        self.core.remove(id)
    }

    fn mount_device_for(&self, id: &DeviceId, access: Access, purpose: &str) -> Result<MountedDevice, StorageError> {
        hidden::check(id)?;
        self.core.mount_for(id, access, purpose)
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        self.core.leases.list()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, StorageError> {
        self.core.infos(|_| true)
    }

    fn device(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError> {
        let found = self.core.infos(|device| device.id == *id)?;
        found
            .into_iter()
            .find(|info| info.state != DeviceState::Removing)
            .ok_or_else(|| StorageError::NoSuchDevice(id.clone()))
    }

    fn status(&self) -> Result<PoolStatus, StorageError> {
        self.core.status()
    }

    fn grow(&self, data: Bytes, metadata: Bytes) -> Result<PoolStatus, StorageError> {
        self.core.grow(data, metadata)
    }

    fn trim(&self) -> Result<Trimmed, StorageError> {
        self.core.trim()
    }

    fn trim_device(&self, id: &DeviceId) -> Result<Bytes, StorageError> {
        hidden::check(id)?;
        self.core.trim_device(id)
    }

    fn check(&self) -> Result<Report, StorageError> {
        self.core.examine()
    }

    fn repair(&self) -> Result<Report, StorageError> {
        self.core.repair()
    }

    fn foreign(&self) -> Vec<u32> {
        self.core.table().foreign.iter().copied().collect()
    }

    fn remove_foreign(&self, thin_id: u32) -> Result<Removal, StorageError> {
        self.core.remove_foreign(thin_id)
    }

    fn growth(&self) -> Vec<DeviceGrowth> {
        self.core.growth()
    }

    fn on_pressure(&self, listener: PressureListener) {
        self.core.listen(listener);
    }

    fn backing(&self) -> Result<PathBuf, StorageError> {
        self.core.backend.backing().map_err(|source| self.core.settings.failed("find the data of", source))
    }

    fn warnings(&self) -> Vec<String> {
        self.core.backend.warnings()
    }

    fn close(&self) -> Result<(), StorageError> {
        // It may be at the ballast just now.
        drop(lock(&self.keeper).take());
        drop(lock(&self.scribe).take());
        self.core.release_all()?;
        self.core.tidy();
        if let Err(error) = self.core.write_copy() {
            tracing::debug!(%error, "cannot copy the table into the pool, ignoring");
        }
        let idle = self.core.deactivate_all()?;
        self.core.stop()?;
        if idle {
            let deactivated = self.core.backend.deactivate();
            deactivated.map_err(|source| self.core.settings.failed("deactivate", source))?;
            self.core.note_clean()?;
        }
        Ok(())
    }
}

impl Core {
    /// The devices that `wanted` picks, in order of id. Devices whose removal waits are among them.
    fn infos(&self, wanted: impl Fn(&Device) -> bool) -> Result<Vec<DeviceInfo>, StorageError> {
        let mapped = self.backend.glance().unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot read the pool's metadata, sizes are shown as 0");
            Listing::new()
        });
        let active = self.active_names()?;
        let table = self.table();
        let picked = table
            .state
            .devices
            .values()
            .filter(|(device, _)| wanted(device) && !hidden::is_hidden(&device.id) && device.replaces.is_none());
        let mut infos: Vec<_> = picked
            .map(|(device, phase)| DeviceInfo {
                id: device.id.clone(),
                thin_id: device.thin,
                base: device.base.as_ref().map(|(id, _)| id.clone()),
                size: device.size,
                mapped: Bytes(
                    mapped.get(&device.thin).map_or(0, |details| details.mapped_blocks) * self.settings.block_size.0,
                ),
                active: active.contains(&self.node_names(device).0),
                state: if table.lost.contains(&device.thin) { DeviceState::Lost } else { shown(*phase) },
            })
            .collect();
        infos.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(infos)
    }

    /// What each device alone maps.
    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        let blocks = self.backend.exclusive()?;
        let table = self.table();
        let shown = table.state.names.iter().filter(|(id, _)| !hidden::is_hidden(id));
        let bytes = |thin| Bytes(blocks.get(thin).copied().unwrap_or(0) * self.settings.block_size.0);
        Ok(shown.map(|(id, thin)| (id.clone(), bytes(thin))).collect())
    }

    /// The names of the pool's active devices.
    pub(super) fn active_names(&self) -> Result<BTreeSet<String>, StorageError> {
        let mut names = self.backend.names().map_err(|source| self.settings.failed("list the devices of", source))?;
        for role in [Role::Pool, Role::Data, Role::Metadata] {
            names.remove(&self.names.name(role));
        }
        Ok(names)
    }
}

fn shown(phase: Phase) -> DeviceState {
    match phase {
        Phase::Creating | Phase::Pending => DeviceState::Pending,
        Phase::Ready => DeviceState::Ready,
        Phase::Removing => DeviceState::Removing,
    }
}
