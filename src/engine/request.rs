//! What the doors ask of the engine, parsed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::model::{
    BindMount, Boot, Bytes, Capabilities, ContainerName, HealthAction, ImageName, Lifetime, Limits, LogRate,
    NetworkMode, Ready, RestartPolicy, Service, Signal, SnapshotName, Usec,
};

/// A container to define. What is absent comes from the image, then from the configuration.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// Its name; generated when absent.
    pub name: Option<ContainerName>,
    /// The image.
    pub image: Option<ImageName>,
    /// Arguments, or the command when the image has no entry point.
    pub command: Vec<String>,
    /// Replaces the image's entry point.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=VALUE` entries, over the image's.
    pub environment: Vec<String>,
    /// Working directory.
    pub working_directory: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Whether the payload gets a terminal.
    pub terminal: bool,
    /// Whether our small init is PID 1.
    pub init: bool,
    /// Whether the payload is the init of a whole system.
    pub boot: Boot,
    /// Network.
    pub network: Option<NetworkMode>,
    /// Whether the root is read-only.
    pub read_only: bool,
    /// Host paths seen inside.
    pub mounts: Vec<BindMount>,
    /// Limits; what is absent comes from the configuration.
    pub limits: Limits,
    /// Size of the root.
    pub size: Option<Bytes>,
    /// Slice.
    pub slice: Option<String>,
    /// Stop signal.
    pub stop_signal: Option<Signal>,
    /// Stop timeout in µs.
    pub stop_timeout_usec: Option<u64>,
    /// Kept or removed after its run.
    pub lifetime: Lifetime,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How many lines the journal takes of it.
    pub log_rate: Option<LogRate>,
    /// When it counts as started.
    pub ready: Ready,
    /// How long that may take, in µs; 0 or `u64::MAX` for ever.
    pub start_timeout_usec: Option<Usec>,
    /// How its health is checked.
    pub health: HealthRequest,
    /// Whether it runs on over a soft-reboot.
    pub survive_soft_reboot: bool,
    /// Notes.
    pub labels: BTreeMap<String, String>,
    /// Capability changes.
    pub capabilities: Capabilities,
    /// `false` lets set-user-id programs gain privileges. On when absent.
    pub no_new_privileges: Option<bool>,
}

/// How a container's health is to be checked. What is absent comes from the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthRequest {
    /// Program and arguments; none of both for no check.
    pub command: Option<Vec<String>>,
    /// The time from one check to the next, in µs.
    pub interval_usec: Option<Usec>,
    /// How long one may take, in µs.
    pub timeout_usec: Option<Usec>,
    /// How many in a row must fail.
    pub retries: Option<u32>,
    /// For how long after the start failures do not count, in µs.
    pub start_period_usec: Option<Usec>,
    /// What is done with one that is unhealthy.
    pub action: Option<HealthAction>,
}

/// Where one run's input and output go.
#[derive(Debug, Default)]
pub struct RunIo {
    /// Standard input, output, error; journal streams for the last two and `/dev/null` for the first when absent.
    pub stdio: [Option<OwnedFd>; 3],
    /// The caller's SOCK_SEQPACKET socket; see [`MonitorMessage`](crate::model::MonitorMessage).
    pub monitor: Option<OwnedFd>,
    /// Rows and columns of the terminal.
    pub terminal_size: Option<(u16, u16)>,
    /// The unit on whose behalf it runs, if there is one.
    pub wanted_by: Option<WantedBy>,
    /// Descriptors for the payload, as `LISTEN_FDS` with their names (sd_listen_fds(3)).
    pub passed: Vec<Passed>,
    /// Whether the caller's socket gets what the payload says about itself.
    pub notify: bool,
    /// Credentials for the payload: files that are read once, and written down nowhere.
    pub credentials: Vec<Passed>,
}

/// A descriptor with its name.
#[derive(Debug)]
pub struct Passed {
    /// Its name.
    pub name: String,
    /// It.
    pub fd: OwnedFd,
}

/// A unit that wants a run. systemd stops the run after the unit, and before the daemon. With a caller's socket the run ends
/// with its caller too: closed, or shut down for writing, the socket asks for a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBy {
    /// Its name.
    pub unit: String,
    /// The slice that it is in, if that is known: it becomes that of a container which has none of its own.
    pub slice: Option<String>,
    /// Its control group, if that is known: what limits it limits the container.
    pub control_group: Option<String>,
}

impl From<Service> for WantedBy {
    fn from(service: Service) -> Self {
        Self { unit: service.unit, slice: Some(service.slice), control_group: Some(service.control_group) }
    }
}

impl RunIo {
    /// The same for one more run.
    pub(super) fn duplicate(&self) -> std::io::Result<Self> {
        let one = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        let all = |passed: &[Passed]| {
            let one = |passed: &Passed| Ok(Passed { name: passed.name.clone(), fd: passed.fd.try_clone()? });
            passed.iter().map(one).collect::<std::io::Result<Vec<_>>>()
        };
        let [input, output, error] = &self.stdio;
        Ok(Self {
            stdio: [one(input)?, one(output)?, one(error)?],
            monitor: one(&self.monitor)?,
            terminal_size: self.terminal_size,
            wanted_by: self.wanted_by.clone(),
            passed: all(&self.passed)?,
            notify: self.notify,
            credentials: all(&self.credentials)?,
        })
    }
}

/// A container to make of another.
#[derive(Debug, Clone, Default)]
pub struct CloneRequest {
    /// Its name; generated when absent.
    pub name: Option<ContainerName>,
    /// The snapshot of the other that it is made of; the other as it is now when absent.
    pub snapshot: Option<SnapshotName>,
}

/// What a container may use from now on. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceRequest {
    /// Limits; each that is absent stays.
    pub limits: Limits,
    /// Size of the root: no smaller than it is.
    pub size: Option<Bytes>,
}

/// How to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopOptions {
    /// Another signal than the container's.
    pub signal: Option<Signal>,
    /// Another timeout than the container's, µs.
    pub timeout_usec: Option<u64>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
}

/// Whom a signal goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The first process.
    Leader,
    /// Every process.
    All,
}

/// A process to run in a running container.
#[derive(Debug, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=VALUE` entries, over the container's.
    pub environment: Vec<String>,
    /// Working directory; the container's when absent.
    pub working_directory: Option<String>,
    /// User; the container's when absent.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Where its input and output go. `/dev/null` where absent.
    pub io: RunIo,
    /// The bus name of the client with whom it ends; absent when detached.
    pub owner: Option<String>,
}
