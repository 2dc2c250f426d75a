//! What every interface stands at: the engine behind it, the question who may pass, and the wait for the bus to be true.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use zbus::message::Header;

use super::auth::{Auth, Wish, sender};
use super::callers::Callers;
use super::error::{Error, Result};
use super::paths::{self, Path};
use super::requests::Start;
use super::table::Table;
use crate::engine::{Engine, JobId, RunIo, WantedBy};

/// A request to say when everything that has happened so far is on the bus.
pub(super) type Settle = oneshot::Sender<()>;

/// What the server has inside.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) engine: Engine,
    pub(super) table: Arc<Table>,
    pub(super) callers: Arc<Callers>,
    pub(super) auth: Auth,
    pub(super) settle: mpsc::UnboundedSender<Settle>,
}

impl Room {
    /// Waits until every event that the engine sent before this call is on the bus. So a method's reply comes after the
    /// signals of what it did, a path that it returns is there, and a property read after it is new.
    pub(super) async fn settled(&self) {
        let (done, settled) = oneshot::channel();
        // Either fails only when the publisher has ended, and then there is no bus to wait for.
        if self.settle.send(done).is_ok() {
            let _ = settled.await;
        }
    }

    /// What belongs to a run, with the service that it is on behalf of, if it is.
    pub(super) async fn run_io(&self, start: Start, header: &Header<'_>) -> Result<RunIo> {
        let mut io = start.io;
        if start.for_caller {
            io.wanted_by = self.callers.service(sender(header)?).await?.map(WantedBy::from);
        }
        Ok(io)
    }

    /// The path of a job that was just begun.
    pub(super) async fn job(&self, id: JobId) -> Path {
        self.settled().await;
        paths::job(id)
    }
}

/// The way in, as the interfaces hold it: weak, because the connection owns the interfaces and the room owns the
/// connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Door(Weak<Room>);

impl Door {
    pub(super) fn of(room: &Arc<Room>) -> Self {
        Self(Arc::downgrade(room))
    }

    /// Passes without a question, to read.
    pub(super) fn open(&self) -> Result<Arc<Room>> {
        self.0.upgrade().ok_or_else(Error::going_down)
    }

    /// Passes if the caller may.
    pub(super) async fn authorize(&self, header: &Header<'_>, wish: Wish) -> Result<Arc<Room>> {
        let room = self.open()?;
        room.auth.authorize(header, &wish).await?;
        Ok(room)
    }
}
