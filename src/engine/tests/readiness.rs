//! Containers that say themselves when they are ready, and those that never do.

use super::host::{Host, PATIENCE, Verbs, end_of, name, request};
use crate::engine::{CreateRequest, JobResult, RunIo};
use crate::model::{ErrorCode, Ready, RestartPolicy, RestartWhen, RunResult, Status};

/// It says nothing, and has this long to say it.
fn silent(usec: u64) -> CreateRequest {
    CreateRequest { ready: Ready::Notify, start_timeout_usec: Some(usec), ..request("web", "") }
}

#[tokio::test]
async fn a_start_that_is_never_ready_ends_in_a_failure() {
    let host = Host::new();
    let engine = host.open();
    engine.create(silent(100_000)).await.unwrap();
    let result = engine.done(|engine| engine.start(&name("web"), RunIo::default())).await.unwrap();
    let JobResult::Failed { code: ErrorCode::StartFailed, message } = result else { panic!("{result:?}") };
    assert!(message.contains("not ready in time"), "{message}");
    let view = engine.look("web");
    assert_eq!((view.status, view.result, view.status_text), (Status::Failed, RunResult::Timeout, message));
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn one_that_may_take_for_ever_is_only_ended_by_a_stop() {
    let host = Host::new();
    let engine = host.open();
    engine.create(silent(0)).await.unwrap();
    assert_eq!(engine.look("web").spec.start_timeout_usec, Some(u64::MAX));
    let events = engine.subscribe();
    let job = engine.start(&name("web"), RunIo::default()).unwrap();
    engine.reaches("web", Status::Starting).await;
    engine.stopped("web").await;
    assert_eq!(end_of(events, job).await, JobResult::Canceled);
    assert_eq!(engine.look("web").status, Status::Stopped);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[test]
fn the_time_runs_on_over_a_restart_of_the_daemon() {
    let host = Host::new();
    let request = CreateRequest { ready: Ready::Healthy, health: never_healthy(), ..silent(1_000_000) };
    host.with_daemon(async |engine| {
        engine.create(request).await.unwrap();
        engine.start(&name("web"), RunIo::default()).unwrap();
        tokio::time::timeout(PATIENCE, async {
            while engine.look("web").leader == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    });
    host.with_daemon(async |engine| {
        assert_eq!(engine.reaches("web", Status::Failed).await.result, RunResult::Timeout);
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[tokio::test]
async fn one_that_is_not_ready_is_started_again_by_its_policy() {
    let host = Host::new();
    let engine = host.open();
    let restart = RestartPolicy { when: RestartWhen::OnFailure, delay_usec: 1000, ..RestartPolicy::default() };
    engine.create(CreateRequest { restart, ..silent(50_000) }).await.unwrap();
    engine.start(&name("web"), RunIo::default()).unwrap();
    tokio::time::timeout(PATIENCE, async {
        while engine.look("web").restart_count < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    engine.removed("web").await;
    host.nothing_is_left().await;
}

/// A check that fails, and does not count for a long time.
fn never_healthy() -> crate::engine::HealthRequest {
    let command = Some(vec!["false".to_owned()]);
    crate::engine::HealthRequest { command, start_period_usec: Some(600_000_000), ..Default::default() }
}
