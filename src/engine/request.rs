//! What the doors ask of the engine, parsed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::model::{
    BindMount, Bytes, Capabilities, ContainerName, ImageName, Lifetime, Limits, NetworkMode, Signal, SnapshotName,
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
    /// Whether it runs on over a soft-reboot.
    pub survive_soft_reboot: bool,
    /// Notes.
    pub labels: BTreeMap<String, String>,
    /// Capability changes.
    pub capabilities: Capabilities,
    /// `false` lets set-user-id programs gain privileges. On when absent.
    pub no_new_privileges: Option<bool>,
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
    /// The unit on whose behalf this run is.
    pub wanted_by: Option<String>,
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
