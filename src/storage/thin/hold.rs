//! Devices that other software activates: their nodes stay although nobody has them open.
//!
//! Every other node is marked for removal at last close as soon as it is made. One that is held is not, and that it is
//! held is in the journal. What is active is the kernel's to say: after the machine was off there are no nodes, and then
//! nothing is held either; after a restart of the daemon alone there are, and they stay.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::backend::Node;
use super::core::Core;
use super::state::Device;
use crate::model::DeviceId;
use crate::storage::{Access, StorageError};

impl Core {
    /// Activates `id` until it is released; the node's path.
    pub(super) fn hold(&self, id: &DeviceId) -> Result<PathBuf, StorageError> {
        self.with_slot(id, |device| {
            let before = self.table().state.held.contains(&device.thin);
            // First, so that a node that is there is known to be held even if this process is killed now.
            self.record_hold(device.thin, true)?;
            let node = self.complete_and_activate(device);
            if node.is_err() && !before {
                self.record_hold(device.thin, false)?;
                self.let_go(device, &self.node_names(device).0);
            }
            node.map(|node| PathBuf::from(format!("/dev/dm-{}", node.minor)))
        })
    }

    /// Whoever mounts the node by himself finds the size that was asked for.
    fn complete_and_activate(&self, device: &Device) -> Result<Node, StorageError> {
        match self.open_mount(device, Access::ReadWrite) {
            // Somebody has it mounted read-only: then it is completed later.
            Ok(_) | Err(StorageError::InUse { .. }) => self.activate(device),
            Err(error) => Err(error),
        }
    }

    /// Takes [`hold`](Self::hold) back; the node goes.
    pub(super) fn release(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.with_slot(id, |device| {
            self.check_unused(device)?;
            self.record_hold(device.thin, false)?;
            if self.deactivate(device) { Ok(()) } else { self.check_unused(device) }
        })
    }

    /// InUse when somebody has the node of `device` open. The slot is locked.
    pub(super) fn check_unused(&self, device: &Device) -> Result<(), StorageError> {
        let (name, uuid) = self.node_names(device);
        let node = self.backend.node(&name);
        let node = node.map_err(|source| StorageError::DeviceMapper { op: "look at", device: name, source })?;
        match node {
            Some(node) if node.uuid == uuid && node.users > 0 => Err(self.in_use(device, &node)),
            _ => Ok(()),
        }
    }

    fn in_use(&self, device: &Device, node: &Node) -> StorageError {
        let mut users = self.leases.of(&device.id);
        users.extend(self.backend.users(node));
        let by = if users.is_empty() { "a mount that no process shows".to_owned() } else { users.join(", ") };
        StorageError::InUse { id: device.id.clone(), by }
    }

    /// The nodes of held devices, by number.
    pub(super) fn held_nodes(&self) -> BTreeMap<u32, String> {
        let table = self.table();
        let held = table.state.held.iter().filter_map(|thin| table.state.devices.get(thin));
        held.map(|(device, _)| (device.thin, self.node_names(device).0)).collect()
    }

    /// At start: what is held but not active was active before the machine went down.
    pub(super) fn release_inactive(&self) -> Result<(), StorageError> {
        let held = self.held_nodes();
        if held.is_empty() {
            return Ok(());
        }
        let active = self.active_names()?;
        for (thin, name) in held {
            if !active.contains(&name) && !self.table().read_only {
                self.record_hold(thin, false)?;
            }
        }
        Ok(())
    }

    /// At the end nothing is held any more.
    pub(super) fn release_all(&self) -> Result<(), StorageError> {
        if self.table().read_only {
            return Ok(());
        }
        for thin in self.held_nodes().into_keys() {
            self.record_hold(thin, false)?;
        }
        Ok(())
    }
}
