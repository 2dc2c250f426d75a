//! What a container's task does to its root and its record.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use super::SnapshotChange;
use super::task::{Goal, Task};
use crate::engine::blocking;
use crate::engine::error::EngineError;
use crate::engine::lifecycle::{Refusal, State};
use crate::engine::limits;
use crate::engine::steps::Steps;
use crate::engine::table::{container_device, snapshot_device};
use crate::engine::view::JobResult;
use crate::model::{Bytes, ContainerName, Limits, SnapshotName, now_usec};
use crate::records::{ContainerRecord, Durability};

impl Task {
    /// On the disk before anything comes of it: a snapshot that is on no record would be nobody's.
    pub(super) async fn change_snapshots(&mut self, change: SnapshotChange) -> Result<(), EngineError> {
        let mut record = self.record.clone();
        let has = |name: &SnapshotName| record.snapshots.contains_key(name);
        match change {
            SnapshotChange::Begin(name) if has(&name) => return Err(self.snapshot_exists(name)),
            SnapshotChange::Begin(name) => drop(record.snapshots.insert(name, now_usec())),
            SnapshotChange::Made(name) | SnapshotChange::Remove(name) if !has(&name) => {
                return Err(self.no_snapshot(name));
            }
            SnapshotChange::Made(_) => return Ok(()),
            SnapshotChange::Failed(name) => drop(record.snapshots.remove(&name)),
            SnapshotChange::Remove(name) => {
                self.remove_snapshot_device(&name).await?;
                record.snapshots.remove(&name);
            }
        }
        self.replace_record(record).await
    }

    /// Only at rest: a payload would go on writing to what is no longer its root.
    pub(super) async fn roll_back(&mut self, snapshot: &SnapshotName) -> Result<(), EngineError> {
        if self.state != State::Resting {
            return Err(self.refusal(Refusal::Active));
        }
        if !self.record.snapshots.contains_key(snapshot) {
            return Err(self.no_snapshot(snapshot.clone()));
        }
        let root = Arc::clone(&self.shared.root).lock_owned().await;
        let devices = Arc::clone(&self.engine.devices);
        let (device, to) = (container_device(&self.record.spec.id), snapshot_device(&self.record.spec.id, snapshot));
        blocking(move || devices.rollback_device(&device, &to)).await?;
        drop(root);
        let name = &self.record.spec.name;
        info!(container = %name, op = "rollback", snapshot = %snapshot, "Container {name} brought back to its snapshot {snapshot}.");
        Ok(())
    }

    /// systemd first: a limit that it does not take is not written down.
    pub(super) async fn limit(&mut self, limits: Limits) -> Result<(), EngineError> {
        if let Some(run) = &self.run {
            let named = limits::with_devices(&self.engine, &limits).await?;
            self.engine.scopes.set_limits(&run.record.unit, &named).await?;
        }
        let mut record = self.record.clone();
        record.spec.limits = limits.without_infinity();
        if let Some(run) = &self.run {
            limits::tell_without_effect(&record.spec, Path::new(&run.record.control_group), "set-resources");
        }
        self.replace_record(record).await
    }

    /// Takes over the size that the root has by now.
    pub(super) async fn resized(&mut self, size: Bytes) -> Result<(), EngineError> {
        let mut record = self.record.clone();
        record.spec.size = Some(size);
        self.replace_record(record).await
    }

    async fn replace_record(&mut self, record: ContainerRecord) -> Result<(), EngineError> {
        let written = record.clone();
        self.with_store(move |store| store.put_container(&written, Durability::Synced)).await?;
        self.record = record;
        self.publish();
        Ok(())
    }

    async fn remove_snapshot_device(&self, snapshot: &SnapshotName) -> Result<(), EngineError> {
        let devices = Arc::clone(&self.engine.devices);
        let device = snapshot_device(&self.record.spec.id, snapshot);
        blocking(move || devices.remove_device(&device)).await?;
        Ok(())
    }

    fn no_snapshot(&self, snapshot: SnapshotName) -> EngineError {
        EngineError::NoSuchSnapshot { container: self.record.spec.name.clone(), snapshot }
    }

    fn snapshot_exists(&self, snapshot: SnapshotName) -> EngineError {
        EngineError::SnapshotExists { container: self.record.spec.name.clone(), snapshot }
    }

    /// The root, then its snapshots, then the record: a crash in between leaves a record without a root, which the next start takes as removed.
    pub(super) async fn delete(&mut self) {
        let mut steps = Steps::begin();
        let root = Arc::clone(&self.shared.root).lock_owned().await;
        let snapshots = self.record.snapshots.keys().cloned().collect();
        let deleted = self.engine.delete_root(&self.record.spec.id, snapshots).await;
        drop(root);
        match deleted {
            Ok(()) => {}
            Err(error) => {
                warn!(container = %self.record.spec.name, op = "remove", "{error}");
                self.start_error = Some(JobResult::from(&error));
                self.state = State::Resting;
                self.fail_waiters(Goal::Gone, &error);
                return;
            }
        }
        steps.lap("Root");
        let id = self.record.spec.id.clone();
        if let Err(error) = self.with_store(move |store| store.remove_container(&id)).await {
            warn!(container = %self.record.spec.name, op = "remove", "{error}: the next start of holmd removes it");
        }
        steps.lap("Record");
        self.engine.forget(&self.record.spec.name);
        self.engine.forget_log_later(&self.record.spec.name);
        steps.finish("remove", &self.record.spec.name);
    }

    /// On disk first, then in the table and the view at once.
    pub(super) async fn rename(&mut self, to: ContainerName) -> Result<(), EngineError> {
        if self.state != State::Resting {
            return Err(self.refusal(Refusal::Active));
        }
        let mut record = self.record.clone();
        record.spec.name = to.clone();
        self.with_store(move |store| store.put_container(&record, Durability::Synced)).await?;
        let from = std::mem::replace(&mut self.record.spec.name, to.clone());
        self.engine.rename(&from, to);
        self.engine.forget_log_later(&from);
        Ok(())
    }
}
