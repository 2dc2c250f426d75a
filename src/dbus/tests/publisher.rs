//! What is signalled, and in which order.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{broadcast, oneshot};
use zbus::proxy::CacheProperties;
use zbus::{DBusError, OwnedVariant, Variant, fdo};

use super::samples::{self, SECRET, name};
use super::{Stage, settling};
use crate::dbus::paths;
use crate::engine::{Event, JobResult, JobView, ProcessView};
use crate::model::{Bytes, ContainerId, ErrorCode, Exit, ImageName, PoolStatus, RunResult, Status};

/// Sets the stage, or ends the test where there is no bus.
macro_rules! stage {
    () => {
        match Stage::set().await {
            Some(stage) => stage,
            None => return,
        }
    };
}

async fn happen<const N: usize>(stage: &mut Stage, events: [Event; N]) {
    for event in events {
        stage.publisher.apply(event).await.unwrap();
    }
}

#[tokio::test]
async fn a_container_comes_changes_and_goes() {
    let mut stage = stage!();
    let ended = crate::engine::ContainerView {
        status: Status::Failed,
        exit: Some(Exit::Code(3)),
        result: RunResult::ExitCode,
        stopped_usec: 9,
        ..samples::container("web")
    };
    happen(
        &mut stage,
        [
            Event::ContainerNew(samples::container("web")),
            Event::ContainerChanged(samples::running("web")),
            Event::ContainerChanged(samples::running("web")),
            Event::OutOfMemory { name: name("web"), count: 1 },
            Event::ContainerChanged(ended),
            Event::ContainerExited { name: name("web"), status: 3, result: RunResult::ExitCode },
            Event::ContainerRemoved(name("web")),
            Event::ContainerRemoved(name("web")),
        ],
    )
    .await;
    assert_eq!(
        stage.heard().await,
        [
            "InterfacesAdded /container/web",
            "ContainerNew",
            "/container/web PropertiesChanged Leader,State",
            "/container/web OutOfMemory",
            "/container/web PropertiesChanged ExitStatus,Leader,Result,State,StoppedUSec",
            "/container/web Exited 3",
            "InterfacesRemoved /container/web",
            "ContainerRemoved",
        ]
    );
}

#[tokio::test]
async fn a_renamed_container_gets_another_object() {
    let mut stage = stage!();
    happen(
        &mut stage,
        [
            Event::ContainerNew(samples::container("web")),
            Event::ContainerRenamed { from: name("web"), to: samples::container("shop") },
        ],
    )
    .await;
    assert_eq!(
        stage.heard().await[2..],
        ["InterfacesRemoved /container/web", "ContainerRemoved", "InterfacesAdded /container/shop", "ContainerNew",]
    );
}

#[tokio::test]
async fn a_jobs_result_comes_before_its_removal() {
    let mut stage = stage!();
    let failed = JobResult::Failed { code: ErrorCode::StartFailed, message: "no".into() };
    let ended = JobView { result: Some(failed), ..samples::job(5) };
    happen(&mut stage, [Event::JobNew(samples::job(5)), Event::JobRemoved(ended)]).await;
    assert_eq!(
        stage.heard().await,
        [
            "InterfacesAdded /job/5",
            "JobNew",
            "/job/5 PropertiesChanged Error,Message,Result",
            "JobRemoved failed",
            "InterfacesRemoved /job/5",
        ]
    );
}

#[tokio::test]
async fn a_process_stays_for_a_while_and_goes_with_its_container() {
    let mut stage = stage!();
    let exited = |id| ProcessView { exit: Some(Exit::Code(0)), ended: true, ..samples::process(id) };
    happen(
        &mut stage,
        [
            Event::ContainerNew(samples::running("web")),
            Event::ProcessNew(samples::process(1)),
            Event::ProcessNew(samples::process(2)),
            Event::ProcessExited(exited(1)),
        ],
    )
    .await;
    assert_eq!(
        stage.heard().await[2..],
        [
            "InterfacesAdded /container/web/process/1",
            "InterfacesAdded /container/web/process/2",
            "/container/web/process/1 PropertiesChanged ExitStatus,State",
            "/container/web/process/1 Exited 0",
        ]
    );
    stage.publisher.forget_oldest_process().await.unwrap();
    happen(&mut stage, [Event::ContainerRemoved(name("web")), Event::ProcessExited(exited(2))]).await;
    assert_eq!(
        stage.heard().await,
        [
            "InterfacesRemoved /container/web/process/1",
            "InterfacesRemoved /container/web/process/2",
            "InterfacesRemoved /container/web",
            "ContainerRemoved",
            "/container/web/process/2 Exited 0",
        ]
    );
}

#[tokio::test]
async fn images_and_the_pool_are_kept_true() {
    let mut stage = stage!();
    stage.truth.say(|said| said.pool = Some(PoolStatus { data_used: Bytes(2), ..samples::pool() }));
    let image = samples::image("a/b:1");
    let newer = Arc::new(crate::model::ImageInfo { digest: "sha256:02".into(), ..(*image).clone() });
    let gone = ImageName::parse("a/b:1").unwrap();
    happen(
        &mut stage,
        [
            Event::ImageNew(image),
            Event::ImageNew(newer),
            Event::ImageRemoved(gone),
            Event::PoolChanged,
            Event::PoolChanged,
        ],
    )
    .await;
    assert_eq!(
        stage.heard().await,
        [
            "InterfacesAdded /image/a_2fb_3a1",
            "ImageNew",
            "/image/a_2fb_3a1 PropertiesChanged Digest",
            "InterfacesRemoved /image/a_2fb_3a1",
            "ImageRemoved",
            "/deviceset PropertiesChanged DataUsed",
        ]
    );
}

#[tokio::test]
async fn what_was_missed_is_made_up_for() {
    let mut stage = stage!();
    happen(
        &mut stage,
        [
            Event::ContainerNew(samples::container("gone")),
            Event::ContainerNew(samples::container("stays")),
            Event::ContainerNew(samples::container("web")),
            Event::ProcessNew(samples::process(1)),
            Event::JobNew(samples::job(1)),
            Event::JobNew(samples::job(2)),
        ],
    )
    .await;
    stage.heard().await;
    let mut another = samples::container("stays");
    Arc::make_mut(&mut another.spec).id = ContainerId::from_random([8; 16]);
    stage.truth.say(|said| {
        said.containers = vec![samples::container("new"), another, samples::running("web")];
        said.images = vec![samples::image("debian")];
        said.jobs = vec![samples::job(2)];
    });
    stage.publisher.reconcile().await.unwrap();
    let gone = stage.publisher.jobs_that_are_gone();
    stage.publisher.end_unseen(gone.clone()).await.unwrap();
    assert_eq!(
        stage.heard().await,
        [
            "InterfacesRemoved /container/gone",
            "ContainerRemoved",
            "InterfacesAdded /container/new",
            "ContainerNew",
            "InterfacesRemoved /container/stays",
            "ContainerRemoved",
            "InterfacesAdded /container/stays",
            "ContainerNew",
            "/container/web PropertiesChanged Leader,State",
            "InterfacesAdded /image/debian",
            "ImageNew",
            "InterfacesRemoved /container/web/process/1",
            "/job/1 PropertiesChanged Error,Message,Result",
            "JobRemoved failed",
            "InterfacesRemoved /job/1",
        ]
    );
    stage.publisher.reconcile().await.unwrap();
    stage.publisher.end_unseen(gone).await.unwrap();
    assert!(stage.heard().await.is_empty(), "twice changes nothing");
}

#[tokio::test]
async fn a_waiter_is_answered_when_all_before_it_is_on_the_bus() {
    let mut stage = stage!();
    // Two events fit: the third makes the publisher miss the first and read the truth.
    for (room, events) in [(16, 5), (2, 5)] {
        let (events_out, events_in) = broadcast::channel(room);
        let (settle, waiters) = settling();
        let views: Vec<_> = (0..events).map(|number| samples::container(&format!("c{number}"))).collect();
        stage.truth.say(|said| said.containers = views.clone());
        for view in views {
            events_out.send(Event::ContainerNew(view)).unwrap();
        }
        let (done, settled) = oneshot::channel();
        settle.send(done).unwrap();
        let table = Arc::clone(&stage.publisher.table);
        let run = tokio::spawn(stage.publisher.run(events_in, waiters));
        settled.await.unwrap();
        assert_eq!(table.containers.keys().len(), events);
        drop(events_out);
        run.await.unwrap();
        stage = stage!();
    }
}

#[tokio::test]
async fn objects_are_found_and_show_no_secret() {
    let mut stage = stage!();
    happen(&mut stage, [Event::ContainerNew(samples::running("web-1")), Event::JobNew(samples::job(1))]).await;
    let manager = fdo::ObjectManagerProxy::builder(&stage.client)
        .destination(stage.server.unique_name().unwrap().as_str())
        .path(paths::ROOT)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .unwrap();
    let objects = manager.get_managed_objects().await.unwrap();
    let has = |path: &str, interface: &str| {
        objects.iter().any(|(at, there)| at.as_str() == path && there.keys().any(|name| name.as_str() == interface))
    };
    assert!(has("/org/holm1/container/web_2d1", "org.holm1.Container"));
    assert!(has("/org/holm1/job/1", "org.holm1.Job"));
    assert!(has("/org/holm1/deviceset", "org.holm1.DeviceSet"));
    assert!(!format!("{objects:?}").contains(SECRET));
}

#[tokio::test]
async fn a_job_ends_once_even_when_events_are_missed() {
    let mut stage = stage!();
    happen(&mut stage, [Event::JobNew(samples::job(1)), Event::JobNew(samples::job(2))]).await;
    stage.heard().await;
    let ended = |id| Event::JobRemoved(JobView { result: Some(JobResult::Done), ..samples::job(id) });
    let (events_out, events_in) = broadcast::channel(2);
    // The end of job 1 is pushed out of the channel, that of job 2 is still in it.
    for event in [ended(1), ended(2), Event::PoolChanged] {
        events_out.send(event).unwrap();
    }
    drop(events_out);
    let (_settle, waiters) = settling();
    let Stage { publisher, mut heard, server, client: _client, _bus, .. } = stage;
    publisher.run(events_in, waiters).await;
    let signals = heard.so_far(&server).await;
    let ends: Vec<_> = signals.iter().filter(|line| line.starts_with("JobRemoved")).collect();
    assert_eq!(ends, ["JobRemoved done", "JobRemoved failed"], "{signals:#?}");
}

async fn call(
    stage: &Stage,
    path: &str,
    method: &str,
    body: &(impl serde::Serialize + zbus::DynamicType),
) -> zbus::Error {
    let interface = if path == paths::ROOT { "org.holm1.Manager" } else { "org.holm1.Container" };
    let server = stage.server.unique_name().unwrap().as_str();
    stage.client.call_method(Some(server), path, Some(interface), method, body).await.unwrap_err()
}

fn name_of(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, ..) => name.to_string(),
        zbus::Error::FDO(error) => error.name().to_string(),
        other => panic!("no method error: {other}"),
    }
}

#[tokio::test]
async fn wrong_calls_are_refused_by_name_before_anybody_is_asked() {
    let mut stage = stage!();
    happen(&mut stage, [Event::ContainerNew(samples::container("web"))]).await;
    let web = "/org/holm1/container/web";
    let none = HashMap::<&str, OwnedVariant>::new();
    let unknown = HashMap::from([("Nonsense", Variant::from(true))]);
    let error = call(&stage, web, "Stop", &(unknown,)).await;
    assert_eq!(name_of(&error), "org.holm1.Error.InvalidConfig");
    assert!(error.to_string().contains("unknown option 'Nonsense': known here are Signal, TimeoutUSec"), "{error}");
    let error = call(&stage, paths::ROOT, "CreateContainer", &("-", "debian", &none)).await;
    assert_eq!(name_of(&error), "org.holm1.Error.InvalidName");
    let error = call(&stage, web, "Kill", &("everybody", 9)).await;
    assert_eq!(name_of(&error), "org.holm1.Error.InvalidConfig");
    let error = call(&stage, web, "Stop", &(5u32,)).await;
    assert_eq!(name_of(&error), "org.freedesktop.DBus.Error.InvalidArgs");
    let error = call(&stage, web, "Stop", &(&none,)).await;
    assert_eq!(name_of(&error), "org.holm1.Error.ShuttingDown", "there is no engine behind this door");
}
