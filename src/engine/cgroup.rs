//! The files of a container's control group (kernel: admin-guide/cgroup-v2.rst).

use std::fs;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::model::{Bytes, Limits, Signal};
use crate::sys::pidfd;
use crate::sys::proc;

/// Where cgroup2 is mounted (systemd: CGROUP_DELEGATION.md).
pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// The sub-cgroup of the payload.
const PAYLOAD: &str = "payload";
/// That of the monitor.
const SUPERVISOR: &str = "supervisor";
/// The prefix of sub-cgroups of processes that entered.
const EXEC: &str = "exec-";
/// The prefix of those among them that check its health.
pub(super) const CHECK: &str = "exec-health-";
/// How long the kernel may take to freeze everything.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// The control group of a container's scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group at `control_group` below the mount.
    pub(super) fn new(control_group: &Path) -> Self {
        Self { path: Path::new(MOUNT).join(control_group.strip_prefix("/").unwrap_or(control_group)) }
    }

    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Freezes the payload and everything that entered, and waits until all of it stands still. After an error nothing
    /// is frozen.
    pub(super) fn freeze(&self) -> io::Result<()> {
        let frozen = self.each_group(|group| {
            fs::write(group.join("cgroup.freeze"), "1")?;
            wait_for(group, "frozen 1", FREEZE_LIMIT)
        });
        if frozen.is_err() {
            // The error is the one that is told; what cannot be thawed now is when it is stopped.
            let _ = self.thaw();
        }
        frozen
    }

    /// Freezes the payload and everything that entered, not waiting for it: a process that waits for a disk stands still
    /// when it has what it waits for.
    pub(super) fn hold(&self) -> io::Result<()> {
        self.each_group(|group| fs::write(group.join("cgroup.freeze"), "1"))
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        self.each_group(|group| fs::write(group.join("cgroup.freeze"), "0"))
    }

    /// Whether the whole scope was frozen, as `systemctl freeze` does, and its monitor with it: not by us.
    pub(super) fn is_frozen_from_outside(&self) -> bool {
        is_asked_to_freeze(&self.path)
    }

    /// The units above the scope that are frozen, and with them all that is in them; the topmost first.
    pub(super) fn frozen_slices(&self) -> Vec<String> {
        let above = self.path.ancestors().skip(1).take_while(|group| *group != Path::new(MOUNT));
        let frozen = above.filter(|group| is_asked_to_freeze(group));
        let mut units: Vec<_> = frozen.filter_map(|group| group.file_name()?.to_str().map(str::to_owned)).collect();
        units.reverse();
        units
    }

    /// Whether a run is over here, but for its monitor.
    pub(super) fn is_over(&self) -> bool {
        let is_quiet = |group: &PathBuf| !is_populated(group);
        self.path.join(SUPERVISOR).is_dir() && self.groups().is_ok_and(|groups| groups.iter().all(is_quiet))
    }

    /// Waits until no process is left, the monitor and those of exec included. `TimedOut` after `limit`.
    pub(super) fn wait_until_empty(&self, limit: Duration) -> io::Result<()> {
        gone_is_fine(wait_for(&self.path, "populated 0", limit))
    }

    /// Whether the payload is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        is_frozen(&self.path.join(PAYLOAD)).unwrap_or(false)
    }

    /// What it may use by its own limits; those that cannot be read are none.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            memory: read_number(&self.path.join("memory.max")).map(Bytes),
            cpu_usec_per_sec: fs::read_to_string(self.path.join("cpu.max")).ok().and_then(|text| cpu_limit(&text)),
            pids: read_number(&self.path.join("pids.max")),
            ..Limits::default()
        }
    }

    /// Kills the payload and everything that entered; the monitor stays to see it end.
    pub(super) fn kill_all(&self) -> io::Result<()> {
        self.each_group(|group| fs::write(group.join("cgroup.kill"), "1"))
    }

    /// Signals every process of the sub-cgroup `name`; SIGKILL reaches even those that are just being forked.
    pub(super) fn signal_entered(&self, name: &str, signal: Signal) -> io::Result<()> {
        let group = self.path.join(name);
        if signal == Signal::KILL {
            return fs::write(group.join("cgroup.kill"), "1");
        }
        for pid in pids(&group)? {
            signal_member(pid, &group, signal);
        }
        Ok(())
    }

    /// Kills every check of its health.
    pub(super) fn kill_checks(&self) -> io::Result<()> {
        let is_check = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CHECK));
        let mut result = Ok(());
        for group in self.groups()?.iter().filter(|group| is_check(group)) {
            result = result.and(gone_is_fine(fs::write(group.join("cgroup.kill"), "1")));
        }
        result
    }

    /// Signals every process of the payload and of what entered.
    pub(super) fn signal_all(&self, signal: Signal) -> io::Result<()> {
        if signal == Signal::KILL {
            return self.kill_all();
        }
        let mut members = Vec::new();
        self.each_group(|group| members_below(group, &mut members))?;
        for (_, pid) in members {
            signal_member(pid, &self.path, signal);
        }
        Ok(())
    }

    /// Every process, the monitor among them: sub-cgroup, process id, command line. May wait for a process that holds
    /// its memory map: /proc/PID/cmdline takes its lock.
    pub(super) fn processes(&self) -> io::Result<Vec<(String, u32, String)>> {
        let mut members = Vec::new();
        for group in subdirectories(&self.path)? {
            gone_is_fine(members_below(&group, &mut members))?;
        }
        let name = |group: &Path| group.strip_prefix(&self.path).unwrap_or(group).to_string_lossy().into_owned();
        Ok(members.into_iter().map(|(group, pid)| (name(&group), pid, command_line(pid))).collect())
    }

    /// Figures by name; one whose file does not exist is left out.
    pub(super) fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut figures = Vec::new();
        for (name, file) in SINGLE {
            if let Some(value) = read_number(&self.path.join(file)) {
                figures.push((name, value));
            }
        }
        for (name, file, key) in KEYED {
            if let Some(value) = read_keyed(&self.path.join(file), key) {
                figures.push((name, value));
            }
        }
        for (name, key) in [("IOReadBytes", "rbytes="), ("IOWriteBytes", "wbytes=")] {
            if let Some(value) = sum_io(&self.path.join("io.stat"), key) {
                figures.push((name, value));
            }
        }
        figures
    }

    /// Does something with every sub-cgroup but the monitor's: all of them, whatever happens at one. One that is gone
    /// meanwhile is fine; the first other error is returned.
    fn each_group(&self, mut work: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        let mut result = Ok(());
        for group in self.groups()? {
            result = result.and(gone_is_fine(work(&group)));
        }
        result
    }

    fn groups(&self) -> io::Result<Vec<PathBuf>> {
        let ours = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name == PAYLOAD || name.starts_with(EXEC))
        };
        Ok(subdirectories(&self.path)?.into_iter().filter(ours).collect())
    }
}

/// In doubt it is not: what cannot be read is gone.
fn is_populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

/// A cgroup that was removed meanwhile: its files are not there (ENOENT), or open and dead (ENODEV).
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

fn members_below(group: &Path, found: &mut Vec<(PathBuf, u32)>) -> io::Result<()> {
    found.extend(pids(group)?.into_iter().map(|pid| (group.to_owned(), pid)));
    subdirectories(group)?.iter().try_for_each(|child| members_below(child, found))
}

/// Signals a process if it is in `group`: the pidfd is opened first and the membership read after, so that a reused id
/// is never hit (rule R17). One that has ended meanwhile needs no signal.
fn signal_member(pid: u32, group: &Path, signal: Signal) {
    let Some(pid_number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(pidfd) = pidfd_open(pid_number, PidfdFlags::empty()) else { return };
    let member = proc::control_group(pid).is_ok_and(|found| Cgroup::new(&found).path.starts_with(group));
    if member {
        let _ = pidfd::send_signal(&pidfd, signal.number());
    }
}

/// Figures that are a file with one number.
const SINGLE: [(&str, &str); 9] = [
    ("MemoryCurrent", "memory.current"),
    ("MemoryPeak", "memory.peak"),
    ("MemoryMax", "memory.max"),
    ("MemoryHigh", "memory.high"),
    ("MemorySwapCurrent", "memory.swap.current"),
    ("MemorySwapMax", "memory.swap.max"),
    ("TasksCurrent", "pids.current"),
    ("TasksPeak", "pids.peak"),
    ("TasksMax", "pids.max"),
];

/// Figures that are a line of a file.
const KEYED: [(&str, &str, &str); 7] = [
    ("CPUUsageUSec", "cpu.stat", "usage_usec"),
    ("CPUUserUSec", "cpu.stat", "user_usec"),
    ("CPUSystemUSec", "cpu.stat", "system_usec"),
    ("CPUThrottledUSec", "cpu.stat", "throttled_usec"),
    ("MemoryAnonymous", "memory.stat", "anon"),
    ("MemoryFile", "memory.stat", "file"),
    ("OOMKills", "memory.events", "oom_kill"),
];

fn read_number(path: &Path) -> Option<u64> {
    // "max" means no limit; there is no number for that.
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `cpu.max`: a quota and a period, both in µs. As µs per second.
fn cpu_limit(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(1_000_000)?.checked_div(period)
}

fn read_keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn sum_io(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum())
}

fn pids(group: &Path) -> io::Result<Vec<u32>> {
    match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // A threaded or vanished group has no list.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT)) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn subdirectories(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<_> =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect();
    found.sort();
    Ok(found)
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = bytes.split(|byte| *byte == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    words.join(" ")
}

fn is_asked_to_freeze(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

fn is_frozen(group: &Path) -> io::Result<bool> {
    Ok(says(&fs::read_to_string(group.join("cgroup.events"))?, "frozen 1"))
}

fn says(events: &str, wanted: &str) -> bool {
    events.lines().any(|line| line == wanted)
}

/// Waits until cgroup.events has the line. The kernel wakes pollers when a value in it has changed since they read it.
fn wait_for(group: &Path, line: &str, limit: Duration) -> io::Result<()> {
    let mut events = fs::File::open(group.join("cgroup.events"))?;
    let end = Instant::now() + limit;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if says(&text, line) {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        poll(&mut [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)], Some(&timeout))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(parts: &[&str]) -> (tempfile::TempDir, Cgroup) {
        let directory = tempfile::tempdir().unwrap();
        for part in parts {
            fs::create_dir(directory.path().join(part)).unwrap();
            fs::write(directory.path().join(part).join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        }
        let cgroup = Cgroup { path: directory.path().to_owned() };
        (directory, cgroup)
    }

    #[test]
    fn everything_but_the_monitor_is_killed_even_if_a_part_cannot_be() {
        let (directory, cgroup) = scope(&["exec-1", "payload", "supervisor"]);
        // What fails comes before the payload in the list.
        fs::create_dir(directory.path().join("exec-1/cgroup.kill")).unwrap();
        assert!(cgroup.kill_all().is_err());
        assert_eq!(fs::read_to_string(directory.path().join("payload/cgroup.kill")).unwrap(), "1");
        assert!(!directory.path().join("supervisor/cgroup.kill").exists());
    }

    #[test]
    fn checks_are_killed_without_the_rest() {
        let (directory, cgroup) = scope(&["exec-1", "exec-health-7", "payload"]);
        cgroup.kill_checks().unwrap();
        let killed = |part: &str| directory.path().join(part).join("cgroup.kill").exists();
        assert_eq!(["exec-1", "exec-health-7", "payload"].map(killed), [false, true, false]);
    }

    #[test]
    fn limits_are_read_and_max_is_none() {
        let (_directory, cgroup) = scope(&[]);
        assert_eq!(cgroup.limits(), Limits::default());
        for (file, text) in [("memory.max", "max\n"), ("pids.max", "40\n"), ("cpu.max", "150000 100000\n")] {
            fs::write(cgroup.path().join(file), text).unwrap();
        }
        assert_eq!(
            cgroup.limits(),
            Limits { memory: None, cpu_usec_per_sec: Some(1_500_000), pids: Some(40), ..Limits::default() }
        );
        assert_eq!(cpu_limit("max 100000\n"), None);
        assert_eq!(cpu_limit("1 0"), None);
    }

    #[test]
    fn a_part_that_is_gone_is_no_error() {
        let (directory, cgroup) = scope(&["payload"]);
        fs::remove_dir_all(directory.path()).unwrap();
        cgroup.kill_all().unwrap();
        cgroup.thaw().unwrap();
        cgroup.wait_until_empty(Duration::ZERO).unwrap();
        assert!(cgroup.processes().unwrap().is_empty());
    }

    #[test]
    fn a_freeze_that_fails_leaves_nothing_frozen() {
        let (directory, cgroup) = scope(&["exec-1", "payload"]);
        fs::create_dir(directory.path().join("payload/cgroup.freeze")).unwrap();
        assert!(cgroup.freeze().is_err());
        assert_eq!(fs::read_to_string(directory.path().join("exec-1/cgroup.freeze")).unwrap(), "0");
    }

    #[test]
    fn frozen_slices_are_found_from_the_top() {
        let directory = tempfile::tempdir().unwrap();
        let scope = directory.path().join("a.slice/a-b.slice/a-b-c.slice/holm-web.scope");
        fs::create_dir_all(&scope).unwrap();
        for (group, frozen) in
            [("a.slice", "1\n"), ("a.slice/a-b.slice", "0\n"), ("a.slice/a-b.slice/a-b-c.slice", "1\n")]
        {
            fs::write(directory.path().join(group).join("cgroup.freeze"), frozen).unwrap();
        }
        assert_eq!(Cgroup { path: scope }.frozen_slices(), ["a.slice", "a-b-c.slice"]);
    }

    #[test]
    fn a_run_is_over_when_its_monitor_is_alone() {
        let directory = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { path: directory.path().to_owned() };
        let put = |part: &str, text: &str| {
            fs::create_dir_all(directory.path().join(part)).unwrap();
            fs::write(directory.path().join(part).join("cgroup.events"), text).unwrap();
        };
        assert!(!cgroup.is_over(), "a scope of somebody else's");
        put("supervisor", "populated 1\n");
        assert!(cgroup.is_over());
        put("payload", "populated 1\n");
        assert!(!cgroup.is_over());
        put("payload", "populated 0\n");
        put("exec-1", "populated 1\n");
        assert!(!cgroup.is_over());
        fs::remove_dir_all(directory.path().join("exec-1")).unwrap();
        assert!(cgroup.is_over());
    }

    #[test]
    fn a_wait_ends_at_its_limit() {
        let (_directory, cgroup) = scope(&[]);
        fs::write(cgroup.path.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let error = cgroup.wait_until_empty(Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
