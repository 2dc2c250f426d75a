//! Reading about processes (proc_pid_stat(5), proc_pid_cgroup(5)).

use std::fs;
use std::io;
use std::path::PathBuf;

/// What is read of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its state: `R`, `S`, `D`, `Z` and so on.
    pub state: char,
    /// Its parent's id.
    pub parent: u32,
    /// When it started, in clock ticks since boot. With the id, this names one process until reboot.
    pub start: u64,
}

/// Reads a process's stat line. `NotFound` when there is no such process.
pub fn stat(pid: u32) -> io::Result<ProcessStat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text}")))
}

/// The control group of a process in the cgroup2 hierarchy, starting with a slash.
pub fn control_group(pid: u32) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    line.map(PathBuf::from).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process is in no cgroup2 group"))
}

/// The second field is the command in parentheses and may hold anything, so fields are counted from its last one.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let fields: Vec<_> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    Some(ProcessStat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_confuse() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 10 18446744073709551615";
        assert_eq!(parse_stat(text), Some(ProcessStat { state: 'S', parent: 1, start: 4242 }));
    }

    #[test]
    fn our_own_line_is_read() {
        let stat = stat(std::process::id()).unwrap();
        // Of the first thread, which may wait while this one runs.
        assert!("RSD".contains(stat.state), "{stat:?}");
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.start > 0);
    }
}
