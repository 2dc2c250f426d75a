//! `holmctl doctor`: what this host has, what is missing, and what to do about it. Works without `holmd`.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::statvfs;
use serde_json::json;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::client::Client;
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let host = Path::new("/");
    let mut checks =
        vec![control_groups(host), systemd(host), device_mapper(host), loop_devices(host), room(host), slice()];
    checks.splice(1..1, weights(host));
    checks.extend(bus().await);
    if args.json {
        output::write_json(&checks.iter().map(Check::to_json).collect())?;
    } else {
        let text: String = checks.iter().map(|check| check.to_text(output::colours())).collect();
        output::write(&text)?;
    }
    Ok(if checks.iter().any(|check| check.level == Level::Fail) { Status::UNFIT } else { Status::SUCCESS })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// What was found, and what to do about it; no advice where there is nothing to do, or what was found says it.
#[derive(Debug)]
struct Check {
    level: Level,
    what: &'static str,
    found: String,
    advice: &'static str,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, what, found: found.into(), advice: "" }
    }

    fn warn(what: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { level: Level::Warn, what, found: found.into(), advice }
    }

    fn fail(what: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { level: Level::Fail, what, found: found.into(), advice }
    }

    fn word(&self) -> (&'static str, &'static str) {
        match self.level {
            Level::Ok => ("ok", "\x1b[32m"),
            Level::Warn => ("warn", "\x1b[33m"),
            Level::Fail => ("fail", "\x1b[31m"),
        }
    }

    fn to_text(&self, colours: bool) -> String {
        let (word, colour) = self.word();
        let word = if colours { format!("{colour}{word:4}\x1b[0m") } else { format!("{word:4}") };
        let advice = if self.advice.is_empty() { String::new() } else { format!(": {}", self.advice) };
        format!("{word}  {:14} {}{advice}\n", self.what, self.found)
    }

    fn to_json(&self) -> serde_json::Value {
        json!({"check": self.what, "level": self.word().0, "found": self.found, "advice": self.advice})
    }
}

fn control_groups(host: &Path) -> Check {
    const WHAT: &str = "control groups";
    let Ok(text) = fs::read_to_string(host.join("sys/fs/cgroup/cgroup.controllers")) else {
        let advice = "boot with systemd.unified_cgroup_hierarchy=1";
        return Check::fail(WHAT, "the unified hierarchy is not mounted on /sys/fs/cgroup", advice);
    };
    let there: Vec<_> = text.split_whitespace().collect();
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(|(name, _)| !there.contains(name)).collect();
    if missing.is_empty() {
        return Check::ok(WHAT, "unified hierarchy with cpu, cpuset, io, memory and pids");
    }
    let found: Vec<_> = missing.iter().map(|(name, limits)| format!("{name} ({limits})")).collect();
    let advice = "these limits have no effect; see cgroup_disable= on the kernel command line, or its configuration";
    Check::warn(WHAT, format!("without {}", found.join(", without ")), advice)
}

/// The weights of devices need more of a kernel than their controller.
fn weights(host: &Path) -> Option<Check> {
    const WHAT: &str = "IOWeight";
    let groups = host.join("sys/fs/cgroup");
    if !fs::read_to_string(groups.join("cgroup.controllers")).ok()?.split_whitespace().any(|name| name == "io") {
        return None;
    }
    // The first is the cost model's, in the root of the hierarchy; the other is each group's, once some disk has that scheduler.
    let known = groups.join("io.cost.qos").exists() || groups.join("system.slice/io.bfq.weight").exists();
    let advice =
        "it has no effect: the kernel lacks a cost model (CONFIG_BLK_CGROUP_IOCOST), and no disk has the scheduler bfq";
    Some(if known { Check::ok(WHAT, "can be used") } else { Check::warn(WHAT, "not there", advice) })
}

/// Controllers, and what they limit.
const CONTROLLERS: [(&str, &str); 5] = [
    ("cpu", "CPUQuota, CPUWeight"),
    ("cpuset", "AllowedCPUs"),
    ("io", "IOWeight, IOReadBandwidthMax and its kind"),
    ("memory", "MemoryMax, MemoryHigh, MemorySwapMax"),
    ("pids", "TasksMax"),
];

fn systemd(host: &Path) -> Check {
    const WHAT: &str = "systemd";
    if !host.join("run/systemd/system").is_dir() {
        return Check::fail(WHAT, "not running as process 1", "Holm needs systemd; the embedded test host has one");
    }
    let version = Command::new("systemctl").arg("--version").output().ok();
    match version.and_then(|output| systemd_version(&String::from_utf8_lossy(&output.stdout))) {
        Some(version) if version >= OLDEST_SYSTEMD => Check::ok(WHAT, version.to_string()),
        Some(version) => Check::warn(WHAT, version.to_string(), "252 is the oldest that is tested: upgrade it"),
        None => Check::warn(WHAT, "its version is unknown", "install systemctl"),
    }
}

/// From `systemd 252 (252.39-1~deb12u1)`.
fn systemd_version(text: &str) -> Option<u32> {
    let word = text.split_whitespace().nth(1)?;
    word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn device_mapper(host: &Path) -> Check {
    const WHAT: &str = "device-mapper";
    const ADVICE: &str = "images and containers are whole copies without it (driver 'copy'): modprobe dm-thin-pool";
    let misc = fs::read_to_string(host.join("proc/misc")).unwrap_or_default();
    let mapper = misc.lines().any(|line| line.trim_end().ends_with("device-mapper"));
    let loaded = host.join("sys/module/dm_thin_pool").exists();
    if mapper && loaded {
        Check::ok(WHAT, "with thin provisioning")
    } else if module(host, "dm-thin-pool") {
        Check::ok(WHAT, "thin provisioning can be loaded")
    } else if mapper {
        Check::warn(WHAT, "without thin provisioning", ADVICE)
    } else {
        Check::warn(WHAT, "not there", ADVICE)
    }
}

fn loop_devices(host: &Path) -> Check {
    const WHAT: &str = "loop devices";
    if host.join("dev/loop-control").exists() || module(host, "loop") {
        Check::ok(WHAT, "there")
    } else {
        Check::warn(WHAT, "not there", "the pool needs block devices of its own, or: modprobe loop")
    }
}

/// Whether the kernel has this module, built in or to be loaded.
fn module(host: &Path, name: &str) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let directory = host.join("lib/modules").join(release);
    let file = format!("/{name}.ko");
    ["modules.builtin", "modules.dep"].iter().any(|list| {
        let text = fs::read_to_string(directory.join(list)).unwrap_or_default();
        text.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
    })
}

fn room(host: &Path) -> Check {
    const WHAT: &str = "disk space";
    let state = host.join("var/lib/holm");
    let nearest = state.ancestors().find(|directory| directory.exists()).unwrap_or(host);
    let Ok(stat) = statvfs(nearest) else {
        return Check::warn(WHAT, format!("unknown on {}", nearest.display()), "look with df");
    };
    let free = Bytes(stat.f_bavail.saturating_mul(stat.f_frsize));
    let found = format!("{free} free for /var/lib/holm");
    match free.0 {
        0..LEAST_ROOM => Check::fail(WHAT, found, "make room: images and containers are kept there"),
        LEAST_ROOM..GOOD_ROOM => Check::warn(WHAT, found, "that is enough for small images only"),
        _ => Check::ok(WHAT, found),
    }
}

/// An ordinary slice would stop its containers at the first instant of a shutdown.
fn slice() -> Check {
    const WHAT: &str = "holm.slice";
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=LoadState,DefaultDependencies", "holm.slice"]);
    let output = command.stderr(std::process::Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let has = |line| text.lines().any(|l| l == line);
    if has("LoadState=loaded") && has("DefaultDependencies=no") {
        Check::ok(WHAT, "DefaultDependencies=no")
    } else if text.is_empty() {
        Check::warn(WHAT, "unknown", "systemctl cannot tell")
    } else {
        Check::warn(
            WHAT,
            "has default dependencies",
            "install units/holm.slice, or containers stop too early at shutdown",
        )
    }
}

async fn bus() -> Vec<Check> {
    let client = match Client::connect().await {
        Ok(client) => client,
        Err(error) => return vec![Check::fail("system bus", error.to_string(), "")],
    };
    let names = names(&client).await;
    let has = |name: &str| names.iter().any(|known| known == name);
    let mut checks = vec![Check::ok("system bus", "reachable")];
    checks.push(if has("org.freedesktop.PolicyKit1") {
        Check::ok("polkit", "there")
    } else {
        Check::warn("polkit", "not there", "only root may change things: install polkitd")
    });
    checks.push(if has("org.freedesktop.machine1") {
        Check::ok("machined", "there")
    } else {
        Check::warn("machined", "not there", "containers are not in machinectl: install systemd-container")
    });
    checks.push(holmd(&client).await);
    checks
}

/// Who is on the bus, or can be started by it.
async fn names(client: &Client) -> Vec<String> {
    let Ok(bus) = zbus::fdo::DBusProxy::new(client.bus()).await else { return Vec::new() };
    let mut names = Vec::new();
    names.extend(bus.list_names().await.into_iter().flatten().map(|name| name.to_string()));
    names.extend(bus.list_activatable_names().await.into_iter().flatten().map(|name| name.to_string()));
    names
}

async fn holmd(client: &Client) -> Check {
    const WHAT: &str = "holmd";
    let asked = async {
        let manager = client.manager().await?;
        Ok::<_, crate::client::ClientError>((manager.version().await?, manager.driver().await?))
    };
    match asked.await {
        Ok((version, driver)) => Check::ok(WHAT, format!("{version}, driver {driver}")),
        Err(error) => Check::fail(WHAT, error.to_string(), "see 'journalctl -u holmd'"),
    }
}

const OLDEST_SYSTEMD: u32 = 252;
const LEAST_ROOM: u64 = 256 * Bytes::MIB;
const GOOD_ROOM: u64 = 4 * Bytes::GIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_tells_its_version() {
        assert_eq!(systemd_version("systemd 252 (252.39-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(systemd_version("systemd 258~rc1 (x)"), Some(258));
        assert_eq!(systemd_version(""), None);
    }

    #[test]
    fn an_empty_host_lacks_everything_and_says_so() {
        let host = tempfile::tempdir().unwrap();
        assert_eq!(control_groups(host.path()).level, Level::Fail);
        assert_eq!(systemd(host.path()).level, Level::Fail);
        assert_eq!(device_mapper(host.path()).level, Level::Warn);
        assert_eq!(loop_devices(host.path()).level, Level::Warn);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let host = tempfile::tempdir().unwrap();
        let directory = host.path().join("sys/fs/cgroup");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.controllers"), "cpu pids memory\n").unwrap();
        let check = control_groups(host.path());
        let found = "without cpuset (AllowedCPUs), without io (IOWeight, IOReadBandwidthMax and its kind)";
        assert_eq!((check.level, check.found.as_str()), (Level::Warn, found));
        assert!(weights(host.path()).is_none(), "said already");
        fs::write(directory.join("cgroup.controllers"), "cpu cpuset io pids memory\n").unwrap();
        assert_eq!(control_groups(host.path()).level, Level::Ok);
        assert_eq!(weights(host.path()).unwrap().level, Level::Warn);
        fs::write(directory.join("io.cost.qos"), "").unwrap();
        assert_eq!(weights(host.path()).unwrap().level, Level::Ok);
    }

    #[test]
    fn a_line_ends_with_what_to_do() {
        let check = Check::fail("holmd", "away", "start it");
        assert_eq!(check.to_text(false), "fail  holmd          away: start it\n");
    }
}
