//! Containers that are started again without anybody asking.

use std::time::Duration;

use super::host::{Host, Verbs, name, request};
use crate::engine::{CreateRequest, JobResult, RunIo};
use crate::model::{ErrorCode, Lifetime, RestartPolicy, RestartWhen, RunResult, Status};
use crate::systemd::SystemEnd;

/// One that is tried again soon.
fn policy(when: RestartWhen) -> RestartPolicy {
    RestartPolicy { when, delay_usec: 20_000, steps: 0, ..RestartPolicy::default() }
}

fn restarted(shell: &str, restart: RestartPolicy) -> CreateRequest {
    CreateRequest { restart, ..request("web", shell) }
}

/// A shell that fails as long as there is no such file, and then stays.
fn until_there(host: &Host) -> (std::path::PathBuf, String) {
    let go = host.path("go");
    let shell = format!("test -e {} && exec sleep 1000; exit 3", go.display());
    (go, shell)
}

#[tokio::test]
async fn what_fails_is_tried_again_until_it_stays() {
    let host = Host::new();
    let engine = host.open();
    let (go, shell) = until_there(&host);
    engine.create(restarted(&shell, policy(RestartWhen::OnFailure))).await.unwrap();
    engine.start(&name("web"), RunIo::default()).unwrap();
    while engine.look("web").restart_count < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::write(&go, "").unwrap();
    let view = engine.reaches("web", Status::Running).await;
    // It may be a run that has yet to find that there is no file.
    assert!(view.restart_count >= 3);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_wait_is_shown_and_ends_with_a_stop_or_a_start() {
    let host = Host::new();
    let engine = host.open();
    let slow = RestartPolicy { delay_usec: 600_000_000, ..policy(RestartWhen::Always) };
    engine.create(restarted("exit 3", slow)).await.unwrap();
    let waits = async || loop {
        let view = engine.look("web");
        if view.next_restart_usec > 0 {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    engine.started("web").await;
    let view = waits().await;
    assert_eq!((view.status, view.result), (Status::Starting, RunResult::ExitCode));
    assert_eq!(engine.rename(&name("web"), name("other")).await.unwrap_err().code(), ErrorCode::AlreadyRunning);
    engine.started("web").await;
    assert_eq!(waits().await.restart_count, 0, "somebody started it");
    engine.stopped("web").await;
    let view = engine.look("web");
    assert_eq!((view.status, view.next_restart_usec), (Status::Failed, 0));
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_stop_is_the_end_of_it_and_so_is_the_limit() {
    let host = Host::new();
    let engine = host.open();
    engine.create(restarted("", policy(RestartWhen::Always))).await.unwrap();
    engine.started("web").await;
    engine.stopped("web").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(engine.look("web").status, Status::Stopped);
    engine.removed("web").await;

    let limited = RestartPolicy { limit: 2, ..policy(RestartWhen::Always) };
    engine.create(restarted("exit 3", limited)).await.unwrap();
    engine.started("web").await;
    let view = engine.reaches("web", Status::Failed).await;
    assert_eq!(view.restart_count, 2);
    assert!(view.status_text.contains("given up"), "{}", view.status_text);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_start_that_fails_is_told_and_a_try_that_fails_is_tried_again() {
    let host = Host::new();
    let engine = host.open();
    engine.create(restarted("exit 3", policy(RestartWhen::Always))).await.unwrap();
    host.devices.fail_next("mount");
    let job = engine.done(|engine| engine.start(&name("web"), RunIo::default())).await.unwrap();
    assert_ne!(job, JobResult::Done);
    assert_eq!(engine.look("web").next_restart_usec, 0);
    engine.started("web").await;
    host.devices.fail_next("mount");
    while engine.look("web").restart_count < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn who_lives_for_one_run_is_not_started_again() {
    let host = Host::new();
    let engine = host.open();
    let both = CreateRequest { lifetime: Lifetime::OneRun, ..restarted("", policy(RestartWhen::Always)) };
    assert_eq!(engine.create(both).await.unwrap_err().code(), ErrorCode::InvalidConfig);
}

#[test]
fn a_wait_goes_on_over_a_restart_of_the_daemon() {
    let host = Host::new();
    let (go, shell) = until_there(&host);
    let slow = RestartPolicy { delay_usec: 1_500_000, ..policy(RestartWhen::OnFailure) };
    let next = host.with_daemon(async |engine| {
        engine.create(restarted(&shell, slow)).await.unwrap();
        engine.started("web").await;
        while engine.look("web").next_restart_usec == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine.look("web").next_restart_usec
    });
    std::fs::write(&go, "").unwrap();
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!((view.status, view.next_restart_usec), (Status::Starting, next));
        let view = engine.reaches("web", Status::Running).await;
        assert_eq!(view.restart_count, 1);
        assert!(view.started_usec >= next, "it waited");
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn a_stop_is_the_end_of_it_also_over_a_restart_of_the_daemon() {
    let host = Host::new();
    let deaf = "trap '' TERM; while :; do sleep 0.02; done";
    host.with_daemon(async |engine| {
        let slow = CreateRequest { stop_timeout_usec: Some(300_000), ..restarted(deaf, policy(RestartWhen::Always)) };
        engine.create(slow).await.unwrap();
        engine.started_deaf("web").await;
        engine.stop(&name("web"), Default::default()).unwrap();
        engine.reaches("web", Status::Stopping).await;
        // Written after it is shown.
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    host.with_daemon(async |engine| {
        assert_eq!(engine.reaches("web", Status::Failed).await.restart_count, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(engine.look("web").status, Status::Failed);
    });
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").next_restart_usec, 0);
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn what_always_runs_comes_back_with_the_system_unless_somebody_had_stopped_it() {
    let host = Host::new();
    let other = |when| CreateRequest { name: Some(name("other")), ..restarted("", policy(when)) };
    host.with_daemon(async |engine| {
        engine.create(restarted("", policy(RestartWhen::Always))).await.unwrap();
        engine.create(other(RestartWhen::OnFailure)).await.unwrap();
        engine.started("web").await;
        engine.started("other").await;
        engine.begin_shutdown();
        engine.stop_all(SystemEnd::Machine).await;
    });
    std::fs::remove_dir_all(host.path("run")).unwrap();
    host.with_daemon(async |engine| {
        engine.reaches("web", Status::Running).await;
        assert_eq!(engine.look("other").status, Status::Stopped);
        engine.stopped("web").await;
    });
    std::fs::remove_dir_all(host.path("run")).unwrap();
    host.with_daemon(async |engine| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(engine.look("web").status, Status::Stopped);
        engine.removed("web").await;
        engine.removed("other").await;
        host.nothing_is_left().await;
    });
}
