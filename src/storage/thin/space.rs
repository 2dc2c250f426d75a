//! The pool's numbers: how much is kept back, who may still be let in, and by how much it grows. Doing it is the
//! keeper's; see there.
//!
//! ```text
//! data       0 ....................... mark ........ reserve ... full      (free falls to the right)
//!              nothing is done         grow          refuse new devices, always let delete
//! ```

use super::backend::{Host, Mode, Numbers, Part};
use super::core::Core;
use super::hidden;
use super::metadata::BLOCK;
use crate::model::{Bytes, PoolState, PoolStatus};
use crate::storage::StorageError;

impl Core {
    /// Refuses a new device while the pool is not well or near its end, after trying to make room. A snapshot of an
    /// active device on a full pool would hang, and full metadata stops even deletions: neither may ever be reached.
    pub(super) fn admit(&self) -> Result<(), StorageError> {
        let mut numbers = self.numbers()?;
        if !self.room(&numbers).is_enough() {
            numbers = self.make_room()?;
        }
        self.check_mode(&numbers)?;
        let room = self.room(&numbers);
        room.data.admit("data")?;
        room.metadata.admit("metadata")
    }

    fn check_mode(&self, numbers: &Numbers) -> Result<(), StorageError> {
        let refused =
            |state, advice| Err(StorageError::PoolState { pool: self.settings.pool_name.clone(), state, advice });
        match (numbers.mode, numbers.needs_check) {
            (Mode::Failed, _) => refused("failed", "stop holmd and repair the metadata with thin_repair(8)"),
            (_, true) => refused("damaged", "restart holmd when no container runs: it checks the metadata then"),
            (Mode::ReadOnly, _) => refused("read-only", "its metadata has no room left: remove devices, or enlarge it"),
            (Mode::Write | Mode::OutOfData, false) => Ok(()),
        }
    }

    /// The pool's status.
    pub(super) fn status(&self) -> Result<PoolStatus, StorageError> {
        let numbers = self.numbers()?;
        let active = self.active_names()?;
        let (devices, read_only) = {
            let table = self.table();
            (table.state.names.keys().filter(|id| !hidden::is_hidden(id)).count(), table.read_only)
        };
        let room = self.room(&numbers);
        Ok(PoolStatus {
            pool: self.settings.pool_name.clone(),
            state: state(&numbers, &room, read_only),
            data_used: room.data.used,
            data_total: room.data.total,
            metadata_used: room.metadata.used,
            metadata_total: room.metadata.total,
            block_size: self.settings.block_size,
            transaction_id: numbers.transaction,
            devices: u32::try_from(devices).unwrap_or(u32::MAX),
            active: u32::try_from(active.len()).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn numbers(&self) -> Result<Numbers, StorageError> {
        self.backend.numbers().map_err(|source| self.settings.failed("ask the status of", source))
    }

    /// What cannot be asked of the host is not held against it.
    pub(super) fn room(&self, numbers: &Numbers) -> Room {
        let unbacked = self.backend.host(Part::Data).map_or(Bytes(0), unbacked);
        Room::of(numbers, unbacked, self.settings.block_size)
    }
}

/// Both kinds of room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) data: Space,
    pub(super) metadata: Space,
}

/// Room of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) used: Bytes,
    pub(super) total: Bytes,
    /// Of what is not used: this the host could not give now.
    pub(super) unbacked: Bytes,
    /// Less free than this: the pool should grow.
    pub(super) mark: Bytes,
    /// Less free than this: nobody is let in.
    pub(super) reserve: Bytes,
}

impl Room {
    pub(super) fn of(numbers: &Numbers, unbacked: Bytes, block: Bytes) -> Self {
        let data = Bytes(numbers.data.1.saturating_mul(block.0));
        let metadata = Bytes(numbers.metadata.1.saturating_mul(BLOCK as u64));
        Self {
            // A twentieth is kept back for the devices that there are.
            data: Space {
                used: Bytes(numbers.data.0.saturating_mul(block.0)),
                total: data,
                unbacked,
                mark: data_mark(data),
                reserve: Bytes(data.0 / 20),
            },
            // A pool whose metadata is full can delete nothing. What the kernel keeps for itself (16 MiB or a tenth)
            // counts as used.
            metadata: Space {
                used: Bytes(numbers.metadata.0.saturating_mul(BLOCK as u64)),
                total: metadata,
                unbacked: Bytes(0),
                mark: Bytes((metadata.0 / 2).min(128 * Bytes::MIB)),
                reserve: Bytes((metadata.0 / 4).min(32 * Bytes::MIB)),
            },
        }
    }

    /// Whether a new device is let in.
    pub(super) fn is_enough(&self) -> bool {
        self.data.free() >= self.data.reserve && self.metadata.free() >= self.metadata.reserve
    }
}

impl Space {
    pub(super) fn free(self) -> Bytes {
        Bytes(self.total.0.saturating_sub(self.used.0).saturating_sub(self.unbacked.0))
    }

    fn admit(self, what: &'static str) -> Result<(), StorageError> {
        let (free, total, reserve) = (self.free(), self.total, self.reserve);
        if free < reserve { Err(StorageError::PoolFull { what, free, total, reserve }) } else { Ok(()) }
    }
}

/// With less free data than this a pool of `total` bytes should grow: a quarter, at most 2 GiB, but a twentieth at
/// least. The kernel tells when it is reached.
pub(super) fn data_mark(total: Bytes) -> Bytes {
    Bytes((total.0 / 4).min(2 * Bytes::GIB).max(total.0 / 20))
}

/// What the data grows to next, if the host has room for a step that is worth it: half as much again, from 256 MiB to
/// 8 GiB, so that a fast writer does not outrun it.
pub(super) fn next_data(data: &Space, host: Host, limit: Option<Bytes>, block: Bytes) -> Option<Bytes> {
    let step = (data.total.0 / 2).clamp(256 * Bytes::MIB, 8 * Bytes::GIB).min(growable(data, host, limit).0);
    let step = step / block.0 * block.0;
    (step >= 4 * Bytes::MIB).then(|| Bytes(data.total.0 + step))
}

/// What the metadata grows to next. It may use half of what is left to the host: a pool without metadata is worse off
/// than one without data.
pub(super) fn next_metadata(metadata: &Space, host: Host) -> Option<Bytes> {
    let room = host.free.0.saturating_sub(kept(host).0 / 2);
    let step = metadata.total.0.clamp(16 * Bytes::MIB, 256 * Bytes::MIB).min(room);
    let total = (metadata.total.0 + step).min(MAX_METADATA) & !(Bytes::MIB - 1);
    (total > metadata.total.0).then_some(Bytes(total))
}

/// By how much the data may still grow by itself. What was given back to the host is the pool's before that.
pub(super) fn growable(data: &Space, host: Host, limit: Option<Bytes>) -> Bytes {
    let room = host.free.0.saturating_sub(kept(host).0).saturating_sub(host.holes.0);
    Bytes(limit.map_or(room, |limit| room.min(limit.0.saturating_sub(data.total.0))))
}

/// Which part of what discards gave back to the host it could not give now without touching what is kept for others.
/// While this is 0 every block of the pool has its room, taken or promised; else it is taken at once.
pub(super) fn unbacked(host: Host) -> Bytes {
    Bytes(host.holes.0.saturating_sub(host.free.0.saturating_sub(kept(host).0)))
}

/// Whether the host is so near to that that it should be watched.
pub(super) fn is_getting_short(host: Host) -> bool {
    host.holes.0 > 0 && host.free.0 < host.holes.0.saturating_add(2 * kept(host).0)
}

/// Whether a device that is to be deleted is discarded first, which alone gives room back to the host: when it has enough
/// of its own to be worth it, and not so much in all that other deletions would wait for long.
pub(super) fn is_worth_discarding(own: Bytes, mapped: Bytes) -> bool {
    own.0 >= 8 * Bytes::MIB && mapped.0 <= 8 * Bytes::GIB
}

/// What is left free for others, if there are any: a tenth of the file system, from 1 to 50 GiB.
pub(super) fn kept(host: Host) -> Bytes {
    if host.shared { Bytes((host.total.0 / 10).clamp(Bytes::GIB, 50 * Bytes::GIB)) } else { Bytes(0) }
}

/// The kernel uses no more: 33292800 sectors, thin-provisioning.rst.
pub(super) const MAX_METADATA: u64 = 33_292_800 * 512;

pub(super) fn state(numbers: &Numbers, room: &Room, read_only: bool) -> PoolState {
    match numbers.mode {
        _ if numbers.needs_check => PoolState::NeedsCheck,
        Mode::Failed => PoolState::NeedsCheck,
        Mode::ReadOnly => PoolState::ReadOnly,
        _ if read_only => PoolState::ReadOnly,
        Mode::OutOfData => PoolState::OutOfData,
        Mode::Write if room.data.free() < room.data.reserve => PoolState::LowData,
        Mode::Write if room.metadata.free() < room.metadata.reserve => PoolState::LowMetadata,
        Mode::Write => PoolState::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Bytes = Bytes(64 << 10);

    fn numbers(mode: Mode, used: u64, total: u64) -> Numbers {
        let (metadata, data) = ((400, 4096), (used, total));
        let (needs_check, held, passes_discards) = (false, false, true);
        Numbers { transaction: 1, metadata, data, mode, needs_check, held, passes_discards }
    }

    fn host(free: u64, total: u64) -> Host {
        Host { free: Bytes(free), total: Bytes(total), holes: Bytes(0), shared: true }
    }

    #[test]
    fn every_state_is_told() {
        let said = |numbers: Numbers, read_only| state(&numbers, &Room::of(&numbers, Bytes(0), BLOCK), read_only);
        assert_eq!(said(numbers(Mode::Write, 0, 1000), false), PoolState::Ok);
        assert_eq!(said(numbers(Mode::Write, 951, 1000), false), PoolState::LowData);
        assert_eq!(
            said(Numbers { metadata: (3100, 4096), ..numbers(Mode::Write, 0, 1000) }, false),
            PoolState::LowMetadata
        );
        assert_eq!(said(numbers(Mode::OutOfData, 1000, 1000), false), PoolState::OutOfData);
        assert_eq!(said(numbers(Mode::ReadOnly, 0, 1000), false), PoolState::ReadOnly);
        assert_eq!(said(numbers(Mode::Write, 0, 1000), true), PoolState::ReadOnly);
        assert_eq!(said(Numbers { needs_check: true, ..numbers(Mode::ReadOnly, 0, 9) }, false), PoolState::NeedsCheck);
        assert_eq!(said(numbers(Mode::Failed, 0, 0), false), PoolState::NeedsCheck);
    }

    #[test]
    fn data_grows_by_steps_up_to_the_limit_and_leaves_the_host_its_part() {
        let data = |total: u64| Room::of(&numbers(Mode::Write, 0, total / BLOCK.0), Bytes(0), BLOCK).data;
        let gib = Bytes::GIB;
        let roomy = host(500 * gib, 1000 * gib);
        assert_eq!(next_data(&data(2 * gib), roomy, None, BLOCK), Some(Bytes(3 * gib)));
        assert_eq!(next_data(&data(100 * gib), roomy, None, BLOCK), Some(Bytes(108 * gib)));
        assert_eq!(
            next_data(&data(2 * gib), roomy, Some(Bytes(2 * gib + (512 << 20))), BLOCK),
            Some(Bytes(5 * gib / 2))
        );
        assert_eq!(next_data(&data(2 * gib), roomy, Some(Bytes(gib)), BLOCK), None);
        assert_eq!(next_data(&data(2 * gib), host(50 * gib, 1000 * gib), None, BLOCK), None);
        assert_eq!(
            next_data(&data(2 * gib), host(gib + (100 << 20), 8 * gib), None, BLOCK),
            Some(Bytes(2 * gib + (100 << 20)))
        );
    }

    #[test]
    fn what_was_given_back_is_free_only_as_far_as_the_host_still_has_it() {
        let gib = Bytes::GIB;
        let with_holes = |free, holes| Host { holes: Bytes(holes), ..host(free, 100 * gib) };
        // 10 GiB are kept for others.
        for (free, holes, expected) in [(50, 5, 0), (15, 5, 0), (14, 5, 1), (10, 5, 5), (3, 5, 5), (3, 0, 0)] {
            assert_eq!(unbacked(with_holes(free * gib, holes * gib)), Bytes(expected * gib), "{free} {holes}");
        }
        assert!(is_getting_short(with_holes(24 * gib, 5 * gib)) && !is_getting_short(with_holes(26 * gib, 5 * gib)));
        assert!(!is_getting_short(with_holes(0, 0)));
        let data = Room::of(&numbers(Mode::Write, 0, 8 * gib / BLOCK.0), Bytes(3 * gib), BLOCK).data;
        assert_eq!(data.free(), Bytes(5 * gib));
        assert_eq!(growable(&data, with_holes(20 * gib, 4 * gib), None), Bytes(6 * gib));
    }

    #[test]
    fn metadata_doubles_until_the_kernels_limit() {
        let zero = Bytes(0);
        let metadata =
            |total: u64| Space { used: zero, total: Bytes(total), unbacked: zero, mark: zero, reserve: zero };
        let roomy = host(500 << 30, 1000 << 30);
        assert_eq!(next_metadata(&metadata(16 << 20), roomy), Some(Bytes(32 << 20)));
        assert_eq!(next_metadata(&metadata(MAX_METADATA & !((1 << 20) - 1)), roomy), None);
        assert_eq!(next_metadata(&metadata(16 << 20), host(0, 1 << 40)), None);
    }
}
