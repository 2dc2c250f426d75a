//! From a scope and a root to a running payload.
//!
//! ```text
//!  holmd ── launch.rs ──► monitor (holm-init, in supervisor/) ── clone3 ──► init, then the payload (payload/)
//!            wire.rs           monitor.rs                          plan.rs, init.rs
//! ```
//!
//! | file | runs in | what |
//! |---|---|---|
//! | `launch.rs` | holmd | spawns the monitor, hands over plan and fds, waits for the exec |
//! | `wire.rs` | both | the typed messages between them, and to the caller's own socket |
//! | `monitor.rs` | holm-init | cgroups, clone3, waits, writes the exit record |
//! | `stop.rs` | holm-init | a stop that systemd asks for, seen through |
//! | `cgroups.rs`, `record.rs` | holm-init | the cgroups below the scope and their last figures; the exit record |
//! | `console.rs` | holm-init | keeps the console of a whole system, and its output from piling up |
//! | `notifier.rs` | holm-init | passes on what the payload says about itself |
//! | `tie.rs` | holm-init | stops the payload with its caller |
//! | `plan.rs` | both | a launch as data, and the ordered list of set-up steps made from it (pure) |
//! | `init.rs` | the container's PID 1 before exec | runs the steps of `rootfs.rs`, `filesystems.rs`, `system.rs` and `payload.rs` |
//! | `credentials.rs` | the same | secrets for the payload, in memory that is never swapped |
//! | `user.rs`, `environment.rs`, `capabilities.rs` | the same | pure parts of these steps |
//! | `command.rs`, `reaper.rs` | the same | the execve, and the small init above it |
//! | `exec.rs` | holm-init | enters a running container |
//! | `fake.rs` | tests | plays the monitor |
//!
//! This module is built without features too: it is all that the static `holm-init` consists of, with `model` and `sys`.

mod capabilities;
mod cgroups;
mod command;
mod console;
mod credentials;
mod environment;
mod exec;
#[cfg(all(test, feature = "daemon"))]
pub(crate) mod fake;
mod filesystems;
mod init;
mod launch;
mod monitor;
mod notifier;
mod payload;
mod plan;
mod reaper;
mod record;
mod rootfs;
mod stop;
mod system;
mod tie;
mod user;
mod wire;

pub use capabilities::UnknownCapability;
pub use launch::{InitImage, Keeper, Launched, Launcher, PendingExec, PendingMonitor};
pub use monitor::main as monitor_main;
pub use plan::{PlanError, Step, check_bind, exec_steps, launch_steps};
pub use wire::Timings;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{BindMount, ContainerId, ContainerName, ErrorCode, NetworkMode, Process, StopPolicy};

/// Everything the monitor needs to know to start a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The container's name: its default host name.
    pub name: ContainerName,
    /// Its id, `container_uuid` inside.
    pub id: ContainerId,
    /// The number of this run, copied into the exit record.
    pub run: u64,
    /// Host name inside.
    pub hostname: String,
    /// The payload.
    pub process: Process,
    /// Whether that is the init of a whole system.
    pub boot: bool,
    /// Its network.
    pub network: NetworkMode,
    /// Whether the root is read-only.
    pub read_only: bool,
    /// Host paths mounted inside.
    pub mounts: Vec<BindMount>,
    /// How the leader is asked to end, and how long it may take, for when systemd asks the monitor to stop.
    pub stop: StopPolicy,
    /// Whether the last sweep of a soft-reboot spares it.
    pub survive_soft_reboot: bool,
    /// Rows and columns of the terminal, if it gets one.
    pub terminal_size: Option<(u16, u16)>,
    /// Whether the caller's end asks it to stop.
    pub stop_with_caller: bool,
    /// The names of the descriptors that are passed on, in order; `LISTEN_FDNAMES` inside (C7).
    pub fd_names: Vec<String>,
    /// The names of the credentials, in order.
    pub credentials: Vec<String>,
    /// Whether it has a socket to say things about itself (C5).
    pub notify: bool,
    /// Whether the caller hears what it says.
    pub notify_caller: bool,
}

/// The file descriptors that go with a [`LaunchPlan`].
#[derive(Debug)]
pub struct LaunchFds {
    /// A detached mount; the tree is below it in `rootfs`.
    pub root: OwnedFd,
    /// The scope's directory in cgroup2.
    pub cgroup: OwnedFd,
    /// The directory the exit record is written to, as `exit.json`.
    pub record_dir: OwnedFd,
    /// Standard input, output and error; unused with a terminal. `/dev/null` when absent.
    pub stdio: [Option<OwnedFd>; 3],
    /// A SOCK_SEQPACKET socket of the caller's: gets the terminal's master and the end of the run.
    pub client: Option<OwnedFd>,
    /// What the payload finds from 3 up: one for each of the plan's names.
    pub passed: Vec<OwnedFd>,
    /// Where its credentials are read from: one for each of the plan's names.
    pub credentials: Vec<OwnedFd>,
    /// A SOCK_SEQPACKET socket that gets what the payload says about itself.
    pub notified: Option<OwnedFd>,
}

/// What to run inside a running container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The process; `init` is ignored.
    pub process: Process,
    /// The name of its cgroup below the scope, `exec-<n>`.
    pub cgroup_name: String,
    /// Rows and columns of the terminal, if it gets one.
    pub terminal_size: Option<(u16, u16)>,
}

/// The file descriptors that go with an [`ExecPlan`].
#[derive(Debug)]
pub struct ExecFds {
    /// A pidfd of the container's leader.
    pub leader: OwnedFd,
    /// The scope's directory in cgroup2.
    pub cgroup: OwnedFd,
    /// Standard input, output and error; `/dev/null` when absent.
    pub stdio: [Option<OwnedFd>; 3],
    /// A SOCK_SEQPACKET socket of the caller's: gets the terminal's master and the end of the process.
    pub client: Option<OwnedFd>,
}

/// A step of setting a container up that failed, as the monitor reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {message}")]
pub struct StepError {
    /// The step's name, such as `MountProc`.
    pub step: String,
    /// errno, or 0.
    pub errno: i32,
    /// What happened, with the object.
    pub message: String,
}

/// What can go wrong at a launch. After any of these no process of the launch is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// `holm-init` cannot be read or started.
    #[error("cannot start {path}: {source}")]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The monitor ended or broke off.
    #[error("the monitor ended before the payload ran: {0}")]
    MonitorGone(String),
    /// The program is not in the container.
    #[error("'{0}' was not found in the container")]
    CommandNotFound(String),
    /// The program cannot be run.
    #[error("'{command}' cannot be run: {reason}")]
    CommandNotExecutable {
        /// Which.
        command: String,
        /// Why.
        reason: String,
    },
    /// The user is not in the container.
    #[error("no user '{0}' in the container")]
    NoSuchUser(String),
    /// A step failed.
    #[error("cannot set the container up: {0}")]
    Step(StepError),
    /// The plan itself is not one. To be found when the container is defined, with the same checks.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl LaunchError {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::CommandNotFound(_) => ErrorCode::CommandNotFound,
            Self::CommandNotExecutable { .. } => ErrorCode::CommandNotExecutable,
            Self::NoSuchUser(_) => ErrorCode::NoSuchUser,
            Self::Plan(_) => ErrorCode::InvalidConfig,
            Self::Spawn { .. } | Self::MonitorGone(_) | Self::Step(_) => ErrorCode::StartFailed,
        }
    }
}
