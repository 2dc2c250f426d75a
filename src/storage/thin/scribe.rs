//! The thread that copies the table into the pool a moment after it changed. A thread of its own: if a write should wait
//! for a pool that somebody filled in the same moment, neither removals nor growth, which end that, wait with it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use super::backup;
use super::core::{Core, lock};

/// How long it waits for more changes.
const DEBOUNCE: Duration = Duration::from_secs(2);

/// When it tries again what could not be done.
const RETRY: Duration = Duration::from_secs(30);

/// What it is told.
#[derive(Debug, Default)]
pub(super) struct News {
    state: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    changed: bool,
    stop: bool,
}

impl News {
    /// The table has changed. Never blocks on a disk.
    pub(super) fn changed(&self) {
        let mut told = lock(&self.state);
        if !told.changed {
            told.changed = true;
            self.changed.notify_all();
        }
    }

    /// Waits for a change and takes it; false when it is time to stop.
    fn wait(&self) -> bool {
        let told = lock(&self.state);
        let waiting = self.changed.wait_while(told, |told| !told.changed && !told.stop);
        !waiting.is_ok_and(|told| told.stop) && self.pause(DEBOUNCE)
    }

    /// Waits; false when it is time to stop.
    fn pause(&self, time: Duration) -> bool {
        let told = lock(&self.state);
        let paused = self.changed.wait_timeout_while(told, time, |told| !told.stop);
        paused.is_ok_and(|(mut told, _)| {
            told.changed = false;
            !told.stop
        })
    }
}

impl Core {
    /// Backs the metadata up when the newest backup is a day old: there is one for each day on which something changed.
    fn back_up_daily(&self) {
        let Some(directory) = &self.settings.directory else { return };
        if !backup::is_due(directory, SystemTime::now()).unwrap_or(false) {
            return;
        }
        match self.backend.back_up(directory) {
            Ok(written) => tracing::debug!(written, "backed the pool's metadata up"),
            Err(error) => tracing::debug!(%error, "cannot back the pool's metadata up, ignoring"),
        }
    }
}

/// The running thread; dropping it stops and joins it.
#[derive(Debug)]
pub(super) struct Scribe {
    news: Arc<News>,
    thread: Option<JoinHandle<()>>,
}

impl Scribe {
    /// Starts it over `core`, which it does not keep alive.
    pub(super) fn start(core: &Arc<Core>) -> io::Result<Self> {
        let (weak, news) = (Arc::downgrade(core), Arc::clone(&core.news));
        let own = Arc::clone(&news);
        let thread = thread::Builder::new().name("holm-scribe".to_owned()).spawn(move || run(&weak, &own))?;
        Ok(Self { news, thread: Some(thread) })
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        lock(&self.news.state).stop = true;
        self.news.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(core: &Weak<Core>, news: &News) {
    while news.wait() {
        let Some(core) = core.upgrade() else { return };
        let written = core.write_copy();
        core.back_up_daily();
        drop(core);
        match written {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot copy the table into the pool now"),
        }
        if !news.pause(RETRY) {
            return;
        }
        news.changed();
    }
}
