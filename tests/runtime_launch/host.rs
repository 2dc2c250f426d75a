//! What a launch needs from its host, made for one test and taken away with it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use holm::model::{
    BindMount, Capabilities, ContainerId, ContainerName, Exit, ExitRecord, MonitorMessage, NetworkMode, Process,
    StopPolicy,
};
use holm::runtime::{
    ExecFds, ExecPlan, InitImage, LaunchError, LaunchFds, LaunchPlan, Launched, Launcher, PendingMonitor,
};
use holm::sys::{mount, socket};

/// A place for a container: a scope of its own in cgroup2, a root with busybox, a directory for the record.
pub(crate) struct Host {
    pub(crate) scope: PathBuf,
    pub(crate) records: tempfile::TempDir,
    /// A detached file system; the tree is in `rootfs`.
    root: OwnedFd,
}

/// `None`, with a word on the terminal, where a container cannot be made.
pub(crate) fn host() -> Option<Host> {
    match missing() {
        None => Some(Host::new()),
        Some(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root");
    }
    if cgroup2().is_none() {
        return Some("no cgroup2 file system is mounted");
    }
    (!Path::new(BUSYBOX).exists()).then_some("no /bin/busybox (Debian: busybox-static)")
}

const BUSYBOX: &str = "/bin/busybox";

fn cgroup2() -> Option<&'static Path> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        line.split(' ').nth(1).map(PathBuf::from)
    };
    PATH.get_or_init(find).as_deref()
}

/// The image is loaded once, as holmd does.
pub(crate) fn image() -> &'static InitImage {
    static IMAGE: OnceLock<InitImage> = OnceLock::new();
    let path = || std::env::var_os("HOLM_INIT").map_or_else(|| env!("CARGO_BIN_EXE_holm-init").into(), PathBuf::from);
    IMAGE.get_or_init(|| InitImage::load(path()).unwrap())
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Host {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let scope = cgroup2().unwrap().join(format!("holm-test-{}-{number}.scope", std::process::id()));
        fs::create_dir(&scope).unwrap();
        let root = mount::create("tmpfs", &[("mode", "755")], mount::Attributes::empty()).unwrap();
        let host = Self { scope, records: tempfile::tempdir().unwrap(), root };
        let tree = host.tree();
        for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "root", "home"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
        }
        fs::copy(BUSYBOX, tree.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "true", "sleep", "id", "ls", "stty", "tty", "mount", "kill", "ps", "touch", "env"] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
            .unwrap();
        fs::write(tree.join("etc/group"), "root:x:0:\nalice:x:1000:\nvideo:x:44:alice\n").unwrap();
        host
    }

    /// The container's tree as a path of this process, before it is started.
    pub(crate) fn tree(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/rootfs", self.root.as_raw_fd()))
    }

    fn directory(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    /// Starts it.
    pub(crate) fn launch(&self, plan: &LaunchPlan, stdio: [Option<OwnedFd>; 3]) -> Result<Running<'_>, LaunchError> {
        let monitor = image().spawn_monitor()?;
        fs::write(self.scope.join("cgroup.procs"), monitor.pid().to_string()).unwrap();
        self.launch_in(monitor, plan, stdio)
    }

    /// Starts it by a monitor that is in the scope already.
    pub(crate) fn launch_in(
        &self,
        monitor: PendingMonitor,
        plan: &LaunchPlan,
        stdio: [Option<OwnedFd>; 3],
    ) -> Result<Running<'_>, LaunchError> {
        let (client, theirs) = socket::packet_pair().unwrap();
        let fds = LaunchFds {
            root: self.root.try_clone().unwrap(),
            cgroup: Self::directory(&self.scope),
            record_dir: Self::directory(self.records.path()),
            stdio,
            client: Some(theirs),
            passed: vec![],
            credentials: vec![],
            notified: None,
        };
        let launched = monitor.launch(plan, fds)?;
        Ok(Running { host: self, launched, client })
    }

    /// Runs a shell script as the container's first process, to its end.
    pub(crate) fn run(&self, script: &str) -> Ended {
        self.run_plan(&plan(&["sh", "-c", script]))
    }

    /// Runs a plan to its end.
    pub(crate) fn run_plan(&self, plan: &LaunchPlan) -> Ended {
        let (output, stdout) = pipe();
        let (errors, stderr) = pipe();
        let running = self.launch(plan, [None, Some(stdout), Some(stderr)]).unwrap();
        let exit = running.wait();
        Ended { exit, output: read_all(output), errors: read_all(errors) }
    }

    /// The exit record.
    pub(crate) fn record(&self) -> ExitRecord {
        serde_json::from_slice(&fs::read(self.records.path().join("exit.json")).unwrap()).unwrap()
    }

    /// Starts a process in the running container.
    pub(crate) fn exec(
        &self,
        running: &Running<'_>,
        plan: &ExecPlan,
        stdio: [Option<OwnedFd>; 3],
    ) -> Result<Running<'_>, LaunchError> {
        let (client, theirs) = socket::packet_pair().unwrap();
        let fds = ExecFds {
            leader: running.launched.leader_pidfd.try_clone().unwrap(),
            cgroup: Self::directory(&self.scope),
            stdio,
            client: Some(theirs),
        };
        let launched = image().spawn_exec()?.launch(plan, fds)?;
        Ok(Running { host: self, launched, client })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let kill = self.scope.join("cgroup.kill");
        let _ = fs::write(kill, "1");
        let scope = holm::sys::cgroup::Cgroup::from_directory(Self::directory(&self.scope)).unwrap();
        scope.wait_until_empty().unwrap();
        for child in scope.children().unwrap() {
            scope.remove_child(&child).unwrap();
        }
        fs::remove_dir(&self.scope).unwrap();
    }
}

/// A payload that runs.
pub(crate) struct Running<'a> {
    host: &'a Host,
    pub(crate) launched: Launched,
    pub(crate) client: OwnedFd,
}

impl Running<'_> {
    /// Waits for the caller's last message, and for the keeper to end.
    pub(crate) fn wait(&self) -> Exit {
        let exit = loop {
            match self.message().0 {
                MonitorMessage::Exited { exit, .. } => break exit,
                MonitorMessage::Terminal | MonitorMessage::Notified(_) => {}
            }
        };
        self.launched.keeper.reap().unwrap();
        assert!(self.host.scope.exists());
        exit
    }

    /// The next message to the caller.
    pub(crate) fn message(&self) -> (MonitorMessage, Vec<OwnedFd>) {
        let mut buffer = [0; MonitorMessage::MAX];
        let (length, fds) = socket::receive(self.client.as_fd(), &mut buffer).unwrap();
        (serde_json::from_slice(&buffer[..length]).unwrap(), fds)
    }
}

/// A payload that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Ended {
    /// The output of a run that must have gone well.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.exit, self.errors.as_str()), (Exit::Code(0), ""), "{}", self.output);
        self.output
    }
}

/// A plan without anything special.
pub(crate) fn plan(command: &[&str]) -> LaunchPlan {
    LaunchPlan {
        name: ContainerName::parse("web").unwrap(),
        id: ContainerId::from_random([7; 16]),
        run: 3,
        hostname: "web".to_owned(),
        process: process(command),
        boot: false,
        network: NetworkMode::None,
        read_only: false,
        mounts: Vec::new(),
        stop: StopPolicy::default(),
        survive_soft_reboot: false,
        terminal_size: None,
        stop_with_caller: false,
        fd_names: vec![],
        credentials: vec![],
        notify: false,
        notify_caller: false,
    }
}

/// An exec without anything special.
pub(crate) fn exec_plan(command: &[&str]) -> ExecPlan {
    ExecPlan { process: process(command), cgroup_name: "exec-1".to_owned(), terminal_size: None }
}

fn process(command: &[&str]) -> Process {
    Process {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: Vec::new(),
        working_directory: None,
        user: None,
        terminal: false,
        init: false,
        capabilities: Capabilities::default(),
        no_new_privileges: true,
    }
}

/// A bind mount.
pub(crate) fn bind(source: &Path, destination: &str, read_only: bool) -> BindMount {
    BindMount { source: source.to_str().unwrap().to_owned(), destination: destination.to_owned(), read_only }
}

/// A pipe: the end to read, the end to give away.
pub(crate) fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer)
}

/// Until the last writer has closed it.
pub(crate) fn read_all(mut reader: File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}
