use std::collections::BTreeSet;

use super::*;
use crate::model::{Capabilities, ContainerId, ContainerName, NetworkMode, Process, StopPolicy};
use crate::runtime::{ExecFds, ExecPlan, LaunchFds, LaunchPlan};
use crate::sys::memfd;

fn plan(environment: Vec<String>) -> LaunchPlan {
    LaunchPlan {
        name: ContainerName::parse("web").unwrap(),
        id: ContainerId::from_random([1; 16]),
        run: 9,
        hostname: "web".to_owned(),
        process: Process {
            command: vec!["sh".to_owned()],
            environment,
            working_directory: None,
            user: None,
            terminal: false,
            init: false,
            capabilities: Capabilities::default(),
            no_new_privileges: true,
        },
        boot: false,
        network: NetworkMode::None,
        read_only: false,
        mounts: Vec::new(),
        stop: StopPolicy::default(),
        survive_soft_reboot: false,
        terminal_size: None,
        stop_with_caller: false,
        fd_names: vec![],
        credentials: vec![],
        notify: false,
        notify_caller: false,
    }
}

/// A descriptor that can be told from others.
fn file(name: &str) -> OwnedFd {
    memfd::sealed(name, &mut name.as_bytes()).unwrap()
}

fn name_of(fd: OwnedFd) -> String {
    String::from_utf8(memfd::read_sealed(fd, 100).unwrap()).unwrap()
}

fn fds() -> LaunchFds {
    LaunchFds {
        root: file("root"),
        cgroup: file("cgroup"),
        record_dir: file("records"),
        stdio: [None, Some(file("out")), None],
        client: Some(file("client")),
        passed: vec![],
        credentials: vec![],
        notified: None,
    }
}

fn ends() -> (DaemonEnd, MonitorEnd) {
    let (ours, theirs) = socket::packet_pair().unwrap();
    (DaemonEnd::new(ours), MonitorEnd::new(theirs))
}

#[test]
fn an_order_arrives_as_it_was_with_each_descriptor_in_its_place() {
    for environment in [vec![], vec!["A=".to_owned() + &"x".repeat(100_000)]] {
        let (daemon, monitor) = ends();
        let sent = plan(environment);
        daemon.launch(&sent, &fds()).unwrap();
        let Order::Launch(received, fds) = monitor.order().unwrap() else { panic!("an exec") };
        assert_eq!(*received, sent);
        assert_eq!(name_of(fds.root), "root");
        assert_eq!(name_of(fds.cgroup), "cgroup");
        assert_eq!(name_of(fds.record_dir), "records");
        assert_eq!(fds.stdio.map(|fd| fd.map(name_of)), [None, Some("out".to_owned()), None]);
        assert_eq!(fds.client.map(name_of).as_deref(), Some("client"));
    }
}

#[test]
fn an_exec_order_arrives_too() {
    let (daemon, monitor) = ends();
    let sent =
        ExecPlan { process: plan(vec![]).process, cgroup_name: "exec-1".to_owned(), terminal_size: Some((1, 2)) };
    let fds =
        ExecFds { leader: file("leader"), cgroup: file("cgroup"), stdio: [Some(file("in")), None, None], client: None };
    daemon.exec(&sent, &fds).unwrap();
    let Order::Exec(received, fds) = monitor.order().unwrap() else { panic!("a launch") };
    assert_eq!(*received, sent);
    assert_eq!(name_of(fds.leader), "leader");
    assert_eq!(fds.stdio.map(|fd| fd.map(name_of)), [Some("in".to_owned()), None, None]);
}

#[test]
fn an_order_has_bounds() {
    let (daemon, _monitor) = ends();
    let huge = plan(vec!["x".repeat(1 << 20)]);
    assert!(matches!(daemon.launch(&huge, &fds()), Err(WireError::TooLong(_))));
}

#[test]
fn an_order_that_lies_about_its_descriptors_is_refused() {
    let lies = [
        (r#"{"roles":["Root"],"task":null}"#, 0),
        (r#"{"roles":[],"task":null}"#, 1),
        (r#"{"roles":["Order"],"task":null}"#, 1),
        ("{", 0),
        (r#"{"roles":["Nonsense"],"task":null}"#, 1),
    ];
    for (text, count) in lies {
        let (ours, theirs) = socket::packet_pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds: Vec<_> = std::iter::repeat_n(null.as_fd(), count).collect();
        socket::send(ours.as_fd(), text.as_bytes(), &fds).unwrap();
        assert!(MonitorEnd::new(theirs).order().is_err(), "{text}");
    }
}

#[test]
fn a_daemon_that_goes_away_closes() {
    let (daemon, monitor) = ends();
    drop(daemon);
    assert!(matches!(monitor.order(), Err(WireError::Closed)));
}

#[test]
fn reports_come_back_with_pidfd_and_terminal() {
    let (daemon, monitor) = ends();
    let steps = vec![("Clone".to_owned(), 7)];
    monitor.started(12, file("pidfd").as_fd(), Some(&file("master")), steps.clone()).unwrap();
    let (report, fds) = daemon.report().unwrap();
    assert_eq!(report, Report::Started { leader: 12, steps });
    assert_eq!(fds.into_iter().map(name_of).collect::<Vec<_>>(), ["pidfd", "master"]);
    assert!(matches!(daemon.report_now(), Err(WireError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock));
    monitor.ended(Exit::Code(3), 1).unwrap();
    assert_eq!(daemon.report_now().unwrap().0, Report::Ended { exit: Exit::Code(3), oom_kills: 1 });
}

#[test]
fn each_failure_becomes_the_error_of_its_name() {
    let step = StepError { step: "MountProc".to_owned(), errno: 1, message: "no".to_owned() };
    let failures = [
        Failure::CommandNotFound("x".to_owned()),
        Failure::CommandNotExecutable { command: "x".to_owned(), reason: "y".to_owned() },
        Failure::NoSuchUser("x".to_owned()),
        Failure::Step(step),
    ];
    let codes: BTreeSet<_> = failures
        .into_iter()
        .map(|failure| {
            let (daemon, monitor) = ends();
            monitor.failed(failure.clone()).unwrap();
            assert_eq!(daemon.report().unwrap().0, Report::Failed(failure.clone()));
            LaunchError::from(failure).code().as_str()
        })
        .collect();
    assert_eq!(
        codes.into_iter().collect::<Vec<_>>(),
        ["CommandNotExecutable", "CommandNotFound", "NoSuchUser", "StartFailed"]
    );
}

fn init_ends() -> (InitEnd, InitSide) {
    let (ours, theirs) = socket::packet_pair().unwrap();
    (InitEnd::new(ours), InitSide::new(theirs))
}

#[test]
fn init_is_executed_when_it_was_ready_and_its_end_closes() {
    let (init, monitor) = init_ends();
    init.ready(vec![("User".to_owned(), 1)], Some(&file("master"))).unwrap();
    drop(init);
    let executed = monitor.outcome().unwrap().unwrap();
    assert_eq!(executed.steps, [("User".to_owned(), 1)]);
    assert_eq!(name_of(executed.terminal.unwrap()), "master");
}

#[test]
fn init_that_fails_before_or_at_the_exec_has_failed() {
    let failure = Failure::CommandNotFound("x".to_owned());
    let (init, monitor) = init_ends();
    init.failed(failure.clone()).unwrap();
    assert_eq!(monitor.outcome().unwrap().unwrap_err(), failure);
    let (init, monitor) = init_ends();
    init.ready(Timings::new(), None).unwrap();
    init.failed(failure.clone()).unwrap();
    assert_eq!(monitor.outcome().unwrap().unwrap_err(), failure);
}

#[test]
fn init_that_dies_without_a_word_is_no_success() {
    let (init, monitor) = init_ends();
    drop(init);
    assert!(matches!(monitor.outcome(), Err(WireError::Closed)));
}

#[test]
fn init_learns_that_its_monitor_is_gone() {
    let (init, monitor) = init_ends();
    drop(monitor);
    assert!(init.ready(Timings::new(), None).is_err());
}

#[test]
fn a_caller_that_does_not_read_holds_nobody_up() {
    let (ours, _theirs) = socket::packet_pair().unwrap();
    let client = ClientEnd::new(Some(ours));
    // Far more than a socket's buffer takes.
    for _ in 0..10_000 {
        client.exited(Exit::Code(0), 0);
    }
}
