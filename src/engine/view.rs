//! What the engine shows: values, complete at one moment, cheap to clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    ContainerId, ContainerName, ContainerSpec, ErrorCode, Exit, Health, ImageInfo, ImageName, RunResult, SnapshotName,
    Status, Usec,
};

pub use crate::records::LastRun;

/// A container at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// What defines it.
    pub spec: Arc<ContainerSpec>,
    /// Its state.
    pub status: Status,
    /// Its scope's unit name, whether it runs or not.
    pub unit: String,
    /// Its control group below the mount of cgroup2, while it runs; else empty.
    pub control_group: String,
    /// Its leader's process id as the host sees it; 0 while there is none.
    pub leader: u32,
    /// When it was defined.
    pub created_usec: Usec,
    /// When it last started; 0 when never.
    pub started_usec: Usec,
    /// When it last ended; 0 when never.
    pub stopped_usec: Usec,
    /// How the last run ended, if one did.
    pub exit: Option<Exit>,
    /// The plain word for that.
    pub result: RunResult,
    /// Processes killed for lack of memory in the current or last run.
    pub oom_kills: u64,
    /// Why the last start failed, why it had to be killed or is held still, what the payload says of itself, or empty.
    pub status_text: String,
    /// How it is by its own check, while it runs.
    pub health: Health,
    /// How often its policy has started it again since somebody started it.
    pub restart_count: u32,
    /// When its policy starts it again; 0 when it does not wait for that.
    pub next_restart_usec: Usec,
    /// The number of the run that is under way, or was last; 0 when there was none.
    pub run: u64,
    /// How its last runs ended, newest last.
    pub runs: Arc<Vec<LastRun>>,
    /// Its snapshots, and when each was made.
    pub snapshots: Arc<BTreeMap<SnapshotName, Usec>>,
}

impl ContainerView {
    /// Its name.
    pub fn name(&self) -> &ContainerName {
        &self.spec.name
    }

    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.spec.id
    }
}

/// An image at one moment.
pub type ImageView = Arc<ImageInfo>;

/// The number of a job, unique while the daemon runs.
pub type JobId = u32;

/// The number of a process started by exec, unique while the daemon runs.
pub type ProcessId = u32;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Starts a container.
    Start,
    /// Stops one.
    Stop,
    /// Stops and starts one.
    Restart,
    /// Removes one.
    Remove,
    /// Makes a snapshot of one.
    Snapshot,
    /// Removes a snapshot of one.
    RemoveSnapshot,
    /// Brings one back to a snapshot.
    Rollback,
    /// Makes one of another.
    Clone,
    /// Imports an image.
    ImportImage,
    /// Makes the pool larger.
    Grow,
    /// Compares the copies of the truth about devices.
    Check,
    /// Brings them in line.
    Repair,
    /// Gives back what file systems do not need.
    Trim,
}

impl JobKind {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Remove => "remove",
            Self::Snapshot => "snapshot",
            Self::RemoveSnapshot => "remove-snapshot",
            Self::Rollback => "rollback",
            Self::Clone => "clone",
            Self::ImportImage => "import-image",
            Self::Grow => "grow",
            Self::Check => "check",
            Self::Repair => "repair",
            Self::Trim => "trim",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// It did what it was to do.
    Done,
    /// It failed.
    Failed {
        /// What a caller can do about it.
        code: ErrorCode,
        /// What happened.
        message: String,
    },
    /// It was cancelled.
    Canceled,
    /// It took too long.
    Timeout,
}

impl JobResult {
    /// The word shown outside.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
        }
    }
}

/// A job at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its number.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// The name of the container or image it is about.
    pub subject: String,
    /// Bytes done, for jobs that count them.
    pub progress: u64,
    /// Bytes there are; 0 when unknown.
    pub total: u64,
    /// When it began.
    pub started_usec: Usec,
    /// How long a running container was held still for it, in µs; 0 when none was.
    pub frozen_usec: u64,
    /// How it ended, once it has.
    pub result: Option<JobResult>,
}

/// A process started by exec, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    /// Its number.
    pub id: ProcessId,
    /// The container it is in.
    pub container: ContainerName,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its process id as the host sees it.
    pub pid: u32,
    /// The bus name of the client with whom it ends.
    pub owner: Option<String>,
    /// When it started.
    pub started_usec: Usec,
    /// Whether it has ended.
    pub ended: bool,
    /// How it ended, if anybody knows.
    pub exit: Option<Exit>,
}

/// Something that changed. For one object, events come in the order things happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A container was defined.
    ContainerNew(ContainerView),
    /// A container changed.
    ContainerChanged(ContainerView),
    /// A container's payload ended; follows the change of state.
    ContainerExited {
        /// Which.
        name: ContainerName,
        /// The exit status, 128 plus the number for a signal; -1 when nobody knows.
        status: i32,
        /// The plain word.
        result: RunResult,
    },
    /// The kernel killed processes of a container for lack of memory.
    OutOfMemory {
        /// Which container.
        name: ContainerName,
        /// How many in this run.
        count: u64,
    },
    /// A container is gone.
    ContainerRemoved(ContainerName),
    /// A container has another name now.
    ContainerRenamed {
        /// Before.
        from: ContainerName,
        /// Now.
        to: ContainerView,
    },
    /// An image is new, or has new contents.
    ImageNew(ImageView),
    /// An image's name is gone.
    ImageRemoved(ImageName),
    /// A job began.
    JobNew(JobView),
    /// A job went on, or ended: then `result` is set and [`JobRemoved`](Self::JobRemoved) follows.
    JobChanged(JobView),
    /// A job is over.
    JobRemoved(JobView),
    /// A process was started by exec.
    ProcessNew(ProcessView),
    /// It ended: `exit` is set.
    ProcessExited(ProcessView),
    /// The pool's numbers or state changed.
    PoolChanged,
}
