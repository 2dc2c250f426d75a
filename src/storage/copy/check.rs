//! Whether the directories are as they should be. There is one copy of the truth, so little can disagree.

use std::path::Path;

use super::note::{Note, write_note};
use super::table::{Place, Shared};
use crate::model::{DeviceId, PoolState};
use crate::storage::{Finding, Report, StorageError, TREE};

use super::room::Room;

impl Shared {
    /// Looks at every device; changes nothing.
    pub(super) fn check(&self) -> Report {
        let devices: Vec<(DeviceId, Place)> = {
            let table = self.table();
            let ready = table.devices.iter().filter(|(_, entry)| entry.place != Place::Copying);
            ready.map(|(id, entry)| (id.clone(), entry.place)).collect()
        };
        let mut findings: Vec<Finding> = devices.iter().filter_map(|(id, place)| self.look_at(id, *place)).collect();
        if Room::of(self.directory()).is_ok_and(|room| room.state() == PoolState::OutOfData) {
            findings.push(Finding::Pool(PoolState::OutOfData));
        }
        Report { devices: u32::try_from(devices.len()).unwrap_or(u32::MAX), findings, foreign: Vec::new() }
    }

    /// Writes notes anew that are wrong or gone, from what is known of the devices; what is left is in the report.
    pub(super) fn repair(&self) -> Result<Report, StorageError> {
        for finding in self.check().findings {
            if let Finding::Unlabelled(id) | Finding::WrongLabel { id, .. } = finding {
                let Ok(entry) = self.table().entry(&id).cloned() else { continue };
                let note = Note { base: entry.base, mapped: entry.mapped };
                write_note(&self.path(&id, entry.place), &note)?;
            }
        }
        Ok(self.check())
    }

    fn look_at(&self, id: &DeviceId, place: Place) -> Option<Finding> {
        let path = self.path(id, place);
        let found = look_at(id, &path)?;
        // It may have been removed or completed meanwhile.
        let same = self.table().devices.get(id).is_some_and(|entry| entry.place == place);
        same.then_some(found)
    }
}

fn look_at(id: &DeviceId, path: &Path) -> Option<Finding> {
    let id = id.clone();
    if !path.is_dir() {
        return Some(Finding::Lost(id));
    }
    match std::fs::symlink_metadata(path.join(TREE)) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Some(Finding::Unreadable { id, reason: format!("{TREE} is no directory") }),
        Err(error) => return Some(Finding::Unreadable { id, reason: format!("{TREE}: {error}") }),
    }
    match Note::read(path) {
        Ok(_) => None,
        Err(StorageError::Damaged { reason, .. }) => Some(Finding::WrongLabel { id, says: reason }),
        Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Some(Finding::Unlabelled(id))
        }
        Err(error) => Some(Finding::Unreadable { id, reason: error.to_string() }),
    }
}
