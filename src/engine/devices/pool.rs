//! The pool's numbers: looked at now and then, and soon after something changed them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::broadcast;
use tracing::warn;

use super::super::view::Event;
use super::super::{Inner, blocking};
use super::health;
use crate::model::PoolStatus;

/// How often the pool's numbers are looked at.
const POOL_INTERVAL: Duration = Duration::from_secs(5);
/// How long changes of the pool are gathered before it is looked at.
const POOL_SETTLES: Duration = Duration::from_millis(300);

/// The numbers as of the last look.
#[derive(Debug)]
pub(in crate::engine) struct Pool {
    shown: RwLock<PoolStatus>,
    /// Held from the look until it is shown, so that an older one never replaces a newer.
    looking: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(in crate::engine) fn new(status: PoolStatus) -> Self {
        Self { shown: RwLock::new(status), looking: tokio::sync::Mutex::default() }
    }

    /// As of the last look.
    pub(in crate::engine) fn get(&self) -> PoolStatus {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows other numbers; those of before if they were others.
    fn set(&self, status: &PoolStatus) -> Option<PoolStatus> {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        (*shown != *status).then(|| std::mem::replace(&mut *shown, status.clone()))
    }
}

impl Inner {
    /// Looks at the pool now; tells when its numbers are others.
    pub(in crate::engine) async fn look_at_pool(&self) {
        let _one_at_a_time = self.held.pool.looking.lock().await;
        let devices = Arc::clone(&self.devices);
        match blocking(move || devices.status()).await {
            Ok(status) => {
                if let Some(before) = self.held.pool.set(&status) {
                    health::changed(&before, &status);
                    self.events.send(Event::PoolChanged);
                }
            }
            Err(error) => warn!(op = "pool-status", "{error}"),
        }
    }
}

/// Looks at the pool now and then, and soon after something changed it.
pub(in crate::engine) async fn watch_pool(inner: Arc<Inner>) {
    let mut ticker = tokio::time::interval(POOL_INTERVAL);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut events = inner.events.subscribe();
    loop {
        tokio::select! {
            _ = ticker.tick() => {}
            // Whatever else changes it in the next moment is seen with the same look.
            () = something_changes(&mut events) => {
                tokio::time::sleep(POOL_SETTLES).await;
                events = events.resubscribe();
            }
        }
        inner.look_at_pool().await;
    }
}

/// Waits for an event that probably changes the pool's numbers.
async fn something_changes(events: &mut broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::PoolChanged | Event::JobNew(_) | Event::JobChanged(_) | Event::JobRemoved(_)) => {}
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
