//! systemd without a bus: systemctl(1) has a way of its own to it, for root. For the end of the system, when the bus may be
//! gone and nothing is started any more.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::scope::{CGROUPS, SOFT_REBOOT};
use super::units;
use super::{BoxFuture, Scope, ScopeRequest, Scopes, SystemEnd, SystemdError};
use crate::model::Limits;

/// [`Scopes`] that can be thawed, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Systemctl;

impl Scopes for Systemctl {
    fn start<'a>(&'a self, _request: &'a ScopeRequest) -> BoxFuture<'a, Result<Scope, SystemdError>> {
        Box::pin(async { Err(SystemdError::ShuttingDown) })
    }

    fn find<'a>(&'a self, _unit: &'a str) -> BoxFuture<'a, Result<Option<Scope>, SystemdError>> {
        Box::pin(async { Err(SystemdError::ShuttingDown) })
    }

    fn clear_empty(&self) -> BoxFuture<'_, Result<usize, SystemdError>> {
        // They go with the system.
        Box::pin(async { Ok(0) })
    }

    fn set_limits<'a>(&'a self, _unit: &'a str, _limits: &'a Limits) -> BoxFuture<'a, Result<(), SystemdError>> {
        Box::pin(async { Err(SystemdError::ShuttingDown) })
    }

    fn thaw<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<(), SystemdError>> {
        Box::pin(async move {
            // 'systemctl thaw' goes over the bus. systemd need not know: nothing is asked of the unit any more.
            let group = systemctl(&["show", "--property=ControlGroup", "--value", unit]).await?;
            if group.is_empty() {
                return Ok(());
            }
            let file = Path::new(CGROUPS).join(group.trim_start_matches('/')).join("cgroup.freeze");
            match std::fs::write(&file, "0") {
                // It has ended.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                written => written.map_err(|error| failed(&format!("{}: {error}", file.display()))),
            }
        })
    }

    fn forget_log(&self, unit: &str) -> std::io::Result<()> {
        units::remove(unit)
    }

    fn sweep_logs(&self, keep: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
        units::sweep(keep)
    }

    fn system_end(&self) -> BoxFuture<'_, Result<Option<SystemEnd>, SystemdError>> {
        Box::pin(async {
            // Its status says the same as the word, and is no failure.
            if systemctl(&["is-system-running"]).await? != "stopping" {
                return Ok(None);
            }
            let job = systemctl(&["show", "--property=Job", "--value", SOFT_REBOOT]).await?;
            Ok(Some(if job.is_empty() || job == "0" { SystemEnd::Machine } else { SystemEnd::Userspace }))
        })
    }
}

/// What it prints, without the end of the line.
async fn systemctl(arguments: &[&str]) -> Result<String, SystemdError> {
    let mut command = Command::new("systemctl");
    // It would speak for us.
    command.args(arguments).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    let ran = timeout(LIMIT, tokio::task::spawn_blocking(move || command.output())).await;
    let output = match ran {
        Ok(Ok(Ok(output))) => output,
        Ok(Ok(Err(error))) => return Err(failed(&error)),
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"no answer")),
    };
    let [printed, complaint] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).trim().to_owned());
    if printed.is_empty() && !output.status.success() {
        return Err(SystemdError::Systemctl(complaint));
    }
    Ok(printed)
}

fn failed(error: &dyn std::fmt::Display) -> SystemdError {
    SystemdError::Systemctl(error.to_string())
}

const LIMIT: Duration = Duration::from_secs(10);
