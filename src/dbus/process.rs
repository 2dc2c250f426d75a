//! `org.holm1.Process`.

use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::auth::{Action, Wish};
use super::door::Door;
use super::error::Result;
use super::requests;
use super::table::Latest;
use crate::engine::ProcessView;
use crate::model::Exit;

/// A process started by `Container.Exec`.
#[derive(Debug)]
pub(super) struct Process {
    door: Door,
    view: Arc<Latest<ProcessView>>,
}

impl Process {
    pub(super) fn new(door: Door, view: Arc<Latest<ProcessView>>) -> Self {
        Self { door, view }
    }
}

#[interface(name = "org.holm1.Process", introspection_docs = false)]
impl Process {
    /// Sends a signal to the process ("leader") or to it and everything it started ("all").
    async fn kill(&self, who: &str, signal: i32, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let (who, signal) = requests::kill(who, signal)?;
        let view = self.view.get();
        let wish = Wish::new(Action::Exec, "kill").container(view.container.as_str());
        let room = self.door.authorize(&header, wish).await?;
        Ok(room.engine.kill_process(view.id, who, signal).await?)
    }

    /// It ended. Status as in ExitStatus; follows the change of State.
    #[zbus(signal)]
    pub(super) async fn exited(emitter: &SignalEmitter<'_>, status: i32) -> zbus::Result<()>;

    /// Number, unique while holmd runs.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.view.get().id
    }

    /// Name of the container it is in.
    #[zbus(property(emits_changed_signal = "const"))]
    fn container(&self) -> String {
        self.view.get().container.to_string()
    }

    /// Program and arguments.
    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> Vec<String> {
        self.view.get().command.clone()
    }

    /// Process id as the host sees it.
    #[zbus(property(emits_changed_signal = "const"), name = "PID")]
    fn pid(&self) -> u32 {
        self.view.get().pid
    }

    /// When it started.
    #[zbus(property(emits_changed_signal = "const"), name = "StartedUSec")]
    fn started_usec(&self) -> u64 {
        self.view.get().started_usec
    }

    /// running or exited.
    #[zbus(property)]
    fn state(&self) -> &str {
        if self.view.get().ended { "exited" } else { "running" }
    }

    /// Exit status, 128 plus the number for a signal; -1 while it runs or when nobody knows.
    #[zbus(property)]
    fn exit_status(&self) -> i32 {
        self.view.get().exit.map_or(-1, Exit::status)
    }
}
