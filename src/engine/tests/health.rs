//! Checks of containers' health.

use std::path::PathBuf;
use std::time::Duration;

use super::host::{Host, PATIENCE, Verbs, end_of, name, request};
use crate::engine::{ContainerView, CreateRequest, Engine, HealthRequest, JobResult, RunIo};
use crate::model::{ErrorCode, Health, HealthAction, Ready, RestartPolicy, RestartWhen, RunResult, Status};

/// A container that is well as long as there is a file, and that file.
fn checked(host: &Host, action: HealthAction) -> (CreateRequest, PathBuf) {
    let file = host.path("well");
    let command = ["test", "-e", file.to_str().unwrap()].map(str::to_owned).to_vec();
    let health = HealthRequest {
        command: Some(command),
        interval_usec: Some(100_000),
        retries: Some(2),
        action: Some(action),
        ..HealthRequest::default()
    };
    (CreateRequest { health, ..request("web", "") }, file)
}

async fn becomes(engine: &Engine, wanted: impl Fn(&ContainerView) -> bool) -> ContainerView {
    let look = async {
        loop {
            let view = engine.look("web");
            if wanted(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("it comes to that")
}

#[tokio::test]
async fn health_is_what_the_check_says() {
    let host = Host::new();
    let engine = host.open();
    let (request, file) = checked(&host, HealthAction::None);
    engine.create(request).await.unwrap();
    assert_eq!(engine.look("web").health, Health::None, "nobody looks");
    engine.started("web").await;
    assert_eq!(engine.look("web").health, Health::Starting);
    std::fs::write(&file, "").unwrap();
    becomes(&engine, |view| view.health == Health::Healthy).await;
    std::fs::remove_file(&file).unwrap();
    becomes(&engine, |view| view.health == Health::Unhealthy).await;
    let state = engine.health(&name("web")).unwrap();
    assert!(state.failures >= 2 && !state.last.unwrap().passed());
    std::fs::write(&file, "").unwrap();
    becomes(&engine, |view| view.health == Health::Healthy).await;
    engine.stopped("web").await;
    assert_eq!(engine.look("web").health, Health::None);
    assert_eq!(engine.health(&name("web")).unwrap().last, None);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_check_that_hangs_is_killed_and_nobody_waits_for_it() {
    let host = Host::new();
    let engine = host.open();
    let health = HealthRequest {
        command: Some(["sleep", "5"].map(str::to_owned).to_vec()),
        interval_usec: Some(100_000),
        timeout_usec: Some(100_000),
        retries: Some(1),
        ..HealthRequest::default()
    };
    engine.create(CreateRequest { health, ..request("web", "") }).await.unwrap();
    engine.started("web").await;
    becomes(&engine, |view| view.health == Health::Unhealthy).await;
    let last = engine.health(&name("web")).unwrap().last.unwrap();
    assert_eq!(last.exit, None);
    assert!(last.output.contains("took longer"), "{}", last.output);
    engine.removed("web").await;
}

#[tokio::test]
async fn what_is_to_be_done_is_done() {
    let host = Host::new();
    let engine = host.open();
    for (action, then) in [(HealthAction::Stop, Status::Stopped), (HealthAction::Kill, Status::Failed)] {
        let (request, _) = checked(&host, action);
        engine.create(request).await.unwrap();
        engine.started("web").await;
        engine.reaches("web", then).await;
        engine.removed("web").await;
    }
    let (request, file) = checked(&host, HealthAction::Restart);
    engine.create(request).await.unwrap();
    engine.started("web").await;
    becomes(&engine, |view| view.restart_count == 1).await;
    std::fs::write(&file, "").unwrap();
    becomes(&engine, |view| view.health == Health::Healthy).await;
    engine.removed("web").await;
    std::fs::remove_file(&file).unwrap();
    // A kill is an end like any other, and the policy starts it again.
    let (request, _) = checked(&host, HealthAction::Kill);
    let when = RestartWhen::OnFailure;
    let restart = RestartPolicy { when, delay_usec: 1000, ..RestartPolicy::default() };
    engine.create(CreateRequest { restart, ..request }).await.unwrap();
    engine.started("web").await;
    becomes(&engine, |view| view.restart_count == 2).await;
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_frozen_container_is_not_checked() {
    let host = Host::new();
    let engine = host.open();
    let (request, file) = checked(&host, HealthAction::Stop);
    std::fs::write(&file, "").unwrap();
    engine.create(request).await.unwrap();
    engine.started("web").await;
    becomes(&engine, |view| view.health == Health::Healthy).await;
    let events = host.path("cgroup/holm.slice/holm-web.scope/payload/cgroup.events");
    std::fs::write(events, "populated 1\nfrozen 1\n").unwrap();
    engine.freeze(&name("web")).await.unwrap();
    let before = engine.health(&name("web")).unwrap().checks;
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = engine.health(&name("web")).unwrap();
    assert!(after.checks <= before + 1 && after.failures == 0, "{after:?}");
    assert_eq!(engine.look("web").health, Health::Healthy);
    std::fs::write(&file, "").unwrap();
    engine.thaw(&name("web")).await.unwrap();
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[test]
fn health_is_known_over_a_restart_of_the_daemon() {
    let host = Host::new();
    let (request, file) = checked(&host, HealthAction::None);
    std::fs::write(&file, "").unwrap();
    host.with_daemon(async |engine| {
        engine.create(request).await.unwrap();
        engine.started("web").await;
        becomes(&engine, |view| view.health == Health::Healthy).await;
    });
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").health, Health::Healthy);
        std::fs::remove_file(&file).unwrap();
        becomes(&engine, |view| view.health == Health::Unhealthy).await;
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[tokio::test]
async fn a_start_is_done_when_the_check_passes() {
    let host = Host::new();
    let engine = host.open();
    let (request, file) = checked(&host, HealthAction::None);
    engine.create(CreateRequest { ready: Ready::Healthy, ..request }).await.unwrap();
    let events = engine.subscribe();
    let job = engine.start(&name("web"), RunIo::default()).unwrap();
    let view = becomes(&engine, |view| view.leader != 0).await;
    assert_eq!((view.status, view.health), (Status::Starting, Health::Starting));
    std::fs::write(&file, "").unwrap();
    assert_eq!(end_of(events, job).await, JobResult::Done);
    assert_eq!(engine.look("web").status, Status::Running);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_start_whose_check_never_passes_has_failed() {
    let host = Host::new();
    let engine = host.open();
    let (request, _) = checked(&host, HealthAction::None);
    engine.create(CreateRequest { ready: Ready::Healthy, ..request }).await.unwrap();
    let result = engine.done(|engine| engine.start(&name("web"), RunIo::default())).await.unwrap();
    assert!(matches!(result, JobResult::Failed { code: ErrorCode::StartFailed, .. }), "{result:?}");
    let view = engine.look("web");
    assert_eq!((view.status, view.result), (Status::Failed, RunResult::Timeout));
    assert!(view.status_text.contains("not ready"), "{}", view.status_text);
    engine.removed("web").await;

    // An end before that is a failed start too, and a stop is what somebody asked for.
    let (request, _) = checked(&host, HealthAction::None);
    let command = ["sh", "-c", "exit 3"].map(str::to_owned).to_vec();
    engine.create(CreateRequest { ready: Ready::Healthy, command, ..request }).await.unwrap();
    let result = engine.done(|engine| engine.start(&name("web"), RunIo::default())).await.unwrap();
    assert!(matches!(result, JobResult::Failed { code: ErrorCode::StartFailed, .. }), "{result:?}");
    engine.removed("web").await;
    let (request, _) = checked(&host, HealthAction::None);
    engine.create(CreateRequest { ready: Ready::Healthy, ..request }).await.unwrap();
    engine.start(&name("web"), RunIo::default()).unwrap();
    becomes(&engine, |view| view.leader != 0).await;
    engine.stopped("web").await;
    assert_eq!(engine.look("web").status, Status::Stopped);
    engine.removed("web").await;
    host.nothing_is_left().await;
}
