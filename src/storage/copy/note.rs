//! The note beside each tree: what a listing says of the device.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::failed;
use crate::model::{Bytes, DeviceId};
use crate::storage::StorageError;

/// Its name.
const NOTE: &str = "holm.note";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) base: Option<DeviceId>,
    /// Bytes of its files when it was copied.
    pub(super) mapped: Bytes,
}

impl Note {
    /// Io when there is none, Damaged when it says nothing that could be understood.
    pub(super) fn read(device: &Path) -> Result<Self, StorageError> {
        let path = device.join(NOTE);
        let text = fs::read(&path).map_err(|source| failed("read", &path, source))?;
        serde_json::from_slice(&text).map_err(|error| StorageError::Damaged { path, reason: error.to_string() })
    }
}

/// Writes the note of the device in a directory, as a whole or not at all.
pub(super) fn write_note(device: &Path, note: &Note) -> Result<(), StorageError> {
    let (path, new) = (device.join(NOTE), device.join("holm.note.new"));
    let text = serde_json::to_vec(note).expect("a note is plain data");
    let written = File::create(&new).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
    written.map_err(|source| failed("write", &new, source))?;
    fs::rename(&new, &path).map_err(|source| failed("rename", &new, source))
}
