//! What changed, for whoever listens.

use tokio::sync::broadcast;

use super::view::Event;

/// Sends events to every listener. Nobody listening is fine.
#[derive(Debug, Clone)]
pub(super) struct Events(broadcast::Sender<Event>);

/// How many events a slow listener may be behind before it must read everything anew.
const BACKLOG: usize = 4096;

impl Events {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    pub(super) fn send(&self, event: Event) {
        // An error means that nobody listens.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
