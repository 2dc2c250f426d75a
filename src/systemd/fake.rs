//! [`Scopes`] without systemd, for tests of policy: remembers what was asked, and fails or waits when told to.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::Limits;

use super::{BoxFuture, Scope, ScopeRequest, Scopes, SystemdError};

/// Scopes in memory. A started one stays until [`FakeScopes::end`].
#[derive(Debug, Default)]
pub struct FakeScopes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<ScopeRequest>,
    scopes: BTreeMap<String, Scope>,
    limits: Vec<(String, Limits)>,
    failures: VecDeque<SystemdError>,
    delay: Duration,
    shutting_down: bool,
}

impl FakeScopes {
    /// No scopes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next start that has no failure waiting before it fails so.
    pub fn fail_next_start(&self, error: SystemdError) {
        self.state().failures.push_back(error);
    }

    /// Every start from now on takes this long.
    pub fn delay_starts(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// What [`Scopes::shutting_down`] says from now on.
    pub fn set_shutting_down(&self, shutting_down: bool) {
        self.state().shutting_down = shutting_down;
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
        self.state().scopes.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_now(&self, request: &ScopeRequest) -> Result<Scope, SystemdError> {
        let mut state = self.state();
        if let Some(error) = state.failures.pop_front() {
            return Err(error);
        }
        if state.scopes.contains_key(&request.unit) {
            return Err(SystemdError::UnitExists(request.unit.clone()));
        }
        let scope = Scope {
            unit: request.unit.clone(),
            control_group: PathBuf::from("/").join(&request.slice).join(&request.unit),
        };
        state.scopes.insert(request.unit.clone(), scope.clone());
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
        Box::pin(async move { Ok(self.state().scopes.get(unit).cloned()) })
    }

    fn set_limits<'a>(&'a self, unit: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<(), SystemdError>> {
        Box::pin(async move {
            self.state().limits.push((unit.to_owned(), *limits));
            Ok(())
        })
    }

    fn shutting_down(&self) -> BoxFuture<'_, Result<bool, SystemdError>> {
        Box::pin(async move { Ok(self.state().shutting_down) })
    }
}
