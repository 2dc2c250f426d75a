//! What a set of devices says of its room and its health.

use std::time::Duration;

use crate::model::{Bytes, DeviceId, PoolState};

/// Who uses a device through this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Which device, by the id that it had when it was mounted.
    pub id: DeviceId,
    /// What for, as whoever mounted it said.
    pub purpose: String,
    /// How often.
    pub count: u32,
}

/// How fast a device takes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceGrowth {
    /// Which device.
    pub id: DeviceId,
    /// Bytes of the pool that it maps, shared ones included, as of the pool's last commit (a second ago).
    pub mapped: Bytes,
    /// Bytes that it came to map per second, averaged over about a minute with the last seconds counting most.
    pub per_second: Bytes,
}

/// How the pool's room is, for whoever can do something about the devices that take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressure {
    /// How urgent it is.
    pub level: PressureLevel,
    /// Bytes of data that are free now.
    pub free: Bytes,
    /// Bytes that may be on their way into what is free: what the page cache of the host has to write, but no more than a
    /// tenth of the pool.
    pub dirty: Bytes,
    /// Bytes of data there are now.
    pub total: Bytes,
    /// Bytes by which the pool may still grow by itself.
    pub growable: Bytes,
    /// When all of that is used, at the pace of the last minute. None when nothing is being used.
    pub time_to_full: Option<Duration>,
    /// Devices that take room, the fastest first.
    pub fastest: Vec<DeviceGrowth>,
}

/// How urgent a lack of room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum PressureLevel {
    /// There is room, or the pool grows as it is needed.
    #[default]
    None,
    /// The pool is below its low-water mark and cannot grow: tell somebody.
    Low,
    /// The rest is small (new devices are refused) or goes within a minute: stop the fastest writers.
    High,
    /// Nothing is left: writers wait, and get errors when the kernel's `no_space_timeout` has passed.
    Full,
}

/// Called with the pool's room; see [`DeviceSet::on_pressure`](super::DeviceSet::on_pressure).
pub type PressureListener = Box<dyn Fn(&Pressure) + Send + Sync>;

/// What a trim gave back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Bytes that file systems gave back to the pool, as they count; blocks that are shared stay in use.
    pub bytes: Bytes,
    /// Devices that were trimmed.
    pub devices: u32,
    /// Devices that could not be, and why.
    pub failed: Vec<(DeviceId, String)>,
}

/// What a check found. It is well when there is no finding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Devices that were looked at.
    pub devices: u32,
    /// What does not agree.
    pub findings: Vec<Finding>,
    /// Devices of the pool that are on no record. Never deleted but by
    /// [`remove_foreign`](super::DeviceSet::remove_foreign).
    pub foreign: Vec<ForeignDevice>,
}

/// One disagreement between pool, journal and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The pool cannot be written: its state.
    Pool(PoolState),
    /// The pool was changed without the journal: the journal is of an earlier time. Salvage it.
    JournalBehind {
        /// The journal's transaction id.
        journal: u64,
        /// The pool's.
        pool: u64,
    },
    /// The pool has no device under this one's number, or one that was made at another time.
    Lost(DeviceId),
    /// A device that was used has no label of its own; repair writes it.
    Unlabelled(DeviceId),
    /// A label speaks of something else; repair writes it anew, unless it names another pool.
    WrongLabel {
        /// Which device.
        id: DeviceId,
        /// What its label says.
        says: String,
    },
    /// A device could not be looked at.
    Unreadable {
        /// Which device.
        id: DeviceId,
        /// Why.
        reason: String,
    },
    /// A device was brought back onto the record.
    Salvaged {
        /// Which device.
        id: DeviceId,
        /// From what it was known.
        from: Source,
    },
}

/// From what salvage knew a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Its own label.
    Label,
    /// An older journal.
    Journal,
    /// The copy of the journal's table in the pool.
    Copy,
}

/// A device of the pool that is on no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignDevice {
    /// Its number in the pool.
    pub thin_id: u32,
    /// The pool's transaction id when it was made.
    pub stamp: u64,
    /// Bytes it maps, shared ones included.
    pub mapped: Bytes,
    /// What is known of it.
    pub about: String,
}
