//! Match rules, and one queue of what they let through.
//!
//! One task drains the connection from the moment the rules are sent, into a queue without a bound: a stream of zbus
//! that nobody reads stalls the whole connection. The rules are sent without waiting for the bus: it handles the
//! messages of one connection in order, so a call made afterwards cannot be answered before they are in force.

use futures_util::StreamExt;
use tokio::sync::mpsc;
use zbus::message::{Flags, Type};
use zbus::names::OwnedUniqueName;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath};

use super::value::Properties;
use super::{ClientError, ROOT, SERVICE};

/// What to hear of. The coming and going of the daemon is always heard.
#[derive(Debug, Clone, Copy)]
pub enum Rule<'a> {
    /// Changes of jobs: progress and end.
    JobChanges,
    /// Jobs that are over.
    JobsRemoved,
    /// Containers that are gone.
    ContainersRemoved,
    /// Everything that one object says.
    Object(&'a str),
    /// Everything that the daemon says.
    Everything,
}

impl Rule<'_> {
    fn text(self) -> String {
        let from = format!("type='signal',sender='{SERVICE}'");
        match self {
            Self::JobChanges => format!(
                "{from},interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',path_namespace='{ROOT}/job'"
            ),
            Self::JobsRemoved => format!("{from},interface='org.holm1.Manager',member='JobRemoved'"),
            Self::ContainersRemoved => format!("{from},interface='org.holm1.Manager',member='ContainerRemoved'"),
            Self::Object(path) => format!("{from},path='{path}'"),
            Self::Everything => from,
        }
    }
}

/// Something the daemon, or the bus about it, said.
#[derive(Debug)]
pub enum Signal {
    /// Properties of an object changed.
    Changed {
        /// Which object.
        path: OwnedObjectPath,
        /// On which interface.
        interface: String,
        /// The new values.
        values: Properties,
    },
    /// A container or image appeared (`new`) or is gone.
    Listed {
        /// `ContainerNew`, `ContainerRemoved`, `ImageNew` or `ImageRemoved`.
        member: String,
        /// Its name.
        name: String,
        /// Its path.
        path: OwnedObjectPath,
    },
    /// A job began.
    JobNew {
        /// Its number.
        id: u32,
        /// Its path.
        path: OwnedObjectPath,
    },
    /// A job is over.
    JobRemoved {
        /// Its number.
        id: u32,
        /// Its path.
        path: OwnedObjectPath,
        /// What it was about.
        subject: String,
        /// `done`, `failed`, `canceled` or `timeout`.
        result: String,
    },
    /// The payload of a container ended.
    Exited {
        /// Which container.
        path: OwnedObjectPath,
        /// The exit status.
        status: i32,
        /// The plain word.
        result: String,
    },
    /// The kernel killed processes of a container for lack of memory.
    OutOfMemory {
        /// Which container.
        path: OwnedObjectPath,
        /// How many so far in this run.
        count: u64,
    },
    /// The daemon left the bus; jobs it had are lost.
    DaemonGone,
    /// The daemon is on the bus (again).
    DaemonThere,
}

/// The queue. Dropping it stops the listening; the rules stay until the connection ends.
#[derive(Debug)]
pub struct Signals {
    bus: Connection,
    queue: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    pub(super) async fn open(bus: &Connection, rules: &[Rule<'_>]) -> Result<Self, ClientError> {
        let stream = MessageStream::from(bus);
        let owner = bus_call("GetNameOwner", SERVICE, Flags::empty())?;
        let serial = owner.primary_header().serial_num();
        let mut messages = vec![add_match(&daemon_rule())?, owner];
        for rule in rules {
            messages.push(add_match(&rule.text())?);
        }
        let (sender, queue) = mpsc::unbounded_channel();
        tokio::spawn(drain(stream, sender, serial));
        bus.send_all(&messages).await?;
        Ok(Self { bus: bus.clone(), queue })
    }

    /// Lets more through, from now on.
    pub async fn add(&self, rule: Rule<'_>) -> Result<(), ClientError> {
        Ok(self.bus.send(&add_match(&rule.text())?).await?)
    }

    /// The next signal; `None` when the bus is gone. May be cancelled.
    pub async fn next(&mut self) -> Option<Signal> {
        self.queue.recv().await
    }
}

fn daemon_rule() -> String {
    format!(
        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{SERVICE}'"
    )
}

fn add_match(rule: &str) -> Result<Message, ClientError> {
    bus_call("AddMatch", rule, Flags::NO_REPLY_EXPECTED)
}

fn bus_call(member: &str, argument: &str, flags: Flags) -> Result<Message, ClientError> {
    let call = Message::method_call("/org/freedesktop/DBus", member)
        .destination("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .with_flags(flags);
    Ok(call.build(&argument)?)
}

/// Reads everything there is until the bus or the listener is gone. Signals count only when they come from whoever owns
/// the daemon's name at that point of the stream: any client may send us signals directly.
async fn drain(mut stream: MessageStream, sender: mpsc::UnboundedSender<Signal>, owner_call: std::num::NonZeroU32) {
    let mut owner: Option<OwnedUniqueName> = None;
    while let Some(Ok(message)) = stream.next().await {
        let signal = match message.message_type() {
            Type::MethodReturn if message.header().reply_serial() == Some(owner_call) => {
                owner = message.body().deserialize().ok();
                continue;
            }
            Type::Signal => parse(&message, &mut owner),
            _ => continue,
        };
        if let Some(signal) = signal
            && sender.send(signal).is_err()
        {
            return;
        }
    }
}

fn parse(message: &Message, owner: &mut Option<OwnedUniqueName>) -> Option<Signal> {
    let header = message.header();
    let sender = header.sender()?;
    let member = header.member()?.as_str();
    if sender.as_str() == "org.freedesktop.DBus" {
        return (member == "NameOwnerChanged").then(|| owner_changed(message, owner)).flatten();
    }
    if owner.as_ref().is_none_or(|owner| owner.as_str() != sender.as_str()) {
        return None;
    }
    let path: OwnedObjectPath = header.path()?.to_owned().into();
    let body = message.body();
    match member {
        "PropertiesChanged" => {
            let (interface, values, _gone): (String, _, Vec<String>) = body.deserialize().ok()?;
            Some(Signal::Changed { path, interface, values: Properties::from_map(values) })
        }
        "ContainerNew" | "ContainerRemoved" | "ImageNew" | "ImageRemoved" => {
            let (name, path) = body.deserialize().ok()?;
            Some(Signal::Listed { member: member.to_owned(), name, path })
        }
        "JobNew" => body.deserialize().ok().map(|(id, path)| Signal::JobNew { id, path }),
        "JobRemoved" => {
            let (id, path, subject, result) = body.deserialize().ok()?;
            Some(Signal::JobRemoved { id, path, subject, result })
        }
        "Exited" if header.interface()?.as_str() == "org.holm1.Container" => {
            let (status, result) = body.deserialize().ok()?;
            Some(Signal::Exited { path, status, result })
        }
        "OutOfMemory" => Some(Signal::OutOfMemory { path, count: body.deserialize().ok()? }),
        _ => None,
    }
}

fn owner_changed(message: &Message, owner: &mut Option<OwnedUniqueName>) -> Option<Signal> {
    let (name, _before, now): (String, String, String) = message.body().deserialize().ok()?;
    if name != SERVICE {
        return None;
    }
    *owner = OwnedUniqueName::try_from(now).ok();
    Some(if owner.is_some() { Signal::DaemonThere } else { Signal::DaemonGone })
}
