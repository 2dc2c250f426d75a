//! Devices of other software's, and the pool's upkeep.

use super::host::{Host, Verbs, name, request};
use crate::engine::{EngineError, JobResult};
use crate::model::{Bytes, DeviceId, ErrorCode};
use crate::storage::DeviceSet;

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, EngineError>) -> ErrorCode {
    result.unwrap_err().code()
}

#[tokio::test]
async fn other_software_keeps_trees_of_its_own() {
    let host = Host::new();
    let engine = host.open();
    let before = engine.pool().devices;
    engine.add_device(id("mine"), id("base"), None).await.unwrap();
    assert_eq!(engine.pool().devices, before + 1, "the numbers are new when the call returns");
    assert_eq!(code(engine.add_device(id("mine"), id("base"), None).await), ErrorCode::NameInUse);
    assert_eq!(code(engine.add_device(id("other"), id("nobody"), None).await), ErrorCode::NoSuchDevice);
    let size = host.devices.device(&id("mine")).unwrap().size;
    let grown = engine.resize_device(id("mine"), Bytes(size.0 * 2)).await.unwrap();
    assert_eq!(grown, Bytes(size.0 * 2));
    assert_eq!(code(engine.resize_device(id("mine"), size).await), ErrorCode::NotSupported);
    engine.activate_device(id("mine")).await.unwrap();
    engine.remove_device(id("mine")).await.unwrap();
    assert_eq!(code(engine.remove_device(id("mine")).await), ErrorCode::NoSuchDevice);
    assert_eq!(code(engine.deactivate_device(id("mine")).await), ErrorCode::NoSuchDevice);
    host.nothing_is_left().await;
}

#[tokio::test]
async fn what_is_holms_own_stays_so() {
    let host = Host::new();
    let engine = host.open();
    engine.create(request("web", "")).await.unwrap();
    let root = id(&format!("container:{}", engine.look("web").id()));
    for own in [id("base"), id("layer:1"), id("holm-next"), root.clone()] {
        assert_eq!(code(engine.add_device(own.clone(), id("base"), None).await), ErrorCode::DeviceReserved, "{own}");
        assert_eq!(code(engine.remove_device(own.clone()).await), ErrorCode::DeviceReserved, "{own}");
        assert_eq!(code(engine.activate_device(own.clone()).await), ErrorCode::DeviceReserved, "{own}");
        assert_eq!(code(engine.deactivate_device(own.clone()).await), ErrorCode::DeviceReserved, "{own}");
        assert_eq!(code(engine.resize_device(own.clone(), Bytes(1 << 40)).await), ErrorCode::DeviceReserved, "{own}");
        let here = std::fs::File::open("/").unwrap().into();
        let mounted = engine.mount_device(own.clone(), here, false, std::process::id()).await;
        assert_eq!(code(mounted), ErrorCode::DeviceReserved, "{own}");
    }
    // As a base it may be taken, and it is told whose it is.
    engine.add_device(id("kept"), root.clone(), None).await.unwrap();
    let views = engine.device_views().await.unwrap();
    let view = |wanted: &DeviceId| views.iter().find(|view| view.info.id == *wanted).unwrap();
    assert_eq!((view(&root).own, view(&root).users.as_slice()), (true, &["container web".to_owned()][..]));
    assert_eq!((view(&id("kept")).own, view(&id("kept")).users.len()), (false, 0));
    engine.removed("web").await;
    engine.remove_device(id("kept")).await.unwrap();
    host.nothing_is_left().await;
}

#[tokio::test]
async fn what_is_in_use_is_not_removed() {
    let host = Host::new();
    let engine = host.open();
    engine.add_device(id("mine"), id("base"), None).await.unwrap();
    let mounted = host.devices.mount_device(&id("mine"), crate::storage::Access::ReadWrite).unwrap();
    assert_eq!(code(engine.remove_device(id("mine")).await), ErrorCode::DeviceInUse);
    assert_eq!(code(engine.deactivate_device(id("mine")).await), ErrorCode::DeviceInUse);
    drop(mounted);
    engine.remove_device(id("mine")).await.unwrap();
    host.nothing_is_left().await;
}

#[tokio::test]
async fn a_place_must_be_a_directory() {
    let host = Host::new();
    let engine = host.open();
    engine.add_device(id("mine"), id("base"), None).await.unwrap();
    let file = std::fs::File::open("/proc/self/status").unwrap().into();
    let mounted = engine.mount_device(id("mine"), file, false, std::process::id()).await;
    assert_eq!(code(mounted), ErrorCode::InvalidConfig);
    assert_eq!(code(engine.unmount_device(id("mine"), std::process::id()).await), ErrorCode::NotMounted);
    engine.remove_device(id("mine")).await.unwrap();
}

#[tokio::test]
async fn upkeep_is_jobs_and_leaves_reports() {
    let host = Host::new();
    let engine = host.open();
    assert!(engine.checked().is_none() && engine.trimmed().is_none());
    assert_eq!(engine.done(|engine| engine.grow_pool(Bytes(0), Bytes(0))).await.unwrap(), JobResult::Done);
    assert_eq!(engine.done(|engine| Ok(engine.check_devices())).await.unwrap(), JobResult::Done);
    assert_eq!(engine.done(|engine| Ok(engine.repair_devices())).await.unwrap(), JobResult::Done);
    assert_eq!(engine.done(|engine| Ok(engine.trim_devices())).await.unwrap(), JobResult::Done);
    let report = engine.checked().unwrap();
    assert!(report.findings.is_empty() && report.foreign.is_empty() && report.at_usec > 0, "{report:?}");
    assert!(engine.trimmed().unwrap().failed.is_empty());
    let smaller = engine.done(|engine| engine.grow_pool(Bytes(65536), Bytes(0))).await.unwrap();
    assert!(matches!(smaller, JobResult::Failed { code: ErrorCode::NotSupported, .. }), "{smaller:?}");
    assert_eq!(code(engine.remove_foreign(4711).await), ErrorCode::NoSuchDevice);
    assert!(engine.measure_devices().await.unwrap().contains_key(&id("base")));
}

#[tokio::test]
async fn nothing_is_added_while_the_daemon_ends() {
    let host = Host::new();
    let engine = host.open();
    engine.add_device(id("mine"), id("base"), None).await.unwrap();
    engine.begin_shutdown();
    assert_eq!(code(engine.add_device(id("other"), id("base"), None).await), ErrorCode::ShuttingDown);
    assert_eq!(code(engine.open_device(id("mine")).await), ErrorCode::ShuttingDown);
    assert!(engine.container(&name("web")).is_err());
    engine.remove_device(id("mine")).await.unwrap();
}
