//! The daemon: wiring only. Builds the parts, the engine and the bus, and says when it is ready and when it stops.

mod logging;
mod offline;
mod options;
mod shutdown;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info, warn};

use self::options::Command;
use crate::config::{Config, ConfigError};
use crate::dbus;
use crate::engine::{Engine, EngineError, Parts, Settings};
use crate::records::{RecordError, Store};
use crate::runtime::{InitImage, LaunchError};
use crate::storage::{self, DeviceSet, StorageError};
use crate::sys::sender;
use crate::systemd::{Machined, Machines, Scopes, Systemd, SystemdError, notify};

/// Until reboot; made by the unit's RuntimeDirectory=.
const RUNTIME_DIRECTORY: &str = "/run/holm";
/// Our name on the system bus.
const BUS_NAME: &str = "org.holm1";

/// Why the daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot set logging up: {0}")]
    Logging(#[source] std::io::Error),
    #[error("cannot run the daemon's tasks: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("the system bus does not answer: {0}")]
    Bus(#[source] zbus::Error),
    #[error("the name {BUS_NAME} is taken on the system bus: another holmd runs")]
    NameTaken,
    #[error(transparent)]
    Door(#[from] dbus::DbusError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error(transparent)]
    Init(#[from] LaunchError),
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("holmd is running: stop it with 'systemctl stop holmd', which leaves containers running, and try again")]
    Running,
    #[error("driver 'copy' has no journal: there is nothing to salvage")]
    NothingToSalvage,
    #[error("cannot write what was found: {0}")]
    Output(#[source] std::io::Error),
    #[error("cannot talk to the service manager: {0}")]
    Notify(#[source] std::io::Error),
}

/// `holmd` from its first line to its last.
pub fn main() -> ExitCode {
    let command = match options::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("holmd: {message}");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => {
            print!("{}", options::HELP);
            Ok(())
        }
        Command::Version => {
            println!("holmd {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::CheckConfig(roots) => check_config(&roots),
        Command::Salvage(roots) => offline::salvage(&roots),
        Command::Adopt(roots) => offline::adopt(&roots),
        Command::Shutdown(roots) => shutdown::instead(&roots),
        Command::Run(roots) => run(&roots),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(op = "daemon", "{error}");
            eprintln!("holmd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check_config(roots: &[std::path::PathBuf]) -> Result<(), DaemonError> {
    Config::load(roots)?;
    println!("The configuration is good.");
    Ok(())
}

fn run(roots: &[std::path::PathBuf]) -> Result<(), DaemonError> {
    // First of all: what an earlier daemon left with the service manager.
    let stored = notify::take_stored().map_err(DaemonError::Notify)?;
    let config = Config::load(roots)?;
    logging::start(config.log.level).map_err(DaemonError::Logging)?;
    let runtime = runtime()?;
    let result = runtime.block_on(serve(config, stored));
    // A thread that hangs in the kernel must not keep a daemon alive that has nothing more to do.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all().build().map_err(DaemonError::Runtime)
}

/// The work is waiting, for the disk, the bus and systemd: two threads carry any number of containers.
const WORKERS: usize = 2;

async fn serve(config: Config, stored: Vec<(String, std::os::fd::OwnedFd)>) -> Result<(), DaemonError> {
    let connection = dbus::connect(zbus::connection::Builder::system()).await.map_err(DaemonError::Bus)?;
    let systemd = Systemd::connect(&connection).await?;
    warn_about_slice(&systemd, &config.containers.slice).await;
    let machined = Machined::connect(&connection).await?;
    let engine = open_engine(&config, systemd.clone(), machined, stored).await?;
    let mut server = dbus::serve(engine.clone(), &connection, features(&engine)).await?;
    let name = connection.request_name_with_flags(BUS_NAME, zbus::fdo::RequestNameFlags::DO_NOT_QUEUE).await.map_err(
        |error| match error {
            zbus::Error::NameTaken => DaemonError::NameTaken,
            error => DaemonError::Bus(error),
        },
    )?;
    info!(op = "daemon", driver = engine.driver().as_str(), "holmd {} is ready ({name:?}).", env!("CARGO_PKG_VERSION"));
    notify::ready("Ready.").map_err(DaemonError::Notify)?;
    engine.begin_restarts();
    if let Some(every) = notify::watchdog() {
        let systemd = Arc::clone(&systemd);
        // Asked through the bus connection that requests come through.
        tokio::spawn(notify::answer_watchdog(every, move || {
            let systemd = Arc::clone(&systemd);
            async move { systemd.system_end().await.is_ok() }
        }));
    }
    wait_for_end(&engine, &mut server).await?;
    shutdown::stop(&engine, &systemd, &server).await
}

async fn open_engine(
    config: &Config,
    scopes: Arc<dyn Scopes>,
    machines: Arc<dyn Machines>,
    stored: Vec<(String, std::os::fd::OwnedFd)>,
) -> Result<Engine, DaemonError> {
    let devices = open_devices(config).await?;
    let parts = Parts {
        settings: Settings {
            slice: config.containers.slice.clone(),
            stop_timeout_usec: u64::try_from(config.containers.stop_timeout.as_micros()).unwrap_or(u64::MAX),
            pids_limit: config.containers.pids_limit,
            keep_runs: config.containers.keep_runs,
            images_may_boot: config.containers.images_may_boot,
        },
        devices,
        scopes,
        machines,
        launcher: Arc::new(InitImage::load(&config.runtime.init_path)?),
        store: Store::open(&config.storage.directory, Path::new(RUNTIME_DIRECTORY))?,
        stored,
    };
    Ok(in_background(move || Engine::open(parts)).await?)
}

/// What this build and this host can do, as words of the property `Features`.
fn features(engine: &Engine) -> Vec<String> {
    [engine.driver().as_str(), "machined", "journal"].map(str::to_owned).to_vec()
}

/// See `packaging/holm.catalog`.
const OUT_OF_ORDER_ID: &str = "9d2c64b1e7a34f0c8b5e31f7a6d09c42";

/// Opening the pool may check and recover.
async fn open_devices(config: &Config) -> Result<Arc<dyn DeviceSet>, DaemonError> {
    let storage = config.storage.clone();
    let directory = storage.directory.join("pool");
    let opened = match in_background(move || options::open_storage(&storage)).await {
        // Containers may run, and somebody has to look after them until that is repaired.
        Err(error @ StorageError::Damaged { .. }) => {
            error!(op = "daemon", message_id = OUT_OF_ORDER_ID, "Devices are not available: {error}");
            return Ok(storage::out_of_order(directory, &error));
        }
        opened => opened?,
    };
    if let Some(reason) = opened.fallback {
        info!(op = "daemon", "Roots are kept as copies of trees: {reason}");
    }
    Ok(opened.set)
}

/// Work of the start that waits for the disk; systemd is asked for more time as long as it goes on.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match notify::with_more_time(tokio::task::spawn_blocking(work)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// An ordinary slice is stopped at the first instant of a shutdown, and its scopes with it.
async fn warn_about_slice(systemd: &Systemd, slice: &str) {
    match systemd.slice_stopped_at_shutdown(slice).await {
        Ok(None) => {}
        Ok(Some(culprit)) => warn!(
            op = "daemon",
            "{culprit} has DefaultDependencies=yes: systemd stops the containers in {slice} at the first instant of a shutdown, before holmd can; set DefaultDependencies=no in it"
        ),
        Err(error) => warn!(op = "daemon", "cannot look at {slice}: {error}, ignoring"),
    }
}

async fn wait_for_end(engine: &Engine, server: &mut dbus::Server) -> Result<(), DaemonError> {
    sender::note_senders_of_term().map_err(DaemonError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => if machined_sent_it() {
                debug!(op = "daemon", "machined asks the supervisor of a machine to end");
                let engine = engine.clone();
                tokio::spawn(async move { engine.stop_closing_machines().await });
            } else {
                return Ok(());
            },
            _ = interrupt.recv() => return Ok(()),
            // Without the bus nobody can reach us: systemd starts us anew, and the containers run on.
            error = server.failed() => return Err(error.into()),
        }
    }
}

/// From systemd 259 on, machined takes who registers a machine for its supervisor, and sends it SIGTERM when the machine
/// has ended or is to end; but we look after more than one. The unit has systemd stop us with another signal, so none is missed.
fn machined_sent_it() -> bool {
    let unit = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let is_machined = |groups: String| groups.lines().any(|group| group.ends_with("/systemd-machined.service"));
    sender::sender_of_last_term().and_then(unit).is_some_and(is_machined)
}
