//! The cgroups below a scope, which is delegated to us: `supervisor` for the monitor, `payload` for the container, `exec-<n>`
//! for each further process (C39). Nothing is written on the scope's own attributes (C37) but which controllers its
//! children have.

use std::io;
use std::os::fd::OwnedFd;

use crate::model::Figures;
use crate::sys::cgroup::Cgroup;

/// The scope and its parts.
#[derive(Debug)]
pub(super) struct Scope {
    scope: Cgroup,
    payload: Cgroup,
}

impl Scope {
    /// Divides a fresh scope: makes the parts, moves the calling process into `supervisor`, and passes on what controllers
    /// there are (C45). The move comes first, as a cgroup with processes of its own has no controllers to pass on.
    ///
    /// The move costs an RCU grace period (5 ms measured) unless another process was moved within the last few milliseconds:
    /// right after systemd has put us in the scope it is free.
    pub(super) fn divide(scope: OwnedFd) -> io::Result<Self> {
        let scope = Cgroup::from_directory(scope)?;
        let supervisor = scope.make_child(SUPERVISOR)?;
        let payload = scope.make_child(PAYLOAD)?;
        supervisor.enter()?;
        pass_controllers_on(&scope)?;
        Ok(Self { scope, payload })
    }

    /// Has the last sweep of a soft-reboot spare what lives here. systemd marks the scope itself, but the sweep looks at the
    /// group that a process is in, and at none above.
    pub(super) fn mark_survivor(&self) -> io::Result<()> {
        self.scope.child(SUPERVISOR)?.set_attribute(SURVIVOR, b"1")?;
        self.payload.set_attribute(SURVIVOR, b"1")
    }

    /// Where the container's processes are made.
    pub(super) fn payload(&self) -> &Cgroup {
        &self.payload
    }

    /// Kills everything but the monitor, whatever forks meanwhile (R24). Does not wait.
    pub(super) fn kill_payload(&self) {
        for part in self.parts() {
            // What cannot be killed any more is gone.
            let _ = part.1.kill();
        }
    }

    /// Lets everything but the monitor go on, whoever has frozen it.
    pub(super) fn thaw_payload(&self) {
        for part in self.parts() {
            // What is gone needs no thawing.
            let _ = part.1.write("cgroup.freeze", "0");
        }
    }

    /// Waits until what was killed is gone, and removes its cgroups; `supervisor` goes with the scope.
    pub(super) fn remove_parts(&self) {
        for (name, part) in self.parts() {
            // What is not removed here goes with the scope too.
            let _ = part.wait_until_empty().and_then(|()| self.scope.remove_child(&name));
        }
    }

    fn parts(&self) -> Vec<(String, Cgroup)> {
        let mut names = self.scope.children().unwrap_or_default();
        names.retain(|name| name != SUPERVISOR);
        names.into_iter().filter_map(|name| self.scope.child(&name).ok().map(|part| (name, part))).collect()
    }
    /// What the payload has used up. To be read before its cgroup is removed.
    pub(super) fn figures(&self) -> Figures {
        figures(&self.payload)
    }

    /// Processes killed for lack of memory. The scope counts for its parts as well, and may have the controller where the
    /// payload has not.
    pub(super) fn oom_kills(&self) -> u64 {
        oom_kills(&self.scope).max(oom_kills(&self.payload))
    }
}

/// systemd's mark (SurviveFinalKillSignal= in systemd.unit(5)).
const SURVIVOR: &str = "user.survive_final_kill_signal";
const SUPERVISOR: &str = "supervisor";
const PAYLOAD: &str = "payload";

/// The cgroup of one more process in a container.
#[derive(Debug)]
pub(super) struct ExecCgroup {
    scope: Cgroup,
    name: String,
    cgroup: Cgroup,
}

impl ExecCgroup {
    /// Makes it.
    pub(super) fn make(scope: OwnedFd, name: &str) -> io::Result<Self> {
        let scope = Cgroup::from_directory(scope)?;
        let cgroup = scope.make_child(name)?;
        if scope.child(SUPERVISOR)?.has_attribute(SURVIVOR)? {
            cgroup.set_attribute(SURVIVOR, b"1")?;
        }
        Ok(Self { scope, name: name.to_owned(), cgroup })
    }

    /// Where the process is made.
    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Moves the calling process beside the container's monitor.
    pub(super) fn enter_supervisor(&self) -> io::Result<()> {
        self.scope.child(SUPERVISOR)?.enter()
    }

    /// Processes killed for lack of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        oom_kills(&self.cgroup)
    }

    /// Kills what the process left behind (R24) and removes the cgroup.
    pub(super) fn close(&self) {
        // With the scope gone, so is everything in it.
        let _ = self.cgroup.kill().and_then(|()| self.cgroup.wait_until_empty());
        let _ = self.scope.remove_child(&self.name);
    }
}

/// All at once, and when the kernel refuses one, each alone: a controller less is a figure less, no reason not to start.
fn pass_controllers_on(scope: &Cgroup) -> io::Result<()> {
    let available = scope.read("cgroup.controllers")?.unwrap_or_default();
    let wanted: Vec<_> = CONTROLLERS
        .into_iter()
        .filter(|wanted| available.split_whitespace().any(|name| name == *wanted))
        .map(|name| format!("+{name}"))
        .collect();
    if wanted.is_empty() || scope.write("cgroup.subtree_control", &wanted.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in wanted {
        let _ = scope.write("cgroup.subtree_control", &controller);
    }
    Ok(())
}

const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A file that is not there, or not as expected, leaves its figure out.
fn figures(cgroup: &Cgroup) -> Figures {
    let read = |file: &str| cgroup.read(file).ok().flatten();
    let io = read("io.stat");
    Figures {
        cpu_usec: read("cpu.stat").and_then(|text| keyed(&text, "usage_usec")),
        memory_peak: read("memory.peak").and_then(|text| text.trim().parse().ok()),
        tasks_peak: read("pids.peak").and_then(|text| text.trim().parse().ok()),
        io_read: io.as_deref().map(|text| summed(text, "rbytes=")),
        io_written: io.as_deref().map(|text| summed(text, "wbytes=")),
    }
}

fn oom_kills(cgroup: &Cgroup) -> u64 {
    let events = cgroup.read("memory.events").ok().flatten();
    events.and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0)
}

/// The value of a "flat keyed" file.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The sum of a sub-key over the lines of a "nested keyed" file.
fn summed(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_found_in_a_longer_one() {
        let text = "low 0\noom 1\noom_kill 3\noom_group_kill 9\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), Some(1));
        assert_eq!(keyed(text, "usage_usec"), None);
        assert_eq!(keyed("usage_usec many\n", "usage_usec"), None);
    }

    #[test]
    fn devices_are_summed() {
        let text = "254:0 rbytes=10 wbytes=1 rios=2\n254:1 rbytes=5 wbytes=x\n7:0\n";
        assert_eq!(summed(text, "rbytes="), 15);
        assert_eq!(summed(text, "wbytes="), 1);
    }
}
