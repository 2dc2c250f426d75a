//! Waiting for the end of a systemd job.
//!
//! A job is known by the path in the reply that queued it, but its JobRemoved may come before that reply. So whoever
//! queues a job says beforehand for which unit, and gets every result for that unit from then on, in order.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zbus::OwnedObjectPath;

use super::bus::{JobRemovedStream, ManagerProxy};

/// The one subscription to JobRemoved.
///
/// A task of its own drains it, since one unread stream stalls a whole zbus connection; it ends with this. The stream
/// passes only signals of the owner of systemd's name: anybody may send us a signal that looks like one.
#[derive(Debug)]
pub(super) struct Jobs {
    expectations: Arc<Mutex<Expectations>>,
    dispatcher: JoinHandle<()>,
}

/// Results of jobs on one unit.
#[derive(Debug)]
pub(super) struct Expectation {
    results: mpsc::UnboundedReceiver<(OwnedObjectPath, String)>,
}

type Expectations = Vec<(String, mpsc::UnboundedSender<(OwnedObjectPath, String)>)>;

impl Jobs {
    /// Opens the subscription. It is in place when this returns.
    pub(super) async fn open(manager: &ManagerProxy<'_>) -> zbus::Result<Self> {
        let stream = manager.receive_job_removed().await?;
        let expectations = Arc::default();
        let dispatcher = tokio::spawn(dispatch(stream, Arc::clone(&expectations)));
        Ok(Self { expectations, dispatcher })
    }

    /// From now on, the results of jobs on `unit`. To be called before the job is queued.
    pub(super) fn expect(&self, unit: &str) -> Expectation {
        let (sender, results) = mpsc::unbounded_channel();
        let mut expectations = lock(&self.expectations);
        expectations.retain(|(_, sender)| !sender.is_closed());
        // After the end of the subscription nothing will come: dropping the sender says so.
        if !self.dispatcher.is_finished() {
            expectations.push((unit.to_owned(), sender));
        }
        Expectation { results }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.dispatcher.abort();
    }
}

impl Expectation {
    /// The result of this job; `None` when the connection to the bus is gone.
    pub(super) async fn result_of(&mut self, job: &OwnedObjectPath) -> Option<String> {
        loop {
            let (path, result) = self.results.recv().await?;
            if path == *job {
                return Some(result);
            }
        }
    }
}

async fn dispatch(mut stream: JobRemovedStream, expectations: Arc<Mutex<Expectations>>) {
    while let Some(signal) = stream.next().await {
        let Ok(arguments) = signal.args() else { continue };
        for (unit, sender) in lock(&expectations).iter() {
            if *unit == arguments.unit {
                // An error only means that nobody waits any more.
                let _ = sender.send((arguments.job.clone(), arguments.result.clone()));
            }
        }
    }
    lock(&expectations).clear();
}

/// Every change of the list is a single step, so it is sound even after a panic.
fn lock(expectations: &Mutex<Expectations>) -> std::sync::MutexGuard<'_, Expectations> {
    expectations.lock().unwrap_or_else(PoisonError::into_inner)
}
