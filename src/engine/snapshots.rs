//! Snapshots of containers, the way back to one, and containers made of others.
//!
//! A snapshot is on the container's record before it is made and is looked for there again after it: so one that is cut
//! short is dropped at the next start, and one whose container was removed meanwhile is removed as well.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::container::{Container, Request, SnapshotChange};
use super::error::EngineError;
use super::jobs::Job;
use super::request::CloneRequest;
use super::steps::Steps;
use super::table::{Inner, blocking, container_device, snapshot_device};
use super::view::{ContainerView, JobId, JobKind};
use super::{Engine, container, create, new_id};
use crate::model::{ContainerName, Lifetime, SnapshotName, now_usec};
use crate::records::ContainerRecord;
use crate::storage::AddOptions;

impl Engine {
    /// Makes a snapshot of a container's root as it is now. One that runs is held still for it, and not longer than it
    /// takes to bring to the disk what it has written (see [`JobView::frozen_usec`](super::JobView::frozen_usec)).
    /// After an error there is no such snapshot.
    pub fn snapshot(&self, name: &ContainerName, snapshot: SnapshotName) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        let container = self.inner.find(name)?;
        if container.view().snapshots.contains_key(&snapshot) {
            return Err(EngineError::SnapshotExists { container: name.clone(), snapshot });
        }
        let (inner, job) = (Arc::clone(&self.inner), self.inner.jobs.begin(JobKind::Snapshot, name.as_str()));
        let id = job.id();
        tokio::spawn(async move {
            let result = make_snapshot(&inner, &container, &snapshot, &job).await;
            job.finish_with(result);
        });
        Ok(id)
    }

    /// Removes a snapshot of a container.
    pub fn remove_snapshot(&self, name: &ContainerName, snapshot: SnapshotName) -> Result<JobId, EngineError> {
        let container = self.with_snapshot(name, &snapshot)?;
        let job = self.inner.jobs.begin(JobKind::RemoveSnapshot, name.as_str());
        let id = job.id();
        let change = SnapshotChange::Remove(snapshot);
        tokio::spawn(async move {
            job.finish_with(container.ask_and_wait(|reply| Request::Snapshots { change, reply }).await);
        });
        Ok(id)
    }

    /// Brings a container that does not run back to a snapshot: what its root was since is lost, its snapshots stay.
    /// After an error, and after a crash, its root is the former or that of the snapshot.
    pub fn rollback(&self, name: &ContainerName, snapshot: SnapshotName) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        let container = self.with_snapshot(name, &snapshot)?;
        let view = container.view();
        if view.status.is_active() {
            return Err(EngineError::Running {
                name: name.clone(),
                status: view.status.as_str(),
                advice: "stop it first with 'holmctl stop'",
            });
        }
        let job = self.inner.jobs.begin(JobKind::Rollback, name.as_str());
        let id = job.id();
        tokio::spawn(async move {
            job.finish_with(container.ask_and_wait(|reply| Request::Rollback { snapshot, reply }).await);
        });
        Ok(id)
    }

    /// Makes a container of another: defined as that is, with a root as that has now or had at a snapshot, never started,
    /// and kept. One that runs is held still for it, as for a snapshot. After an error nothing of the new one is left.
    pub fn clone_container(&self, name: &ContainerName, request: CloneRequest) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        let container = match &request.snapshot {
            Some(snapshot) => self.with_snapshot(name, snapshot)?,
            None => self.inner.find(name)?,
        };
        let record = clone_of(&container.view(), request.name)?;
        // Said at once if it is taken; it is taken for good when the job has begun.
        drop(self.inner.reserve(&record.spec.name)?);
        let (inner, job) = (Arc::clone(&self.inner), self.inner.jobs.begin(JobKind::Clone, record.spec.name.as_str()));
        let id = job.id();
        tokio::spawn(async move {
            let result = make_clone(&inner, &container, record, request.snapshot, &job).await;
            job.finish_with(result);
        });
        Ok(id)
    }

    fn with_snapshot(&self, name: &ContainerName, snapshot: &SnapshotName) -> Result<Arc<Container>, EngineError> {
        let container = self.inner.find(name)?;
        if container.view().snapshots.contains_key(snapshot) {
            return Ok(container);
        }
        Err(EngineError::NoSuchSnapshot { container: name.clone(), snapshot: snapshot.clone() })
    }
}

async fn make_snapshot(
    inner: &Arc<Inner>,
    container: &Container,
    snapshot: &SnapshotName,
    job: &Job,
) -> Result<(), EngineError> {
    let tell = |change| container.ask_and_wait(|reply| Request::Snapshots { change, reply });
    tell(SnapshotChange::Begin(snapshot.clone())).await?;
    let view = container.view();
    let (root, device) = (container_device(view.id()), snapshot_device(view.id(), snapshot));
    let (devices, to) = (Arc::clone(&inner.devices), device.clone());
    let held = container.hold_root().await;
    let added = blocking(move || devices.add_device(&to, &root, &AddOptions::default())).await;
    drop(held);
    match added {
        Ok(added) => {
            if let Err(error) = tell(SnapshotChange::Made(snapshot.clone())).await {
                let devices = Arc::clone(&inner.devices);
                blocking(move || devices.remove_device(&device)).await?;
                return Err(error);
            }
            note_freeze(job, added.frozen);
            let (name, frozen) = (view.name(), in_words(added.frozen));
            info!(container = %name, op = "snapshot", snapshot = %snapshot, "Snapshot {snapshot} of container {name} made{frozen}.");
            Ok(())
        }
        Err(error) => {
            if let Err(kept) = tell(SnapshotChange::Failed(snapshot.clone())).await {
                warn!(container = %view.name(), op = "snapshot", "{kept}: the next start of holmd tidies up");
            }
            Err(error.into())
        }
    }
}

async fn make_clone(
    inner: &Arc<Inner>,
    container: &Container,
    record: ContainerRecord,
    snapshot: Option<SnapshotName>,
    job: &Job,
) -> Result<(), EngineError> {
    let reserved = inner.reserve(&record.spec.name)?;
    let source = container.view();
    let origin = match snapshot {
        Some(snapshot) => snapshot_device(source.id(), &snapshot),
        None => container_device(source.id()),
    };
    let held = container.hold_root().await;
    let options = AddOptions { size: record.spec.size, pending: false };
    let (record, added, steps) = inner.make_root(record, origin, options, Steps::begin()).await?;
    drop(held);
    steps.finish("clone", reserved.name());
    note_freeze(job, added.frozen);
    let (from, to, frozen) = (source.name(), record.spec.name.clone(), in_words(added.frozen));
    reserved.fill(container::Container::adopt(inner, record, None));
    info!(container = %to, op = "clone", from = %from, "Container {to} made of container {from}{frozen}.");
    Ok(())
}

/// What a clone of `source` is: the same, but for what tells one container from another.
fn clone_of(source: &ContainerView, name: Option<ContainerName>) -> Result<ContainerRecord, EngineError> {
    let mut spec = (*source.spec).clone();
    spec.id = new_id()?;
    spec.name = match name {
        Some(name) => name,
        None => {
            let stem: String = source.name().as_str().chars().take(57).collect();
            create::name_after(stem.trim_end_matches(['.', '-']), &spec.id)?
        }
    };
    spec.lifetime = Lifetime::Kept;
    Ok(ContainerRecord::new(spec, now_usec()))
}

fn note_freeze(job: &Job, frozen: Option<Duration>) {
    if let Some(frozen) = frozen {
        job.held_still(frozen);
    }
}

fn in_words(frozen: Option<Duration>) -> String {
    frozen.map(|time| format!(", held still for {:.1} ms", time.as_secs_f64() * 1000.0)).unwrap_or_default()
}
