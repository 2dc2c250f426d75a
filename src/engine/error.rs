//! Every failure of the engine, with its code.

use super::devices::DeviceError;
use crate::images::ImageError;
use crate::model::{ContainerName, ErrorCode, ImageName, NameError, SnapshotName};
use crate::records::RecordError;
use crate::runtime::LaunchError;
use crate::storage::StorageError;
use crate::systemd::SystemdError;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such container.
    #[error("no container is named '{0}': 'holmctl list --all' shows them all")]
    NoSuchContainer(String),
    /// No such image.
    #[error("no image is named '{0}': import one with 'holmctl image import FILE --name {0}'")]
    NoSuchImage(String),
    /// No such process.
    #[error("{0}")]
    NoSuchProcess(String),
    /// The name is taken.
    #[error("the name '{0}' is in use: choose another, or remove that container with 'holmctl rm {0}'")]
    NameInUse(String),
    /// The container has no such snapshot.
    #[error(
        "the container '{container}' has no snapshot '{snapshot}': 'holmctl snapshot --list {container}' shows them"
    )]
    NoSuchSnapshot {
        /// Which container.
        container: ContainerName,
        /// Which snapshot.
        snapshot: SnapshotName,
    },
    /// The container has a snapshot of that name.
    #[error(
        "the container '{container}' has a snapshot '{snapshot}' already: choose another name, or remove it with 'holmctl snapshot --remove {container} {snapshot}'"
    )]
    SnapshotExists {
        /// Which container.
        container: ContainerName,
        /// Which snapshot.
        snapshot: SnapshotName,
    },
    /// Containers need the image.
    #[error("the image '{image}' is in use by {users}: remove them first")]
    ImageInUse {
        /// Which.
        image: ImageName,
        /// By whom.
        users: String,
    },
    /// It does not run.
    #[error("the container '{0}' is not running: start it with 'holmctl start {0}'")]
    NotRunning(ContainerName),
    /// It runs.
    #[error("the container '{name}' is {status}: {advice}")]
    Running {
        /// Which.
        name: ContainerName,
        /// Its state.
        status: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A value makes no sense.
    #[error("{0}")]
    InvalidConfig(String),
    /// A name breaks the rule.
    #[error(transparent)]
    InvalidName(#[from] NameError),
    /// The system is going down.
    #[error("the system is shutting down: nothing can be started")]
    ShuttingDown,
    /// The operation was cancelled.
    #[error("cancelled")]
    Canceled,
    /// It took too long.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// The container has no terminal.
    #[error("the container '{0}' has no terminal: run it with --tty")]
    NoTerminal(ContainerName),
    /// The container's console is not to be shared.
    #[error(
        "the console of '{0}', a whole system, is its caller's or the journal's: use 'holmctl shell {0}' or 'machinectl login {0}'"
    )]
    NoConsole(ContainerName),
    /// A device of the DeviceSet cannot be used so.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The DeviceSet failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An image failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// systemd failed.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// The launch failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// State on disk.
    #[error("cannot {op} {path}: {source}")]
    State {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl EngineError {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchContainer(_) => ErrorCode::NoSuchContainer,
            Self::NoSuchImage(_) => ErrorCode::NoSuchImage,
            Self::NoSuchProcess(_) => ErrorCode::NoSuchProcess,
            Self::NameInUse(_) | Self::SnapshotExists { .. } => ErrorCode::NameInUse,
            Self::NoSuchSnapshot { .. } => ErrorCode::NoSuchSnapshot,
            Self::ImageInUse { .. } => ErrorCode::ImageInUse,
            Self::NotRunning(_) => ErrorCode::NotRunning,
            Self::Running { .. } => ErrorCode::AlreadyRunning,
            Self::InvalidConfig(_) => ErrorCode::InvalidConfig,
            Self::InvalidName(_) => ErrorCode::InvalidName,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::Canceled => ErrorCode::Canceled,
            Self::Timeout(_) => ErrorCode::Timeout,
            Self::NoTerminal(_) | Self::NoConsole(_) => ErrorCode::NotSupported,
            Self::Device(error) => error.code(),
            Self::Storage(error) => error.code(),
            Self::Image(error) => error.code(),
            Self::Systemd(error) => error.code(),
            Self::Launch(error) => error.code(),
            Self::State { .. } | Self::Record(_) => ErrorCode::StateFailed,
        }
    }
}
