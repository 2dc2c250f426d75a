//! Ears on the private bus.

use std::time::Duration;

use futures_util::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant};

/// Every signal of one connection, heard by another.
pub(super) struct Heard(MessageStream);

impl Heard {
    pub(super) async fn from(client: &Connection, server: &Connection) -> Self {
        let rule =
            MatchRule::builder().msg_type(Type::Signal).sender(server.unique_name().unwrap().as_str()).build().unwrap();
        Self(MessageStream::for_match_rule(rule, client, None).await.unwrap())
    }

    /// What came since the last look. A signal sent now marks the end: the bus keeps the order of one sender.
    pub(super) async fn so_far(&mut self, server: &Connection) -> Vec<String> {
        server.emit_signal(None::<&str>, "/mark", "test.Mark", "Mark", &()).await.unwrap();
        let mut lines = Vec::new();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
            let message = message.expect("the mark comes").unwrap().unwrap();
            if message.header().member().unwrap() == "Mark" {
                return lines;
            }
            lines.push(describe(&message));
        }
    }

    pub(super) async fn forget(&mut self, server: &Connection) {
        self.so_far(server).await;
    }
}

/// `path member details`, without the common beginning of paths.
fn describe(message: &zbus::Message) -> String {
    let header = message.header();
    let short = |path: &str| path.strip_prefix("/org/holm1").unwrap_or(path).to_owned();
    let (path, member) = (short(header.path().unwrap().as_str()), header.member().unwrap().to_string());
    let body = message.body();
    let details = match member.as_str() {
        "PropertiesChanged" => {
            let (_, changed, gone): (String, std::collections::BTreeMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().unwrap();
            assert!(gone.is_empty());
            changed.keys().cloned().collect::<Vec<_>>().join(",")
        }
        "InterfacesAdded" | "InterfacesRemoved" => {
            let structure: zbus::wire::Structure<'_> = body.deserialize().unwrap();
            short(<&zbus::ObjectPath<'_>>::try_from(&structure.fields()[0]).unwrap())
        }
        "Exited" => {
            body.deserialize::<i32>().or_else(|_| body.deserialize::<(i32, String)>().map(|b| b.0)).unwrap().to_string()
        }
        "JobRemoved" => body.deserialize::<(u32, zbus::OwnedObjectPath, String, String)>().unwrap().3,
        _ => String::new(),
    };
    format!("{path} {member} {details}").trim().to_owned()
}
