//! What is done to the pool while no daemon runs: `holmd --salvage` rebuilds its journal from what its devices say, and
//! `holmd --adopt` takes block devices or a pool over that are not known to be Holm's.

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::json;

use super::DaemonError;
use super::options::thin_config;
use crate::config::Config;
use crate::engine::CheckView;
use crate::model::{DeviceId, Driver, now_usec};
use crate::storage::thin::{self, ThinConfig};
use crate::storage::{self, Report, StorageError};

/// Salvages, and writes what was found as JSON. After an error the journal is as it was.
pub(super) fn salvage(roots: &[PathBuf]) -> Result<(), DaemonError> {
    run(roots, thin::salvage)
}

/// Takes over what the configuration names, and writes what was found as JSON.
pub(super) fn adopt(roots: &[PathBuf]) -> Result<(), DaemonError> {
    run(roots, thin::adopt)
}

fn run(roots: &[PathBuf], work: impl FnOnce(&ThinConfig) -> Result<Report, StorageError>) -> Result<(), DaemonError> {
    let config = Config::load(roots)?.storage;
    let begun_with_copy = config.directory.join("pool/trees").exists();
    if config.driver == Some(Driver::Copy) || (config.driver.is_none() && begun_with_copy) {
        return Err(DaemonError::NothingToSalvage);
    }
    let report = work(&thin_config(&config)).map_err(|error| match error {
        StorageError::PoolState { state: storage::LOCKED, .. } => DaemonError::Running,
        error => error.into(),
    })?;
    let view = CheckView::of(report, now_usec());
    writeln!(io::stdout(), "{}", to_json(&view)).map_err(DaemonError::Output)
}

/// As `holmctl` reads it.
fn to_json(view: &CheckView) -> serde_json::Value {
    let device = |id: &Option<DeviceId>| id.as_ref().map(DeviceId::to_string).unwrap_or_default();
    let finding = |found: &crate::engine::FindingView| json!({"kind": found.kind, "device": device(&found.device), "text": found.text});
    let foreign = |it: &crate::engine::ForeignView| json!({"thin_id": it.thin_id, "stamp": it.stamp, "mapped": it.mapped.0, "about": it.about});
    json!({
        "devices": view.devices,
        "findings": view.findings.iter().map(finding).collect::<Vec<_>>(),
        "foreign": view.foreign.iter().map(foreign).collect::<Vec<_>>(),
    })
}
