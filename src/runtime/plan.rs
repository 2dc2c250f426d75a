//! A launch as data: the ordered list of steps that init takes. Pure, so it can be printed and compared.

use std::path::{Component, Path};

use super::capabilities::{self, UnknownCapability};
use super::{ExecPlan, LaunchPlan, StepError};
use crate::model::{BindMount, ContainerName, NetworkMode, Process};
use rustix::thread::CapabilitySet;

/// One thing that init does. In the order of the variants for a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Take the host directory through which mounts can be sent in, if there is one (C27).
    OpenIncoming(ContainerName),
    /// Let no mount propagate between this namespace and the host's.
    MakePrivate,
    /// Read the host's os-release while it can be seen.
    HostRelease,
    /// Read the host's resolv.conf while it can be seen (C20).
    HostResolver,
    /// Read the host's time zone while it can be seen (C19).
    HostZone,
    /// Take the host side of a bind mount (with root's rights for now, see R19).
    OpenBind(String),
    /// Attach the device's file system and take its `rootfs` as a mount of its own.
    AttachRoot,
    /// Make it the root and drop the host's tree. From here on no path leads to the host.
    PivotRoot,
    /// Root the cgroup namespace at the payload's cgroup (C17, R11).
    CgroupNamespace,
    /// Set the host name (C9).
    Hostname(String),
    /// Set `lo` up.
    Loopback,
    /// /proc (C10).
    MountProc,
    /// /sys, read-only (C11).
    MountSys,
    /// /sys/fs/cgroup, cgroup2 (R11, C18).
    MountCgroup {
        /// Whether the payload may make cgroups of its own below its own.
        writable: bool,
    },
    /// /dev, a tmpfs (C13).
    MountDev,
    /// Its nodes and links.
    DeviceNodes,
    /// /dev/pts, an instance of its own.
    MountDevPts,
    /// /dev/shm.
    MountDevShm,
    /// /dev/mqueue.
    MountDevMqueue,
    /// /run, a tmpfs with what the image has there.
    MountRun,
    /// A tmpfs on a directory that is empty at each boot of a system.
    MountVolatile {
        /// Where.
        path: &'static str,
        /// Its size.
        size: &'static str,
    },
    /// /run/host, read-only (C24, C25, C28).
    RunHost {
        /// The container's id.
        uuid: String,
    },
    /// /run/host/incoming, where mounts that are sent in arrive.
    Incoming,
    /// /run/host/unix-export, where sockets can be shown to the host (C29).
    UnixExport,
    /// The host's resolv.conf in place of the image's (C20).
    Resolver,
    /// /etc/machine-id is the container's id, once it is initialised (C2).
    MachineId(String),
    /// The place of a persistent journal (C33).
    JournalDirectory(String),
    /// /etc/localtime as on the host (C19).
    Zone,
    /// Put a bind mount in its place.
    AttachBind {
        /// Which of the opened ones.
        index: usize,
        /// Where.
        destination: String,
        /// Whether it is read-only inside.
        read_only: bool,
    },
    /// Make a path of /proc or /sys read-only (R12, C12).
    ReadOnlyPath(Area, &'static str),
    /// Hide a file of /proc or /sys (R9, R12).
    MaskFile(Area, &'static str),
    /// Hide a directory of /proc or /sys (R9, R12).
    MaskDirectory(Area, &'static str),
    /// Let mounts of the system reach the namespaces that it makes for its services.
    ShareMounts,
    /// Look the user up in the container (R2, R16).
    FindUser(Option<String>),
    /// Put the credentials where the user finds them, and nobody else (C6).
    Credentials,
    /// Make a terminal in the container's devpts (R10).
    OpenTerminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
    },
    /// Show the terminal as /dev/console.
    Console,
    /// Open what a joined container has, to find devices in.
    OpenDevices,
    /// Go to the working directory; make it if it is missing.
    WorkingDirectory(String),
    /// Make the root read-only.
    ReadOnlyRoot,
    /// A keyring of its own (R22).
    Keyring,
    /// Limits that the monitor has from holmd and a payload should not.
    ResourceLimits,
    /// Standard input, output and error.
    Stdio,
    /// A session of its own; the terminal becomes its controlling terminal, unless a child of init is to have it.
    Session {
        /// Whether to take the terminal.
        take_terminal: bool,
    },
    /// Limit the bounding set and empty the ambient set (R1, R6).
    BoundingSet(CapabilitySet),
    /// Groups, group and user (R15).
    User,
    /// Limit the process's own sets (R6).
    OwnSets(CapabilitySet),
    /// no_new_privs.
    NoNewPrivileges,
    /// Close every descriptor but the standard ones at the execve (R4).
    CloseFds,
    /// Replace the program; with `under_init` in a child, and this process stays as the container's init.
    Exec {
        /// Whether a small init of ours stays PID 1.
        under_init: bool,
    },
}

/// A file system of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// /proc.
    Proc,
    /// /sys.
    Sys,
}

impl Step {
    /// The step's name, for timings and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OpenIncoming(_) => "OpenIncoming",
            Self::MakePrivate => "MakePrivate",
            Self::HostRelease => "HostRelease",
            Self::HostResolver => "HostResolver",
            Self::HostZone => "HostZone",
            Self::OpenBind(_) => "OpenBind",
            Self::AttachRoot => "AttachRoot",
            Self::PivotRoot => "PivotRoot",
            Self::CgroupNamespace => "CgroupNamespace",
            Self::Hostname(_) => "Hostname",
            Self::Loopback => "Loopback",
            Self::MountProc => "MountProc",
            Self::MountSys => "MountSys",
            Self::MountCgroup { .. } => "MountCgroup",
            Self::MountDev => "MountDev",
            Self::DeviceNodes => "DeviceNodes",
            Self::MountDevPts => "MountDevPts",
            Self::MountDevShm => "MountDevShm",
            Self::MountDevMqueue => "MountDevMqueue",
            Self::MountRun => "MountRun",
            Self::MountVolatile { .. } => "MountVolatile",
            Self::RunHost { .. } => "RunHost",
            Self::Incoming => "Incoming",
            Self::UnixExport => "UnixExport",
            Self::Resolver => "Resolver",
            Self::MachineId(_) => "MachineId",
            Self::JournalDirectory(_) => "JournalDirectory",
            Self::Zone => "Zone",
            Self::AttachBind { .. } => "AttachBind",
            Self::ReadOnlyPath(..) => "ReadOnlyPaths",
            Self::MaskFile(..) | Self::MaskDirectory(..) => "MaskPaths",
            Self::ShareMounts => "ShareMounts",
            Self::FindUser(_) => "FindUser",
            Self::Credentials => "Credentials",
            Self::OpenTerminal { .. } => "OpenTerminal",
            Self::Console => "Console",
            Self::OpenDevices => "OpenDevices",
            Self::WorkingDirectory(_) => "WorkingDirectory",
            Self::ReadOnlyRoot => "ReadOnlyRoot",
            Self::Keyring => "Keyring",
            Self::ResourceLimits => "ResourceLimits",
            Self::Stdio => "Stdio",
            Self::Session { .. } => "Session",
            Self::BoundingSet(_) => "BoundingSet",
            Self::User => "User",
            Self::OwnSets(_) => "OwnSets",
            Self::NoNewPrivileges => "NoNewPrivileges",
            Self::CloseFds => "CloseFds",
            Self::Exec { .. } => "Exec",
        }
    }
}

/// A part of a plan that no container can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no program.
    #[error("there is no command to run")]
    NoCommand,
    /// A word in a capability list.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// A bind mount's place inside.
    #[error(
        "nothing can be mounted on '{0}' inside: use an absolute path without '..' that is not / and not at or below \
         /proc, /sys, /dev or /run/host"
    )]
    Destination(String),
    /// A bind mount's place on the host.
    #[error("'{0}' cannot be mounted: use an absolute path of the host")]
    Source(String),
    /// Its text.
    #[error("the plan has {0} bytes, more than a monitor takes (1 MiB): make the environment or the command shorter")]
    TooLong(usize),
    /// The name of a process's cgroup.
    #[error("'{0}' is no name for the cgroup of a process: use exec- and a number")]
    CgroupName(String),
}

impl From<PlanError> for StepError {
    fn from(error: PlanError) -> Self {
        Self { step: "Plan".to_owned(), errno: libc::EINVAL, message: error.to_string() }
    }
}

/// The steps of a launch.
pub fn launch_steps(plan: &LaunchPlan) -> Result<Vec<Step>, PlanError> {
    // Before the namespace is cut off from the host's: what is sent in comes from there.
    let mut steps = vec![Step::OpenIncoming(plan.name.clone()), Step::MakePrivate, Step::HostRelease];
    steps.extend((plan.network == NetworkMode::Host).then_some(Step::HostResolver));
    steps.extend(plan.boot.then_some(Step::HostZone));
    for mount in &plan.mounts {
        check_bind(mount)?;
        steps.push(Step::OpenBind(mount.source.clone()));
    }
    steps.extend([Step::AttachRoot, Step::PivotRoot, Step::CgroupNamespace, Step::Hostname(plan.hostname.clone())]);
    steps.extend((plan.network == NetworkMode::None).then_some(Step::Loopback));
    steps.extend([Step::MountProc, Step::MountSys, Step::MountCgroup { writable: plan.boot }]);
    steps.extend(FILE_SYSTEMS);
    steps.extend(VOLATILE.into_iter().filter(|_| plan.boot));
    steps.extend([Step::RunHost { uuid: plan.id.to_string() }, Step::Incoming]);
    steps.extend((plan.network == NetworkMode::Host).then_some(Step::Resolver));
    if plan.boot {
        let id = || plan.id.to_string();
        steps.extend([Step::UnixExport, Step::MachineId(id()), Step::JournalDirectory(id()), Step::Zone]);
    }
    steps.extend(plan.mounts.iter().enumerate().map(|(index, mount)| Step::AttachBind {
        index,
        destination: mount.destination.clone(),
        read_only: mount.read_only,
    }));
    steps.extend(READ_ONLY.map(|path| Step::ReadOnlyPath(Area::Proc, path)));
    steps.extend(MASKED_FILES.map(|path| Step::MaskFile(Area::Proc, path)));
    steps.extend(MASKED_DIRECTORIES.map(|(area, path)| Step::MaskDirectory(area, path)));
    steps.extend(plan.boot.then_some(Step::ShareMounts));
    let terminal = [Step::OpenTerminal { size: plan.terminal_size }, Step::Console];
    // A system writes to its console whether anybody wants to see that or not, and is no session of a terminal's.
    let terminal = match (plan.boot, plan.process.terminal) {
        (false, false) => Terminal { steps: &[], take: false },
        (boot, _) => Terminal { steps: &terminal, take: !boot && !plan.process.init },
    };
    let credentials = (!plan.credentials.is_empty()).then_some(Step::Credentials);
    let launch = Launch { credentials, read_only: plan.read_only, under_init: plan.process.init };
    steps.extend(payload_steps(&plan.process, &terminal, launch)?);
    Ok(steps)
}

/// The steps of a process in a running container, after its namespaces are joined.
pub fn exec_steps(plan: &ExecPlan) -> Result<Vec<Step>, PlanError> {
    check_exec_cgroup(&plan.cgroup_name)?;
    let terminal = [Step::OpenTerminal { size: plan.terminal_size }];
    let terminal = match plan.process.terminal {
        true => Terminal { steps: &terminal, take: true },
        false => Terminal { steps: &[], take: false },
    };
    let mut steps = vec![Step::OpenDevices];
    steps.extend(payload_steps(&plan.process, &terminal, Launch::default())?);
    Ok(steps)
}

/// How a process comes to its terminal.
struct Terminal<'a> {
    /// What makes it; nothing without one.
    steps: &'a [Step],
    /// Whether the process that takes the steps takes the terminal too.
    take: bool,
}

/// What only a container's first process has.
#[derive(Default)]
struct Launch {
    credentials: Option<Step>,
    read_only: bool,
    under_init: bool,
}

/// From a set-up container to the running program: the same for a launch and for one more process.
fn payload_steps(process: &Process, terminal: &Terminal<'_>, launch: Launch) -> Result<Vec<Step>, PlanError> {
    if process.command.first().is_none_or(String::is_empty) {
        return Err(PlanError::NoCommand);
    }
    let keep = capabilities::keep(&process.capabilities)?;
    let mut steps = vec![Step::FindUser(process.user.clone())];
    steps.extend(launch.credentials);
    steps.extend_from_slice(terminal.steps);
    steps.push(Step::WorkingDirectory(process.working_directory.clone().unwrap_or_else(|| "/".to_owned())));
    steps.extend(launch.read_only.then_some(Step::ReadOnlyRoot));
    steps.extend([Step::Keyring, Step::ResourceLimits, Step::Stdio, Step::Session { take_terminal: terminal.take }]);
    steps.extend([Step::BoundingSet(keep), Step::User, Step::OwnSets(keep)]);
    steps.extend(process.no_new_privileges.then_some(Step::NoNewPrivileges));
    steps.extend([Step::CloseFds, Step::Exec { under_init: launch.under_init }]);
    Ok(steps)
}

const FILE_SYSTEMS: [Step; 6] =
    [Step::MountDev, Step::DeviceNodes, Step::MountDevPts, Step::MountDevShm, Step::MountDevMqueue, Step::MountRun];

/// What a system expects to be empty when it boots; sizes as systemd has them.
const VOLATILE: [Step; 2] =
    [Step::MountVolatile { path: "/run/lock", size: "5m" }, Step::MountVolatile { path: "/tmp", size: "10%" }];

/// Host-wide knobs in /proc (R12), as runc and Docker have it.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// What tells too much about the host or its kernel, as Docker has it. What a kernel does not have is passed over.
const MASKED_FILES: [&str; 7] =
    ["kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "interrupts"];
const MASKED_DIRECTORIES: [(Area, &str); 5] = [
    (Area::Proc, "acpi"),
    (Area::Proc, "asound"),
    (Area::Proc, "scsi"),
    (Area::Sys, "firmware"),
    (Area::Sys, "devices/virtual/powercap"),
];

/// Whether a bind mount can be made at all. What its destination resolves to is checked again by descriptor (R3).
pub fn check_bind(mount: &BindMount) -> Result<(), PlanError> {
    if !mount.source.starts_with('/') {
        return Err(PlanError::Source(mount.source.clone()));
    }
    let path = Path::new(&mount.destination);
    let below_api = ["/proc", "/sys", "/dev", "/run/host"].iter().any(|area| path.starts_with(area));
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || below_api || path == Path::new("/") {
        return Err(PlanError::Destination(mount.destination.clone()));
    }
    Ok(())
}

/// `exec-<number>`, or `exec-health-<number>` for a check: never the name of a control file (C40).
fn check_exec_cgroup(name: &str) -> Result<(), PlanError> {
    let number = name
        .strip_prefix("exec-")
        .map(|rest| rest.strip_prefix("health-").unwrap_or(rest))
        .filter(|number| (1..=20).contains(&number.len()));
    match number {
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(PlanError::CgroupName(name.to_owned())),
    }
}

#[cfg(test)]
mod tests;
