//! Wrong calls of the DeviceSet, refused before anybody is asked whether they may be made.

use std::collections::HashMap;

use zbus::{Fd, Variant};

use super::Stage;
use crate::dbus::paths;

async fn call(stage: &Stage, method: &str, body: &(impl serde::Serialize + zbus::DynamicType)) -> (String, String) {
    let server = stage.server.unique_name().unwrap().as_str();
    let interface = Some("org.holm1.DeviceSet");
    let error = stage.client.call_method(Some(server), paths::DEVICE_SET, interface, method, body).await.unwrap_err();
    match &error {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone().unwrap_or_default()),
        other => panic!("no method error: {other}"),
    }
}

#[tokio::test]
async fn wrong_calls_are_refused_by_name() {
    let Some(stage) = Stage::set().await else { return };
    let options = |key: &'static str, value: Variant<'static>| HashMap::from([(key, value)]);
    let none = HashMap::<&str, Variant<'_>>::new();
    let here = std::fs::File::open("/").unwrap();
    let invalid = "org.holm1.Error.InvalidConfig";
    for (method, wrong, says) in [
        ("AddDevice", options("Colour", true.into()), "unknown option 'Colour': known here are Size"),
        ("AddDevice", options("Size", 5u32.into()), "option 'Size' wants a value of type 't', not 'u'"),
        ("SnapshotDevice", options("Size", 0u64.into()), "option 'Size': it must be greater than 0"),
    ] {
        let (name, text) = call(&stage, method, &("mine", "base", &wrong)).await;
        assert_eq!((name.as_str(), text.as_str()), (invalid, says), "{method}");
    }
    let (name, text) = call(&stage, "MountDevice", &("mine", Fd::from(&here), options("ReadOnly", "yes".into()))).await;
    assert_eq!((name.as_str(), text.contains("'ReadOnly'")), (invalid, true), "{text}");
    for id in ["", "../x", "a/b"] {
        assert_eq!(call(&stage, "AddDevice", &(id, "base", &none)).await.0, "org.holm1.Error.InvalidName", "{id}");
        assert_eq!(call(&stage, "AddDevice", &("mine", id, &none)).await.0, "org.holm1.Error.InvalidName", "{id}");
        for method in ["RemoveDevice", "ActivateDevice", "DeactivateDevice", "UnmountDevice", "OpenDevice"] {
            assert_eq!(call(&stage, method, &(id,)).await.0, "org.holm1.Error.InvalidName", "{method} {id}");
        }
    }
    // What is right comes as far as the engine, which there is none of here.
    let gone = "org.holm1.Error.ShuttingDown";
    assert_eq!(call(&stage, "AddDevice", &("mine", "base", &none)).await.0, gone);
    assert_eq!(call(&stage, "MountDevice", &("mine", Fd::from(&here), &none)).await.0, gone);
    assert_eq!(call(&stage, "Grow", &(0u64, 0u64)).await.0, gone);
    assert_eq!(call(&stage, "GetCheckReport", &()).await.0, gone);
}
