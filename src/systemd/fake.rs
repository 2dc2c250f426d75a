//! [`Scopes`] and [`Machines`] without systemd, for tests of policy: they remember what was asked, and fail or wait when
//! told to.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{ContainerId, ContainerName, Limits};
use crate::sys::proc;

use super::{BoxFuture, Machine, Machines, Scope, ScopeRequest, Scopes, SystemEnd, SystemdError};

/// Scopes in memory. A started one stays until [`FakeScopes::end`], or, with control groups, until its process ends.
#[derive(Debug, Default)]
pub struct FakeScopes {
    state: Mutex<State>,
    control_groups: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<ScopeRequest>,
    /// With the process that each was started around.
    scopes: BTreeMap<String, (u32, Scope)>,
    limits: Vec<(String, Limits)>,
    failures: VecDeque<SystemdError>,
    delay: Duration,
    end: Option<SystemEnd>,
}

impl FakeScopes {
    /// No scopes.
    pub fn new() -> Self {
        Self::default()
    }

    /// No scopes; each gets a directory of its own in `directory` for a control group, and ends with its process.
    pub fn with_control_groups(directory: &Path) -> Self {
        Self { control_groups: Some(directory.to_owned()), ..Self::default() }
    }

    /// The next start that has no failure waiting before it fails so.
    pub fn fail_next_start(&self, error: SystemdError) {
        self.state().failures.push_back(error);
    }

    /// Every start from now on takes this long.
    pub fn delay_starts(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// What [`Scopes::system_end`] says from now on.
    pub fn set_system_end(&self, end: Option<SystemEnd>) {
        self.state().end = end;
    }

    /// A scope ends, as when its last process does.
    pub fn end(&self, unit: &str) {
        self.state().scopes.remove(unit);
    }

    /// Every start that was asked for, failed ones too, in order.
    pub fn requests(&self) -> Vec<ScopeRequest> {
        self.state().requests.clone()
    }

    /// Every change of limits, in order.
    pub fn limits(&self) -> Vec<(String, Limits)> {
        self.state().limits.clone()
    }

    /// The names of the scopes that are there.
    pub fn units(&self) -> Vec<String> {
        self.live().scopes.keys().cloned().collect()
    }

    /// The state without the scopes whose process has ended.
    fn live(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if self.control_groups.is_some() {
            state.scopes.retain(|_, (pid, _)| runs(*pid));
        }
        state
    }

    fn control_group(&self, request: &ScopeRequest) -> PathBuf {
        let name = Path::new(&request.slice).join(&request.unit);
        let Some(directory) = &self.control_groups else { return Path::new("/").join(name) };
        std::fs::create_dir_all(directory.join(&name).join("payload")).expect("the test's directory can be written");
        // Seen from where the real ones are.
        Path::new("../../..").join(directory.strip_prefix("/").unwrap_or(directory)).join(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_now(&self, request: &ScopeRequest) -> Result<Scope, SystemdError> {
        let mut state = self.live();
        if let Some(error) = state.failures.pop_front() {
            return Err(error);
        }
        if state.scopes.contains_key(&request.unit) {
            return Err(SystemdError::UnitExists(request.unit.clone()));
        }
        let scope = Scope { unit: request.unit.clone(), control_group: self.control_group(request) };
        state.scopes.insert(request.unit.clone(), (request.pid, scope.clone()));
        Ok(scope)
    }
}

impl Scopes for FakeScopes {
    fn start<'a>(&'a self, request: &'a ScopeRequest) -> BoxFuture<'a, Result<Scope, SystemdError>> {
        Box::pin(async move {
            self.state().requests.push(request.clone());
            let delay = self.state().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.start_now(request)
        })
    }

    fn find<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<Option<Scope>, SystemdError>> {
        Box::pin(async move { Ok(self.live().scopes.get(unit).map(|(_, scope)| scope.clone())) })
    }

    fn clear_empty(&self) -> BoxFuture<'_, Result<usize, SystemdError>> {
        // None of these ever outlives its process.
        Box::pin(async { Ok(0) })
    }

    fn set_limits<'a>(&'a self, unit: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<(), SystemdError>> {
        Box::pin(async move {
            self.state().limits.push((unit.to_owned(), limits.clone()));
            Ok(())
        })
    }

    fn thaw<'a>(&'a self, _unit: &'a str) -> BoxFuture<'a, Result<(), SystemdError>> {
        Box::pin(async { Ok(()) })
    }

    fn forget_log(&self, _unit: &str) -> std::io::Result<()> {
        Ok(())
    }

    fn sweep_logs(&self, _keep: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
        Ok(())
    }

    fn system_end(&self) -> BoxFuture<'_, Result<Option<SystemEnd>, SystemdError>> {
        Box::pin(async move { Ok(self.state().end) })
    }
}

fn runs(pid: u32) -> bool {
    proc::stat(pid).is_ok_and(|stat| stat.state != 'Z')
}

/// machined's list; like machined, it forgets what has ended.
#[derive(Debug, Default)]
pub struct FakeMachines(Mutex<BTreeMap<ContainerName, u32>>);

impl FakeMachines {
    /// Names and leaders.
    pub fn list(&self) -> BTreeMap<ContainerName, u32> {
        let mut machines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        machines.retain(|_, leader| runs(*leader));
        machines.clone()
    }
}

impl Machines for FakeMachines {
    fn register(&self, machine: Machine) -> BoxFuture<'static, Result<(), SystemdError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(machine.name, machine.leader);
        Box::pin(async { Ok(()) })
    }

    fn prepare(&self, _name: &ContainerName) -> std::io::Result<()> {
        Ok(())
    }

    fn show(&self, _name: &ContainerName, _id: &ContainerId, _leader: u32) -> std::io::Result<()> {
        Ok(())
    }

    fn hide(&self, _name: &ContainerName, _id: &ContainerId) {}

    fn unregister(&self, name: &ContainerName) -> BoxFuture<'static, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Box::pin(async {})
    }

    fn closing(&self) -> BoxFuture<'static, Vec<ContainerName>> {
        Box::pin(async { Vec::new() })
    }

    fn see_off(&self, _name: &ContainerName) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
