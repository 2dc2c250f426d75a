//! What the unit that we run in is told (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The container runs.
pub(crate) fn ready() {
    // Whoever started us without waiting for this has not said where to send it; whoever did sees that we end.
    drop(send("READY=1"));
}

/// What the payload says about itself. We stay the main process.
pub(crate) fn pass_on(text: &str) {
    drop(send(text));
}

/// Whether there is somebody to tell.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The watchdog that the payload has to answer, if we are the process that has to.
pub(crate) fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    variable("WATCHDOG_USEC").filter(|_| ours).map(|usec| format!("WATCHDOG_USEC={usec}"))
}

/// The container is asked to end.
pub(crate) fn stopping() {
    drop(send("STOPPING=1"));
}

fn send(state: &str) -> std::io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
