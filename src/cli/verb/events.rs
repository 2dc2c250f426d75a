//! `holmctl events`

use serde_json::{Map, Value as Json, json};

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::client::{Client, ClientError, Rule, Signal, object_name, to_text};
use crate::model::now_usec;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let mut signals = client.signals(&[Rule::Everything]).await?;
    while let Some(signal) = signals.next().await {
        if let Some(event) = Event::of(&signal) {
            event.write(args.json)?;
        }
    }
    Err(ClientError::BusGone.into())
}

/// One line: what kind of object, its name, what happened, and the rest.
#[derive(Debug, PartialEq)]
struct Event {
    kind: &'static str,
    name: String,
    event: String,
    details: Map<String, Json>,
}

impl Event {
    fn new(kind: &'static str, name: impl Into<String>, event: impl Into<String>) -> Self {
        Self { kind, name: name.into(), event: event.into(), details: Map::new() }
    }

    fn with(mut self, key: &str, value: Json) -> Self {
        self.details.insert(key.to_owned(), value);
        self
    }

    /// `None` for what says nothing to a person: properties without a change of state, a job's progress.
    fn of(signal: &Signal) -> Option<Self> {
        let named = |path: &str| object_name(path).unwrap_or_else(|| path.to_owned());
        Some(match signal {
            Signal::Listed { member, name, .. } => {
                let kind = if member.starts_with("Container") { "container" } else { "image" };
                Self::new(kind, name, if member.ends_with("New") { "new" } else { "removed" })
            }
            Signal::JobNew { id, .. } => Self::new("job", id.to_string(), "new"),
            Signal::JobRemoved { id, subject, result, .. } => {
                Self::new("job", id.to_string(), result).with("subject", json!(subject))
            }
            Signal::Exited { path, status, result } => Self::new("container", named(path), "exited")
                .with("status", json!(status))
                .with("result", json!(result)),
            Signal::OutOfMemory { path, count } => {
                Self::new("container", named(path), "out-of-memory").with("count", json!(count))
            }
            Signal::Changed { path, interface, values } => {
                if let (None, Some(health)) = (values.get("State"), values.get("Health")) {
                    return Some(Self::new("container", named(path), "health").with("health", json!(to_text(health))));
                }
                let state = to_text(values.get("State")?);
                match interface.as_str() {
                    "org.holm1.Container" => Self::new("container", named(path), state),
                    "org.holm1.DeviceSet" => Self::new("pool", "pool", state),
                    _ => return None,
                }
            }
            Signal::DaemonGone => Self::new("daemon", "holmd", "stopped"),
            Signal::DaemonThere => Self::new("daemon", "holmd", "started"),
        })
    }

    fn write(self, json: bool) -> Result<(), CliError> {
        let now = now_usec();
        if json {
            return output::write(&format!("{}\n", self.into_json(now)));
        }
        let moment = output::moment_text(now).unwrap_or_default();
        output::write(&format!("{moment} {}\n", self.line()))
    }

    fn line(&self) -> String {
        let details = self.details.iter().map(|(key, value)| match value {
            Json::String(text) => format!(" {key}={text}"),
            other => format!(" {key}={other}"),
        });
        format!("{} {} {}{}", self.kind, self.name, self.event, details.collect::<String>())
    }

    fn into_json(self, now: u64) -> Json {
        let mut object = self.details;
        object.insert("time_usec".into(), json!(now));
        object.insert("kind".into(), json!(self.kind));
        object.insert("name".into(), json!(self.name));
        object.insert("event".into(), json!(self.event));
        Json::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use zbus::OwnedObjectPath;

    use super::*;
    use crate::client::Properties;

    #[test]
    fn an_end_is_one_line() {
        let path = OwnedObjectPath::try_from("/org/holm1/container/db_2d1").unwrap();
        let event = Event::of(&Signal::Exited { path, status: 3, result: "exit-code".into() }).unwrap();
        assert_eq!(event.line(), "container db-1 exited result=exit-code status=3");
        let json = event.into_json(7);
        assert_eq!(json["name"], "db-1");
        assert_eq!(json["status"], 3);
    }

    #[test]
    fn a_change_of_health_is_one_line() {
        let path = OwnedObjectPath::try_from("/org/holm1/container/web").unwrap();
        let values = Properties::from_map([("Health".to_owned(), zbus::Str::from("healthy").into())].into());
        let signal = Signal::Changed { path, interface: "org.holm1.Container".into(), values };
        assert_eq!(Event::of(&signal).unwrap().line(), "container web health health=healthy");
    }

    #[test]
    fn a_job_says_what_it_was_about() {
        let path = OwnedObjectPath::try_from("/org/holm1/job/5").unwrap();
        let signal = Signal::JobRemoved { id: 5, path, subject: "web".into(), result: "done".into() };
        assert_eq!(Event::of(&signal).unwrap().line(), "job 5 done subject=web");
    }
}
