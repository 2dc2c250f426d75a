//! The thread that gives back what nobody uses: woken by the driver, by the kernel's device events, or by the clock.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::core::{Bell, Core};
use crate::sys::uevent::Uevents;

/// Wakes the thread; cloned into whoever has news.
#[derive(Debug, Clone)]
pub(super) struct Doorbell(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    stop: AtomicBool,
}

impl Doorbell {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared { event, stop: AtomicBool::new(false) })))
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        // EAGAIN: the counter is full, so the thread is awake anyway.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }
}

/// The running thread; dropping it stops and joins it.
#[derive(Debug)]
pub(super) struct Remover {
    bell: Doorbell,
    thread: Option<JoinHandle<()>>,
}

impl Remover {
    /// Starts it over `core`, which it does not keep alive.
    pub(super) fn start(core: Weak<Core>, bell: Doorbell) -> io::Result<Self> {
        // Without events (in some containers) the clock alone must do.
        let events = Uevents::open().inspect_err(|error| tracing::debug!(%error, "no device events, ignoring")).ok();
        let own = bell.clone();
        let thread =
            thread::Builder::new().name("holm-remover".to_owned()).spawn(move || run(&core, &own.0, events))?;
        Ok(Self { bell, thread: Some(thread) })
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.bell.0.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(core: &Weak<Core>, shared: &Shared, events: Option<Uevents>) {
    let mut next = Some(Duration::ZERO);
    while wait(shared, events.as_ref(), next) {
        let Some(core) = core.upgrade() else { return };
        next = core.tidy();
    }
}

/// Waits for news; false when it is time to stop.
fn wait(shared: &Shared, events: Option<&Uevents>, limit: Option<Duration>) -> bool {
    let until = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::new(&shared.event, PollFlags::IN)];
        fds.extend(events.map(|events| PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)));
        let timeout = left.map(|left| Timespec::try_from(left).expect("waits are seconds, not centuries"));
        let ready = poll(&mut fds, timeout.as_ref());
        if shared.stop.load(Ordering::Acquire) {
            return false;
        }
        let rung = rustix::io::read(&shared.event, &mut [0; 8]).is_ok();
        let removed = events.is_some_and(a_node_went);
        if rung || removed || (ready == Ok(0) && left.is_some()) {
            return true;
        }
    }
}

/// Reads all events; whether one says that a device-mapper node is gone, or events were lost.
fn a_node_went(events: &Uevents) -> bool {
    let mut went = false;
    loop {
        match events.next() {
            Ok(None) => return went,
            Ok(Some(event)) => went |= event.action == "remove" && event.name.starts_with("dm-"),
            // The buffer ran over: look at everything.
            Err(_) => return true,
        }
    }
}
