//! Runs the steps of a plan, in the new process, and never returns.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::plan::Step;
use super::user::Identity;
use super::wire::{Failure, InitEnd, Timings};
use super::{StepError, credentials, filesystems, payload, rootfs, system};
use crate::model::{Process, Signal};
use crate::sys::process;
use crate::sys::pty::Pty;
use crate::sys::rooted::Root;

/// What steps leave for later steps. A field is filled by the step named, which the plan puts before its users.
#[derive(Debug)]
pub(super) struct Setup {
    /// What to run.
    pub(super) process: Process,
    /// Standard input, output and error as given.
    pub(super) stdio: [Option<OwnedFd>; 3],
    /// What the payload finds from 3 up, with names: in place after [`make_room`](Self::make_room).
    pub(super) passed: Vec<OwnedFd>,
    /// Their names.
    pub(super) fd_names: Vec<String>,
    /// Credentials: names, and where to read them; taken by `Credentials`.
    pub(super) credentials: Vec<(String, OwnedFd)>,
    /// Whether there are credentials: from `Credentials`.
    pub(super) has_credentials: bool,
    /// The monitor's socket for what the payload says about itself: gets its name from `RunHost`.
    pub(super) notify: Option<OwnedFd>,
    /// The detached file system of the root; taken by `AttachRoot`.
    pub(super) device: Option<OwnedFd>,
    /// The container's tree as a mount: from `AttachRoot`.
    pub(super) tree: Option<OwnedFd>,
    /// Host sides of bind mounts: from `OpenBind`, in order; taken by `AttachBind`.
    pub(super) sources: Vec<Option<OwnedFd>>,
    /// The host's os-release: from `HostRelease`.
    pub(super) host_release: String,
    /// The host's resolv.conf, if it has one: from `HostResolver`.
    pub(super) host_resolver: Option<Vec<u8>>,
    /// The host's time zone, as a path below /usr/share/zoneinfo, if it is known: from `HostZone`.
    pub(super) host_zone: Option<String>,
    /// The directory for what is sent in: from `OpenIncoming`, in place after `Incoming`.
    pub(super) incoming: Option<OwnedFd>,
    /// The signal that stays blocked for the program, so that none is lost before it listens.
    pub(super) kept_blocked: Option<Signal>,
    /// The container's root: from `PivotRoot` or at once in a joined container.
    pub(super) root: Option<Root>,
    /// The mount on /proc.
    pub(super) proc: Option<OwnedFd>,
    /// The mount on /sys.
    pub(super) sys: Option<OwnedFd>,
    /// The mount on /dev: from `MountDev` or `OpenDevices`.
    pub(super) dev: Option<OwnedFd>,
    /// The mount on /dev/pts: from `MountDevPts` or `OpenDevices`.
    pub(super) devpts: Option<OwnedFd>,
    /// The mount on /run/host: from `RunHost`.
    pub(super) run_host: Option<OwnedFd>,
    /// /run/host/inaccessible: from `RunHost`.
    pub(super) inaccessible: Option<OwnedFd>,
    /// The container's id: from `RunHost` or `OpenDevices`.
    pub(super) uuid: Option<String>,
    /// Who to be: from `FindUser`.
    pub(super) identity: Option<Identity>,
    /// From `OpenTerminal`.
    pub(super) terminal: Option<Pty>,
}

impl Setup {
    /// Nothing done yet.
    pub(super) fn new(process: Process, stdio: [Option<OwnedFd>; 3]) -> Self {
        Self {
            process,
            stdio,
            passed: Vec::new(),
            fd_names: Vec::new(),
            credentials: Vec::new(),
            has_credentials: false,
            notify: None,
            device: None,
            tree: None,
            sources: Vec::new(),
            host_release: String::new(),
            host_resolver: None,
            host_zone: None,
            incoming: None,
            kept_blocked: None,
            root: None,
            proc: None,
            sys: None,
            dev: None,
            devpts: None,
            run_host: None,
            inaccessible: None,
            uuid: None,
            identity: None,
            terminal: None,
        }
    }

    /// Before anything is opened: keeps the numbers free that the payload finds its descriptors at.
    pub(super) fn make_room(&mut self, report: InitEnd) -> io::Result<InitEnd> {
        let first = self.first_free();
        if first == FIRST_PASSED {
            return Ok(report);
        }
        for slot in &mut self.stdio {
            *slot = slot.take().map(|fd| process::above(first, fd)).transpose()?;
        }
        self.device = self.device.take().map(|fd| process::above(first, fd)).transpose()?;
        self.notify = self.notify.take().map(|fd| process::above(first, fd)).transpose()?;
        let above = |fd| process::above(first, fd);
        self.passed = std::mem::take(&mut self.passed).into_iter().map(above).collect::<io::Result<_>>()?;
        let above = |(name, fd)| Ok((name, process::above(first, fd)?));
        self.credentials = std::mem::take(&mut self.credentials).into_iter().map(above).collect::<io::Result<_>>()?;
        report.above(first)
    }

    /// The first number that the payload must not find open.
    pub(super) fn first_free(&self) -> i32 {
        FIRST_PASSED + i32::try_from(self.fd_names.len()).expect("a packet of descriptors is short")
    }

    /// Puts what is passed on to its numbers. After [`close_others`](Self::close_others), which makes them nobody's.
    pub(super) fn place_passed(&mut self) -> io::Result<()> {
        process::place_from(FIRST_PASSED, &std::mem::take(&mut self.passed))
    }

    /// Closes everything that the steps do not need: what the monitor holds is not for a process in the container, not even
    /// until its execve (R5). `more` is kept too.
    pub(super) fn close_others(&self, report: &InitEnd, more: Option<&OwnedFd>) -> io::Result<()> {
        let own = self.stdio.iter().flatten().chain(&self.device).chain(&self.notify).chain(more);
        let own = own.chain(&self.passed).chain(self.credentials.iter().map(|(_, fd)| fd));
        let kept: Vec<_> = own.map(AsFd::as_fd).chain([report.as_fd()]).collect();
        process::close_all_but(&kept)
    }

    /// Runs all steps; the last one executes the program. Reports each failure, and before the last step success. `watch` was
    /// started by the monitor before the clone.
    pub(super) fn run(mut self, steps: &[Step], mut watch: Stopwatch, report: &InitEnd) -> ! {
        watch.lap("Clone");
        for step in steps {
            if let Step::Exec { under_init } = step {
                let ready = report.ready(watch.timings, self.terminal.as_ref().map(|terminal| &terminal.master));
                if ready.is_err() {
                    // The monitor is gone: nobody would keep this container.
                    process::exit_now(1);
                }
                payload::execute(&self, *under_init, report);
            }
            if let Err(trouble) = self.take(step) {
                fail(report, step, trouble);
            }
            watch.lap(step.name());
        }
        unreachable!("a plan ends with Exec")
    }

    fn take(&mut self, step: &Step) -> Result<(), Trouble> {
        match step {
            Step::OpenIncoming(name) => rootfs::open_incoming(self, name),
            Step::MakePrivate => rootfs::make_private(),
            Step::HostRelease => rootfs::read_host_release(self),
            Step::HostResolver => rootfs::read_host_resolver(self),
            Step::HostZone => system::read_host_zone(self),
            Step::OpenBind(source) => rootfs::open_bind(self, source),
            Step::AttachRoot => rootfs::attach(self),
            Step::PivotRoot => rootfs::pivot(self),
            Step::CgroupNamespace => payload::new_cgroup_namespace(),
            Step::Hostname(name) => payload::set_hostname(name),
            Step::Loopback => payload::loopback_up(),
            Step::MountProc => filesystems::mount_proc(self),
            Step::MountSys => filesystems::mount_sys(self),
            Step::MountCgroup { writable } => filesystems::mount_cgroup(self, *writable),
            Step::MountDev => filesystems::mount_dev(self),
            Step::DeviceNodes => filesystems::make_devices(self),
            Step::MountDevPts => filesystems::mount_devpts(self),
            Step::MountDevShm => filesystems::mount_shm(self),
            Step::MountDevMqueue => filesystems::mount_mqueue(self),
            Step::MountRun => filesystems::mount_run(self),
            Step::MountVolatile { path, size } => system::mount_volatile(self, path, size),
            Step::RunHost { uuid } => filesystems::mount_run_host(self, uuid),
            Step::Incoming => filesystems::attach_incoming(self),
            Step::UnixExport => filesystems::mount_unix_export(self),
            Step::Resolver => filesystems::attach_resolver(self),
            Step::MachineId(id) => system::set_machine_id(self, id),
            Step::JournalDirectory(id) => system::make_journal_directory(self, id),
            Step::Zone => system::set_zone(self),
            Step::AttachBind { index, destination, read_only } => {
                rootfs::attach_bind(self, *index, destination, *read_only)
            }
            Step::ReadOnlyPath(area, path) => filesystems::make_read_only(self, *area, path),
            Step::MaskFile(area, path) => filesystems::mask(self, *area, path, "reg"),
            Step::MaskDirectory(area, path) => filesystems::mask(self, *area, path, "dir"),
            Step::ShareMounts => system::share_mounts(self),
            Step::FindUser(user) => payload::find_user(self, user.as_deref()),
            Step::Credentials => credentials::provide(self),
            Step::OpenTerminal { size } => payload::open_terminal(self, *size),
            Step::Console => payload::make_console(self),
            Step::OpenDevices => payload::open_devices(self),
            Step::WorkingDirectory(path) => payload::enter_directory(self, path),
            Step::ReadOnlyRoot => rootfs::make_read_only(self),
            Step::Keyring => payload::new_keyring(),
            Step::ResourceLimits => payload::limit_resources(),
            Step::Stdio => payload::place_stdio(self),
            Step::Session { take_terminal } => payload::new_session(*take_terminal),
            Step::BoundingSet(keep) => payload::limit_bounding_set(*keep),
            Step::User => payload::become_user(self),
            Step::OwnSets(keep) => payload::limit_own_sets(self, *keep),
            Step::NoNewPrivileges => payload::no_new_privileges(),
            Step::CloseFds => payload::close_fds(self),
            Step::Exec { .. } => unreachable!("run() takes this one itself"),
        }
    }
}

/// SD_LISTEN_FDS_START.
const FIRST_PASSED: i32 = 3;

/// Why a step failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A call failed.
    Call {
        /// What was to be done, with the object.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A case with a name of its own.
    Named(Failure),
}

impl Trouble {
    /// A refusal of our own.
    pub(super) fn refused(what: impl Into<String>, errno: i32) -> Self {
        Self::Call { what: what.into(), source: io::Error::from_raw_os_error(errno) }
    }
}

/// Says what a failed call was to do.
pub(super) trait Doing<T> {
    /// In fixed words.
    fn doing(self, what: &str) -> Result<T, Trouble>;
    /// In words made when it has failed.
    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, Trouble>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Trouble> {
        self.doing_with(|| what.to_owned())
    }

    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::Call { what: what(), source: error.into() })
    }
}

/// Reports and ends.
pub(super) fn fail(report: &InitEnd, step: &Step, trouble: Trouble) -> ! {
    let failure = match trouble {
        Trouble::Named(failure) => failure,
        Trouble::Call { what, source } => Failure::Step(StepError {
            step: step.name().to_owned(),
            errno: source.raw_os_error().unwrap_or(0),
            message: format!("{what}: {source}").chars().take(MAX_MESSAGE).collect(),
        }),
    };
    // If the monitor is gone there is nobody to tell.
    let _ = report.failed(failure);
    process::exit_now(1)
}

/// Longest text of a failure in characters: paths come from images and callers, and a packet has an end.
const MAX_MESSAGE: usize = 2000;

/// Measures steps with the monotonic clock (no system call: vDSO).
#[derive(Debug)]
pub(super) struct Stopwatch {
    last: Instant,
    /// The laps so far.
    pub(super) timings: Timings,
}

impl Stopwatch {
    /// Starts.
    pub(super) fn start() -> Self {
        Self::of(Instant::now())
    }

    /// As if started at that moment.
    pub(super) fn of(start: Instant) -> Self {
        Self { last: start, timings: Timings::with_capacity(40) }
    }

    /// Ends a lap. Laps of the same name that follow each other are one.
    pub(super) fn lap(&mut self, name: &str) {
        let now = Instant::now();
        let took = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        self.last = now;
        match self.timings.last_mut() {
            Some((last, sum)) if last == name => *sum += took,
            _ => self.timings.push((name.to_owned(), took)),
        }
    }
}
