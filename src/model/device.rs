//! Words of the DeviceSet.

use serde::{Deserialize, Serialize};

use super::{Bytes, DeviceId};

/// Which implementation keeps the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Thin snapshots in a device-mapper pool.
    Thin,
    /// Copies of whole trees, sharing extents where the file system can.
    Copy,
}

impl Driver {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Thin => "thin",
            Self::Copy => "copy",
        }
    }
}

/// How far a device's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Being filled; a restart of the daemon removes it.
    Pending,
    /// Complete.
    Ready,
    /// On record, but the pool no longer has it.
    Lost,
    /// Hidden, waiting until its last user is gone.
    Removing,
}

impl DeviceState {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Lost => "lost",
            Self::Removing => "removing",
        }
    }
}

/// What devices are formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// ext4.
    #[default]
    Ext4,
    /// xfs, which can grow but never shrink.
    Xfs,
}

/// One device, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub id: DeviceId,
    /// The pool's number for it (24 bits); 0 with driver `copy`.
    pub thin_id: u32,
    /// The device it was snapshotted from, if any.
    pub base: Option<DeviceId>,
    /// Virtual size.
    pub size: Bytes,
    /// Bytes of the pool mapped by it, shared ones included.
    pub mapped: Bytes,
    /// Whether its node exists now.
    pub active: bool,
    /// Its state.
    pub state: DeviceState,
}

/// How the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolState {
    /// Working, with room.
    Ok,
    /// Data space is below the low-water mark.
    LowData,
    /// Metadata space is below its reserve.
    LowMetadata,
    /// Out of data space.
    OutOfData,
    /// Read-only.
    ReadOnly,
    /// The metadata must be checked before further use.
    NeedsCheck,
}

impl PoolState {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LowData => "low-data",
            Self::LowMetadata => "low-metadata",
            Self::OutOfData => "out-of-data",
            Self::ReadOnly => "read-only",
            Self::NeedsCheck => "needs-check",
        }
    }
}

/// The pool's numbers at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// The device-mapper name of the pool, or the directory with driver `copy`.
    pub pool: String,
    /// Its state.
    pub state: PoolState,
    /// Bytes of data in use.
    pub data_used: Bytes,
    /// Bytes of data there are.
    pub data_total: Bytes,
    /// Bytes of metadata in use.
    pub metadata_used: Bytes,
    /// Bytes of metadata there are.
    pub metadata_total: Bytes,
    /// Bytes per pool block.
    pub block_size: Bytes,
    /// The pool's transaction id.
    pub transaction_id: u64,
    /// Devices on record.
    pub devices: u32,
    /// Devices whose node exists.
    pub active: u32,
}
