//! What is left when something fails: what was there before.

use super::host::{Host, Verbs, killed_unseen, name, request};
use crate::engine::{CreateRequest, Engine, JobResult, RemoveOptions, RunIo, StopOptions};
use crate::model::{ErrorCode, Exit, Lifetime, RunResult, Status};
use crate::sys::pidfd;
use crate::systemd::SystemdError;

/// Where a start can fail, how to make it, and what it is called then.
type Break = (&'static str, fn(&Host), ErrorCode);

fn breaks() -> [Break; 5] {
    [
        ("the root's mount", |host| host.devices.fail_next("mount"), ErrorCode::StorageFailed),
        ("the monitor's spawn", |host| host.launcher.refuse_next_spawn(), ErrorCode::StartFailed),
        (
            "the scope's job",
            |host| {
                let (unit, result) = ("holm-web.scope".to_owned(), "failed".to_owned());
                host.scopes.fail_next_start(SystemdError::JobFailed { unit, result });
            },
            ErrorCode::SystemdFailed,
        ),
        ("a step inside", |host| host.launcher.fail_next_launch("MountProc"), ErrorCode::StartFailed),
        ("the run's record", make_unwritable, ErrorCode::StateFailed),
    ]
}

/// Root may write anywhere, so a directory stands where the file should be.
fn make_unwritable(host: &Host) {
    for record in host.store().containers().unwrap() {
        std::fs::create_dir_all(host.path("run/run").join(format!("{}.tmp", record.unwrap().spec.id))).unwrap();
    }
}

fn make_writable(host: &Host) {
    for entry in std::fs::read_dir(host.path("run/run")).unwrap() {
        // Only the directories of make_unwritable.
        let _ = std::fs::remove_dir(entry.unwrap().path());
    }
}

async fn start(engine: &Engine) -> JobResult {
    engine.done(|engine| engine.start(&name("web"), RunIo::default())).await.unwrap()
}

#[tokio::test]
async fn a_start_that_fails_leaves_a_container_that_can_be_started() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    for (what, make, code) in breaks() {
        make(&host);
        match start(&engine).await {
            JobResult::Failed { code: found, message } => assert_eq!(found, code, "{what}: {message}"),
            other => panic!("{what}: {other:?}"),
        }
        let view = engine.look("web");
        assert_eq!((view.status, view.result, view.leader), (Status::Failed, RunResult::None, 0), "{what}");
        assert!(!view.status_text.is_empty(), "{what}");
        assert!(host.scopes.units().is_empty() && host.machines.list().is_empty(), "{what}");
        assert_eq!(host.launcher.alive(), 0, "{what}");
        make_writable(&host);
        engine.started("web").await;
        assert!(engine.look("web").status_text.is_empty(), "{what}");
        engine.stopped("web").await;
    }
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_container_of_one_run_that_fails_to_start_is_gone() {
    let host = Host::new();
    let engine = host.open();
    for (what, make, code) in breaks() {
        engine.create(CreateRequest { lifetime: Lifetime::OneRun, ..request("web", "") }).await.unwrap();
        make(&host);
        assert!(matches!(start(&engine).await, JobResult::Failed { code: found, .. } if found == code), "{what}");
        make_writable(&host);
        assert!(engine.containers().is_empty(), "{what}");
        host.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let host = Host::new();
    let engine = host.open();
    let missing = CreateRequest { command: vec!["/no/such".into()], ..request("web", "") };
    engine.create(missing).await.unwrap();
    assert!(matches!(start(&engine).await, JobResult::Failed { code: ErrorCode::CommandNotFound, .. }));
    assert!(engine.look("web").status_text.contains("/no/such"));
}

#[tokio::test]
async fn a_creation_that_fails_leaves_nothing_and_frees_the_name() {
    let host = Host::new();
    let engine = host.open();
    host.devices.fail_next("add");
    assert_eq!(engine.create(request("web", "")).await.unwrap_err().code(), ErrorCode::StorageFailed);
    host.nothing_is_left().await;
    let unknown = CreateRequest { image: Some("nothing".parse().unwrap()), ..request("web", "") };
    assert_eq!(engine.create(unknown).await.unwrap_err().code(), ErrorCode::NoSuchImage);
    engine.create(request("web", "")).await.unwrap();
}

#[tokio::test]
async fn a_removal_that_fails_leaves_the_container() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    host.devices.fail_next("remove");
    let removal = engine.done(|engine| engine.remove(&name("web"), RemoveOptions { force: true })).await.unwrap();
    assert!(matches!(removal, JobResult::Failed { code: ErrorCode::StorageFailed, .. }), "{removal:?}");
    assert!(!engine.look("web").status.is_active());
    engine.started("web").await;
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_restart_whose_start_fails_says_so() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    host.devices.fail_next("mount");
    let restarted = engine.done(|engine| engine.restart(&name("web"), StopOptions::default())).await.unwrap();
    assert!(matches!(restarted, JobResult::Failed { code: ErrorCode::StorageFailed, .. }), "{restarted:?}");
    assert_eq!(engine.look("web").status, Status::Failed);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn an_exit_status_that_could_not_be_written_is_heard_from_the_monitor() {
    let host = Host::new();
    let engine = host.open();
    host.launcher.lose_records();
    engine.create(request("web", "exit 5")).await.unwrap();
    engine.started("web").await;
    let view = engine.reaches("web", Status::Failed).await;
    assert_eq!((view.exit, view.result), (Some(Exit::Code(5)), RunResult::ExitCode));
}

#[tokio::test]
async fn a_payload_outlives_its_monitor_and_is_still_looked_after() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    let leader = engine.look("web").leader;
    let monitor = host.launcher.monitors()[0];
    pidfd::send_signal(pidfd::open(monitor).unwrap(), libc::SIGKILL).unwrap();
    // A listing is a question to nobody: the end of the monitor has been seen when its socket has been.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let view = engine.look("web");
    assert_eq!((view.status, view.leader), (Status::Running, leader));
    engine.stopped("web").await;
    let view = engine.look("web");
    assert_eq!((view.result, view.status), killed_unseen());
    engine.removed("web").await;
    host.nothing_is_left().await;
}
