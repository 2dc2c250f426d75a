//! Snapshots, the way back, and containers made of others.

use super::host::{Host, Verbs, name, names, request};
use crate::engine::{CloneRequest, EngineError, JobResult, ResourceRequest};
use crate::model::{Bytes, ErrorCode, Limits, SnapshotName, Status};
use crate::storage::DeviceSet;

fn snapshot(text: &str) -> SnapshotName {
    SnapshotName::parse(text).unwrap()
}

fn clone_to(container: &str) -> CloneRequest {
    CloneRequest { name: Some(name(container)), snapshot: None }
}

fn devices(host: &Host, kind: &str) -> usize {
    host.devices.devices().unwrap().iter().filter(|device| device.id.as_str().starts_with(kind)).count()
}

#[tokio::test]
async fn snapshots_come_and_go_with_their_container() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    for label in ["one", "two"] {
        let made = engine.done(|engine| engine.snapshot(&name("web"), snapshot(label))).await.unwrap();
        assert_eq!(made, JobResult::Done);
    }
    let again = engine.snapshot(&name("web"), snapshot("one"));
    assert!(matches!(again, Err(EngineError::SnapshotExists { .. })));
    let labels = |engine: &crate::engine::Engine| engine.look("web").snapshots.keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels(&engine), [snapshot("one"), snapshot("two")]);
    let removed = engine.done(|engine| engine.remove_snapshot(&name("web"), snapshot("one"))).await.unwrap();
    assert_eq!(removed, JobResult::Done);
    assert_eq!((labels(&engine), devices(&host, "snapshot:")), (vec![snapshot("two")], 1));
    let never = engine.remove_snapshot(&name("web"), snapshot("one")).unwrap_err();
    assert_eq!(never.code(), ErrorCode::NoSuchSnapshot);
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_snapshot_that_fails_is_on_no_record() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    host.devices.fail_next("add");
    let made = engine.done(|engine| engine.snapshot(&name("web"), snapshot("one"))).await.unwrap();
    assert!(matches!(made, JobResult::Failed { .. }));
    assert!(engine.look("web").snapshots.is_empty());
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn only_a_container_at_rest_goes_back() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    assert_eq!(engine.rollback(&name("web"), snapshot("one")).unwrap_err().code(), ErrorCode::NoSuchSnapshot);
    engine.done(|engine| engine.snapshot(&name("web"), snapshot("one"))).await.unwrap();
    engine.started("web").await;
    assert_eq!(engine.rollback(&name("web"), snapshot("one")).unwrap_err().code(), ErrorCode::AlreadyRunning);
    engine.stopped("web").await;
    let back = engine.done(|engine| engine.rollback(&name("web"), snapshot("one"))).await.unwrap();
    assert_eq!(back, JobResult::Done);
    engine.started("web").await;
    engine.removed("web").await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_clone_is_a_container_of_its_own() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    let taken = engine.clone_container(&name("web"), clone_to("web")).unwrap_err();
    assert_eq!(taken.code(), ErrorCode::NameInUse);
    let made = engine.done(|engine| engine.clone_container(&name("web"), clone_to("shop"))).await.unwrap();
    assert_eq!(made, JobResult::Done);
    engine.done(|engine| engine.clone_container(&name("web"), CloneRequest::default())).await.unwrap();
    let (web, shop) = (engine.look("web"), engine.look("shop"));
    assert_ne!(web.id(), shop.id());
    assert_eq!((shop.status, &shop.spec.process), (Status::Created, &web.spec.process));
    let generated = engine.containers().into_iter().map(|view| view.name().to_string()).find(|n| n.starts_with("web-"));
    engine.removed("web").await;
    engine.started("shop").await;
    engine.removed("shop").await;
    engine.removed(&generated.unwrap()).await;
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_clone_that_fails_leaves_nothing() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    host.devices.fail_next("add");
    let made = engine.done(|engine| engine.clone_container(&name("web"), clone_to("shop"))).await.unwrap();
    assert!(matches!(made, JobResult::Failed { .. }));
    assert!(engine.container(&name("shop")).is_err());
    let records = names(&host.path("state/containers"));
    assert_eq!(records.len(), 1, "{records:?}");
    let made = engine.done(|engine| engine.clone_container(&name("web"), clone_to("shop"))).await.unwrap();
    assert_eq!(made, JobResult::Done, "the name is free again");
}

#[test]
fn a_restart_keeps_snapshots_and_drops_those_that_were_not_made() {
    let host = Host::new();
    host.with_daemon(async |engine| {
        engine.create(request("web", "")).await.unwrap();
        engine.done(|engine| engine.snapshot(&name("web"), snapshot("one"))).await.unwrap();
    });
    let store = host.store();
    let mut record = store.containers().unwrap().remove(0).unwrap();
    record.snapshots.insert(snapshot("two"), 1);
    store.put_container(&record, crate::records::Durability::Synced).unwrap();
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").snapshots.keys().collect::<Vec<_>>(), [&snapshot("one")]);
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[tokio::test]
async fn limits_change_at_once_and_for_good() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    engine.started("web").await;
    let limits = Limits { memory: Some(Bytes(64 << 20)), pids: Some(9), ..Limits::default() };
    engine.set_resources(&name("web"), ResourceRequest { limits, size: None }).await.unwrap();
    let more = Limits { memory: Some(Bytes(u64::MAX)), ..Limits::default() };
    engine.set_resources(&name("web"), ResourceRequest { limits: more, size: None }).await.unwrap();
    let now = engine.look("web").spec.limits.clone();
    assert_eq!((now.memory, now.pids), (None, Some(9)));
    let small = Limits { memory: Some(Bytes(1)), ..Limits::default() };
    let refused = engine.set_resources(&name("web"), ResourceRequest { limits: small, size: None }).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidConfig);
    let grown = ResourceRequest { limits: Limits::default(), size: Some(Bytes(64 << 30)) };
    engine.set_resources(&name("web"), grown).await.unwrap();
    assert_eq!(engine.look("web").spec.size, Some(Bytes(64 << 30)));
    engine.removed("web").await;
}
