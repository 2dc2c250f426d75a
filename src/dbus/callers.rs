//! Who is on the other side: the user behind each connection that asked for something, and what ends with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use zbus::names::{BusName, UniqueName};
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, MessageStream, fdo};

use super::error::{Error, Result};
use crate::engine::ProcessId;
use crate::model::{ErrorCode, Service};
use crate::sys::proc;

/// What is known of one connection.
#[derive(Debug, Default)]
struct Caller {
    /// Its user; absent until the bus has answered.
    uid: Option<u32>,
    /// Processes that end with it.
    processes: BTreeSet<ProcessId>,
}

/// The connections that asked for something, until they leave the bus. A unique name is never given to a second
/// connection while the bus runs, so what is known of it stays true.
#[derive(Debug)]
pub(super) struct Callers {
    bus: fdo::DBusProxy<'static>,
    known: Mutex<HashMap<String, Caller>>,
}

/// Connections that leave the bus: `NameOwnerChanged` with an empty new owner.
pub(super) async fn leavers(connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(2, "")
        .build()?;
    MessageStream::for_match_rule(rule, connection, None).await
}

impl Callers {
    pub(super) async fn new(connection: &Connection) -> zbus::Result<Arc<Self>> {
        let bus = fdo::DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        Ok(Arc::new(Self { bus, known: Mutex::default() }))
    }

    /// The user of a connection, asked of the bus the first time.
    pub(super) async fn uid(&self, sender: &UniqueName<'_>) -> Result<u32> {
        // The entry is made before the bus is asked. So if the connection leaves at any time after the answer, its entry
        // is there to be removed, and nothing is kept for one that is gone.
        if let Some(uid) = self.lock().entry(sender.to_string()).or_default().uid {
            return Ok(uid);
        }
        match self.bus.get_connection_unix_user(BusName::from(sender.as_ref())).await {
            Ok(uid) => {
                if let Some(caller) = self.lock().get_mut(sender.as_str()) {
                    caller.uid = Some(uid);
                }
                Ok(uid)
            }
            Err(error) => {
                self.lock().remove(sender.as_str());
                Err(Error::new(ErrorCode::NotAuthorized, format!("the bus does not say who '{sender}' is: {error}")))
            }
        }
    }

    /// The process of a connection when it was made. It may have ended since, so nothing is to be decided by it that its
    /// successor in the number may not know.
    pub(super) async fn pid(&self, sender: &UniqueName<'_>) -> Result<u32> {
        let pid = self.bus.get_connection_unix_process_id(BusName::from(sender.as_ref())).await;
        pid.map_err(|error| {
            Error::new(ErrorCode::NotAuthorized, format!("the bus does not say which process '{sender}' is: {error}"))
        })
    }

    /// The service that a connection's process belongs to, if it is root's and of a service.
    pub(super) async fn service(&self, sender: &UniqueName<'_>) -> Result<Option<Service>> {
        if self.uid(sender).await? != 0 {
            return Ok(None);
        }
        let pid = self.pid(sender).await?;
        let group = proc::control_group(pid);
        // Asked again: a connection that is still there is one whose process had the number all the time.
        if self.pid(sender).await? != pid {
            return Ok(None);
        }
        Ok(group.ok().and_then(|path| Service::of_control_group(path.to_str()?)))
    }

    /// Ties a process to a connection whose [`uid`](Self::uid) was asked before. `false` if it has left the bus since.
    pub(super) fn adopt(&self, owner: &str, process: ProcessId) -> bool {
        self.lock().get_mut(owner).map(|caller| caller.processes.insert(process)).is_some()
    }

    /// A process ended by itself.
    pub(super) fn ended(&self, owner: &str, process: ProcessId) {
        if let Some(caller) = self.lock().get_mut(owner) {
            caller.processes.remove(&process);
        }
    }

    /// Forgets a connection that has left. Returns the processes that end with it.
    fn left(&self, name: &str) -> BTreeSet<ProcessId> {
        self.lock().remove(name).map(|caller| caller.processes).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Caller>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `end` with every process whose connection left. Returns when the bus is gone; until then it must run, because
/// a stream that nobody reads stalls the whole connection.
pub(super) async fn watch(mut leavers: MessageStream, callers: Arc<Callers>, end: impl Fn(ProcessId)) {
    while let Some(message) = leavers.next().await {
        let Some(signal) = message.ok().and_then(fdo::NameOwnerChanged::from_message) else { continue };
        let Ok(args) = signal.args() else { continue };
        callers.left(args.name().as_str()).into_iter().for_each(&end);
    }
}
