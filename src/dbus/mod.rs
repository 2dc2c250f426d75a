//! The door `org.holm1`: the engine on the bus. `docs/dbus.md` is the contract in words, `dbus/*.xml` in types.
//!
//! ```text
//!  call ──► interface: parse ─► authorise ─► call the engine ─► wait until it is on the bus ─► reply
//!                                                │ events
//!                                                ▼
//!  signals, objects ◄── publisher (one task) ──► table: what properties and listings are read from
//! ```
//!
//! | file | what |
//! |---|---|
//! | `manager.rs` `container.rs` `process.rs` `image.rs` `job.rs` `device_set.rs` | one interface each |
//! | `options.rs` | the typed reader of `a{sv}` |
//! | `requests.rs` | dictionaries → requests of the engine |
//! | `auth.rs` | may this caller do that: root, or polkit |
//! | `callers.rs` | who the caller is, and what ends when it leaves the bus |
//! | `door.rs` | what interfaces hold: the way to the engine |
//! | `table.rs` | the views that are on the bus |
//! | `publisher.rs` | events → objects and signals |
//! | `tree.rs` | which objects there are, and how they describe themselves |
//! | `standard.rs` | introspection and the ObjectManager |
//! | `paths.rs` | object paths |
//! | `error.rs` | the errors of methods |

mod auth;
mod callers;
mod container;
mod device_set;
mod door;
mod error;
mod image;
mod job;
mod manager;
mod options;
pub mod paths;
mod process;
mod publisher;
mod requests;
mod runs;
mod standard;
mod table;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use zbus::Connection;

pub use auth::Action;
pub use manager::SystemState;

use crate::engine::{Engine, Who};
use crate::model::Signal;
use callers::Callers;
use device_set::DeviceSet;
use door::{Door, Room};
use manager::Manager;
use paths::Path;
use publisher::Publisher;
use standard::ObjectManager;
use table::{Latest, Table};
use tree::Tree;

/// What can go wrong with the bus as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DbusError {
    /// The bus refused something or is gone.
    #[error("the bus failed: {0}; check that the system bus runs and that its policy lets holmd own org.holm1")]
    Bus(#[from] zbus::Error),
    /// A task of the server ended: the bus connection is gone, or there is a bug.
    #[error("the bus server's {task} ended{because}")]
    Ended {
        /// Which.
        task: &'static str,
        /// Why, if it is known.
        because: String,
    },
}

/// The objects on the bus. They stay registered on the connection when it is dropped, but every method fails with
/// `ShuttingDown` then, and nothing is signalled any more.
#[derive(Debug)]
pub struct Server {
    connection: Connection,
    state: Arc<Latest<SystemState>>,
    publisher: JoinHandle<()>,
    watcher: JoinHandle<()>,
    room: Arc<Room>,
}

/// What a connection is built with so that it takes calls; see [`connect`].
struct Beginning;

#[zbus::interface(name = "org.holm1.Beginning", introspection_docs = false)]
impl Beginning {}

/// Makes the connection for [`serve`]. zbus takes calls in a task that it only begins when the first object is added, and
/// a call that comes sooner, such as the one that activated the daemon, is lost without an answer. A connection that is
/// built with an object is there once that task runs.
pub async fn connect(builder: zbus::connection::Builder<'_>) -> zbus::Result<Connection> {
    let connection = builder.serve_at(paths::ROOT, Beginning).build().await?;
    connection.object_server().remove::<Beginning, _>(paths::ROOT).await?;
    Ok(connection)
}

/// Puts the engine on the bus: every object there is now is registered when this returns, and kept true from then on.
///
/// `features` are the words of the property `Features`. The name `org.holm1` is for the caller to ask for, after this, so
/// that nobody finds half of it. The connection is one of [`connect`] and should have no method timeout: polkit may wait for a person.
pub async fn serve(engine: Engine, connection: &Connection, features: Vec<String>) -> Result<Server, DbusError> {
    // First the events, then the state: what happens in between is seen twice rather than never.
    let events = engine.subscribe();
    let table = Arc::new(Table::default());
    let leavers = callers::leavers(connection).await?;
    let callers = Callers::new(connection).await?;
    let watcher = tokio::spawn(callers::watch(leavers, Arc::clone(&callers), end_process(engine.clone())));
    let auth = auth::Auth::new(connection, Arc::clone(&callers)).await?;
    let (settle, waiters) = mpsc::unbounded_channel();
    let room = Arc::new(Room { engine: engine.clone(), table: Arc::clone(&table), callers, auth, settle });
    let door = Door::of(&room);

    let state = Latest::new(SystemState::Running);
    let pool = Latest::new(engine.pool());
    let manager = Manager { door: door.clone(), driver: engine.driver(), features, state: Arc::clone(&state) };
    let devices = DeviceSet::new(door.clone(), engine.driver(), Arc::clone(&pool));
    let tree = serve_fixed(connection, manager, devices).await?;
    let mut publisher =
        Publisher { truth: engine, connection: connection.clone(), table, tree, pool, door, ended: VecDeque::new() };
    publisher.reconcile().await?;
    let publisher = tokio::spawn(publisher.run(events, waiters));
    Ok(Server { connection: connection.clone(), state, publisher, watcher, room })
}

/// The objects that never go.
async fn serve_fixed(connection: &Connection, manager: Manager, devices: DeviceSet) -> zbus::Result<Arc<Tree>> {
    let tree = Arc::new(Tree::default());
    let [root, device_set] = [paths::ROOT, paths::DEVICE_SET].map(Path::from_static_str_unchecked);
    standard::add(connection, &tree, &root, ObjectManager::new(Arc::clone(&tree))).await?;
    standard::add(connection, &tree, &root, manager).await?;
    standard::add(connection, &tree, &device_set, devices).await?;
    Ok(tree)
}

/// What happens to a process whose client left the bus.
fn end_process(engine: Engine) -> impl Fn(u32) {
    move |id| {
        let engine = engine.clone();
        tokio::spawn(async move {
            match engine.kill_process(id, Who::All, Signal::KILL).await {
                Ok(()) => tracing::info!(op = "kill", "killed process {id}: its client left the bus"),
                // It ended at the same moment, or its container did.
                Err(error) => tracing::debug!("process {id} of a client that left is not killed, ignoring: {error}"),
            }
        });
    }
}

impl Server {
    /// Sets the property `SystemState` (`running` at first); the signal goes out by itself.
    pub fn set_system_state(&self, state: SystemState) {
        if *self.state.get() == state {
            return;
        }
        self.state.set(state);
        let connection = self.connection.clone();
        tokio::spawn(async move {
            if let Err(error) = signal_system_state(&connection).await {
                tracing::warn!("cannot tell the bus that SystemState changed, ignoring: {error}");
            }
        });
    }

    /// Waits until all that has happened so far is on the bus.
    pub async fn settled(&self) {
        self.room.settled().await;
    }

    /// Waits until something of the server breaks, which leaves the daemon nothing to do but to end.
    pub async fn failed(&mut self) -> DbusError {
        let (task, result) = tokio::select! {
            result = &mut self.publisher => ("publisher", result),
            result = &mut self.watcher => ("watch over callers", result),
        };
        DbusError::Ended { task, because: because(result) }
    }
}

async fn signal_system_state(connection: &Connection) -> zbus::Result<()> {
    let manager = connection.object_server().interface::<_, Manager>(paths::ROOT).await?;
    manager.get().await.system_state_changed(manager.signal_emitter()).await
}

fn because(result: Result<(), JoinError>) -> String {
    result.err().map(|error| format!(": {error}")).unwrap_or_else(|| ": the connection was closed".to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.publisher.abort();
        self.watcher.abort();
    }
}
