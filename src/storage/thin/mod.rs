//! Driver `thin`: devices are snapshots in a device-mapper thin pool.
//!
//! | file | what |
//! |---|---|
//! | this one | the driver as the rest of the program sees it |
//! | `core` | create and delete: intent, transaction id, message, done |
//! | `lease` | nodes and mounts: activated on demand, removed at last close |
//! | `remover` | the thread that gives back what nobody uses |
//! | `space` | numbers and admission |
//! | `recovery` | what to do at start: a pure function |
//! | `state`, `journal`, `label`, `metadata` | the three copies of the truth: journal, labels, the pool's own metadata |
//! | `names` | every device-mapper name |
//! | `backend` | what is needed from below; `kernel` and `setup` are the real one |
//!
//! The protocol: an intent goes to the journal and the disk; the pool's transaction id is raised, which fails when
//! somebody else changed the pool; the device is made, and the kernel stamps it with that id; a done record follows.
//! A deletion is the same, but for its caller it is over with the intent: the remover does the rest.
//! After a crash the stamp tells whose a device is, so nothing is ever deleted that cannot be proven ours.

mod backend;
mod core;
mod journal;
mod kernel;
mod label;
mod lease;
mod metadata;
mod names;
mod recovery;
mod remover;
mod setup;
mod space;
mod state;

#[cfg(test)]
pub(super) mod model;
#[cfg(test)]
mod tests;

pub(super) use self::setup::available;
#[cfg(test)]
pub(super) use self::tests::over;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use self::core::{Core, Settings};
use self::journal::{FileLog, Journal};
use self::metadata::Listing;
use self::names::{Names, Role};
use self::remover::{Doorbell, Remover};
use self::state::{Device, Phase};
use super::{Access, AddOptions, DeviceSet, MountedDevice, Removal, StorageError, lock_directory};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState, Driver, PoolStatus};

/// Where the pool is and how it is made. Sizes matter only when it is made.
#[derive(Debug, Clone)]
pub struct ThinConfig {
    /// Directory of the loop files and the journal; made when missing.
    pub directory: PathBuf,
    /// What every device-mapper name starts with: 1 to 32 of a-z, 0-9 and `_`.
    pub prefix: String,
    /// Size of the data; 40 % of the file system's free space, from 512 MiB to 20 GiB, when absent.
    pub data_size: Option<Bytes>,
    /// Size of the metadata; 1/256 of the data, at least 16 MiB, when absent.
    pub metadata_size: Option<Bytes>,
    /// Virtual size of the base, and so of every device unless it asks for more.
    pub base_size: Bytes,
    /// Bytes in a pool block: a multiple of 64 KiB, at most 1 GiB.
    pub block_size: Bytes,
}

impl ThinConfig {
    /// The defaults, in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            prefix: "holm".to_owned(),
            data_size: None,
            metadata_size: None,
            base_size: Bytes(10 * Bytes::GIB),
            block_size: Bytes(64 * Bytes::KIB),
        }
    }
}

/// The driver. Dropping it leaves pool and devices as they are, for the next daemon; [`DeviceSet::close`] does not.
#[derive(Debug)]
pub struct ThinDeviceSet {
    /// Before `core`: it must have stopped when that goes.
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
        let kernel = setup::activate(config, names.clone())?;
        let settings = Settings {
            pool_name: names.name(Role::Pool),
            block_size: kernel.block_size(),
            base_size: config.base_size,
        };
        let bell = Doorbell::new().map_err(failed("watch"))?;
        let core = Core::open(Arc::new(kernel), names, settings, journal, state, Box::new(bell.clone()))?;
        let remover = Remover::start(Arc::downgrade(&core), bell).map_err(failed("watch"))?;
        Ok(Arc::new(Self { _remover: remover, core, _lock: Some(lock) }))
    }
}

impl DeviceSet for ThinDeviceSet {
    fn driver(&self) -> Driver {
        Driver::Thin
    }

    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<(), StorageError> {
        self.core.add(id, base, options)
    }

    fn complete_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.core.finish(id)
    }

    fn remove_device(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        self.core.remove(id)
    }

    fn mount_device(&self, id: &DeviceId, access: Access) -> Result<MountedDevice, StorageError> {
        self.core.mount(id, access)
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

    fn close(&self) -> Result<(), StorageError> {
        let idle = self.core.deactivate_all()?;
        self.core.stop()?;
        if idle {
            self.core.backend.deactivate().map_err(|source| self.core.settings.failed("deactivate", source))?;
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
        let picked = table.state.devices.values().filter(|(device, _)| wanted(device));
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

    /// The names of the pool's active devices.
    fn active_names(&self) -> Result<BTreeSet<String>, StorageError> {
        let pool = self.names.name(Role::Pool);
        let mut names = self.backend.names().map_err(|source| self.settings.failed("list the devices of", source))?;
        names.remove(&pool);
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
