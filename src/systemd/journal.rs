//! Streams into the journal (systemd-journald.service(8), sd_journal_stream_fd(3)).
//!
//! A stream is a socket; who holds it writes lines, and each becomes an entry of the unit that its writer is in at that
//! moment. Attribution goes by the writing process, not by who connected, so the daemon connects and the payload writes:
//! no byte passes through the daemon. A writer must be in its scope before its first line, since journald remembers for
//! a while where it has seen a process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::SystemdError;

/// The priority of lines that do not bring their own (syslog(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// `err`, 3: for standard error, as podman's and docker's journal drivers have it, so `journalctl -p err` finds it.
    Error,
    /// `info`, 6: for standard output.
    Info,
}

impl Priority {
    fn number(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Info => 6,
        }
    }
}

/// Opens a stream. Lines get `SYSLOG_IDENTIFIER=identifier`; a line that starts with `<N>` has that priority
/// (sd-daemon(3)), as it has for services. `unit` is taken where the writer's own unit cannot be found out, because it
/// has ended already. Waits for a busy journald, 2 s at most.
pub fn stream(identifier: &str, unit: &str, priority: Priority) -> Result<OwnedFd, SystemdError> {
    stream_at(Path::new(SOCKET), identifier, unit, priority)
        .map_err(|source| SystemdError::Journal { path: SOCKET.into(), source })
}

fn stream_at(path: &Path, identifier: &str, unit: &str, priority: Priority) -> io::Result<OwnedFd> {
    // Every field is a line; a line break inside would shift the others.
    if identifier.contains('\n') || unit.contains('\n') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // For a unix socket the send timeout also bounds how long connect waits for room in the queue (unix(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(CONNECT_LIMIT))?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    net::shutdown(&socket, Shutdown::Read)?;
    // Room for bursts, so that a payload seldom waits for journald. A wish: unprivileged, it ends at net.core.wmem_max.
    let _ = sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER)
        .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER));
    send_all(&socket, header(identifier, unit, priority).as_bytes())?;
    // Who gets the socket expects writes to wait, as with any standard output.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
    Ok(socket)
}

/// Identifier, unit, priority, whether `<N>` prefixes count, and whether to forward to syslog, kmsg and console.
fn header(identifier: &str, unit: &str, priority: Priority) -> String {
    format!("{identifier}\n{unit}\n{}\n1\n0\n0\n0\n", priority.number())
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = net::send(socket, bytes, SendFlags::NOSIGNAL)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

const SOCKET: &str = "/run/systemd/journal/stdout";
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// What sd_journal_stream_fd(3) asks for.
const SEND_BUFFER: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_stream_starts_with_its_header_and_carries_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = stream_at(&path, "web", "holm-web.scope", Priority::Info).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        File::from(socket).write_all(b"hello\n").unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "web\nholm-web.scope\n6\n1\n0\n0\n0\nhello\n");
    }

    #[test]
    fn standard_error_has_its_own_priority() {
        assert_eq!(header("web", "", Priority::Error), "web\n\n3\n1\n0\n0\n0\n");
    }

    #[test]
    fn a_line_break_in_a_field_is_refused() {
        let error = stream_at(Path::new("/nowhere"), "a\nb", "", Priority::Info).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_missing_journal_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = stream_at(&dir.path().join("stdout"), "a", "", Priority::Info).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn writes_to_a_stream_wait_for_a_slow_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = stream_at(&path, "a", "", Priority::Info).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let size = sockopt::socket_send_buffer_size(&socket).unwrap() * 4;
        let writer = std::thread::spawn(move || File::from(socket).write_all(&vec![b'x'; size]));
        let mut reader = BufReader::new(peer);
        for _ in 0..7 {
            reader.read_line(&mut String::new()).unwrap();
        }
        let mut body = Vec::new();
        reader.read_to_end(&mut body).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(body.len(), size);
    }
}
