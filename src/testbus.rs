//! A private message bus for tests.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zbus::connection::Builder;

/// A `dbus-daemon` of its own, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct TestBus {
    daemon: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl TestBus {
    /// Starts it; `None`, and a line that says so, where there is no `dbus-daemon`.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let config = directory.path().join("bus.conf");
        std::fs::write(&config, CONFIG.replace("DIRECTORY", &directory.path().display().to_string()))
            .expect("a file can be written there");
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // it always complains of its fd limit when not root
            .spawn();
        let mut daemon = match daemon {
            Ok(daemon) => daemon,
            Err(error) => {
                eprintln!("skipped: dbus-daemon cannot be run ({error}); install the package dbus");
                return None;
            }
        };
        let mut address = String::new();
        let output = daemon.stdout.take().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut address).expect("it prints its address");
        Some(Self { daemon, address: address.trim().to_owned(), _directory: directory })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> zbus::Connection {
        self.builder().method_timeout(PATIENCE).build().await.expect("the bus takes connections")
    }

    /// For a connection with a name or objects.
    pub(crate) fn builder(&self) -> Builder<'_> {
        Builder::address(self.address.as_str())
    }
}

impl Drop for TestBus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// An error as a service answers it, with any name.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

impl zbus::DBusError for Refusal {
    fn create_reply(&self, call: &zbus::message::Header<'_>) -> zbus::Result<zbus::Message> {
        zbus::Message::error(call, self.name).build(&(self.text.as_str(),))
    }

    fn name(&self) -> zbus::names::ErrorName<'_> {
        zbus::names::ErrorName::from_static_str_unchecked(self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

/// A call that is not answered by then fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:dir=DIRECTORY</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
