//! A private bus, and ears.

use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant};

/// A `dbus-daemon`, ended with the value.
pub(super) struct Bus {
    daemon: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Bus {
    /// `None`, and a word on standard error, if no dbus-daemon is installed.
    pub(super) fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("bus.conf");
        std::fs::write(&config, CONFIG.replace("@DIR@", dir.path().to_str().unwrap())).unwrap();
        let spawned = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut daemon = match spawned {
            Ok(daemon) => daemon,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("SKIPPED: dbus-daemon is not installed");
                return None;
            }
            Err(error) => panic!("dbus-daemon does not start: {error}"),
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "dbus-daemon ended without saying where it listens");
        Some(Self { daemon, address: address.trim().to_owned(), _dir: dir })
    }

    pub(super) async fn connect(&self) -> Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str());
        builder.method_timeout(Duration::from_secs(20)).build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=@DIR@/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// Every signal of one connection, heard by another.
pub(super) struct Heard(MessageStream);

impl Heard {
    pub(super) async fn from(client: &Connection, server: &Connection) -> Self {
        let rule =
            MatchRule::builder().msg_type(Type::Signal).sender(server.unique_name().unwrap().as_str()).build().unwrap();
        Self(MessageStream::for_match_rule(rule, client, None).await.unwrap())
    }

    /// What came since the last look. A signal sent now marks the end: the bus keeps the order of one sender.
    pub(super) async fn so_far(&mut self, server: &Connection) -> Vec<String> {
        server.emit_signal(None::<&str>, "/mark", "test.Mark", "Mark", &()).await.unwrap();
        let mut lines = Vec::new();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
            let message = message.expect("the mark comes").unwrap().unwrap();
            if message.header().member().unwrap() == "Mark" {
                return lines;
            }
            lines.push(describe(&message));
        }
    }

    pub(super) async fn forget(&mut self, server: &Connection) {
        self.so_far(server).await;
    }
}

/// `path member details`, without the common beginning of paths.
fn describe(message: &zbus::Message) -> String {
    let header = message.header();
    let short = |path: &str| path.strip_prefix("/org/holm1").unwrap_or(path).to_owned();
    let (path, member) = (short(header.path().unwrap().as_str()), header.member().unwrap().to_string());
    let body = message.body();
    let details = match member.as_str() {
        "PropertiesChanged" => {
            let (_, changed, gone): (String, std::collections::BTreeMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().unwrap();
            assert!(gone.is_empty());
            changed.keys().cloned().collect::<Vec<_>>().join(",")
        }
        "InterfacesAdded" | "InterfacesRemoved" => {
            let structure: zbus::wire::Structure<'_> = body.deserialize().unwrap();
            short(<&zbus::ObjectPath<'_>>::try_from(&structure.fields()[0]).unwrap())
        }
        "Exited" => {
            body.deserialize::<i32>().or_else(|_| body.deserialize::<(i32, String)>().map(|b| b.0)).unwrap().to_string()
        }
        "JobRemoved" => body.deserialize::<(u32, zbus::OwnedObjectPath, String, String)>().unwrap().3,
        _ => String::new(),
    };
    format!("{path} {member} {details}").trim().to_owned()
}
