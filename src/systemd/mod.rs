//! systemd and its friends on the bus: scopes, jobs, machined, the journal's stream sockets, readiness.
//!
//! | file | what |
//! |---|---|
//! | this one | the traits [`Scopes`] and [`Machines`] and their words |
//! | `scope.rs` | [`Systemd`]: scopes started and found through the manager |
//! | `properties.rs` | which properties a scope gets, and why |
//! | `job.rs` | waiting for the end of a systemd job |
//! | `bus.rs` | the manager's calls that are used, and its errors in our words |
//! | `systemctl.rs` | [`Systemctl`]: systemd without a bus, at the end of the system |
//! | `machined.rs` | [`Machined`]: containers in `machinectl list` |
//! | `places.rs` | what of a machine is in the host's tree |
//! | `journal.rs` | streams into the journal |
//! | `units.rs` | what journald adds to the lines of a unit, and how many it takes |
//! | `notify.rs` | readiness, watchdog and the fd store of our own service |
//! | `caller.rs` | who sent a message |
//! | `fake.rs` | both for tests of policy |

mod bus;
pub mod caller;
#[doc(hidden)]
pub mod fake;
mod job;
pub mod journal;
mod machined;
pub mod notify;
mod places;
mod properties;
mod scope;
mod systemctl;
mod units;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use crate::model::{ContainerId, ContainerName, ErrorCode, Limits};

pub use machined::{Machine, Machined};
pub use scope::{Systemd, scope_name};
pub use systemctl::Systemctl;
pub use units::UnitLog;

/// A future behind a pointer, so that [`Scopes`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the engine needs of systemd's manager; one real implementation, one fake for tests of policy.
pub trait Scopes: Send + Sync + std::fmt::Debug {
    /// Starts a transient scope around `request.pid` and waits until its job is done and its control group is known.
    /// After an error no scope of that name is left by this call.
    fn start<'a>(&'a self, request: &'a ScopeRequest) -> BoxFuture<'a, Result<Scope, SystemdError>>;

    /// A loaded, active scope of this name.
    fn find<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<Option<Scope>, SystemdError>>;

    /// Has systemd let go of the containers' scopes that no process is in; how many there were. systemd takes a process
    /// that has ended, and is not waited for yet, into a scope and then never sees the scope become empty: that is what a
    /// daemon leaves that is killed while it asks for one.
    fn clear_empty(&self) -> BoxFuture<'_, Result<usize, SystemdError>>;

    /// Changes a running scope's limits to exactly these, with every device named (SetUnitProperties, runtime only).
    fn set_limits<'a>(&'a self, unit: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<(), SystemdError>>;

    /// Thaws a scope that somebody froze as a unit (`systemctl freeze`). Fine if it is not frozen.
    fn thaw<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<(), SystemdError>>;

    /// Forgets what the journal was to know of a scope's lines ([`ScopeRequest::log`]), once its last line is in the journal.
    fn forget_log(&self, unit: &str) -> std::io::Result<()>;

    /// Forgets that of all containers' scopes but those for which `keep` is true.
    fn sweep_logs(&self, keep: &dyn Fn(&str) -> bool) -> std::io::Result<()>;

    /// How the system is ending, if it is (SystemState `stopping`).
    fn system_end(&self) -> BoxFuture<'_, Result<Option<SystemEnd>, SystemdError>>;
}

/// What the engine needs of machined; one real implementation, [`Machined`], one fake for tests of policy.
pub trait Machines: Send + Sync + std::fmt::Debug {
    /// Lists a machine at once; what is returned tells machined, and can be dropped or run beside anything.
    fn register(&self, machine: Machine) -> BoxFuture<'static, Result<(), SystemdError>>;

    /// Makes the place through which mounts can be sent into a machine. To be called before it is started.
    fn prepare(&self, name: &ContainerName) -> std::io::Result<()>;

    /// Shows a machine that is a whole system where programs of the host look for its journal and its sockets. What could
    /// not be shown is missing there only.
    fn show(&self, name: &ContainerName, id: &ContainerId, leader: u32) -> std::io::Result<()>;

    /// Takes back what [`prepare`](Self::prepare) and [`show`](Self::show) have made, if anything.
    fn hide(&self, name: &ContainerName, id: &ContainerId);

    /// Takes a machine off the list at once, and off machined's in what is returned, which ends as [`see_off`](Self::see_off) does.
    fn unregister(&self, name: &ContainerName) -> BoxFuture<'static, ()>;

    /// The machines of the list that machined wants to end, with `machinectl terminate`: since systemd 259 it tells that to who
    /// has registered them, by SIGTERM, and does no more.
    fn closing(&self) -> BoxFuture<'static, Vec<ContainerName>>;

    /// Waits until machined has let go of a machine of ours that has ended, whoever registered it. When it does, it stops the
    /// machine's unit, by name: a scope of the next run that is there by then would be hit.
    fn see_off(&self, name: &ContainerName) -> BoxFuture<'static, ()>;
}

/// How a system ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEnd {
    /// Only its userspace, and another one is started on the same kernel (systemd-soft-reboot.service(8)).
    Userspace,
    /// All of it.
    Machine,
}

/// A scope to start.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopeRequest {
    /// Unit name, `….scope`.
    pub unit: String,
    /// Its description.
    pub description: String,
    /// The process it is started around; it must stay blocked until the scope is there.
    pub pid: u32,
    /// The slice.
    pub slice: String,
    /// Limits, with every device named.
    pub limits: Limits,
    /// How long systemd waits after its own stop signal, in µs: the container's stop timeout and a margin.
    pub timeout_stop_usec: u64,
    /// The unit that wants this container, if any: the scope then gets `Conflicts=shutdown.target` and
    /// `Before=shutdown.target` and `Before=` that unit, which makes the order at shutdown exact.
    pub wanted_by: Option<String>,
    /// Whether its processes are spared by the last sweep of a soft-reboot. A systemd before 255 cannot.
    pub survive_soft_reboot: bool,
    /// What the journal is to know of its lines.
    pub log: UnitLog,
}

/// A scope that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Unit name.
    pub unit: String,
    /// Its control group below the mount of cgroup2.
    pub control_group: PathBuf,
}

/// What can go wrong with systemd.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The system bus or systemd does not answer.
    #[error("systemd does not answer on the system bus: {0}")]
    Unreachable(#[source] zbus::Error),
    /// systemctl(1), which is asked where there is no bus, has failed.
    #[error("'systemctl' failed: {0}")]
    Systemctl(String),
    /// A unit of that name is loaded and cannot be replaced.
    #[error("the unit {0} exists and is not ours to replace: stop it or run 'systemctl reset-failed {0}'")]
    UnitExists(String),
    /// A method call was refused.
    #[error("systemd refused to {op} {unit}: {source}")]
    Refused {
        /// What was asked.
        op: &'static str,
        /// For which unit.
        unit: String,
        /// Why.
        source: zbus::Error,
    },
    /// The unit's job ended otherwise than done.
    #[error("the start job of {unit} ended as '{result}'")]
    JobFailed {
        /// Which unit.
        unit: String,
        /// The job's result.
        result: String,
    },
    /// The job did not end in time.
    #[error("the start job of {unit} did not end within {seconds} s")]
    JobTimeout {
        /// Which unit.
        unit: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The scope is not where its process is.
    #[error("{unit} was started but its control group is '{found}'")]
    WrongControlGroup {
        /// Which unit.
        unit: String,
        /// What systemd says.
        found: String,
    },
    /// The process that a scope was to be started around is not there.
    #[error("process {pid} ended before {unit} could be started around it")]
    ProcessGone {
        /// Which unit.
        unit: String,
        /// Which process.
        pid: u32,
    },
    /// machined does not know a container, and everything else works.
    #[error("machined does not list '{machine}' ('machinectl' will not show it): {source}")]
    Machined {
        /// The machine's name.
        machine: String,
        /// Why.
        source: zbus::Error,
    },
    /// Somebody else's machine has the name.
    #[error("machined lists another machine '{machine}' of the service '{service}' ('machinectl' will not show ours)")]
    MachineTaken {
        /// The machine's name.
        machine: String,
        /// Whose it is.
        service: String,
    },
    /// The system is shutting down.
    #[error("the system is shutting down: nothing can be started")]
    ShuttingDown,
    /// The journal's stream socket cannot be used.
    #[error("cannot connect to the journal at {path}: {source}")]
    Journal {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SystemdError {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::JobTimeout { .. } => ErrorCode::Timeout,
            _ => ErrorCode::SystemdFailed,
        }
    }
}
