//! The pool's numbers, and who may still be let in.

use super::backend::{Mode, Numbers};
use super::core::Core;
use super::metadata::BLOCK;
use crate::model::{Bytes, PoolState, PoolStatus};
use crate::storage::StorageError;

impl Core {
    /// Refuses a new device while the pool is not well or near its end. A snapshot of an active device on a full pool
    /// would hang, and full metadata stops even deletions: neither may ever be reached.
    pub(super) fn admit(&self) -> Result<(), StorageError> {
        let numbers = self.numbers()?;
        let refused = |state, advice| StorageError::PoolState { pool: self.settings.pool_name.clone(), state, advice };
        match (numbers.mode, numbers.needs_check) {
            (Mode::Failed, _) => {
                return Err(refused("failed", "stop holmd and repair the metadata with thin_repair(8)"));
            }
            (_, true) => return Err(refused("damaged", "stop holmd and check the metadata with thin_check(8)")),
            (Mode::ReadOnly, _) => {
                return Err(refused("read-only", "its metadata has no room left: remove devices, or enlarge it"));
            }
            (Mode::Write | Mode::OutOfData, false) => {}
        }
        for (what, space) in [("data", data(&numbers, self.settings.block_size)), ("metadata", metadata(&numbers))] {
            if space.free() < space.reserve {
                let (free, total, reserve) = (space.free(), space.total, space.reserve);
                return Err(StorageError::PoolFull { what, free, total, reserve });
            }
        }
        Ok(())
    }

    /// The pool's status.
    pub(super) fn status(&self) -> Result<PoolStatus, StorageError> {
        let numbers = self.numbers()?;
        let active = self.active_names()?;
        let (devices, read_only) = {
            let table = self.table();
            (table.state.names.len(), table.read_only)
        };
        let (data, metadata) = (data(&numbers, self.settings.block_size), metadata(&numbers));
        Ok(PoolStatus {
            pool: self.settings.pool_name.clone(),
            state: if read_only { PoolState::ReadOnly } else { state(&numbers, data, metadata) },
            data_used: data.used,
            data_total: data.total,
            metadata_used: metadata.used,
            metadata_total: metadata.total,
            block_size: self.settings.block_size,
            transaction_id: numbers.transaction,
            devices: u32::try_from(devices).unwrap_or(u32::MAX),
            active: u32::try_from(active.len()).unwrap_or(u32::MAX),
        })
    }

    fn numbers(&self) -> Result<Numbers, StorageError> {
        self.backend.numbers().map_err(|source| self.settings.failed("ask the status of", source))
    }
}

/// Room of one kind.
#[derive(Debug, Clone, Copy)]
struct Space {
    used: Bytes,
    total: Bytes,
    reserve: Bytes,
}

impl Space {
    fn free(self) -> Bytes {
        Bytes(self.total.0.saturating_sub(self.used.0))
    }
}

/// A twentieth of the data is kept back for the devices that there are.
fn data(numbers: &Numbers, block: Bytes) -> Space {
    let total = Bytes(numbers.data.1.saturating_mul(block.0));
    Space { used: Bytes(numbers.data.0.saturating_mul(block.0)), total, reserve: Bytes(total.0 / 20) }
}

/// A quarter of the metadata, or 32 MiB if that is less: a pool whose metadata is full can delete nothing. What the
/// kernel keeps for itself (16 MiB or a tenth) counts as used.
fn metadata(numbers: &Numbers) -> Space {
    let total = Bytes(numbers.metadata.1.saturating_mul(BLOCK as u64));
    let reserve = Bytes((total.0 / 4).min(32 * Bytes::MIB));
    Space { used: Bytes(numbers.metadata.0.saturating_mul(BLOCK as u64)), total, reserve }
}

fn state(numbers: &Numbers, data: Space, metadata: Space) -> PoolState {
    match numbers.mode {
        _ if numbers.needs_check => PoolState::NeedsCheck,
        Mode::Failed => PoolState::NeedsCheck,
        Mode::ReadOnly => PoolState::ReadOnly,
        Mode::OutOfData => PoolState::OutOfData,
        Mode::Write if data.free() < data.reserve => PoolState::LowData,
        Mode::Write if metadata.free() < metadata.reserve => PoolState::LowMetadata,
        Mode::Write => PoolState::Ok,
    }
}
