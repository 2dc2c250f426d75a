//! The end of the daemon, and `holmd --shutdown`, which does what is left to do at the system's end when there is no
//! daemon that could: it was killed, or has failed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::{DaemonError, RUNTIME_DIRECTORY, logging, open_engine};
use crate::config::Config;
use crate::dbus::{self, SystemState};
use crate::engine::Engine;
use crate::model::{ContainerId, ContainerName};
use crate::storage::thin;
use crate::systemd::{BoxFuture, Machine, Machines, Scopes, SystemEnd, Systemctl, Systemd, SystemdError, notify};

/// How long starts that are under way may take when the daemon is restarted; milliseconds as a rule.
const STARTS: Duration = Duration::from_secs(5);

/// At the system's end every container is stopped and every device deactivated. Otherwise, as for a restart or an
/// upgrade, they are left alone.
pub(super) async fn stop(engine: &Engine, systemd: &Systemd, server: &dbus::Server) -> Result<(), DaemonError> {
    engine.begin_shutdown();
    let Some(end) = system_end(systemd).await else {
        notify::stopping("Stopping; containers run on.").map_err(DaemonError::Notify)?;
        notify::with_more_time(engine.finish_starts(STARTS)).await;
        server.settled().await;
        info!(op = "daemon", "Stopping; containers run on.");
        return Ok(());
    };
    info!(op = "daemon", "The system is shutting down: stopping all containers.");
    server.set_system_state(SystemState::Stopping);
    notify::stopping("Stopping all containers.").map_err(DaemonError::Notify)?;
    notify::with_more_time(stop_all(engine, end)).await;
    Ok(())
}

/// Asked without the bus if that is gone. Not knowing, we leave containers alone: systemd has its own last word.
async fn system_end(systemd: &Systemd) -> Option<SystemEnd> {
    let error = match systemd.system_end().await {
        Ok(end) => return end,
        Err(error) => error,
    };
    match Systemctl.system_end().await {
        Ok(end) => end,
        Err(second) => {
            warn!(op = "daemon", "cannot find out whether the system is shutting down: {error}; {second}");
            None
        }
    }
}

async fn stop_all(engine: &Engine, end: SystemEnd) {
    engine.stop_all(end).await;
    if let Err(error) = engine.close_devices().await {
        warn!(op = "daemon", "cannot give the pool back: {error}");
    }
}

/// `holmd --shutdown`. Does nothing while the system is not shutting down, and nothing when a daemon has done it.
pub(super) fn instead(roots: &[PathBuf]) -> Result<(), DaemonError> {
    let config = Config::load(roots)?;
    logging::start(config.log.level).map_err(DaemonError::Logging)?;
    let runtime = super::runtime()?;
    let result = runtime.block_on(finish(config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn finish(config: Config) -> Result<(), DaemonError> {
    // Not over the bus, which may be gone, and would start the daemon.
    let Some(end) = Systemctl.system_end().await? else {
        info!(op = "daemon", "The system is not shutting down: nothing to do.");
        return Ok(());
    };
    if !is_anything_left() {
        return Ok(());
    }
    warn!(op = "daemon", "No daemon has stopped the containers: stopping them now.");
    let work = async {
        let engine = open_engine(&config, Arc::new(Systemctl), Arc::new(NoMachines), Vec::new()).await?;
        engine.begin_shutdown();
        stop_all(&engine, end).await;
        Ok(())
    };
    notify::with_more_time(work).await
}

/// Runs that nobody has ended, or devices that nobody has given back.
fn is_anything_left() -> bool {
    let runs = std::fs::read_dir(Path::new(RUNTIME_DIRECTORY).join("run"));
    runs.is_ok_and(|mut runs| runs.next().is_some()) || thin::is_any_active()
}

/// Nobody asks machined any more.
#[derive(Debug)]
struct NoMachines;

impl Machines for NoMachines {
    fn register(&self, _machine: Machine) -> BoxFuture<'static, Result<(), SystemdError>> {
        Box::pin(async { Ok(()) })
    }

    fn prepare(&self, _name: &ContainerName) -> std::io::Result<()> {
        Ok(())
    }

    fn show(&self, _name: &ContainerName, _id: &ContainerId, _leader: u32) -> std::io::Result<()> {
        Ok(())
    }

    /// What is shown goes with the system: it is in /run.
    fn hide(&self, _name: &ContainerName, _id: &ContainerId) {}

    fn unregister(&self, _name: &ContainerName) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn closing(&self) -> BoxFuture<'static, Vec<ContainerName>> {
        Box::pin(async { Vec::new() })
    }

    fn see_off(&self, _name: &ContainerName) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
