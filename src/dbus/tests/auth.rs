//! Who may, who is asked, and what ends with its caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use zbus::message::Flags;
use zbus::{Connection, Message, OwnedVariant, interface};

use crate::dbus::auth::{Action, Auth, Wish};
use crate::dbus::callers::{self, Callers};
use crate::model::ErrorCode;
use crate::testbus::TestBus as Bus;

/// A polkit that says what it is told to say, and remembers what it was asked.
#[derive(Clone, Default)]
struct Polkit {
    yes: bool,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Asked = (String, String, HashMap<String, String>, u32);

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Polkit {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        details: HashMap<String, String>,
        flags: u32,
        _cancellation: String,
    ) -> (bool, bool, HashMap<String, String>) {
        self.asked.lock().unwrap().push((subject.0, action, details, flags));
        (self.yes, false, HashMap::new())
    }
}

async fn polkit(bus: &Bus, polkit: Polkit) -> Connection {
    let connection = bus.connect().await;
    connection.object_server().at("/org/freedesktop/PolicyKit1/Authority", polkit).await.unwrap();
    connection.request_name("org.freedesktop.PolicyKit1").await.unwrap();
    connection
}

fn call_from(client: &Connection, flags: Option<Flags>) -> Message {
    let call = Message::method_call("/org/holm1", "Anything").sender(client.unique_name().unwrap());
    let call = flags.into_iter().fold(call, |call, flag| call.with_flags(flag));
    call.build(&()).unwrap()
}

fn wish() -> Wish {
    Wish::new(Action::Exec, "exec").container("web")
}

#[tokio::test]
async fn polkit_sees_the_caller_the_action_and_the_details() {
    let Some(bus) = Bus::start() else { return };
    for yes in [true, false] {
        let authority = Polkit { yes, ..Polkit::default() };
        let _polkit = polkit(&bus, authority.clone()).await;
        let (server, client) = (bus.connect().await, bus.connect().await);
        let auth = Auth::new(&server, Callers::new(&server).await.unwrap()).await.unwrap();
        for flags in [None, Some(Flags::ALLOW_INTERACTIVE_AUTH)] {
            let answer = auth.ask_polkit(&call_from(&client, flags).header(), &wish()).await;
            assert_eq!(answer.is_ok(), yes);
        }
        let details =
            HashMap::from([("verb", "exec"), ("container", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let asked = |flags| ("system-bus-name".to_owned(), "org.holm1.exec".to_owned(), details.clone(), flags);
        assert_eq!(
            *authority.asked.lock().unwrap(),
            [asked(0), asked(1)],
            "asks the person only where that is allowed"
        );
    }
}

#[tokio::test]
async fn without_polkit_only_root_may() {
    let Some(bus) = Bus::start() else { return };
    let (server, client) = (bus.connect().await, bus.connect().await);
    let auth = Auth::new(&server, Callers::new(&server).await.unwrap()).await.unwrap();
    let call = call_from(&client, None);
    let error = auth.ask_polkit(&call.header(), &wish()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotAuthorized);
    assert!(error.message.contains("org.holm1.exec"), "{}", error.message);
    let root = rustix::process::getuid().is_root();
    assert_eq!(auth.authorize(&call.header(), &wish()).await.is_ok(), root);
}

#[tokio::test]
async fn who_is_not_on_the_bus_is_nobody() {
    let Some(bus) = Bus::start() else { return };
    let server = bus.connect().await;
    let callers = Callers::new(&server).await.unwrap();
    let gone = zbus::names::UniqueName::try_from(":1.999").unwrap();
    assert_eq!(callers.uid(&gone).await.unwrap_err().code, ErrorCode::NotAuthorized);
    assert!(!callers.adopt(gone.as_str(), 1), "nothing is kept of one that was never there");
}

#[tokio::test]
async fn processes_end_with_their_caller() {
    let Some(bus) = Bus::start() else { return };
    let (server, client) = (bus.connect().await, bus.connect().await);
    let callers = Callers::new(&server).await.unwrap();
    let leavers = callers::leavers(&server).await.unwrap();
    let (end, mut ended) = mpsc::unbounded_channel();
    let watch = tokio::spawn(callers::watch(leavers, Arc::clone(&callers), move |id| end.send(id).unwrap()));
    let name = client.unique_name().unwrap().to_owned();

    assert!(!callers.adopt(&name, 0), "only of a caller that was asked for");
    assert_eq!(callers.uid(&name).await.unwrap(), rustix::process::getuid().as_raw());
    for id in [1, 2, 3] {
        assert!(callers.adopt(&name, id));
    }
    callers.ended(&name, 2);
    client.close().await.unwrap();
    assert_eq!((ended.recv().await, ended.recv().await), (Some(1), Some(3)));
    assert!(!callers.adopt(&name, 4), "it has left");
    watch.abort();
}
