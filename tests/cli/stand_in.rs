//! A small `org.holm1` on a bus of its own: enough to see what the command line makes of the daemon's answers. The image
//! and the command say what it does.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::Notify;
use zbus::connection::Builder;
use zbus::message::Header;
use zbus::{Connection, DBusError, Message, ObjectPath, OwnedObjectPath, OwnedVariant, Variant, interface};

type Options = HashMap<String, OwnedVariant>;
type Result<T> = std::result::Result<T, Refusal>;

/// A bus, and perhaps the service on it.
pub(crate) struct StandIn {
    daemon: Child,
    address: String,
    _directory: tempfile::TempDir,
    service: Option<Connection>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    removed: Mutex<HashSet<String>>,
    ran: Notify,
    monitor: Mutex<Option<OwnedFd>>,
}

impl StandIn {
    /// A bus with nobody on it; `None`, and a line that says so, where there is no `dbus-daemon`.
    pub(crate) fn bus_only() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let config = directory.path().join("bus.conf");
        let text = CONFIG.replace("DIRECTORY", &directory.path().display().to_string());
        std::fs::write(&config, text).expect("a file can be written there");
        let arguments = [format!("--config-file={}", config.display()), "--nofork".into(), "--print-address".into()];
        let daemon = Command::new("dbus-daemon").args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut daemon) = daemon else {
            eprintln!("skipped: dbus-daemon cannot be run; install the package dbus");
            return None;
        };
        let mut address = String::new();
        let output = daemon.stdout.take().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut address).expect("it prints its address");
        let address = address.trim().to_owned();
        Some(Self { daemon, address, _directory: directory, service: None, shared: Arc::default() })
    }

    /// A bus with the service.
    pub(crate) async fn start() -> Option<Self> {
        let mut stand_in = Self::bus_only()?;
        let manager = Manager { shared: Arc::clone(&stand_in.shared) };
        let process = Process { shared: Arc::clone(&stand_in.shared) };
        let container = |name: &'static str| Container { name, shared: Arc::clone(&stand_in.shared) };
        let builder = Builder::address(stand_in.address.as_str())
            .serve_at("/org/holm1", manager)
            .serve_at("/org/holm1/container/web", container("web"))
            .serve_at("/org/holm1/container/old", container("old"))
            .serve_at("/org/holm1/container/a", container("a"))
            .serve_at("/org/holm1/container/web/process/1", process)
            .name("org.holm1");
        stand_in.service = Some(builder.build().await.expect("the bus takes the service"));
        Some(stand_in)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn removed(&self, name: &str) -> bool {
        self.shared.removed.lock().unwrap().contains(name)
    }

    /// Completes when a container was run.
    pub(crate) async fn has_run(&self) {
        self.shared.ran.notified().await;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

struct Manager {
    shared: Arc<Shared>,
}

#[interface(name = "org.holm1.Manager")]
impl Manager {
    async fn run_container(
        &self,
        name: String,
        image: &str,
        mut options: Options,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(OwnedObjectPath, OwnedObjectPath)> {
        let name = if name.is_empty() { "a".to_owned() } else { name };
        let path = container_path(&name);
        let command: Vec<String> = options.remove("Command").map(|v| v.try_into().unwrap()).unwrap_or_default();
        let argument = command.first().cloned().unwrap_or_default();
        let mut fds = ["StandardOutput", "StandardError", "Monitor"].map(|key| options.remove(key).map(descriptor));
        let monitor = fds[2].take();
        match image {
            "missing" => return Err(refuse("NoSuchImage", "no image is named 'missing'")),
            "fail" => {
                job_end(bus, "failed", &argument, "the start failed\nas asked").await;
                return Ok((path, job_path()));
            }
            "exit" => tell(monitor, &format!(r#"{{"code":{argument}}}"#)),
            "signal" => tell(monitor, &format!(r#"{{"signal":{{"number":{argument},"core_dumped":false}}}}"#)),
            "write" => {
                let [output, error, _] = fds;
                write(output, "to output\n");
                write(error, "to error\n");
                tell(monitor, r#"{"code":0}"#);
            }
            "terminal" => {
                let monitor = monitor.expect("a monitor was passed");
                write(Some(terminal(&monitor)), "on a terminal\n");
                tell(Some(monitor), r#"{"code":7}"#);
            }
            "ask" => drop(std::thread::spawn(move || ask(monitor.expect("a monitor was passed")))),
            "wait-for-signal" => *self.shared.monitor.lock().unwrap() = monitor,
            "restart" => {
                // Between the end and the removal the daemon is away, and nobody signals the removal.
                self.shared.removed.lock().unwrap().insert(name);
                job_end(bus, "done", "", "").await;
                let bus = bus.clone();
                tokio::spawn(async move {
                    bus.release_name("org.holm1").await.unwrap();
                    tell(monitor, &format!(r#"{{"code":{argument}}}"#));
                    bus.request_name("org.holm1").await.unwrap();
                });
                return Ok((path, job_path()));
            }
            "vanish" => drop(monitor),
            other => panic!("no such behaviour: {other}"),
        }
        job_end(bus, "done", "", "").await;
        self.shared.ran.notify_one();
        if options.contains_key("AutoRemove") {
            self.remove(bus, &name, &path).await;
        }
        Ok((path, job_path()))
    }

    async fn get_container(&self, name: &str) -> Result<OwnedObjectPath> {
        if ["web", "old", "a"].contains(&name) && !self.shared.removed.lock().unwrap().contains(name) {
            return Ok(container_path(name));
        }
        Err(refuse("NoSuchContainer", &format!("no container is named '{name}'")))
    }

    async fn list_containers(&self) -> Vec<(String, String, String, String, OwnedObjectPath)> {
        let row = |name: &str, state: &str| {
            (name.into(), state.into(), "debian".into(), format!("holm-{name}.scope"), container_path(name))
        };
        vec![row("web", "running"), row("old", "stopped")]
    }

    async fn remove_container(
        &self,
        name: &str,
        _options: Options,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath> {
        let path = self.get_container(name).await?;
        self.remove(bus, name, &path).await;
        job_end(bus, "done", "", "").await;
        Ok(job_path())
    }

    async fn import_image(
        &self,
        _file: zbus::OwnedFd,
        _name: &str,
        _options: Options,
        #[zbus(connection)] bus: &Connection,
    ) -> OwnedObjectPath {
        job_end(bus, "done", "", "").await;
        let removed = (1u32, job_path(), "named-by-archive", "done");
        bus.emit_signal(None::<&str>, "/org/holm1", "org.holm1.Manager", "JobRemoved", &removed).await.unwrap();
        job_path()
    }
}

impl Manager {
    async fn remove(&self, bus: &Connection, name: &str, path: &OwnedObjectPath) {
        self.shared.removed.lock().unwrap().insert(name.to_owned());
        let body = (name, path);
        bus.emit_signal(None::<&str>, "/org/holm1", "org.holm1.Manager", "ContainerRemoved", &body).await.unwrap();
    }
}

struct Container {
    name: &'static str,
    shared: Arc<Shared>,
}

#[interface(name = "org.holm1.Container")]
impl Container {
    async fn kill(&self, who: &str, signal: i32) {
        assert_eq!(who, "leader");
        let monitor = self.shared.monitor.lock().unwrap().take();
        tell(monitor, &format!(r#"{{"signal":{{"number":{signal},"core_dumped":false}}}}"#));
    }

    async fn exec(
        &self,
        argv: Vec<String>,
        mut options: Options,
    ) -> Result<(OwnedObjectPath, HashMap<String, zbus::OwnedFd>)> {
        if argv[0] == "nothing" {
            return Err(refuse("CommandNotFound", "'nothing' is not in the container"));
        }
        tell(options.remove("Monitor").map(descriptor), &format!(r#"{{"code":{}}}"#, argv[1]));
        let path = ObjectPath::try_from("/org/holm1/container/web/process/1").unwrap();
        Ok((path.into(), HashMap::new()))
    }

    #[zbus(property)]
    fn state(&self) -> &str {
        // That of a run without a name has ended when it is asked for.
        if ["old", "a"].contains(&self.name) { "stopped" } else { "running" }
    }

    #[zbus(property)]
    fn exit_status(&self) -> i32 {
        if self.name == "old" { 4 } else { -1 }
    }
}

struct Process {
    shared: Arc<Shared>,
}

#[interface(name = "org.holm1.Process")]
impl Process {
    async fn kill(&self, _who: &str, _signal: i32) {
        self.shared.monitor.lock().unwrap().take();
    }
}

/// The job's last change, as the daemon signals it.
async fn job_end(bus: &Connection, result: &str, code: &str, message: &str) {
    let error = if code.is_empty() { String::new() } else { format!("org.holm1.Error.{code}") };
    let values = HashMap::from([
        ("Result", Variant::from(result)),
        ("Error", Variant::from(error)),
        ("Message", Variant::from(message)),
    ]);
    let body = ("org.holm1.Job", values, Vec::<String>::new());
    let interface = "org.freedesktop.DBus.Properties";
    bus.emit_signal(None::<&str>, job_path(), interface, "PropertiesChanged", &body).await.unwrap();
}

fn job_path() -> OwnedObjectPath {
    ObjectPath::try_from("/org/holm1/job/1").unwrap().into()
}

fn container_path(name: &str) -> OwnedObjectPath {
    ObjectPath::try_from(format!("/org/holm1/container/{}", name.replace('-', "_2d"))).unwrap().into()
}

fn descriptor(value: OwnedVariant) -> OwnedFd {
    zbus::Fd::try_from(value).expect("a descriptor").try_into().expect("it can be duplicated")
}

/// Says how the payload ended, if anybody listens.
fn tell(monitor: Option<OwnedFd>, exit: &str) {
    if let Some(monitor) = monitor {
        let text = format!(r#"{{"exited":{{"exit":{exit},"oom_kills":0}}}}"#);
        rustix::net::send(monitor, text.as_bytes(), SendFlags::empty()).expect("the caller listens");
    }
}

fn write(fd: Option<OwnedFd>, text: &str) {
    std::fs::File::from(fd.expect("a stream was passed")).write_all(text.as_bytes()).unwrap();
}

/// Ends with the number that is typed.
fn ask(monitor: OwnedFd) {
    let slave = std::fs::File::from(terminal(&monitor));
    let mut line = String::new();
    // A caller that went away is an end, too.
    if BufReader::new(&slave).read_line(&mut line).is_ok_and(|length| length > 0) {
        tell(Some(monitor), &format!(r#"{{"code":{}}}"#, line.trim()));
    }
}

/// Makes a terminal, sends its master, and gives back the other side.
fn terminal(monitor: &OwnedFd) -> OwnedFd {
    let (master, slave) = pty();
    let fds = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let text = std::io::IoSlice::new(br#""terminal""#);
    sendmsg(monitor, &[text], &mut control, SendFlags::empty()).expect("the caller listens");
    slave
}

/// A terminal's two sides.
pub(crate) fn pty() -> (OwnedFd, OwnedFd) {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is a free terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it can be opened");
    (master, slave)
}

#[derive(Debug)]
struct Refusal {
    name: String,
    text: String,
}

fn refuse(code: &str, text: &str) -> Refusal {
    Refusal { name: format!("org.holm1.Error.{code}"), text: text.to_owned() }
}

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name.as_str()).build(&(self.text.as_str(),))
    }

    fn name(&self) -> zbus::names::ErrorName<'_> {
        zbus::names::ErrorName::try_from(self.name.as_str()).expect("the name is well-formed")
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:dir=DIRECTORY</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"#;
