//! The room of the file system that the trees are on.

use std::fs::{self, File};
use std::path::Path;

use super::failed;
use crate::model::{Bytes, PoolState};
use crate::storage::StorageError;

/// How much of a large file system is kept free of new devices.
const RESERVE: u64 = 1 << 30;

/// The numbers of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free: Bytes,
    pub(super) total: Bytes,
    pub(super) block: Bytes,
}

impl Room {
    pub(super) fn of(directory: &Path) -> Result<Self, StorageError> {
        let status = rustix::fs::statvfs(directory).map_err(|error| failed("measure", directory, error.into()))?;
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(status.f_frsize));
        Ok(Self { free: bytes(status.f_bavail), total: bytes(status.f_blocks), block: bytes(1) })
    }

    /// What is kept for those that write already.
    fn reserve(self) -> Bytes {
        Bytes((self.total.0 / 20).min(RESERVE))
    }

    /// PoolFull when new devices would take the last.
    pub(super) fn admit(self) -> Result<(), StorageError> {
        if self.free < self.reserve() { Err(self.full()) } else { Ok(()) }
    }

    pub(super) fn full(self) -> StorageError {
        StorageError::PoolFull { what: "data", free: self.free, total: self.total, reserve: self.reserve() }
    }

    pub(super) fn state(self) -> PoolState {
        match self.free.0 {
            0 => PoolState::OutOfData,
            _ if self.free.0 < 2 * self.reserve().0 => PoolState::LowData,
            _ => PoolState::Ok,
        }
    }
}

/// Whether a copy can share its content with the original (ioctl_ficlone(2)), found out by trying.
pub(super) fn shares_extents(directory: &Path) -> Result<bool, StorageError> {
    let (from, to) = (directory.join("probe.from"), directory.join("probe.to"));
    let try_it = || {
        fs::write(&from, [1; 4096])?;
        Ok(rustix::fs::ioctl_ficlone(File::create(&to)?, File::open(&from)?).is_ok())
    };
    let shares = try_it().map_err(|source| failed("write", &from, source));
    for path in [from, to] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", &path, error)),
            _ => {}
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_devices_are_refused_before_the_last_room_is_taken() {
        let room = |free| Room { free: Bytes(free), total: Bytes(20_000), block: Bytes(1) };
        assert!(room(1000).admit().is_ok());
        assert!(matches!(room(999).admit(), Err(StorageError::PoolFull { reserve: Bytes(1000), .. })));
        let states = [0, 1999, 2000].map(|free| room(free).state());
        assert_eq!(states, [PoolState::OutOfData, PoolState::LowData, PoolState::Ok]);
        let large = Room { free: Bytes(3 << 30), total: Bytes(1 << 40), block: Bytes(1) };
        assert_eq!(large.state(), PoolState::Ok, "a large disk need not be a twentieth free");
    }
}
