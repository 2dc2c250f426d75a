//! What can go wrong with devices before the DeviceSet is asked, or around it.

use std::io;

use crate::model::{DeviceId, ErrorCode};

/// What can go wrong. Everything is as before after each of them.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It is Holm's own.
    #[error("the device '{id}' is Holm's own, {what}: {advice}")]
    Reserved {
        /// Which.
        id: DeviceId,
        /// What it is for.
        what: &'static str,
        /// What to do.
        advice: String,
    },
    /// It is mounted neither in the caller's mount namespace nor in holmd's.
    #[error("the device '{0}' is not mounted: 'findmnt' shows what is mounted where")]
    NotMounted(DeviceId),
    /// A mount of it is in use.
    #[error("the device '{id}' is in use on {place}: find by whom with 'fuser -vm {place}'")]
    Busy {
        /// Which.
        id: DeviceId,
        /// Where it is mounted.
        place: String,
    },
    /// The descriptor is of something else.
    #[error("the descriptor is not that of a directory: open the directory to mount on, and pass that")]
    NoDirectory,
    /// The directory can be mounted on by nobody here.
    #[error(
        "the directory is neither in the mount namespace of the caller nor in that of holmd: open it in one of them"
    )]
    Elsewhere,
    /// No device of the pool that is on no record has that number.
    #[error("the pool has no device {0} that is on no record: 'holmctl device check' shows those there are")]
    NoForeignDevice(u32),
    /// The kernel refused.
    #[error("cannot {op} the device '{id}': {source}")]
    Mount {
        /// What was tried.
        op: &'static str,
        /// With which.
        id: DeviceId,
        /// Why.
        source: io::Error,
    },
}

impl DeviceError {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Reserved { .. } => ErrorCode::DeviceReserved,
            Self::NotMounted(_) => ErrorCode::NotMounted,
            Self::Busy { .. } => ErrorCode::DeviceInUse,
            Self::NoDirectory | Self::Elsewhere => ErrorCode::InvalidConfig,
            Self::NoForeignDevice(_) => ErrorCode::NoSuchDevice,
            Self::Mount { .. } => ErrorCode::StorageFailed,
        }
    }
}
