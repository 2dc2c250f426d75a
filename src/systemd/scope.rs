//! Scopes through systemd's manager.
//!
//! StartTransientUnit only queues a job, so its reply proves nothing: the scope is there when JobRemoved says `done`
//! for that job, and its control group is where the kernel says that its process is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use zbus::proxy::CacheProperties;
use zbus::{OwnedObjectPath, fdo};

use crate::model::{ContainerName, Limits};
use crate::sys::cgroup::Cgroup;

use super::bus::{self, ManagerProxy, SCOPE, SYSTEMD, UNIT, closed, failed, is_error, unit_path};
use super::job::{Expectation, Jobs};
use super::properties::{self, Need, Order, Property, SHUTDOWN_TARGET};
use super::units;
use super::{BoxFuture, Scope, ScopeRequest, Scopes, SystemEnd, SystemdError};

/// The unit name of a container's scope.
///
/// A container's name uses only characters that a unit name may have as they are (systemd.unit(5)), so nothing is
/// escaped: `web-1` is `holm-web-1.scope`, which is what people type.
pub fn scope_name(container: &ContainerName) -> String {
    format!("holm-{container}.scope")
}

/// The real [`Scopes`]: systemd's manager on the system bus.
#[derive(Debug)]
pub struct Systemd {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
    jobs: Jobs,
    /// systemd is single-threaded: a crowd of starts would only make each one, and everything else it does, late.
    starts: Semaphore,
    /// Wishes that this systemd has refused.
    refused: Mutex<BTreeSet<&'static str>>,
    job_limit: Duration,
}

impl Systemd {
    /// Subscribes to the ends of jobs. The connection is shared; the subscription lives as long as the result.
    pub async fn connect(connection: &zbus::Connection) -> Result<Arc<Self>, SystemdError> {
        Self::with_job_limit(connection, JOB_LIMIT).await
    }

    async fn with_job_limit(connection: &zbus::Connection, job_limit: Duration) -> Result<Arc<Self>, SystemdError> {
        let manager = ManagerProxy::builder(connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(SystemdError::Unreachable)?;
        let jobs = Jobs::open(&manager).await.map_err(SystemdError::Unreachable)?;
        Ok(Arc::new(Self {
            connection: connection.clone(),
            manager,
            jobs,
            starts: Semaphore::new(STARTS_IN_FLIGHT as usize),
            refused: Mutex::default(),
            job_limit,
        }))
    }

    /// The first of a slice and its parents that systemd stops at the first instant of a shutdown, if any. A slice's
    /// stop stops its members, whatever they say for themselves, so a container in such a slice has no order then.
    pub async fn slice_stopped_at_shutdown(&self, slice: &str) -> Result<Option<String>, SystemdError> {
        for slice in with_parents(slice) {
            let path = self.manager.load_unit(&slice).await.map_err(|error| failed("load", &slice, error))?;
            let conflicts: Vec<String> = bus::property(&self.connection, SYSTEMD, path.as_str(), UNIT, "Conflicts")
                .await
                .map_err(|error| failed("read the dependencies of", &slice, error))?;
            if conflicts.iter().any(|unit| unit == SHUTDOWN_TARGET) {
                return Ok(Some(slice));
            }
        }
        Ok(None)
    }

    async fn start_scope(&self, request: &ScopeRequest) -> Result<Scope, SystemdError> {
        let _permit = self.starts.acquire().await.expect("the semaphore is never closed");
        if let Err(error) = units::write(&request.unit, &request.log) {
            // Its lines are in the journal all the same.
            tracing::warn!(unit = request.unit, "the journal does not know whose lines these are: {error}, ignoring");
        }
        let order = self.limited(&request.unit, self.order(request)).await?;
        let mut results = self.jobs.expect(&request.unit);
        let job = self.limited(&request.unit, self.queue(request, &order)).await?;
        let started = self.limited(&request.unit, self.finish(request, &job, &mut results)).await;
        if started.is_err() {
            self.undo(&request.unit).await;
        }
        started
    }

    /// What the unit that wants the scope is ordered after; nothing, when no unit wants it.
    async fn order(&self, request: &ScopeRequest) -> Result<Order, SystemdError> {
        let Some(unit) = &request.wanted_by else { return Ok(Order::default()) };
        let after = bus::property(&self.connection, SYSTEMD, &unit_path(unit), UNIT, "After")
            .await
            .map_err(|error| failed("read the dependencies of", unit, error))?;
        Ok(Order { after })
    }

    /// Queues the start; of a unit that exists, what is left of an earlier run is cleared away once: a failure, or a scope
    /// whose last process has ended and which systemd has not let go yet.
    async fn queue(&self, request: &ScopeRequest, order: &Order) -> Result<OwnedObjectPath, SystemdError> {
        let unit = &request.unit;
        let error = match self.queue_without_refused(request, order).await {
            Err(error) if is_error(&error, UNIT_EXISTS) => error,
            other => return self.in_our_words(request, other).await,
        };
        tracing::debug!(unit, %error, "clearing an earlier failure");
        // It fails for a unit that has not failed; then the second try says the same as the first.
        let _ = self.manager.reset_failed_unit(unit).await;
        let second = self.queue_without_refused(request, order).await;
        if !second.as_ref().is_err_and(|error| is_error(error, UNIT_EXISTS)) || !self.is_leaving(unit).await {
            return self.in_our_words(request, second).await;
        }
        self.see_off(unit).await?;
        let third = self.queue_without_refused(request, order).await;
        self.in_our_words(request, third).await
    }

    /// Whether a loaded scope has no process any more. In doubt it has.
    async fn is_leaving(&self, unit: &str) -> bool {
        let path = unit_path(unit);
        match bus::property::<String>(&self.connection, SYSTEMD, &path, SCOPE, "ControlGroup").await {
            Ok(control_group) => control_group.is_empty() || is_empty(&control_group),
            // It has gone meanwhile.
            Err(_) => true,
        }
    }

    /// Has systemd let go of a scope without processes: its stop job is done when it has.
    async fn see_off(&self, unit: &str) -> Result<(), SystemdError> {
        let mut results = self.jobs.expect(unit);
        match self.manager.stop_unit(unit, "replace").await {
            Ok(job) => results.result_of(&job).await.map(drop).ok_or_else(|| SystemdError::Unreachable(closed())),
            Err(error) if is_error(&error, NO_SUCH_UNIT) => Ok(()),
            Err(error) => Err(failed("stop", unit, error)),
        }
    }

    async fn in_our_words<T>(&self, request: &ScopeRequest, result: zbus::Result<T>) -> Result<T, SystemdError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let unit = request.unit.clone();
        if is_error(&error, UNIT_EXISTS) {
            return Err(SystemdError::UnitExists(unit));
        }
        if matches!(&error, zbus::Error::FDO(fdo) if matches!(**fdo, fdo::Error::UnixProcessIdUnknown(_))) {
            return Err(SystemdError::ProcessGone { unit, pid: request.pid });
        }
        // The stop jobs of a shutdown cannot be replaced, so a start that conflicts with them is refused.
        if is_error(&error, TRANSACTION_IS_DESTRUCTIVE) && self.end_of_system().await?.is_some() {
            return Err(SystemdError::ShuttingDown);
        }
        Err(failed("start", &unit, error))
    }

    /// Calls StartTransientUnit, again without each wish that this systemd turns out not to know.
    async fn queue_without_refused(&self, request: &ScopeRequest, order: &Order) -> zbus::Result<OwnedObjectPath> {
        loop {
            let known = self.without_refused(properties::of_scope(request, order));
            let wishes: Vec<_> =
                known.iter().filter(|property| property.need == Need::Wish).map(|property| property.name).collect();
            let properties = known.into_iter().map(|property| (property.name, property.value)).collect();
            let error = match self.manager.start_transient_unit(&request.unit, "fail", &properties, &[]).await {
                Ok(job) => return Ok(job),
                Err(error) => error,
            };
            let Some(name) = refused_property(&error, &wishes) else { return Err(error) };
            tracing::debug!(property = name, "systemd does not know a property, leaving it out from now on");
            self.refused().insert(name);
        }
    }

    fn without_refused(&self, properties: Vec<Property>) -> Vec<Property> {
        let refused = self.refused();
        properties.into_iter().filter(|property| !refused.contains(property.name)).collect()
    }

    /// Inserting into the set is a single step, so it is sound even after a panic.
    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the job, then looks where the scope is and whether its process is there.
    async fn finish(
        &self,
        request: &ScopeRequest,
        job: &OwnedObjectPath,
        results: &mut Expectation,
    ) -> Result<Scope, SystemdError> {
        let unit = &request.unit;
        let result = results.result_of(job).await.ok_or_else(|| SystemdError::Unreachable(closed()))?;
        if result != "done" {
            return Err(SystemdError::JobFailed { unit: unit.clone(), result });
        }
        // A short read of a file in memory: not worth a thread.
        let Ok(membership) = std::fs::read_to_string(format!("/proc/{}/cgroup", request.pid)) else {
            return Err(SystemdError::ProcessGone { unit: unit.clone(), pid: request.pid });
        };
        // The kernel's word for where systemd has put it, without a question to systemd.
        if let Some(control_group) = scope_of(&membership, unit) {
            return Ok(Scope { unit: unit.clone(), control_group });
        }
        let scope = self.read(unit).await?;
        if is_within(&membership, &scope.control_group) {
            return Ok(scope);
        }
        let found = scope.control_group.display().to_string();
        Err(SystemdError::WrongControlGroup { unit: unit.clone(), found })
    }

    /// Where systemd says that a loaded scope is.
    async fn read(&self, unit: &str) -> Result<Scope, SystemdError> {
        let path = unit_path(unit);
        let control_group: String = bus::property(&self.connection, SYSTEMD, &path, SCOPE, "ControlGroup")
            .await
            .map_err(|error| failed("read the control group of", unit, error))?;
        Ok(Scope { unit: unit.to_owned(), control_group: PathBuf::from(control_group) })
    }

    /// Takes a start back, as far as that goes: the unit ends when its process does, which the caller sees to, and is
    /// forgotten then (CollectMode).
    async fn undo(&self, unit: &str) {
        let calls = async {
            self.manager.stop_unit(unit, "replace").await?;
            self.manager.reset_failed_unit(unit).await
        };
        match timeout(UNDO_LIMIT, calls).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(unit, %error, "taking back a start"),
            Err(_) => tracing::debug!(unit, "taking back a start: no answer"),
        }
    }

    async fn find_scope(&self, unit: &str) -> Result<Option<Scope>, SystemdError> {
        let path = match self.manager.get_unit(unit).await {
            Ok(path) => path,
            Err(error) if is_error(&error, NO_SUCH_UNIT) => return Ok(None),
            Err(error) => return Err(failed("find", unit, error)),
        };
        let state: String = bus::property(&self.connection, SYSTEMD, path.as_str(), UNIT, "ActiveState")
            .await
            .map_err(|error| failed("read the state of", unit, error))?;
        // One that is being stopped still has its processes.
        if !matches!(state.as_str(), "active" | "deactivating") {
            return Ok(None);
        }
        self.read(unit).await.map(Some)
    }

    async fn stop_empty(&self) -> Result<usize, SystemdError> {
        // Not beside a start, whose scope may be new under the old one's name.
        let _alone = self.starts.acquire_many(STARTS_IN_FLIGHT).await.expect("the semaphore is never closed");
        let units = self
            .manager
            .list_units_by_patterns(&["active"], &[SCOPES])
            .await
            .map_err(|error| failed("list", SCOPES, error))?;
        let mut cleared = 0;
        for (unit, ..) in units {
            if self.is_leaving(&unit).await {
                self.limited(&unit, self.see_off(&unit)).await?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    async fn end_of_system(&self) -> Result<Option<SystemEnd>, SystemdError> {
        let state = self.manager.system_state().await.map_err(SystemdError::Unreachable)?;
        if state != "stopping" {
            return Ok(None);
        }
        // A target has its start job until all that it waits for is stopped. An older systemd says the same of a unit that
        // it does not know as of one without a job.
        let (job, _): (u32, OwnedObjectPath) =
            bus::property(&self.connection, SYSTEMD, &unit_path(SOFT_REBOOT), UNIT, "Job")
                .await
                .map_err(|error| failed("read the job of", SOFT_REBOOT, error))?;
        Ok(Some(if job == 0 { SystemEnd::Machine } else { SystemEnd::Userspace }))
    }

    /// Nothing that systemd does for us may hold up a start for ever.
    async fn limited<T>(
        &self,
        unit: &str,
        work: impl Future<Output = Result<T, SystemdError>>,
    ) -> Result<T, SystemdError> {
        timeout(self.job_limit, work).await.unwrap_or_else(|_| {
            Err(SystemdError::JobTimeout { unit: unit.to_owned(), seconds: self.job_limit.as_secs() })
        })
    }
}

impl Scopes for Systemd {
    fn start<'a>(&'a self, request: &'a ScopeRequest) -> BoxFuture<'a, Result<Scope, SystemdError>> {
        Box::pin(self.start_scope(request))
    }

    fn find<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<Option<Scope>, SystemdError>> {
        Box::pin(self.limited(unit, self.find_scope(unit)))
    }

    fn clear_empty(&self) -> BoxFuture<'_, Result<usize, SystemdError>> {
        Box::pin(self.stop_empty())
    }

    fn set_limits<'a>(&'a self, unit: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<(), SystemdError>> {
        let properties =
            properties::of_limits(limits).into_iter().map(|property| (property.name, property.value)).collect();
        Box::pin(self.limited(unit, async move {
            self.manager
                .set_unit_properties(unit, true, &properties)
                .await
                .map_err(|error| failed("change the limits of", unit, error))
        }))
    }

    fn thaw<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<(), SystemdError>> {
        Box::pin(self.limited(unit, async move {
            self.manager.thaw_unit(unit).await.map_err(|error| failed("thaw", unit, error))
        }))
    }

    fn forget_log(&self, unit: &str) -> std::io::Result<()> {
        units::remove(unit)
    }

    fn sweep_logs(&self, keep: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
        units::sweep(keep)
    }

    fn system_end(&self) -> BoxFuture<'_, Result<Option<SystemEnd>, SystemdError>> {
        Box::pin(self.limited(SHUTDOWN_TARGET, self.end_of_system()))
    }
}

/// Which of `wishes` a refusal is about; the property's name stands only in the error's text ("Cannot set property
/// NAME, or unknown property.").
fn refused_property(error: &zbus::Error, wishes: &[&'static str]) -> Option<&'static str> {
    let zbus::Error::FDO(error) = error else { return None };
    let fdo::Error::PropertyReadOnly(text) = &**error else { return None };
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| wishes.iter().copied().find(|wish| *wish == word))
}

/// Where `/proc/PID/cgroup` puts the process (cgroups(7)): in the unified hierarchy, or in systemd's own where the
/// machine has none.
fn places(membership: &str) -> impl Iterator<Item = &Path> {
    let lines = membership.lines();
    lines
        .filter_map(|line| line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path)))
        .map(Path::new)
}

/// Whether the process is in this control group or below it.
fn is_within(membership: &str, control_group: &Path) -> bool {
    !control_group.as_os_str().is_empty() && places(membership).any(|path| path.starts_with(control_group))
}

/// The control group of the process if it is named like the unit.
fn scope_of(membership: &str, unit: &str) -> Option<PathBuf> {
    places(membership).find(|path| path.ends_with(unit)).map(Path::to_owned)
}

/// Whether no process is in a control group, or it is gone. In doubt there is one. A short read of a file in memory.
fn is_empty(control_group: &str) -> bool {
    let directory = Path::new(CGROUPS).join(control_group.trim_start_matches('/'));
    match File::open(directory) {
        Ok(directory) => {
            Cgroup::from_directory(directory.into()).and_then(|cgroup| cgroup.is_populated()).is_ok_and(|any| !any)
        }
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// `a-b-c.slice` is in `a-b.slice`, and that in `a.slice` (systemd.slice(5)).
fn with_parents(slice: &str) -> Vec<String> {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let parents = stem.match_indices('-').map(|(dash, _)| &stem[..dash]).filter(|stem| !stem.is_empty()).rev();
    std::iter::once(stem).chain(parents).map(|stem| format!("{stem}.slice")).collect()
}

/// What [`scope_name`] makes.
const SCOPES: &str = "holm-*.scope";
/// Its start ends userspace alone, from systemd 254 on.
pub(super) const SOFT_REBOOT: &str = "soft-reboot.target";
/// Where systemd has cgroup2.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";
const JOB_LIMIT: Duration = Duration::from_secs(30);
const UNDO_LIMIT: Duration = Duration::from_secs(5);
const STARTS_IN_FLIGHT: u32 = 16;
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const TRANSACTION_IS_DESTRUCTIVE: &str = "org.freedesktop.systemd1.TransactionIsDestructive";

#[cfg(test)]
#[path = "scope_tests.rs"]
mod tests;
