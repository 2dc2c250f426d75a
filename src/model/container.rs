//! What a container is, and the words for how it is.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bytes, ContainerId, ContainerName, HealthCheck, ImageName, RestartPolicy, Signal, Usec};

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
    /// Whether that is the init of a whole system, such as systemd. Absent in records of older versions.
    #[serde(default)]
    pub boot: bool,
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
    /// When it is started again. Absent in records of older versions.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Its check, if it has one. Absent in records of older versions.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// How many lines the journal takes of it; the journal's own limit when absent. Absent in records of older versions.
    #[serde(default)]
    pub log_rate: Option<LogRate>,
    /// When it counts as started. Absent in records of older versions.
    #[serde(default)]
    pub ready: Ready,
    /// How long that may take, in µs, `u64::MAX` for ever; what is usual for its kind when absent. Absent in records of older
    /// versions.
    #[serde(default)]
    pub start_timeout_usec: Option<Usec>,
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

/// What a caller says of the payload: whether it is the init of a whole system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boot {
    /// It is if the caller named an init as its program. An image's word counts only where the administrator said so.
    #[default]
    Auto,
    /// It is.
    Yes,
    /// It is not, whatever it looks like.
    No,
}

impl Boot {
    /// Where an init is, by the Filesystem Hierarchy Standard and where distributions moved it. Not `/init`, which in many
    /// images of single services is a supervisor that wants none of this.
    const INITS: [&'static str; 4] = ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init", "/bin/init"];

    /// Whether a command is that of a whole system, going by its program's name and place.
    pub fn is_init(command: &[String]) -> bool {
        let Some(program) = command.first() else { return false };
        let name = program.rsplit('/').next().unwrap_or_default();
        name == "systemd" || Self::INITS.contains(&program.as_str()) || program == "init"
    }
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
    /// The smaller of each.
    pub fn within(self, other: Self) -> Self {
        let smaller = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            memory: smaller(self.memory.map(|bytes| bytes.0), other.memory.map(|bytes| bytes.0)).map(Bytes),
            cpu_usec_per_sec: smaller(self.cpu_usec_per_sec, other.cpu_usec_per_sec),
            pids: smaller(self.pids, other.pids),
        }
    }

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

/// How many lines of a container's output the journal takes within an interval; it drops what is more, and says so
/// (`LogRateLimitIntervalSec=` and `LogRateLimitBurst=` in systemd.exec(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRate {
    /// The interval in µs; 0 for no limit.
    pub interval_usec: Usec,
    /// How many lines; 0 for no limit.
    pub burst: u32,
}

/// When a container counts as started, and the job that starts it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// When its program is executed.
    #[default]
    Exec,
    /// When its payload says so (sd_notify(3), `READY=1`).
    Notify,
    /// When its check passes for the first time.
    Healthy,
}

impl Ready {
    /// Every word.
    pub const ALL: [Self; 3] = [Self::Exec, Self::Notify, Self::Healthy];

    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Notify => "notify",
            Self::Healthy => "healthy",
        }
    }
}

impl FromStr for Ready {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|ready| ready.as_str() == text)
            .ok_or_else(|| format!("'{}' is none of {words}", text.chars().take(80).collect::<String>()))
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
