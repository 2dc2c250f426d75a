//! Words shared by every floor: names, sizes, states, errors. No I/O, no async, no logging.

mod bytes;
mod container;
mod device;
mod error;
mod exit;
mod image;
mod name;
mod signal;
mod time;

pub use bytes::{Bytes, ParseBytesError};
pub use container::{
    BindMount, Capabilities, ContainerSpec, Lifetime, Limits, NetworkMode, Process, Status, StopPolicy,
};
pub use device::{DeviceInfo, DeviceState, Driver, FileSystem, PoolState, PoolStatus};
pub use error::ErrorCode;
pub use exit::{Exit, ExitRecord, Figures, MonitorMessage, RunResult, StopCourse};
pub use image::{ImageConfig, ImageInfo, LayerDevice};
pub use name::{ContainerId, ContainerName, DeviceId, ImageName, NameError, SnapshotName};
pub use signal::{Signal, SignalError};
pub use time::{Usec, now_usec};
