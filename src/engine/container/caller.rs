//! A caller with whom a run ends: that it has gone, or wants it to end, is seen by the monitor, which stops the payload, and here,
//! so that it is shown.
//!
//! A daemon that was started meanwhile does not have the caller's socket, and shows such a run as running until its end.

use std::os::fd::OwnedFd;

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::Request;
use super::task::Task;
use crate::engine::lifecycle::Event;
use crate::engine::request::RunIo;
use crate::sys::pidfd;
use crate::sys::readiness::Readiness;

/// Watches the caller of one run until this is dropped, or it goes.
#[derive(Debug)]
pub(super) struct Caller {
    _stop: oneshot::Sender<()>,
}

impl Caller {
    /// The socket of a caller that the run is tied to. It must not be kept longer than the monitor keeps it: the caller takes
    /// the end of all copies for the monitor's.
    pub(super) fn socket(io: &RunIo) -> Option<OwnedFd> {
        io.wanted_by.as_ref().and(io.monitor.as_ref())?.try_clone().ok()
    }

    /// Begins to watch; nothing is sent on the socket by the caller, so that it can be read from means that it is closed.
    pub(super) fn watch(socket: OwnedFd, run: u64, requests: mpsc::WeakUnboundedSender<Request>) -> Option<Self> {
        let closed =
            Readiness::new(socket).inspect_err(|error| debug!("cannot watch a caller: {error}, ignoring")).ok()?;
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                // By its sender's drop.
                _ = stopped => {}
                Ok(()) = closed.readable() => {
                    // The task may be gone with the container.
                    if let Some(requests) = requests.upgrade() {
                        let _ = requests.send(Request::CallerLeft { run });
                    }
                }
            }
        });
        Some(Self { _stop: stop })
    }
}

impl Task {
    /// A caller also leaves because its payload has ended, of which the monitor tells it first.
    pub(super) async fn caller_left(&mut self, run: u64) {
        let Some(now) = self.run.as_ref().filter(|now| now.record.run == run) else { return };
        let ended = now.handles.leader.as_ref().is_some_and(|leader| pidfd::has_ended(leader).unwrap_or(true));
        if !ended {
            self.happened(Event::Leaving).await;
        }
    }
}
