//! Tests of our policy against a systemd that we play ourselves, on a bus of our own. What the real one does is tested
//! in the test host.

use std::sync::atomic::{AtomicUsize, Ordering};

use zbus::object_server::SignalEmitter;
use zbus::{OwnedVariant, interface};

use super::super::bus::ListedUnit;
use super::*;
use crate::model::Bytes;
use crate::testbus::{Refusal, TestBus};

#[tokio::test]
async fn a_start_waits_for_its_job_and_says_where_the_scope_is() {
    let Some(host) = Host::start(Script::default()).await else { return };
    let scope = host.systemd.start(&request("holm-web.scope")).await.unwrap();
    assert_eq!(scope.unit, "holm-web.scope");
    assert_eq!(scope.control_group, own_control_group());
    assert_eq!(host.log(), ["start holm-web.scope"]);
}

#[tokio::test]
async fn the_end_of_a_job_may_come_before_the_reply_that_names_it() {
    let Some(host) = Host::start(Script { end: End::BeforeTheReply, ..Script::default() }).await else { return };
    host.systemd.start(&request("holm-web.scope")).await.unwrap();
}

#[tokio::test]
async fn the_end_of_another_job_of_the_unit_is_not_ours() {
    let Some(host) = Host::start(Script { other_job_first: true, ..Script::default() }).await else { return };
    host.systemd.start(&request("holm-web.scope")).await.unwrap();
}

#[tokio::test]
async fn a_signal_from_somebody_else_ends_no_job() {
    let script = Script { end: End::Never, ..Script::default() };
    let Some(host) = Host::with_limit(script, Duration::from_millis(300)).await else { return };
    let impostor = host.bus.connect().await;
    let systemd = Arc::clone(&host.systemd);
    let start = tokio::spawn(async move { systemd.start(&request("holm-web.scope")).await });
    while host.log().is_empty() {
        tokio::task::yield_now().await;
    }
    let receiver = host.connection.unique_name().unwrap().clone();
    let body = (1u32, OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/1").unwrap(), "holm-web.scope", "done");
    for destination in [Some(receiver.as_str()), None] {
        impostor
            .emit_signal(destination, MANAGER, "org.freedesktop.systemd1.Manager", "JobRemoved", &body)
            .await
            .unwrap();
    }
    let error = start.await.unwrap().unwrap_err();
    assert!(matches!(error, SystemdError::JobTimeout { .. }), "{error}");
}

#[tokio::test]
async fn fifty_starts_at_once_all_end_and_never_more_than_sixteen_are_asked_for() {
    let script = Script { end: End::AfterTheReply(Duration::from_millis(5)), ..Script::default() };
    let Some(host) = Host::start(script).await else { return };
    let starts = (0..50).map(|n| {
        let systemd = Arc::clone(&host.systemd);
        tokio::spawn(async move { systemd.start(&request(&format!("holm-{n}.scope"))).await })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    assert_eq!(host.fake.most_at_once.load(Ordering::SeqCst), STARTS_IN_FLIGHT as usize);
}

#[tokio::test]
async fn a_wish_that_systemd_does_not_know_is_left_out_and_remembered() {
    let Some(host) = Host::start(Script { unknown: &["OOMPolicy", "CollectMode"], ..Script::default() }).await else {
        return;
    };
    host.systemd.start(&request("holm-a.scope")).await.unwrap();
    host.systemd.start(&request("holm-b.scope")).await.unwrap();
    let log = host.log();
    assert_eq!(log.iter().filter(|call| *call == "start holm-a.scope").count(), 3, "{log:?}");
    assert_eq!(log.iter().filter(|call| *call == "start holm-b.scope").count(), 1, "{log:?}");
}

#[tokio::test]
async fn what_the_container_needs_is_never_left_out() {
    let Some(host) = Host::start(Script { unknown: &["MemoryMax"], ..Script::default() }).await else { return };
    let limits = Limits { memory: Some(Bytes(1 << 30)), ..Limits::default() };
    let error = host.systemd.start(&ScopeRequest { limits, ..request("holm-a.scope") }).await.unwrap_err();
    assert!(matches!(error, SystemdError::Refused { op: "start", .. }), "{error}");
    assert!(error.to_string().contains("MemoryMax"), "{error}");
    assert_eq!(host.log(), ["start holm-a.scope"], "nothing was started, so nothing is stopped");
}

#[tokio::test]
async fn what_an_earlier_failure_left_is_cleared_once() {
    let Some(host) = Host::start(Script { existing: Existing::Failed, ..Script::default() }).await else { return };
    host.systemd.start(&request("holm-a.scope")).await.unwrap();
    assert_eq!(host.log(), ["start holm-a.scope", "reset holm-a.scope", "start holm-a.scope"]);
}

#[tokio::test]
async fn a_unit_that_runs_is_left_alone() {
    let Some(host) = Host::start(Script { existing: Existing::Running, ..Script::default() }).await else { return };
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(&error, SystemdError::UnitExists(unit) if unit == "holm-a.scope"), "{error}");
    assert_eq!(host.log(), ["start holm-a.scope", "reset holm-a.scope", "start holm-a.scope"]);
}

#[tokio::test]
async fn a_scope_that_is_about_to_go_is_waited_for() {
    let script = Script { existing: Existing::Leaving, control_group: Some("/no.slice/of.scope"), ..Script::default() };
    let Some(host) = Host::start(script).await else { return };
    // The played scope stays where it is, so the new one is not where its process is; it was queued, which is the point.
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(error, SystemdError::WrongControlGroup { .. }), "{error}");
    let calls = ["start", "reset", "start", "stop", "start"].map(|call| format!("{call} holm-a.scope"));
    assert_eq!(host.log()[..5], calls);
}

#[tokio::test]
async fn a_scope_that_nobody_is_in_is_cleared_away_and_no_other() {
    let Some(host) = Host::start(Script { control_group: Some("/no.slice/of.scope"), ..Script::default() }).await
    else {
        return;
    };
    assert_eq!(host.systemd.clear_empty().await.unwrap(), 2);
    assert_eq!(host.log(), ["stop holm-a.scope", "stop holm-b.scope"]);
    let Some(host) = Host::start(Script::default()).await else { return };
    assert_eq!(host.systemd.clear_empty().await.unwrap(), 0);
    assert!(host.log().is_empty());
}

#[tokio::test]
async fn a_start_whose_job_fails_is_taken_back() {
    let Some(host) = Host::start(Script { result: "failed", ..Script::default() }).await else { return };
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(&error, SystemdError::JobFailed { result, .. } if result == "failed"), "{error}");
    assert_eq!(host.log(), ["start holm-a.scope", "stop holm-a.scope", "reset holm-a.scope"]);
}

#[tokio::test]
async fn a_start_whose_job_never_ends_is_taken_back_in_time() {
    let script = Script { end: End::Never, ..Script::default() };
    let Some(host) = Host::with_limit(script, Duration::from_millis(50)).await else { return };
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(error, SystemdError::JobTimeout { .. }), "{error}");
    assert_eq!(error.code(), crate::model::ErrorCode::Timeout);
    assert_eq!(host.log(), ["start holm-a.scope", "stop holm-a.scope", "reset holm-a.scope"]);
}

#[tokio::test]
async fn a_scope_without_its_process_is_an_error() {
    let script = Script { control_group: Some("/holm.slice/elsewhere.scope"), ..Script::default() };
    let Some(host) = Host::start(script).await else { return };
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(&error, SystemdError::WrongControlGroup { found, .. } if found.ends_with("elsewhere.scope")));
    assert_eq!(host.log(), ["start holm-a.scope", "stop holm-a.scope", "reset holm-a.scope"]);
}

#[tokio::test]
async fn an_end_of_userspace_alone_is_told_from_one_of_the_machine() {
    let script = Script { state: "stopping", soft_reboot_job: 7, ..Script::default() };
    let Some(host) = Host::start(script).await else { return };
    assert_eq!(host.systemd.system_end().await.unwrap(), Some(SystemEnd::Userspace));
    let Some(host) = Host::start(Script { soft_reboot_job: 7, ..Script::default() }).await else { return };
    assert_eq!(host.systemd.system_end().await.unwrap(), None);
}

#[tokio::test]
async fn a_start_during_a_shutdown_is_named_so() {
    let script = Script { refusal: Some(TRANSACTION_IS_DESTRUCTIVE), state: "stopping", ..Script::default() };
    let Some(host) = Host::start(script).await else { return };
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(error, SystemdError::ShuttingDown), "{error}");
    assert_eq!(host.systemd.system_end().await.unwrap(), Some(SystemEnd::Machine));
}

#[tokio::test]
async fn a_process_that_has_ended_is_named_so() {
    let script = Script { refusal: Some("org.freedesktop.DBus.Error.UnixProcessIdUnknown"), ..Script::default() };
    let Some(host) = Host::start(script).await else { return };
    let error = host.systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(error, SystemdError::ProcessGone { .. }), "{error}");
}

#[tokio::test]
async fn a_scope_is_found_while_it_has_processes() {
    let Some(host) = Host::start(Script::default()).await else { return };
    assert_eq!(host.systemd.find("holm-a.scope").await.unwrap().unwrap().control_group, own_control_group());
    assert_eq!(host.systemd.find("holm-missing.scope").await.unwrap(), None);
    let Some(host) = Host::start(Script { active_state: "failed", ..Script::default() }).await else { return };
    assert_eq!(host.systemd.find("holm-a.scope").await.unwrap(), None);
}

#[tokio::test]
async fn limits_are_changed_until_the_next_boot_only() {
    let Some(host) = Host::start(Script::default()).await else { return };
    host.systemd.set_limits("holm-a.scope", &Limits { pids: Some(5), ..Limits::default() }).await.unwrap();
    let names = "MemoryMax CPUQuotaPerSecUSec TasksMax MemoryHigh MemorySwapMax CPUWeight AllowedCPUs IOWeight \
                 IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax";
    assert_eq!(host.log(), [format!("set holm-a.scope runtime=true {names}")]);
}

#[tokio::test]
async fn a_slice_that_ends_early_at_shutdown_is_found_among_the_parents() {
    let Some(host) = Host::start(Script { conflicting: "own.slice", ..Script::default() }).await else { return };
    let found = host.systemd.slice_stopped_at_shutdown("own-sub-x.slice").await.unwrap();
    assert_eq!(found.as_deref(), Some("own.slice"));
    assert_eq!(host.systemd.slice_stopped_at_shutdown("holm.slice").await.unwrap(), None);
}

#[tokio::test]
async fn without_systemd_it_is_unreachable() {
    let Some(bus) = TestBus::start() else { return };
    let connection = bus.connect().await;
    let systemd = Systemd::connect(&connection).await.unwrap();
    let error = systemd.start(&request("holm-a.scope")).await.unwrap_err();
    assert!(matches!(error, SystemdError::Unreachable(_)), "{error}");
}

#[test]
fn a_scope_is_named_as_people_type_it() {
    assert_eq!(scope_name(&ContainerName::parse("web-1.a_b").unwrap()), "holm-web-1.a_b.scope");
}

#[test]
fn a_process_is_within_its_control_group_or_below_it() {
    let group = Path::new("/holm.slice/holm-a.scope");
    assert!(is_within("0::/holm.slice/holm-a.scope\n", group));
    assert!(is_within("0::/holm.slice/holm-a.scope/supervisor\n", group));
    assert!(is_within("9:cpu:/\n1:name=systemd:/holm.slice/holm-a.scope\n0::/\n", group));
    assert!(!is_within("0::/holm.slice/holm-a.scope2\n", group));
    assert!(!is_within("0::/system.slice/holmd.service\n", group));
    assert!(!is_within("0::/holm.slice/holm-a.scope\n", Path::new("")), "a unit that is gone has none");
}

#[test]
fn a_slice_is_in_its_parents() {
    assert_eq!(with_parents("a-b-c.slice"), ["a-b-c.slice", "a-b.slice", "a.slice"]);
    assert_eq!(with_parents("holm.slice"), ["holm.slice"]);
    assert_eq!(with_parents("-.slice"), ["-.slice"]);
}

/// How the played systemd behaves.
#[derive(Debug, Clone)]
struct Script {
    end: End,
    result: &'static str,
    other_job_first: bool,
    unknown: &'static [&'static str],
    existing: Existing,
    refusal: Option<&'static str>,
    state: &'static str,
    active_state: &'static str,
    control_group: Option<&'static str>,
    conflicting: &'static str,
    soft_reboot_job: u32,
}

#[derive(Debug, Clone, Copy)]
enum End {
    BeforeTheReply,
    AfterTheReply(Duration),
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Existing {
    Nothing,
    Failed,
    Running,
    Leaving,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            end: End::AfterTheReply(Duration::ZERO),
            result: "done",
            other_job_first: false,
            unknown: &[],
            existing: Existing::Nothing,
            refusal: None,
            state: "running",
            active_state: "active",
            control_group: None,
            conflicting: "",
            soft_reboot_job: 0,
        }
    }
}

/// What the played systemd was asked.
#[derive(Debug, Default)]
struct Fake {
    log: Mutex<Vec<String>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Fake {
    fn note(&self, call: impl Into<String>) {
        self.log.lock().unwrap().push(call.into());
    }
}

struct Host {
    bus: TestBus,
    connection: zbus::Connection,
    systemd: Arc<Systemd>,
    fake: Arc<Fake>,
    _server: zbus::Connection,
}

impl Host {
    async fn start(script: Script) -> Option<Self> {
        Self::with_limit(script, JOB_LIMIT).await
    }

    async fn with_limit(script: Script, limit: Duration) -> Option<Self> {
        let bus = TestBus::start()?;
        let fake = Arc::new(Fake::default());
        let manager = FakeManager { script: script.clone(), fake: Arc::clone(&fake), next_job: AtomicUsize::new(1) };
        let server = bus.builder().serve_at(MANAGER, manager).name(SYSTEMD).build().await.unwrap();
        for unit in ["holm-web.scope", "holm-a.scope", "holm-b.scope"] {
            serve_unit(&server, unit, &script).await;
        }
        for n in 0..50 {
            serve_unit(&server, &format!("holm-{n}.scope"), &script).await;
        }
        for slice in ["own-sub-x.slice", "own-sub.slice", "own.slice", "holm.slice", SOFT_REBOOT] {
            serve_unit(&server, slice, &script).await;
        }
        let connection = bus.connect().await;
        let systemd = Systemd::with_job_limit(&connection, limit).await.unwrap();
        Some(Self { bus, connection, systemd, fake, _server: server })
    }

    fn log(&self) -> Vec<String> {
        self.fake.log.lock().unwrap().clone()
    }
}

async fn serve_unit(server: &zbus::Connection, unit: &str, script: &Script) {
    let path = unit_path(unit);
    let conflicts = if unit == script.conflicting { vec![SHUTDOWN_TARGET.to_owned()] } else { Vec::new() };
    let control_group = script.control_group.map_or_else(|| own_control_group().display().to_string(), str::to_owned);
    let objects = server.object_server();
    let job = script.soft_reboot_job;
    objects.at(path.as_str(), FakeUnit { active_state: script.active_state, conflicts, job }).await.unwrap();
    objects.at(path.as_str(), FakeScope { control_group }).await.unwrap();
}

struct FakeManager {
    script: Script,
    fake: Arc<Fake>,
    next_job: AtomicUsize,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    async fn start_transient_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedVariant)>,
        _auxiliary: Vec<(String, Vec<(String, OwnedVariant)>)>,
    ) -> Result<OwnedObjectPath, Refusal> {
        assert_eq!(mode, "fail");
        self.fake.note(format!("start {name}"));
        self.refuse(&name, &properties)?;
        let now = self.fake.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.fake.most_at_once.fetch_max(now, Ordering::SeqCst);
        let job = job_path(self.next_job.fetch_add(1, Ordering::SeqCst));
        if self.script.other_job_first {
            Self::job_removed(&emitter, 0, job_path(999), name.clone(), "canceled".into()).await.unwrap();
        }
        let end = End::clone(&self.script.end);
        let emitter = emitter.to_owned();
        let (fake, result, path) = (Arc::clone(&self.fake), self.script.result.to_owned(), job.clone());
        let removed = async move {
            fake.at_once.fetch_sub(1, Ordering::SeqCst);
            Self::job_removed(&emitter, 1, path, name, result).await.unwrap();
        };
        match end {
            End::BeforeTheReply => removed.await,
            End::AfterTheReply(delay) => drop(tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                removed.await;
            })),
            End::Never => {}
        }
        Ok(job)
    }

    async fn stop_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        mode: String,
    ) -> OwnedObjectPath {
        assert_eq!(mode, "replace");
        self.fake.note(format!("stop {name}"));
        Self::job_removed(&emitter, 2, job_path(998), name, "done".into()).await.unwrap();
        job_path(998)
    }

    fn reset_failed_unit(&self, name: String) {
        self.fake.note(format!("reset {name}"));
    }

    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<ListedUnit> {
        assert_eq!((states, patterns), (vec!["active".to_owned()], vec![SCOPES.to_owned()]));
        let none = String::new;
        ["holm-a.scope", "holm-b.scope"]
            .map(|unit| {
                let path = OwnedObjectPath::try_from(unit_path(unit)).unwrap();
                (unit.to_owned(), none(), none(), none(), none(), none(), path, 0, none(), job_path(0))
            })
            .into()
    }

    fn get_unit(&self, name: String) -> Result<OwnedObjectPath, Refusal> {
        if name.contains("missing") {
            return Err(Refusal { name: NO_SUCH_UNIT, text: format!("Unit {name} not loaded.") });
        }
        Ok(OwnedObjectPath::try_from(unit_path(&name)).unwrap())
    }

    fn load_unit(&self, name: String) -> OwnedObjectPath {
        OwnedObjectPath::try_from(unit_path(&name)).unwrap()
    }

    fn set_unit_properties(&self, name: String, runtime: bool, properties: Vec<(String, OwnedVariant)>) {
        let names: Vec<_> = properties.into_iter().map(|(name, _)| name).collect();
        self.fake.note(format!("set {name} runtime={runtime} {}", names.join(" ")));
    }

    #[zbus(property)]
    fn system_state(&self) -> String {
        self.script.state.to_owned()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

impl FakeManager {
    fn refuse(&self, unit: &str, properties: &[(String, OwnedVariant)]) -> Result<(), Refusal> {
        if let Some(name) = self.script.refusal {
            return Err(Refusal { name, text: "refused".into() });
        }
        if let Some((name, _)) = properties.iter().find(|(name, _)| self.script.unknown.contains(&name.as_str())) {
            let text = format!("Cannot set property {name}, or unknown property.");
            return Err(Refusal { name: "org.freedesktop.DBus.Error.PropertyReadOnly", text });
        }
        let was_reset = self.fake.log.lock().unwrap().contains(&format!("reset {unit}"));
        let exists = match self.script.existing {
            Existing::Nothing => false,
            Existing::Failed => !was_reset,
            Existing::Running => true,
            Existing::Leaving => !self.fake.log.lock().unwrap().contains(&format!("stop {unit}")),
        };
        if exists { Err(Refusal { name: UNIT_EXISTS, text: format!("Unit {unit} already exists.") }) } else { Ok(()) }
    }
}

struct FakeUnit {
    active_state: &'static str,
    conflicts: Vec<String>,
    job: u32,
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl FakeUnit {
    #[zbus(property)]
    fn job(&self) -> (u32, OwnedObjectPath) {
        (self.job, job_path(0))
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.active_state.to_owned()
    }

    #[zbus(property)]
    fn conflicts(&self) -> Vec<String> {
        self.conflicts.clone()
    }
}

struct FakeScope {
    control_group: String,
}

#[interface(name = "org.freedesktop.systemd1.Scope")]
impl FakeScope {
    #[zbus(property)]
    fn control_group(&self) -> String {
        self.control_group.clone()
    }
}

fn request(unit: &str) -> ScopeRequest {
    ScopeRequest {
        unit: unit.to_owned(),
        description: "Container".to_owned(),
        pid: std::process::id(),
        slice: "holm.slice".to_owned(),
        limits: Limits::default(),
        timeout_stop_usec: 15_000_000,
        wanted_by: None,
        log: Default::default(),
        survive_soft_reboot: false,
    }
}

/// Where this test is: the played scope is there too.
fn own_control_group() -> PathBuf {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let unified = membership.lines().find_map(|line| line.strip_prefix("0::"));
    PathBuf::from(unified.expect("this kernel has the unified hierarchy"))
}

fn job_path(number: usize) -> OwnedObjectPath {
    OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap()
}

const MANAGER: &str = "/org/freedesktop/systemd1";
