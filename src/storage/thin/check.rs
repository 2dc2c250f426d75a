//! Compares the three copies of the truth while the set is open: pool, journal, labels. Repair brings the labels in line
//! and takes back devices that can be proven ours; nothing is ever deleted by either.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::backend::{Backend, Node, Spec};
use super::core::{Core, lock};
use super::label::Label;
use super::metadata::{Details, Listing};
use super::names::{Names, Role};
use super::recovery::Mismatch;
use super::state::{Device, Phase};
use crate::model::{Bytes, PoolState};
use crate::storage::{Access, Finding, ForeignDevice, Report, StorageError};

/// No file system of ours is larger, so any is found on a node of this size: the pool does not know sizes.
pub(super) const LARGEST: Bytes = Bytes(256 << 40);

impl Core {
    /// What does not agree. Changes nothing; devices that are not active are activated for a moment.
    pub(super) fn examine(&self) -> Result<Report, StorageError> {
        let compared = self.compare()?;
        let mut report = Report { findings: self.check_pool()?.into_iter().collect(), ..Report::default() };
        if compared.plan.read_only == Some(Mismatch::JournalBehind) {
            let (journal, pool) = (compared.state.transaction, compared.transaction);
            report.findings.push(Finding::JournalBehind { journal, pool });
        }
        let shown = |device: &Device| !super::hidden::is_hidden(&device.id) && device.replaces.is_none();
        for (device, phase) in compared.state.devices.values().filter(|(device, _)| shown(device)) {
            report.devices += 1;
            if compared.plan.lost.contains(&device.thin) {
                report.findings.push(Finding::Lost(device.id.clone()));
            } else if *phase == Phase::Ready {
                report.findings.extend(self.check_label(device, &compared.state.uuid));
            }
        }
        for thin in &compared.plan.foreign {
            report.foreign.push(self.describe(*thin, &compared.pool)?.0);
        }
        Ok(report)
    }

    fn check_pool(&self) -> Result<Option<Finding>, StorageError> {
        let state = self.status()?.state;
        let broken = matches!(state, PoolState::NeedsCheck | PoolState::ReadOnly | PoolState::OutOfData);
        Ok(broken.then_some(Finding::Pool(state)))
    }

    fn check_label(&self, device: &Device, pool: &str) -> Option<Finding> {
        let id = device.id.clone();
        match self.look_at(device) {
            // It may have been removed since.
            Err(_) if self.find(&id, &[Phase::Ready]).is_err() => None,
            Err(error) => Some(Finding::Unreadable { id, reason: error.to_string() }),
            Ok(None) => Some(Finding::Unlabelled(id)),
            Ok(Some(label)) if label.pool != pool => {
                Some(Finding::WrongLabel { id, says: format!("'{}' of the pool {}", label.id, label.pool) })
            }
            // Its origin's: it gets its own when it is first written to.
            Ok(Some(label)) if (label.thin, label.stamp) != (device.thin, device.stamp) => None,
            Ok(Some(label)) if label == Label::of(pool, device) => None,
            Ok(Some(label)) => Some(Finding::WrongLabel { id, says: format!("'{}', {}", label.id, label.size) }),
        }
    }

    fn look_at(&self, device: &Device) -> Result<Option<Label>, StorageError> {
        let slot = self.slot(device.thin);
        let _held = lock(&slot);
        let node = self.activate(device)?;
        let failed = |source| StorageError::Io { op: "look at", path: format!("device {}", device.id).into(), source };
        let label = peek(&*self.backend, &node);
        self.let_go(device, &node.name);
        label.map_err(failed)
    }

    /// A device that is on no record, and whose label it has if that is its own.
    fn describe(&self, thin: u32, pool: &Listing) -> Result<(ForeignDevice, Option<Label>), StorageError> {
        let details = pool.get(&thin).copied().unwrap_or(Details { stamp: 0, mapped_blocks: 0 });
        let label = look_at_foreign(&*self.backend, &self.names, thin, details.stamp, Replay::No);
        let uuid = self.table().state.uuid.clone();
        let own = label.as_ref().ok().cloned().flatten().filter(|label| is_own(label, &uuid, thin, details.stamp));
        Ok((foreign(thin, details, self.settings.block_size, &uuid, &label), own))
    }

    /// Writes wrong labels anew, and puts devices on the record again whose own label names an id that is free. What
    /// is left afterwards is in the report.
    pub(super) fn repair(self: &Arc<Self>) -> Result<Report, StorageError> {
        let before = self.examine()?;
        for finding in &before.findings {
            if let Finding::Unlabelled(id) | Finding::WrongLabel { id, .. } = finding {
                self.relabel(id)?;
            }
        }
        let pool = self.compare()?.pool;
        for device in &before.foreign {
            let Some(label) = self.describe(device.thin_id, &pool)?.1 else { continue };
            let base = label.base.and_then(|id| self.find(&id, &[Phase::Ready]).ok());
            let device = Device {
                id: label.id,
                thin: label.thin,
                stamp: label.stamp,
                base: base.map(|base| (base.id, base.thin)),
                size: label.size,
                pending: false,
                replaces: None,
            };
            self.take_back(&device)?;
        }
        self.examine()
    }

    fn relabel(self: &Arc<Self>, id: &crate::model::DeviceId) -> Result<(), StorageError> {
        let device = self.find(id, &[Phase::Ready])?;
        // Refused for a label of another pool: then the files were exchanged, and writing would make it worse.
        let mount = self.mount(id, Access::ReadWrite)?;
        self.write_label(&device, mount.mount().as_fd())?;
        super::lease::sync(&device, mount.mount().as_fd())
    }
}

/// Whether reading may replay a file system's journal, as every mount does that is not a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// No: nothing is written.
    No,
    /// Yes.
    Yes,
}

/// The label of a device on no record. Its node, if there was none, goes again.
pub(super) fn look_at_foreign(
    backend: &dyn Backend,
    names: &Names,
    thin: u32,
    stamp: u64,
    replay: Replay,
) -> std::io::Result<Option<Label>> {
    let node = node_of(backend, names, thin, stamp)?;
    if replay == Replay::Yes {
        // What is read next must not be of before the replay.
        drop(backend.mount(&node, Access::ReadOnly));
    }
    let label = peek(backend, &node);
    remove(backend, &node);
    label
}

fn remove(backend: &dyn Backend, node: &Node) {
    if let Err(error) = backend.remove(&node.name) {
        tracing::debug!(%error, node.name, "cannot ask for removal at last close, ignoring");
    }
}

/// The node of a device known by its number and stamp; it may be active already, with a container in it.
fn node_of(backend: &dyn Backend, names: &Names, thin: u32, stamp: u64) -> std::io::Result<Node> {
    let (name, uuid) = (names.name(Role::Foreign(thin, stamp)), names.uuid(Role::Foreign(thin, stamp)));
    match backend.ours()?.into_iter().find(|node| node.uuid == uuid && node.live) {
        Some(node) => Ok(node),
        None => backend.activate(&Spec { name: &name, uuid: &uuid, thin, size: LARGEST }),
    }
}

/// Whether the base is not that of `pool`: it has another pool's label, or there is no file system with a label where
/// one must be, since a base gets its label before it is complete. A disk that fails is no answer.
pub(super) fn is_of_another_pool(backend: &dyn Backend, names: &Names, base: &Device, pool: &str) -> bool {
    let looked = node_of(backend, names, base.thin, base.stamp).and_then(|node| {
        let label = backend.peek(&node).and_then(|mount| Label::read(mount.as_fd()));
        remove(backend, &node);
        label
    });
    match looked {
        Ok(label) => label.is_none_or(|label| label.pool != pool),
        Err(error) => {
            tracing::debug!(%error, "cannot look at the base");
            matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EUCLEAN | libc::EBADMSG))
        }
    }
}

fn peek(backend: &dyn Backend, node: &Node) -> std::io::Result<Option<Label>> {
    match backend.peek(node) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            backend.read_at(node, 0, 4096).map(|head| Label::parse(&head))
        }
        mount => mount.and_then(|mount| Label::read(mount.as_fd())),
    }
}

/// Whether a label was written for the very device that it is on, and not for one that it descends from.
pub(super) fn is_own(label: &Label, pool: &str, thin: u32, stamp: u64) -> bool {
    label.pool == pool && label.thin == thin && label.stamp == stamp
}

/// Says what is known.
pub(super) fn foreign(
    thin: u32,
    details: Details,
    block: Bytes,
    pool: &str,
    label: &std::io::Result<Option<Label>>,
) -> ForeignDevice {
    let about = match label {
        Err(error) => format!("cannot be looked at: {error}"),
        Ok(None) => "has no label".to_owned(),
        Ok(Some(label)) if is_own(label, pool, thin, details.stamp) => format!("was '{}'", label.id),
        Ok(Some(label)) if label.pool == pool => format!("is a snapshot of '{}' or of its descendants", label.id),
        Ok(Some(label)) => format!("was '{}' of the pool {}", label.id, label.pool),
    };
    ForeignDevice { thin_id: thin, stamp: details.stamp, mapped: Bytes(details.mapped_blocks * block.0), about }
}

#[cfg(test)]
#[path = "check_tests.rs"]
pub(super) mod tests;
