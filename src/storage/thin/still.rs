//! A device that is in use is held still while a snapshot of it is made, and in no case longer than its users can bear:
//! resumed by a guard, by a watchdog when that hangs, and by the next daemon when this one is killed.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::core::{Core, lock};
use super::lease::sync;
use super::state::Device;
use crate::storage::{Access, StorageError};

/// How long a device may be held still. A snapshot takes milliseconds; what takes longer hangs, on a disk that does not
/// answer.
const LIMIT: Duration = Duration::from_secs(10);

impl Core {
    /// Lets `make` make a snapshot of `origin`, which nobody writes to meanwhile; how long it was suspended for that.
    pub(super) fn snapshot(
        &self,
        origin: &Device,
        make: impl FnOnce() -> Result<Device, StorageError>,
    ) -> Result<(Device, Option<Duration>), StorageError> {
        // Held so that nobody activates the origin between the look at it and the snapshot.
        let slot = self.slot(origin.thin);
        let _held = lock(&slot);
        let still = self.hold_still(origin)?;
        let device = make()?;
        let frozen = still.map(HeldStill::end).transpose().map_err(|message| {
            self.abandon(&device);
            StorageError::TookTooLong { op: "the snapshot of", id: origin.id.clone(), message }
        })?;
        Ok((device, frozen))
    }

    /// Suspends an active origin: an unsuspended one could take blocks for its own that the snapshot shares.
    fn hold_still(&self, origin: &Device) -> Result<Option<HeldStill<'_>>, StorageError> {
        let (name, _) = self.node_names(origin);
        let failed = |source| StorageError::DeviceMapper { op: "suspend", device: name.clone(), source };
        match self.backend.node(&name).map_err(failed)? {
            Some(node) if node.live => {}
            _ => return Ok(None),
        }
        let quiet = self.quiet(|| {
            let mount = self.open_mount(origin, Access::ReadOnly)?;
            sync(origin, mount.as_fd())
        })?;
        let began = Instant::now();
        match self.backend.suspend(&name) {
            Ok(()) => {
                let watchdog = Watchdog::start(Arc::clone(&self.backend), &name, LIMIT);
                Ok(Some(HeldStill { core: self, name, began, watchdog, _quiet: quiet }))
            }
            // It went meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }
}

/// An origin that is suspended; resumed whatever happens.
#[derive(Debug)]
struct HeldStill<'a> {
    core: &'a Core,
    name: String,
    /// Before the suspend, which freezes the file system first.
    began: Instant,
    watchdog: Watchdog,
    /// After its resume the pool may be stopped again.
    _quiet: RwLockReadGuard<'a, ()>,
}

impl HeldStill<'_> {
    /// Resumes it; how long it was suspended. An error says that it had to be resumed early: what was made of it meanwhile
    /// may be of no moment at all.
    fn end(self) -> Result<Duration, &'static str> {
        let (began, too_late) = (self.began, self.watchdog.end());
        drop(self);
        if too_late { Err("it was let go on meanwhile; nothing was made") } else { Ok(began.elapsed()) }
    }
}

impl Drop for HeldStill<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.core.backend.resume(&self.name) {
            tracing::debug!(%error, self.name, "cannot resume a device; the next start does it");
        }
    }
}

/// Resumes a device when nobody else has in time.
#[derive(Debug)]
struct Watchdog {
    /// Closed at the end; nothing is ever sent.
    _leash: Sender<()>,
    late: Arc<AtomicBool>,
}

impl Watchdog {
    fn start(backend: Arc<dyn Backend>, name: &str, limit: Duration) -> Self {
        let (leash, pulled) = channel();
        let late = Arc::new(AtomicBool::new(false));
        let (name, told) = (name.to_owned(), Arc::clone(&late));
        let watch = move || watch(&*backend, &name, &pulled, limit, &told);
        if let Err(error) = thread::Builder::new().name("holm-watchdog".to_owned()).spawn(watch) {
            tracing::debug!(%error, "nobody watches a snapshot, ignoring");
        }
        Self { _leash: leash, late }
    }

    /// Whether it had to do something. From now on it does not matter whether it does.
    fn end(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }
}

fn watch(backend: &dyn Backend, name: &str, pulled: &Receiver<()>, limit: Duration, late: &AtomicBool) {
    if pulled.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    // Before the device goes on: whoever is late must not believe what was made of it.
    late.store(true, Ordering::Release);
    if let Err(error) = backend.resume(name) {
        tracing::debug!(%error, name, "cannot resume a device");
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::Spec;
    use super::super::model::Model;
    use super::*;
    use crate::model::Bytes;

    #[test]
    fn who_holds_a_device_too_long_is_told_and_the_device_goes_on() {
        use super::super::backend::{Nodes, Pool};
        let backend = Model::new();
        backend.create_thin(1).unwrap();
        backend.activate(&Spec { name: "t-a-1", uuid: "HOLM-u-1-1", thin: 1, size: Bytes(1 << 30) }).unwrap();
        let suspended = || backend.node("t-a-1").unwrap().unwrap().suspended;
        backend.suspend("t-a-1").unwrap();
        let watchdog = Watchdog::start(Arc::new(backend.clone()), "t-a-1", Duration::ZERO);
        while suspended() {
            thread::yield_now();
        }
        assert!(watchdog.end());
        let patient = Watchdog::start(Arc::new(backend.clone()), "t-a-1", LIMIT);
        assert!(!patient.end());
    }
}
