//! Devices of the set itself. They are on record like any other, so they can neither be lost nor leaked, but nobody is
//! shown them and nobody can have their ids.

use super::ballast::BALLAST;
use super::duplicate::COPY;
use crate::model::DeviceId;
use crate::storage::StorageError;

/// Whether `id` is one of them.
pub(super) fn is_hidden(id: &DeviceId) -> bool {
    matches!(id.as_str(), BALLAST | COPY)
}

/// They do not exist for callers.
pub(super) fn check(id: &DeviceId) -> Result<(), StorageError> {
    if is_hidden(id) { Err(StorageError::NoSuchDevice(id.clone())) } else { Ok(()) }
}
