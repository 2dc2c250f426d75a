//! Scopes, machined and the journal with the real systemd: run as root where it is PID 1 (in the test host), skipped
//! elsewhere. Needs `holm.slice` to be installed.
#![cfg(feature = "daemon")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holm::model::{Bytes, ContainerName, Limits};
use holm::systemd::journal::{Priority, stream};
use holm::systemd::{Machine, Machined, Scope, ScopeRequest, Scopes, Systemd, SystemdError, scope_name};

#[tokio::test]
async fn a_scope_is_as_the_design_wants_it() {
    let Some(systemd) = systemd().await else { return };
    let process = Process::sleeping();
    let limits =
        Limits { memory: Some(Bytes(64 << 20)), cpu_usec_per_sec: Some(500_000), pids: Some(7), ..Limits::default() };
    let request = ScopeRequest { limits, ..request("t-properties", &process) };
    let scope = systemd.start(&request).await.unwrap();
    assert_eq!(scope.control_group, Path::new("/holm.slice/holm-t-properties.scope"));
    for (property, value) in [
        ("DefaultDependencies", "no"),
        ("Conflicts", ""),
        ("Before", ""),
        ("After", "holm.slice"),
        ("KillSignal", "23"),
        ("Slice", "holm.slice"),
        ("Delegate", "yes"),
        ("CollectMode", "inactive-or-failed"),
        ("OOMPolicy", "continue"),
        ("TimeoutStopUSec", "15s"),
        ("KillMode", "control-group"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("TasksMax", "7"),
        ("MemoryAccounting", "yes"),
    ] {
        assert_eq!(show(&scope, property), value, "{property}");
    }
    assert_eq!(show("holm.slice", "Conflicts"), "");
}

#[tokio::test]
async fn a_container_wanted_by_a_unit_is_ordered_by_it() {
    let Some(systemd) = systemd().await else { return };
    let process = Process::sleeping();
    let request = ScopeRequest { wanted_by: Some("dbus.service".into()), ..request("t-wanted", &process) };
    let scope = systemd.start(&request).await.unwrap();
    assert_eq!(show(&scope, "Conflicts"), "shutdown.target");
    assert_eq!(show(&scope, "Before"), "dbus.service shutdown.target");
    let after = show(&scope, "After");
    for unit in ["holmd.service", "holm-shutdown.service", "holm.slice", "dbus.socket"] {
        assert!(after.split(' ').any(|found| found == unit), "{unit}: {after}");
    }
}

#[tokio::test]
async fn fifty_scopes_start_at_once_and_leave_nothing() {
    let Some(systemd) = systemd().await else { return };
    let processes: Vec<_> = (0..50).map(|_| Process::sleeping()).collect();
    let began = Instant::now();
    let starts: Vec<_> = processes
        .iter()
        .enumerate()
        .map(|(n, process)| {
            let (systemd, request) = (Arc::clone(&systemd), request(&format!("t-fifty-{n}"), process));
            tokio::spawn(async move {
                let began = Instant::now();
                systemd.start(&request).await.map(|scope| (scope, began.elapsed()))
            })
        })
        .collect();
    let mut took = Vec::new();
    let mut scopes = Vec::new();
    for start in starts {
        let (scope, time) = start.await.unwrap().unwrap();
        took.push(time);
        scopes.push(scope);
    }
    took.sort();
    println!("50 scopes at once: {:?}; each: median {:?}, last {:?}", began.elapsed(), took[25], took[49]);
    drop(processes);
    for scope in scopes {
        eventually(async || systemd.find(&scope.unit).await.unwrap().is_none()).await;
        assert_eq!(show(&scope, "LoadState"), "not-found");
    }
}

#[tokio::test]
async fn one_scope_after_another_takes_milliseconds() {
    let Some(systemd) = systemd().await else { return };
    let mut took = Vec::new();
    for n in 0..20 {
        let process = Process::sleeping();
        let request = request(&format!("t-latency-{n}"), &process);
        let began = Instant::now();
        systemd.start(&request).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    println!("a scope, from the call until its control group is known: median {:?}, best {:?}", took[10], took[0]);
}

#[tokio::test]
async fn a_name_in_use_is_refused_and_its_owner_lives_on() {
    let Some(systemd) = systemd().await else { return };
    let (first, second) = (Process::sleeping(), Process::sleeping());
    let scope = systemd.start(&request("t-twice", &first)).await.unwrap();
    let error = systemd.start(&request("t-twice", &second)).await.unwrap_err();
    assert!(matches!(error, SystemdError::UnitExists(_)), "{error}");
    assert_eq!(systemd.find(&scope.unit).await.unwrap(), Some(scope));
}

#[tokio::test]
async fn a_process_that_has_ended_cannot_be_started_around() {
    let Some(systemd) = systemd().await else { return };
    let process = Process::sleeping();
    let request = request("t-gone", &process);
    drop(process);
    let error = systemd.start(&request).await.unwrap_err();
    assert!(matches!(error, SystemdError::ProcessGone { .. }), "{error}");
    assert_eq!(systemd.find(&request.unit).await.unwrap(), None);
}

#[tokio::test]
async fn a_property_that_this_systemd_refuses_is_an_error_with_its_name() {
    let Some(systemd) = systemd().await else { return };
    let process = Process::sleeping();
    let limits = Limits { cpu_usec_per_sec: Some(0), ..Limits::default() };
    let error = systemd.start(&ScopeRequest { limits, ..request("t-refused", &process) }).await.unwrap_err();
    assert!(matches!(error, SystemdError::Refused { .. }) && error.to_string().contains("CPUQuota"), "{error}");
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let Some(systemd) = systemd().await else { return };
    let process = Process::sleeping();
    let limits = Limits { memory: Some(Bytes(64 << 20)), ..Limits::default() };
    let scope = systemd.start(&ScopeRequest { limits, ..request("t-limits", &process) }).await.unwrap();
    assert_eq!(cgroup_file(&scope, "memory.max"), "67108864");
    assert_eq!(cgroup_file(&scope, "pids.max"), "max", "none asked for, none set");
    let limits = Limits { pids: Some(9), ..Limits::default() };
    systemd.set_limits(&scope.unit, &limits).await.unwrap();
    assert_eq!(cgroup_file(&scope, "memory.max"), "max");
    assert_eq!(cgroup_file(&scope, "pids.max"), "9");
}

#[tokio::test]
async fn our_slice_lives_through_the_first_instant_of_a_shutdown_and_others_do_not() {
    let Some(systemd) = systemd().await else { return };
    assert_eq!(systemd.slice_stopped_at_shutdown("holm.slice").await.unwrap(), None);
    assert_eq!(systemd.slice_stopped_at_shutdown("system.slice").await.unwrap(), None);
    let found = systemd.slice_stopped_at_shutdown("machine.slice").await.unwrap();
    assert_eq!(found.as_deref(), Some("machine.slice"));
    assert_eq!(systemd.system_end().await.unwrap(), None);
}

#[tokio::test]
async fn lines_in_the_journal_belong_to_the_scope_of_their_writer() {
    let Some(systemd) = systemd().await else { return };
    // A name of its own each time: the journal is kept.
    let name = &format!("t-journal-{}", std::process::id());
    let unit = format!("holm-{name}.scope");
    let output = stream("t-journal", &unit, Priority::Info).unwrap();
    let errors = stream("t-journal", &unit, Priority::Error).unwrap();
    // It waits for a line, as a payload waits for its scope.
    let mut child = Command::new("sh")
        .args(["-c", "read go; echo out; echo err >&2; echo '<4>prefixed'; (echo from a child)"])
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .unwrap();
    let scope = systemd.start(&ScopeRequest { pid: child.id(), ..request_of(name) }).await.unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child.wait().unwrap();
    let expected = ["3 err", "4 prefixed", "6 from a child", "6 out"];
    eventually(async || journal_of(&scope).len() >= expected.len()).await;
    assert_eq!(journal_of(&scope), expected);
}

#[tokio::test]
async fn a_container_is_a_machine_also_after_machined_was_restarted() {
    let Some(systemd) = systemd().await else { return };
    let name = ContainerName::parse("t-machine").unwrap();
    let connection = zbus::Connection::system().await.unwrap();
    let machined = Machined::connect(&connection).await.unwrap();
    let process = Process::sleeping();
    let request = request(name.as_str(), &process);
    assert_eq!(request.unit, scope_name(&name));
    systemd.start(&request).await.unwrap();
    let machine = Machine { name: name.clone(), id: [7; 16], leader: process.0.id(), interfaces: Vec::new() };
    let began = Instant::now();
    machined.register(machine.clone()).await.unwrap();
    println!("registered with machined in {:?}", began.elapsed());
    machined.register(machine).await.expect("a second time is fine");
    let show = || machine_property(&name, "Unit");
    assert_eq!(show(), request.unit);
    assert_eq!(machine_property(&name, "Service"), "holm");

    assert!(systemctl(&["restart", "systemd-machined.service"]).0);
    eventually(async || show() == request.unit).await;
    // And when it has forgotten everything.
    assert!(systemctl(&["stop", "systemd-machined.service"]).0);
    let _ = fs::remove_dir_all("/run/systemd/machines");
    assert!(systemctl(&["start", "systemd-machined.service"]).0);
    eventually(async || show() == request.unit).await;

    machined.unregister(&name).await;
    eventually(async || show().is_empty()).await;
    assert!(systemd.find(&request.unit).await.unwrap().is_some(), "the container lives on");
}

#[tokio::test]
async fn the_next_run_of_a_container_is_a_machine_at_once() {
    let Some(systemd) = systemd().await else { return };
    let name = ContainerName::parse("t-again").unwrap();
    let connection = zbus::Connection::system().await.unwrap();
    let machined = Machined::connect(&connection).await.unwrap();
    for _ in 0..5 {
        let process = Process::sleeping();
        let request = request(name.as_str(), &process);
        eventually(async || systemd.find(&request.unit).await.unwrap().is_none()).await;
        systemd.start(&request).await.unwrap();
        let leader = process.0.id();
        let machine = Machine { name: name.clone(), id: [8; 16], leader, interfaces: Vec::new() };
        machined.register(machine).await.unwrap();
        assert_eq!(machine_property(&name, "Leader"), leader.to_string());
    }
}

/// A process to start scopes around; killed and reaped when dropped.
struct Process(Child);

impl Process {
    fn sleeping() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The manager, where there is one to test with.
async fn systemd() -> Option<Arc<Systemd>> {
    if !Path::new("/run/systemd/system").exists() || !rustix::process::geteuid().is_root() {
        println!("skipped: needs systemd as PID 1, and root");
        return None;
    }
    let connection = zbus::Connection::system().await.unwrap();
    Some(Systemd::connect(&connection).await.unwrap())
}

fn request(name: &str, process: &Process) -> ScopeRequest {
    ScopeRequest { pid: process.0.id(), ..request_of(name) }
}

fn request_of(name: &str) -> ScopeRequest {
    ScopeRequest {
        unit: format!("holm-{name}.scope"),
        description: format!("Container {name}"),
        pid: 0,
        slice: "holm.slice".to_owned(),
        limits: Limits::default(),
        timeout_stop_usec: 15_000_000,
        wanted_by: None,
        log: Default::default(),
        survive_soft_reboot: false,
    }
}

fn show(unit: impl AsUnit, property: &str) -> String {
    let value = systemctl(&["show", "--value", "-p", property, unit.as_unit()]).1;
    let mut words: Vec<_> = value.split_whitespace().collect();
    words.sort_unstable();
    words.join(" ")
}

trait AsUnit {
    fn as_unit(&self) -> &str;
}

impl AsUnit for &Scope {
    fn as_unit(&self) -> &str {
        &self.unit
    }
}

impl AsUnit for &str {
    fn as_unit(&self) -> &str {
        self
    }
}

fn systemctl(arguments: &[&str]) -> (bool, String) {
    output_of(Command::new("systemctl").args(arguments))
}

fn machine_property(name: &ContainerName, property: &str) -> String {
    output_of(Command::new("machinectl").args(["show", "--value", "-p", property, name.as_str()])).1
}

fn cgroup_file(scope: &Scope, file: &str) -> String {
    let path = Path::new("/sys/fs/cgroup").join(scope.control_group.strip_prefix("/").unwrap()).join(file);
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Priority and text of what the scope's processes wrote, sorted.
fn journal_of(scope: &Scope) -> Vec<String> {
    let unit = format!("_SYSTEMD_UNIT={}", scope.unit);
    // Not by invocation id: journald looks that up when it reads a line, and by then a short scope may be over.
    let fields = "--output-fields=PRIORITY,MESSAGE";
    let text = output_of(Command::new("journalctl").args(["-b", "-q", "-o", "json", fields, &unit])).1;
    let entries = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let field = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or("?").to_owned();
    let mut lines: Vec<_> =
        entries.map(|entry| format!("{} {}", field(&entry, "PRIORITY"), field(&entry, "MESSAGE"))).collect();
    lines.sort();
    lines
}

fn output_of(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits for what comes by itself and tells nobody, 10 s at most.
async fn eventually(condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "it did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
