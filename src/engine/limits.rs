//! A container's limits on their way to systemd, and those that come to nothing on this host.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::Inner;
use super::cgroup::MOUNT;
use super::error::EngineError;
use super::table::blocking;
use super::view::ContainerView;
use crate::model::{ContainerSpec, Limits};

/// The limits with every device named: what is said of the root holds for the device that the pool's data is on (decision
/// 0100). systemd goes from a node of device-mapper down to what is below it, so that of a thin device would be no other.
pub(super) async fn with_devices(engine: &Arc<Inner>, limits: &Limits) -> Result<Limits, EngineError> {
    if !limits.is_of_root() {
        return Ok(limits.clone());
    }
    let devices = Arc::clone(&engine.devices);
    let backing = blocking(move || devices.backing()).await?;
    Ok(limits.clone().with_root_on(&backing))
}

impl ContainerView {
    /// What of its limits has no effect on this host, a sentence each; nothing while it does not run. Reads a few files in
    /// memory.
    pub fn warnings(&self) -> Vec<String> {
        if self.control_group.is_empty() {
            return Vec::new();
        }
        of_group(&self.spec.limits, Path::new(&self.control_group))
    }
}

/// Says in the log what [`ContainerView::warnings`] shows.
pub(super) fn tell_without_effect(spec: &ContainerSpec, control_group: &Path, op: &str) {
    for warning in of_group(&spec.limits, control_group) {
        warn!(container = %spec.name, op, "Container {}: {warning}", spec.name);
    }
}

fn of_group(limits: &Limits, control_group: &Path) -> Vec<String> {
    let mount = Path::new(MOUNT);
    without_effect(limits, mount, &mount.join(control_group.strip_prefix("/").unwrap_or(control_group)))
}

/// Limits that the control group has no file for: systemd passes over what no controller offers, and says nothing.
fn without_effect(limits: &Limits, mount: &Path, group: &Path) -> Vec<String> {
    // One that has just ended has no files at all.
    if !group.join("cgroup.controllers").exists() {
        return Vec::new();
    }
    let missing = |rule: &&Rule| (rule.is_set)(limits) && !rule.files.iter().any(|file| group.join(file).exists());
    RULES.iter().filter(missing).map(|rule| rule.sentence(mount, group)).collect()
}

/// What has to be there for a limit to have an effect.
struct Rule {
    property: &'static str,
    is_set: fn(&Limits) -> bool,
    controller: &'static str,
    /// One of these in the control group.
    files: &'static [&'static str],
}

impl Rule {
    fn sentence(&self, mount: &Path, group: &Path) -> String {
        let Self { property, controller, files, .. } = self;
        let offers = |at: &Path| {
            let text = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            text.split_whitespace().any(|word| word == *controller)
        };
        if !offers(mount) {
            format!("{property} has no effect: this host has no controller '{controller}'")
        } else if offers(group) {
            let files = files.join(" or ");
            format!("{property} has no effect: the controller '{controller}' of this host has no {files}")
        } else {
            format!(
                "{property} has no effect: the controller '{controller}' is off in the slice above (DisableControllers=)"
            )
        }
    }
}

const RULES: [Rule; 12] = [
    Rule { property: "MemoryMax", is_set: |l| l.memory.is_some(), controller: "memory", files: &["memory.max"] },
    Rule { property: "MemoryHigh", is_set: |l| l.memory_high.is_some(), controller: "memory", files: &["memory.high"] },
    Rule {
        property: "MemorySwapMax",
        is_set: |l| l.memory_swap.is_some(),
        controller: "memory",
        files: &["memory.swap.max"],
    },
    Rule { property: "CPUQuota", is_set: |l| l.cpu_usec_per_sec.is_some(), controller: "cpu", files: &["cpu.max"] },
    Rule { property: "CPUWeight", is_set: |l| l.cpu_weight.is_some(), controller: "cpu", files: &["cpu.weight"] },
    Rule {
        property: "AllowedCPUs",
        is_set: |l| l.allowed_cpus.is_some(),
        controller: "cpuset",
        files: &["cpuset.cpus"],
    },
    Rule { property: "TasksMax", is_set: |l| l.pids.is_some(), controller: "pids", files: &["pids.max"] },
    Rule {
        property: "IOWeight",
        is_set: |l| l.io_weight.is_some(),
        controller: "io",
        files: &["io.weight", "io.bfq.weight"],
    },
    Rule {
        property: "IOReadBandwidthMax",
        is_set: |l| l.io_read_bandwidth.is_some(),
        controller: "io",
        files: &["io.max"],
    },
    Rule {
        property: "IOWriteBandwidthMax",
        is_set: |l| l.io_write_bandwidth.is_some(),
        controller: "io",
        files: &["io.max"],
    },
    Rule { property: "IOReadIOPSMax", is_set: |l| l.io_read_iops.is_some(), controller: "io", files: &["io.max"] },
    Rule { property: "IOWriteIOPSMax", is_set: |l| l.io_write_iops.is_some(), controller: "io", files: &["io.max"] },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Weight;

    fn limits() -> Limits {
        Limits {
            pids: Some(5),
            cpu_weight: Some(Weight::IDLE),
            allowed_cpus: Some("0".parse().unwrap()),
            io_weight: Some(Weight::parse_io("7").unwrap()),
            ..Limits::default()
        }
    }

    /// A host whose hierarchy has these controllers at its top, and in the group these files.
    fn host(top: &str, here: &str, files: &[&str]) -> (tempfile::TempDir, Vec<String>) {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("group");
        fs::create_dir(&group).unwrap();
        fs::write(mount.path().join("cgroup.controllers"), top).unwrap();
        fs::write(group.join("cgroup.controllers"), here).unwrap();
        files.iter().for_each(|file| fs::write(group.join(file), "").unwrap());
        let found = without_effect(&limits(), mount.path(), &group);
        (mount, found)
    }

    #[test]
    fn what_this_host_cannot_limit_is_named_with_the_reason() {
        let (_mount, found) = host("cpu io memory pids\n", "io pids\n", &["pids.max", "io.max"]);
        let expected = [
            "CPUWeight has no effect: the controller 'cpu' is off in the slice above (DisableControllers=)",
            "AllowedCPUs has no effect: this host has no controller 'cpuset'",
            "IOWeight has no effect: the controller 'io' of this host has no io.weight or io.bfq.weight",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_said_where_all_is_there_or_nothing_is_left() {
        let all = ["pids.max", "cpu.weight", "cpuset.cpus", "io.bfq.weight"];
        let (mount, found) = host("cpu cpuset io pids", "cpu cpuset io pids", &all);
        assert!(found.is_empty(), "{found:?}");
        assert!(without_effect(&limits(), mount.path(), &mount.path().join("gone")).is_empty());
    }

    #[test]
    fn every_limit_has_its_rule() {
        let io = || Some(vec!["5".parse().unwrap()]);
        let all = Limits {
            memory: Some(crate::model::Bytes(1)),
            cpu_usec_per_sec: Some(1),
            memory_high: Some(crate::model::Bytes(1)),
            memory_swap: Some(crate::model::Bytes(1)),
            io_read_bandwidth: io(),
            io_write_bandwidth: io(),
            io_read_iops: io(),
            io_write_iops: io(),
            ..limits()
        };
        assert!(RULES.iter().all(|rule| (rule.is_set)(&all) && !(rule.is_set)(&Limits::default())));
    }
}
