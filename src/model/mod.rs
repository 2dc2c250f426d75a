//! Words shared by every floor: names, sizes, states, errors. No I/O, no async, no logging.

mod bytes;
mod container;
mod device;
mod error;
mod exit;
mod health;
mod image;
mod limits;
mod name;
mod notification;
mod restart;
mod service;
mod signal;
mod time;

pub use bytes::{Bytes, ParseBytesError};
pub use container::{
    BindMount, Boot, Capabilities, ContainerSpec, Lifetime, LogRate, NetworkMode, Process, Ready, Status, StopPolicy,
};
pub use device::{DeviceInfo, DeviceState, Driver, FileSystem, PoolState, PoolStatus};
pub use error::ErrorCode;
pub use exit::{Exit, ExitRecord, Figures, MonitorMessage, RunResult, StopCourse};
pub use health::{Checked, Health, HealthAction, HealthCheck, HealthState};
pub use image::{ImageConfig, ImageInfo, LayerDevice};
pub use limits::{CpuSet, CpuSetError, IoMax, Limits, Weight};
pub use name::{ContainerId, ContainerName, DeviceId, ImageName, NameError, SnapshotName};
pub use notification::Notification;
pub use restart::{RestartPolicy, RestartWhen};
pub use service::Service;
pub use signal::{Signal, SignalError};
pub use time::{Usec, in_usec, now_usec};
