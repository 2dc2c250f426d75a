//! One file: versioned, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether a write must have reached the disk before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must: the file and its directory are synced.
    Synced,
    /// It need not; a crash of the machine may bring the old file back, never a torn one.
    Eventual,
}

/// What can go wrong with a record. The file is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("cannot {op} {path}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what we write.
    #[error("{path} is damaged: {source}; restore it from a backup or remove it")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// Written by another version of Holm.
    #[error("{path} has format version {found}, this holmd reads up to {known}: install the holmd that wrote it")]
    UnknownVersion {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest we know.
        known: u32,
    },
}

impl RecordError {
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

/// Replaces `path` with `value`.
pub(super) fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), RecordError> {
    let temporary = path.with_extension("tmp");
    let text =
        serde_json::to_vec_pretty(value).map_err(|source| RecordError::Damaged { path: path.to_owned(), source })?;
    let mut file = File::create(&temporary).map_err(RecordError::io("create", &temporary))?;
    file.write_all(&text).map_err(RecordError::io("write", &temporary))?;
    if durability == Durability::Synced {
        file.sync_data().map_err(RecordError::io("sync", &temporary))?;
    }
    fs::rename(&temporary, path).map_err(RecordError::io("rename", &temporary))?;
    match durability {
        Durability::Synced => sync_parent(path),
        Durability::Eventual => Ok(()),
    }
}

/// Reads `path`; `None` when there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>, RecordError> {
    let damaged = |source| RecordError::Damaged { path: path.to_owned(), source };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RecordError::io("read", path)(error)),
    };
    let value: Value = serde_json::from_slice(&text).map_err(damaged)?;
    match value.get("version").and_then(Value::as_u64) {
        Some(found) if found > u64::from(version) => {
            Err(RecordError::UnknownVersion { path: path.to_owned(), found, known: version })
        }
        _ => serde_json::from_value(value).map(Some).map_err(damaged),
    }
}

/// Removes `path`; that it was not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), RecordError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RecordError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes what happened in `path`'s directory durable (fsync(2): the entry needs its own sync).
pub(super) fn sync_parent(path: &Path) -> Result<(), RecordError> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(RecordError::io("sync", parent))
}
