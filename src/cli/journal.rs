//! What a unit has to say in the journal, so that `systemctl status` of it shows it for sure.
//!
//! A line of standard error belongs to the unit that journald finds its writer in once it comes to read it. Of a program
//! that ends at once that may be none, or systemd's own, from whose control group it was started; and a line that nobody
//! has read yet is not there when systemd already says that the unit has failed. So entries go to journald by
//! themselves, each with the unit that it is about (systemd.journal-fields(7)), and are waited for.
//!
//! And `systemctl status` leaves out what is older than the unit's start, which systemd notes only after it has made the
//! process: so that is waited for first.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

const SOCKET: &str = "/run/systemd/journal/socket";
/// `LOG_ERR` of syslog(3).
const PRIORITY: &str = "3";

/// Writes messages as errors of `unit`, and waits until they are in the journal. Only root's are shown as the unit's. After
/// an error some may be there; at least one is not.
pub(crate) fn say(unit: &str, identifier: &str, messages: &[String]) -> io::Result<()> {
    // It answers when it is done with what it was at, the start. Without an answer it is as with any other process.
    let _ = Command::new("systemctl").args(["show", "--property=ActiveState", unit]).stdin(Stdio::null()).output();
    say_at(Path::new(SOCKET), unit, identifier, messages)?;
    let read = Command::new("journalctl").arg("--sync").stdin(Stdio::null()).status()?;
    if read.success() { Ok(()) } else { Err(io::Error::other(format!("journalctl --sync: {read}"))) }
}

fn say_at(socket: &Path, unit: &str, identifier: &str, messages: &[String]) -> io::Result<()> {
    let journal = UnixDatagram::unbound()?;
    messages.iter().try_for_each(|message| journal.send_to(&entry(unit, identifier, message), socket).map(drop))
}

fn entry(unit: &str, identifier: &str, message: &str) -> Vec<u8> {
    let fields = [
        ("MESSAGE", message),
        ("PRIORITY", PRIORITY),
        ("SYSLOG_IDENTIFIER", identifier),
        ("OBJECT_SYSTEMD_UNIT", unit),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A field with its length, in which a line break is like any other byte.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = (value.len() as u64).to_le_bytes();
    [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_which_unit_it_is_about() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        say_at(&path, "web.service", "web.container", &["one\ntwo".to_owned(), "three".to_owned()]).unwrap();
        let mut buffer = [0; 512];
        let length = journal.recv(&mut buffer).unwrap();
        let wanted = b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\nPRIORITY\n\x01\0\0\0\0\0\0\x003\n\
            SYSLOG_IDENTIFIER\n\x0d\0\0\0\0\0\0\0web.container\nOBJECT_SYSTEMD_UNIT\n\x0b\0\0\0\0\0\0\0web.service\n";
        assert_eq!(&buffer[..length], wanted);
        journal.recv(&mut buffer).unwrap();
        assert!(buffer.starts_with(b"MESSAGE\n\x05\0\0\0\0\0\0\0three\n"));
    }

    #[test]
    fn without_a_journal_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = say_at(&dir.path().join("socket"), "a.service", "a", &["b".to_owned()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
