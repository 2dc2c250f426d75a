//! Finding the program in the container and becoming it.

use std::ffi::CString;
use std::io;

use super::wire::Failure;
use crate::sys::process;

/// Executes the first program found; returns why none was.
///
/// With a slash the name is taken as it is, else it is looked for in each absolute directory of `path`. Whether a file can be
/// executed is for execve to say, so it is exactly what the payload's user may execute.
pub(super) fn execute(name: &str, arguments: &[CString], environment: &[CString], path: &str) -> Failure {
    let mut refusal = None;
    for candidate in candidates(name, path) {
        let Ok(program) = CString::new(candidate) else { continue };
        // Much cheaper than an execve that finds nothing.
        let error = match rustix::fs::stat(&program) {
            Ok(_) => process::execute(&program, arguments, environment),
            Err(errno) => errno.into(),
        };
        match judge(&error, rustix::fs::stat(&program).is_ok()) {
            Verdict::GoOn => {}
            Verdict::Remember(reason) => refusal = refusal.or(Some(reason)),
            Verdict::Stop(reason) => {
                refusal = Some(reason);
                break;
            }
        }
    }
    match refusal {
        Some(reason) => Failure::CommandNotExecutable { command: name.to_owned(), reason },
        None => Failure::CommandNotFound(name.to_owned()),
    }
}

/// Where to look. Relative and empty entries of `path` are left out: the working directory may belong to anybody.
pub(super) fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    GoOn,
    Remember(String),
    Stop(String),
}

/// What an error says about the search.
fn judge(error: &io::Error, exists: bool) -> Verdict {
    match error.raw_os_error() {
        Some(libc::ENOENT) if exists => {
            Verdict::Stop("it is there, but its interpreter or dynamic loader is not".to_owned())
        }
        Some(libc::ENOENT | libc::ENOTDIR) => Verdict::GoOn,
        Some(libc::EACCES) => Verdict::Remember(error.to_string()),
        _ => Verdict::Stop(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_absolute_directories_only() {
        assert_eq!(candidates("sh", "/usr/bin:/bin/:::bin:."), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(candidates("sh", ""), Vec::<String>::new());
    }

    #[test]
    fn a_path_is_not_looked_for() {
        assert_eq!(candidates("./run", "/bin"), ["./run"]);
        assert_eq!(candidates("/bin/sh", "/usr/bin"), ["/bin/sh"]);
    }

    #[test]
    fn errors_of_execve_end_the_search_or_do_not() {
        let judge = |errno, exists| judge(&io::Error::from_raw_os_error(errno), exists);
        assert_eq!(judge(libc::ENOENT, false), Verdict::GoOn);
        assert!(matches!(judge(libc::ENOENT, true), Verdict::Stop(reason) if reason.contains("interpreter")));
        assert!(matches!(judge(libc::EACCES, true), Verdict::Remember(_)));
        assert!(matches!(judge(libc::ENOEXEC, true), Verdict::Stop(_)));
    }
}
