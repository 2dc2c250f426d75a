//! What a container is, and the words for how it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bytes, ContainerId, ContainerName, ImageName, Signal};

/// The state shown outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Defined, never started.
    Created,
    /// A start is under way.
    Starting,
    /// The payload runs.
    Running,
    /// The payload is frozen.
    Frozen,
    /// A stop is under way.
    Stopping,
    /// The payload has ended, or was stopped.
    Stopped,
    /// The last start failed, or the payload ended badly.
    Failed,
}

impl Status {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether there is a payload, or soon will be.
    pub fn is_active(self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Frozen | Self::Stopping => true,
            Self::Created | Self::Stopped | Self::Failed => false,
        }
    }
}

/// Everything that defines a container; what its record keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name.
    pub name: ContainerName,
    /// Its id, for ever.
    pub id: ContainerId,
    /// The image it was made from.
    pub image: ImageName,
    /// The payload's first process.
    pub process: Process,
    /// Host name inside; the container's name when absent.
    pub hostname: Option<String>,
    /// Its network.
    pub network: NetworkMode,
    /// Whether the root file system is mounted read-only.
    pub read_only: bool,
    /// Host directories and files mounted inside, in order.
    pub mounts: Vec<BindMount>,
    /// Limits, set on the scope.
    pub limits: Limits,
    /// Size of the root file system; the pool's default when absent.
    pub size: Option<Bytes>,
    /// The slice of the scope.
    pub slice: Option<String>,
    /// How it is stopped.
    pub stop: StopPolicy,
    /// What happens when the payload has ended.
    pub lifetime: Lifetime,
    /// Whether it runs on when only the system's userspace is started anew. Absent in records of older versions.
    #[serde(default)]
    pub survive_soft_reboot: bool,
    /// The caller's notes.
    pub labels: BTreeMap<String, String>,
}

/// The payload's first process, as the image and the caller want it together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the program is looked up in the container's `PATH` when it has no slash.
    pub command: Vec<String>,
    /// `NAME=VALUE` entries.
    pub environment: Vec<String>,
    /// Working directory inside; `/` when absent. Made when missing.
    pub working_directory: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the container; root when absent.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether a small init of ours is PID 1, reaps and forwards signals, and the command is its child.
    pub init: bool,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// Whether set-user-id programs and file capabilities gain nothing (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
}

/// Changes to the default capability set, as `CAP_…` names without the prefix, upper case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added; `ALL` means every one.
    pub add: Vec<String>,
    /// Dropped; `ALL` means every one, before additions.
    pub drop: Vec<String>,
}

/// Which network the payload sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// A network namespace of its own with loopback only.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A host file or directory seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path inside.
    pub destination: String,
    /// Whether it is read-only inside.
    pub read_only: bool,
}

/// Limits of the whole container; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory (MemoryMax=).
    pub memory: Option<Bytes>,
    /// CPU time per second of wall-clock time, in µs (CPUQuotaPerSecUSec=): 1 500 000 is one and a half CPUs.
    pub cpu_usec_per_sec: Option<u64>,
    /// Tasks (TasksMax=).
    pub pids: Option<u64>,
}

impl Limits {
    /// What systemd calls infinity (`UINT64_MAX`) as what it is: no limit.
    pub fn without_infinity(self) -> Self {
        let finite = |value: &u64| *value != u64::MAX;
        Self {
            memory: self.memory.filter(|bytes| finite(&bytes.0)),
            cpu_usec_per_sec: self.cpu_usec_per_sec.filter(finite),
            pids: self.pids.filter(finite),
        }
    }
}

/// How a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// The signal that asks the leader to end.
    pub signal: Signal,
    /// How long it may take, in µs, before everything is killed.
    pub timeout_usec: u64,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self { signal: Signal::TERM, timeout_usec: 10_000_000 }
    }
}

impl StopPolicy {
    /// The timeout as a length of time.
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_usec)
    }
}

/// What happens to a container whose payload has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// It stays, stopped, with its data and its exit status.
    #[default]
    Kept,
    /// It is removed (`--rm`).
    OneRun,
}
