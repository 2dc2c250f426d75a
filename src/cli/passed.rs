//! What goes on to the payload: the descriptors that our service manager gave us (sd_listen_fds(3)), and credentials.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::CliError;
use crate::sys::inherited::take_inherited;

/// Descriptors with their names.
pub(crate) type Named = Vec<(String, OwnedFd)>;

/// Most of them in one request: buses carry 16 descriptors in a message, and four are for input, output and the end.
const MOST: usize = 12;
/// SD_LISTEN_FDS_START.
const FIRST: i32 = 3;

/// A credential as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    name: String,
    /// Where it is; the service's own of that name when absent.
    file: Option<PathBuf>,
}

/// What we were given; nothing when it was meant for another process. To be called first in `main`.
pub(crate) fn inherited() -> Result<Named, CliError> {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(names) = names(std::process::id(), variable) else { return Ok(Vec::new()) };
    let numbers = (FIRST..).take(names.len());
    let fds = take_inherited(numbers).map_err(|source| CliError::io("take the descriptors of LISTEN_FDS", source))?;
    Ok(names.into_iter().zip(fds).collect())
}

/// The names of the descriptors that are ours, if some are. One that has none is called as sd_listen_fds_with_names(3) does it.
fn names(pid: u32, variable: impl Fn(&str) -> Option<String>) -> Option<Vec<String>> {
    let ours = variable("LISTEN_PID")?.parse() == Ok(pid);
    let count: usize = variable("LISTEN_FDS")?.parse().ok().filter(|count| ours && *count > 0)?;
    let given = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut given = given.split(':').filter(|name| !name.is_empty());
    Some((0..count.min(MOST + 1)).map(|_| given.next().unwrap_or("unknown").to_owned()).collect())
}

/// Fails when there are more than a request can carry.
pub(crate) fn checked(fds: Named) -> Result<Named, CliError> {
    match fds.len() {
        0..=MOST => Ok(fds),
        _ => Err(CliError::Usage(format!("at most {MOST} descriptors or credentials can be passed on"))),
    }
}

/// Opens them. `variable` looks up our own environment.
pub(crate) fn credentials(
    wanted: Vec<Credential>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Named, CliError> {
    let directory = variable("CREDENTIALS_DIRECTORY");
    let open = |credential: Credential| {
        let path = match (credential.file, &directory) {
            (Some(file), _) => file,
            (None, Some(directory)) => Path::new(directory).join(&credential.name),
            (None, None) => {
                return Err(CliError::Usage(format!(
                    "--credential {0}: no service gave us one: say where it is, as in {0}:FILE",
                    credential.name
                )));
            }
        };
        let opened = File::open(&path);
        let file = opened.map_err(|source| CliError::io(format!("open the credential {}", path.display()), source))?;
        Ok((credential.name, OwnedFd::from(file)))
    };
    wanted.into_iter().map(open).collect()
}

impl FromStr for Credential {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, file) = match text.split_once(':') {
            Some((name, file)) => (name, Some(file)),
            None => (text, None),
        };
        if name.is_empty() || name.contains('/') || file.is_some_and(str::is_empty) {
            return Err("write NAME or NAME:FILE, the name without '/'");
        }
        Ok(Self { name: name.to_owned(), file: file.map(PathBuf::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entries: &[(&str, &str)]) -> Option<Vec<String>> {
        let variable = |name: &str| entries.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        names(7, variable)
    }

    #[test]
    fn descriptors_are_ours_when_they_are_for_our_process() {
        let both = [("LISTEN_PID", "7"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "http:https")];
        assert_eq!(found(&both).unwrap(), ["http", "https"]);
        assert_eq!(found(&both[..2]).unwrap(), ["unknown", "unknown"]);
        assert_eq!(found(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "2")]), None);
        assert_eq!(found(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "0")]), None);
        assert_eq!(found(&[("LISTEN_FDS", "1")]), None);
        assert_eq!(found(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "4000000000")]).unwrap().len(), MOST + 1);
    }

    #[test]
    fn a_credential_is_a_file_or_the_services_own() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "secret").unwrap();
        let ours = |_: &str| Some(directory.path().as_os_str().to_owned());
        let wanted = || vec!["key".parse::<Credential>().unwrap()];
        assert_eq!(credentials(wanted(), ours).unwrap()[0].0, "key");
        assert!(matches!(credentials(wanted(), |_| None), Err(CliError::Usage(_))));
        let file = format!("pass:{}", directory.path().join("key").display());
        assert_eq!(credentials(vec![file.parse().unwrap()], |_| None).unwrap()[0].0, "pass");
        assert!(matches!(credentials(vec!["no".parse().unwrap()], ours), Err(CliError::Io { .. })));
        for bad in ["", ":", "a/b", "a:", ":file"] {
            assert!(bad.parse::<Credential>().is_err(), "{bad}");
        }
    }
}
