//! What happens when everything works.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::host::{Host, PATIENCE, Verbs, end_of, name, request};
use crate::engine::{
    CreateRequest, EngineError, Event, ExecRequest, JobResult, RemoveOptions, RunIo, StopOptions, Who,
};
use crate::model::{ErrorCode, Exit, Lifetime, RunResult, Signal, Status};
use crate::systemd::SystemEnd;

#[tokio::test]
async fn a_life_from_creation_to_removal_leaves_nothing() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    assert_eq!(engine.look("web").status, Status::Created);
    engine.started("web").await;
    let view = engine.look("web");
    assert_eq!((view.status, view.leader != 0), (Status::Running, true));
    assert_eq!(host.scopes.units(), ["holm-web.scope"]);
    assert_eq!(host.machines.list()[&name("web")], view.leader);
    engine.stopped("web").await;
    let view = engine.look("web");
    assert_eq!((view.status, view.result, view.leader), (Status::Stopped, RunResult::Signal, 0));
    assert_eq!(view.exit, Some(Exit::Signal { number: 15, core_dumped: false }));
    engine.removed("web").await;
    assert!(engine.containers().is_empty() && engine.jobs().is_empty());
    host.nothing_is_left().await;
}

#[tokio::test]
async fn every_end_is_told_as_it_was() {
    let host = Host::new();
    let engine = host.open();
    let cases = [
        ("exit 0", Some(Exit::Code(0)), RunResult::Success, Status::Stopped),
        ("exit 3", Some(Exit::Code(3)), RunResult::ExitCode, Status::Failed),
        ("kill -KILL $$", Some(Exit::Signal { number: 9, core_dumped: false }), RunResult::Signal, Status::Failed),
    ];
    for (shell, exit, result, status) in cases {
        engine.create(request("web", shell)).await.unwrap();
        engine.started("web").await;
        let view = engine.reaches("web", status).await;
        assert_eq!((view.exit, view.result), (exit, result), "{shell}");
        engine.removed("web").await;
    }
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_rest_is_never_shown_without_how_it_came_to_that() {
    let host = Host::new();
    let engine = host.open();
    let mut events = engine.subscribe();
    engine.create(request("web", "exit 7")).await.unwrap();
    engine.started("web").await;
    engine.reaches("web", Status::Failed).await;
    engine.removed("web").await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            Event::ContainerChanged(view) => {
                let rests = !view.status.is_active();
                assert!(!rests || view.exit == Some(Exit::Code(7)), "{:?} without its exit status", view.status);
                seen.push(view.status.as_str().to_owned());
            }
            Event::ContainerExited { status, .. } => seen.push(format!("exited {status}")),
            Event::ContainerRemoved(_) => seen.push("removed".to_owned()),
            _ => {}
        }
    }
    assert_eq!(seen, ["starting", "running", "failed", "exited 7", "removed"]);
}

const DEAF: &str = "trap '' TERM; while :; do sleep 0.02; done";

#[tokio::test]
async fn a_payload_that_ignores_the_signal_is_killed_after_its_timeout() {
    let host = Host::new();
    let engine = host.open();
    engine.create(CreateRequest { stop_timeout_usec: Some(200_000), ..request("deaf", DEAF) }).await.unwrap();
    engine.started_deaf("deaf").await;
    let start = Instant::now();
    engine.stopped("deaf").await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    let view = engine.look("deaf");
    assert_eq!((view.result, view.status), (RunResult::Timeout, Status::Failed));
    engine.removed("deaf").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_second_stop_with_less_patience_brings_the_deadline_forward() {
    let host = Host::new();
    let engine = host.open();
    engine.create(CreateRequest { stop_timeout_usec: Some(600_000_000), ..request("deaf", DEAF) }).await.unwrap();
    engine.started_deaf("deaf").await;
    let events = engine.subscribe();
    let first = engine.stop(&name("deaf"), StopOptions::default()).unwrap();
    let hasty = StopOptions { timeout_usec: Some(1000), signal: None };
    assert_eq!(engine.done(|engine| engine.stop(&name("deaf"), hasty)).await.unwrap(), JobResult::Done);
    assert_eq!(end_of(events, first).await, JobResult::Done);
    engine.removed("deaf").await;
}

#[tokio::test]
async fn a_restart_is_a_new_run() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    for _ in 0..3 {
        let before = engine.look("web").leader;
        let restarted = engine.done(|engine| engine.restart(&name("web"), StopOptions::default())).await.unwrap();
        assert_eq!(restarted, JobResult::Done);
        let view = engine.look("web");
        assert_eq!(view.status, Status::Running);
        assert_ne!(view.leader, before);
    }
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_container_of_one_run_takes_everything_along() {
    let host = Host::new();
    let engine = host.open();
    let mut events = engine.subscribe();
    let once = CreateRequest { lifetime: Lifetime::OneRun, ..request("once", "exit 4") };
    engine.run(once, RunIo::default()).await.unwrap();
    let end = async {
        let mut status = None;
        loop {
            match events.recv().await.unwrap() {
                Event::ContainerExited { status: told, .. } => status = Some(told),
                Event::ContainerRemoved(_) => return status,
                _ => {}
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.unwrap(), Some(4));
    host.nothing_is_left().await;
}

#[tokio::test]
async fn only_force_removes_what_runs() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    let refused = engine.remove(&name("web"), RemoveOptions { force: false }).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::AlreadyRunning);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn what_a_refused_start_brought_is_closed_and_never_used() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let io = RunIo { stdio: [None, Some(OwnedFd::from(writer)), None], ..RunIo::default() };
    // Both are asked before the container's task looks at the first.
    let events = engine.subscribe();
    engine.start(&name("web"), RunIo::default()).unwrap();
    let second = engine.start(&name("web"), io).unwrap();
    assert!(matches!(end_of(events, second).await, JobResult::Failed { code: ErrorCode::AlreadyRunning, .. }));
    let closed = tokio::task::spawn_blocking(move || reader.read(&mut [0; 1]).unwrap());
    assert_eq!(tokio::time::timeout(PATIENCE, closed).await.expect("the pipe is closed").unwrap(), 0);
    engine.removed("web").await;
}

#[tokio::test]
async fn a_frozen_container_can_be_stopped_but_not_entered() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    assert!(matches!(engine.freeze(&name("web")).await, Err(EngineError::NotRunning(_))));
    engine.started("web").await;
    let events = host.path("cgroup/holm.slice/holm-web.scope/payload/cgroup.events");
    std::fs::write(events, "populated 1\nfrozen 1\n").unwrap();
    engine.freeze(&name("web")).await.unwrap();
    assert_eq!(engine.look("web").status, Status::Frozen);
    let command = vec!["true".to_owned()];
    let entering = ExecRequest { command: command.clone(), ..ExecRequest::default() };
    assert_eq!(engine.exec(&name("web"), entering).await.unwrap_err().code(), ErrorCode::AlreadyRunning);
    engine.thaw(&name("web")).await.unwrap();
    let entering = ExecRequest { command, ..ExecRequest::default() };
    engine.exec(&name("web"), entering).await.unwrap();
    engine.freeze(&name("web")).await.unwrap();
    engine.stopped("web").await;
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_process_that_entered_is_signalled_while_it_lives() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    let entering = ExecRequest { command: vec!["sleep".into(), "1000".into()], ..ExecRequest::default() };
    let id = engine.exec(&name("web"), entering).await.unwrap().id;
    let mut events = engine.subscribe();
    engine.kill_process(id, Who::Leader, Signal::KILL).await.unwrap();
    let end = async {
        loop {
            if let Event::ProcessExited(process) = events.recv().await.unwrap() {
                return process.exit;
            }
        }
    };
    let exit = tokio::time::timeout(PATIENCE, end).await.unwrap();
    assert_eq!(exit, Some(Exit::Signal { number: 9, core_dumped: false }));
    assert!(engine.process(id).unwrap().ended);
    let late = engine.kill_process(id, Who::All, Signal::KILL).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::NoSuchProcess);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_removal_right_behind_a_renaming_leaves_no_name_behind() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    let (from, to) = (name("web"), name("web2"));
    let events = engine.subscribe();
    let (renamed, removal) =
        tokio::join!(engine.rename(&from, to), async { engine.remove(&from, RemoveOptions { force: false }) });
    renamed.unwrap();
    assert_eq!(end_of(events, removal.unwrap()).await, JobResult::Done);
    assert!(engine.containers().is_empty());
    engine.create(request("web", "")).await.unwrap();
    engine.create(request("web2", "")).await.unwrap();
}

#[tokio::test]
async fn a_renamed_container_keeps_everything_but_its_name() {
    let host = Host::new();
    let engine = host.open();
    let before = engine.create(request("web", "")).await.unwrap();
    engine.create(request("other", "")).await.unwrap();
    assert_eq!(engine.rename(&name("web"), name("other")).await.unwrap_err().code(), ErrorCode::NameInUse);
    engine.rename(&name("web"), name("web2")).await.unwrap();
    let after = engine.look("web2");
    assert_eq!((after.id(), after.unit.as_str()), (before.id(), "holm-web2.scope"));
    assert_eq!(engine.container(&name("web")).unwrap_err().code(), ErrorCode::NoSuchContainer);
    engine.started("web2").await;
    assert_eq!(engine.rename(&name("web2"), name("web")).await.unwrap_err().code(), ErrorCode::AlreadyRunning);
    assert_eq!(engine.containers().len(), 2);
    engine.removed("web2").await;
    engine.removed("other").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn at_the_end_everything_is_stopped_and_nothing_starts() {
    let host = Host::new();
    let engine = host.open();
    for container in ["a", "b", "c"] {
        engine.create(request(container, "")).await.unwrap();
        engine.start(&name(container), RunIo::default()).unwrap();
    }
    // Some are still starting.
    engine.begin_shutdown();
    engine.stop_all(SystemEnd::Machine).await;
    assert!(engine.containers().iter().all(|view| !view.status.is_active()));
    assert!(matches!(engine.start(&name("a"), RunIo::default()), Err(EngineError::ShuttingDown)));
    assert!(matches!(engine.create(request("d", "")).await, Err(EngineError::ShuttingDown)));
}

#[tokio::test]
async fn at_the_end_of_userspace_alone_what_is_to_survive_that_does() {
    let host = Host::new();
    let engine = host.open();
    for (container, survive_soft_reboot) in [("stays", true), ("goes", false)] {
        engine.create(CreateRequest { survive_soft_reboot, ..request(container, "") }).await.unwrap();
        engine.started(container).await;
    }
    engine.begin_shutdown();
    engine.stop_all(SystemEnd::Userspace).await;
    assert_eq!(["stays", "goes"].map(|name| engine.look(name).status), [Status::Running, Status::Stopped]);
    engine.stop_all(SystemEnd::Machine).await;
    assert_eq!(engine.look("stays").status, Status::Stopped);
}

/// Nothing is expected of any single call: only that every job ends, and that nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_requests_ends_in_order() {
    let host = Host::new();
    let engine = host.open();
    let storm = (0..6_u32).map(|client| {
        let engine = engine.clone();
        tokio::spawn(async move {
            // A plain sequence of numbers, another one for each client.
            let mut number = client.wrapping_mul(2_654_435_761).wrapping_add(1);
            for _ in 0..60 {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let container = name(["a", "b", "c"][(number >> 8) as usize % 3]);
                let hasty = StopOptions { timeout_usec: Some(50_000), signal: None };
                let job = match (number >> 16) % 8 {
                    0 | 1 => engine.create(request(container.as_str(), "")).await.map(|_| 0),
                    2 | 3 => engine.start(&container, RunIo::default()),
                    4 => engine.stop(&container, hasty),
                    5 => engine.restart(&container, hasty),
                    6 => engine.rename(&container, name("d")).await.map(|()| 0),
                    _ => engine.remove(&container, RemoveOptions { force: number % 2 == 0 }),
                };
                // Refusals are part of it.
                drop(job);
                tokio::time::sleep(Duration::from_millis(u64::from(number >> 28))).await;
            }
        })
    });
    for client in storm.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    for view in engine.containers() {
        // A removal that a client asked for may be under way.
        let removal = engine.done(|engine| engine.remove(view.name(), RemoveOptions { force: true })).await;
        assert!(!matches!(removal, Ok(JobResult::Canceled | JobResult::Timeout)), "{removal:?}");
    }
    assert!(engine.containers().is_empty() && engine.jobs().is_empty(), "{:?}", engine.jobs());
    host.nothing_is_left().await;
}
