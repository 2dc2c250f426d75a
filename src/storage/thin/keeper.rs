//! The thread that keeps room in the pool: it grows it in time, throws out the ballast when it cannot, and tells who
//! listens. A thread of its own, because the remover's may wait for a full pool when it closes a mount.
//!
//! It is woken by the kernel's low-water event, which comes through `/dev/mapper/control` and not as a device event, and
//! by a clock: the event comes once per resume of the pool and may be late for a fast writer.
//!
//! One rule keeps a pool from hanging: it is never stopped to be grown while a device is on its way to being suspended.
//! Suspending writes out what is dirty, and would wait for room in the pool while the pool waits for the device (dm's
//! suspend of a pool takes each of its devices' locks). Whoever suspends holds [`Keep::still`] and has made sure before
//! that there is room for what is dirty; whoever grows waits for that.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backend::{Host, Mode, Numbers, Part};
use super::core::{Bell, Core, lock};
use super::kernel::Control;
use super::meter::{Gauge, Meter};
use super::remover::Doorbell;
use super::space::{self, Room};
use super::state::Phase;
use crate::model::{Bytes, DeviceId, PoolStatus};
use crate::storage::{DeviceGrowth, Pressure, PressureLevel, PressureListener, StorageError, Trimmed};

/// How often it looks without an event.
pub(super) const USUAL: Duration = Duration::from_secs(5);

/// How often while there is too little room.
const PRESSED: Duration = Duration::from_secs(1);

/// How often while what is left is being written to: a fast disk fills a gigabyte in less than a second.
const BRISK: Duration = Duration::from_millis(100);

/// What the keeper remembers.
#[derive(Default)]
pub(super) struct Keep {
    /// Read by whoever suspends a device, written by whoever stops the pool.
    pub(super) still: RwLock<()>,
    meter: Mutex<Meter>,
    gauge: Mutex<Gauge>,
    listener: Mutex<Option<Arc<PressureListener>>>,
    /// What was told last; nothing was told to a listener that is new.
    level: Mutex<Option<PressureLevel>>,
    /// When it first looked.
    began: OnceLock<Instant>,
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keep").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Core {
    /// Grows what is below its mark, as far as host and limits allow. The numbers afterwards.
    pub(super) fn make_room(&self) -> Result<Numbers, StorageError> {
        let _stopped = self.keep.still.write().unwrap_or_else(PoisonError::into_inner);
        loop {
            let numbers = self.numbers()?;
            let Some((part, to)) = self.next_step(&numbers)? else { return Ok(numbers) };
            let began = Instant::now();
            if let Err(error) = self.backend.extend(part, to) {
                // The host has less than it said, or the pool cannot be changed: go on with what there is.
                tracing::debug!(%error, ?part, %to, "cannot grow the pool");
                return self.numbers();
            }
            tracing::debug!(?part, %to, took = ?began.elapsed(), "grew the pool");
        }
    }

    fn next_step(&self, numbers: &Numbers) -> Result<Option<(Part, Bytes)>, StorageError> {
        // The kernel does not resize a pool that has to be checked (maybe_resize_data_dev in dm-thin.c).
        if numbers.needs_check || numbers.mode == Mode::Failed {
            return Ok(None);
        }
        let room = self.room(numbers);
        if room.metadata.free() < room.metadata.mark
            && let Some(to) = space::next_metadata(&room.metadata, self.host(Part::Metadata)?)
        {
            return Ok(Some((Part::Metadata, to)));
        }
        let wanted = room.data.free() < room.data.mark && numbers.mode != Mode::ReadOnly;
        let host = self.host(Part::Data)?;
        let to = wanted.then(|| space::next_data(&room.data, host, self.settings.data_max, self.settings.block_size));
        Ok(to.flatten().map(|to| (Part::Data, to)))
    }

    /// Grows to given sizes by hand; 0 leaves one as it is. Neither the limit nor the host's part hold then.
    pub(super) fn grow(&self, data: Bytes, metadata: Bytes) -> Result<PoolStatus, StorageError> {
        {
            let _stopped = self.keep.still.write().unwrap_or_else(PoisonError::into_inner);
            let room = self.room(&self.numbers()?);
            let block = self.settings.block_size.0;
            let metadata = Bytes(metadata.0.min(space::MAX_METADATA) & !4095);
            for (part, now, to) in [
                (Part::Metadata, room.metadata.total, metadata),
                (Part::Data, room.data.total, Bytes(data.0 / block * block)),
            ] {
                if to.0 == 0 || to == now {
                    continue;
                }
                if to < now {
                    let advice = format!("it has {now}; a pool cannot be made smaller");
                    return Err(StorageError::NotSupported { what: "a smaller pool", advice });
                }
                self.backend.extend(part, to).map_err(|source| self.settings.failed("grow", source))?;
            }
        }
        self.status()
    }

    /// The right to suspend a device: the pool is not stopped meanwhile, and has room for everything that is dirty.
    /// `flush` writes the device out beforehand, for when the host has more dirty than the pool has room.
    pub(super) fn quiet(
        &self,
        flush: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<RwLockReadGuard<'_, ()>, StorageError> {
        let enough = |dirty: Bytes| -> Result<_, StorageError> {
            let data = self.room(&self.numbers()?).data;
            Ok((data.free().0 > data.reserve.0.saturating_add(dirty.0), data))
        };
        let enter = || self.keep.still.read().unwrap_or_else(PoisonError::into_inner);
        let guard = enter();
        if enough(self.backend.dirty())?.0 {
            return Ok(guard);
        }
        drop(guard);
        self.make_room()?;
        // Writers wait here if the pool is full: not in the suspend, so it can still be grown under them.
        flush()?;
        let guard = enter();
        let (enough, data) = enough(Bytes(0))?;
        if enough {
            return Ok(guard);
        }
        Err(StorageError::PoolFull { what: "data", free: data.free(), total: data.total, reserve: data.reserve })
    }

    /// The keeper's work. Returns when it wants to be called again although nothing happens.
    pub(super) fn tend(&self, now: Instant) -> Duration {
        let tended = self.numbers().and_then(|numbers| self.tend_to(now, &numbers));
        tended.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot look after the pool's room now");
            USUAL
        })
    }

    fn tend_to(&self, now: Instant, numbers: &Numbers) -> Result<Duration, StorageError> {
        let host = self.host(Part::Data)?;
        if space::unbacked(host).0 > 0
            && let Err(error) = self.backend.reserve()
        {
            // What is still missing counts as used.
            tracing::debug!(%error, "the host has less room than the pool gave back to it");
        }
        let numbers = if self.next_step(numbers)?.is_some() {
            // A device that is being suspended just now may wait for room, and the growth would wait for the device:
            // deleting needs neither.
            if numbers.mode == Mode::OutOfData && self.keep.still.try_write().is_err() {
                self.drop_ballast()?;
            }
            self.make_room()?
        } else {
            *numbers
        };
        if lock(&self.keep.meter).is_due(now) {
            match self.backend.glance() {
                Ok(listing) => lock(&self.keep.meter).sample(now, &listing),
                Err(error) => tracing::debug!(%error, "cannot measure devices, ignoring"),
            }
        }
        let room = self.room(&numbers);
        let pace = lock(&self.keep.gauge).read(now, numbers.data.0);
        let pressure = self.pressure(&numbers, &room, pace)?;
        self.tell(&pressure);
        match pressure.level {
            // Only now: whoever listens has stopped the writers that would eat it.
            PressureLevel::Full if self.drop_ballast()? => tracing::debug!("the pool is full: threw out its ballast"),
            // Not at once: a daemon that starts has better things to write.
            PressureLevel::None
                if now >= *self.keep.began.get_or_init(|| now) + USUAL && self.take_ballast(&room.data)? =>
            {
                tracing::debug!("took ballast");
            }
            _ => {}
        }
        Ok(match pressure.level {
            PressureLevel::None if space::is_getting_short(host) => PRESSED,
            PressureLevel::None => calm(&pressure, room.data.mark),
            _ if pace > 0.0 => BRISK,
            _ => PRESSED,
        })
    }

    fn pressure(&self, numbers: &Numbers, room: &Room, pace: f64) -> Result<Pressure, StorageError> {
        let data = room.data;
        let growable = space::growable(&data, self.host(Part::Data)?, self.settings.data_max);
        let block = self.settings.block_size;
        // The page cache may hold that much for the pool already. All of it may be another file system's, so it counts
        // only up to a part.
        let dirty = Bytes(self.backend.dirty().0.min(data.total.0 / 10));
        let left = Bytes(data.free().0.saturating_sub(dirty.0));
        let pace = lock(&self.keep.meter).total().max(pace);
        let time_to_full = time_to_full(left.0 + growable.0, pace, block);
        let grows = space::next_data(&data, self.host(Part::Data)?, self.settings.data_max, block).is_some();
        let level = match numbers.mode {
            Mode::OutOfData => PressureLevel::Full,
            Mode::Write if grows || data.free() >= data.mark => PressureLevel::None,
            // No matter of room: its state says what it is.
            Mode::Failed => PressureLevel::None,
            Mode::ReadOnly if numbers.needs_check => PressureLevel::None,
            // Without metadata nothing can even be deleted.
            Mode::ReadOnly => PressureLevel::High,
            _ if left < data.reserve || time_to_full.is_some_and(|left| left < SOON) => PressureLevel::High,
            _ => PressureLevel::Low,
        };
        let fastest = self.growth();
        Ok(Pressure { level, free: data.free(), dirty, total: data.total, growable, time_to_full, fastest })
    }

    /// Tells who listens when the level changes, and again and again while room is short.
    fn tell(&self, pressure: &Pressure) {
        let before = lock(&self.keep.level).replace(pressure.level);
        if before == Some(pressure.level) && pressure.level == PressureLevel::None {
            return;
        }
        // Not under the lock: the listener may ask for anything.
        let listener = lock(&self.keep.listener).clone();
        if let Some(listener) = listener {
            listener(pressure);
        }
    }

    /// Sets who is told.
    pub(super) fn listen(&self, listener: PressureListener) {
        *lock(&self.keep.listener) = Some(Arc::new(listener));
        *lock(&self.keep.level) = None;
    }

    /// Devices that take room, the fastest first.
    pub(super) fn growth(&self) -> Vec<DeviceGrowth> {
        let block = self.settings.block_size;
        let meter = lock(&self.keep.meter);
        let table = self.table();
        let mut growth: Vec<_> = meter
            .paces()
            .iter()
            .filter(|(_, pace)| pace.per_second * 60.0 >= 1.0)
            .filter_map(|(thin, pace)| {
                let (device, _) = table.state.devices.get(thin)?;
                let per_second = bytes_per_second(pace.per_second, block);
                Some(DeviceGrowth { id: device.id.clone(), mapped: Bytes(pace.mapped * block.0), per_second })
            })
            .filter(|growth| !super::hidden::is_hidden(&growth.id))
            .collect();
        growth.sort_by_key(|growth| std::cmp::Reverse(growth.per_second));
        growth
    }

    fn host(&self, part: Part) -> Result<Host, StorageError> {
        self.backend.host(part).map_err(|source| self.settings.failed("measure the host of", source))
    }

    /// Trims what is in use now; what is not cannot have changed since.
    pub(super) fn trim(self: &Arc<Self>) -> Result<Trimmed, StorageError> {
        let active = self.active_names()?;
        let devices: Vec<_> = {
            let table = self.table();
            let ready = table.state.devices.values().filter(|(_, phase)| *phase == Phase::Ready);
            ready.map(|(device, _)| device.clone()).collect()
        };
        let mut trimmed = Trimmed::default();
        for device in devices.iter().filter(|device| active.contains(&self.node_names(device).0)) {
            match self.trim_device(&device.id) {
                Ok(bytes) => {
                    trimmed.bytes.0 += bytes.0;
                    trimmed.devices += 1;
                }
                Err(error) => trimmed.failed.push((device.id.clone(), error.to_string())),
            }
        }
        Ok(trimmed)
    }

    /// Trims one device; how many bytes its file system gave back.
    pub(super) fn trim_device(self: &Arc<Self>, id: &DeviceId) -> Result<Bytes, StorageError> {
        let mount = self.mount(id, crate::storage::Access::ReadOnly)?;
        let failed = |source| StorageError::Io { op: "trim", path: format!("device {id}").into(), source };
        self.backend.trim(mount.mount()).map_err(failed)
    }
}

/// When to look again at a pool that has room. One that cannot grow tells of its low-water mark only once (the mark is
/// set anew by a resume: check_low_water_mark in dm-thin.c), so near to it only looking tells.
fn calm(pressure: &Pressure, mark: Bytes) -> Duration {
    let usual = match pressure.growable.0 == 0 && pressure.free.0 < mark.0.saturating_mul(2) {
        true => PRESSED,
        false => USUAL,
    };
    pressure.time_to_full.map_or(usual, |left| (left / 10).clamp(BRISK, usual))
}

/// Less than this is soon.
const SOON: Duration = Duration::from_secs(60);

#[expect(clippy::cast_precision_loss, reason = "a forecast needs no more than 52 bits")]
fn time_to_full(free: u64, blocks_per_second: f64, block: Bytes) -> Option<Duration> {
    let pace = blocks_per_second * block.0 as f64;
    // Slower than a block a minute is no pace.
    (blocks_per_second * 60.0 >= 1.0).then(|| Duration::try_from_secs_f64(free as f64 / pace).unwrap_or(Duration::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a pace is finite, positive and far below 2^52"
)]
fn bytes_per_second(blocks: f64, block: Bytes) -> Bytes {
    Bytes((blocks * block.0 as f64) as u64)
}

/// The running thread; dropping it stops and joins it.
#[derive(Debug)]
pub(super) struct Keeper {
    bell: Doorbell,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it over `core`, which it does not keep alive. `control` tells of the kernel's events; without it the clock
    /// alone must do.
    pub(super) fn start(core: Weak<Core>, control: Option<Control>) -> io::Result<Self> {
        let bell = Doorbell::new()?;
        let own = bell.clone();
        let run = move || run(&core, &own, control.as_ref());
        let thread = thread::Builder::new().name("holm-keeper".to_owned()).spawn(run)?;
        Ok(Self { bell, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.bell.0.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(core: &Weak<Core>, bell: &Doorbell, control: Option<&Control>) {
    while !bell.0.stop.load(Ordering::Acquire) {
        // Before the look, so that nothing is missed.
        let events = control.and_then(|control| {
            control.arm().inspect_err(|error| tracing::debug!(%error, "no pool events, ignoring")).ok()
        });
        let Some(next) = core.upgrade().map(|core| core.tend(Instant::now())) else { return };
        let mut fds = vec![PollFd::new(&bell.0.event, PollFlags::IN)];
        fds.extend(events.map(|events| PollFd::from_borrowed_fd(events, PollFlags::IN)));
        let timeout = Timespec::try_from(next).expect("waits are seconds, not centuries");
        if let Err(error) = poll(&mut fds, Some(&timeout)) {
            tracing::debug!(%error, "interrupted, ignoring");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_cannot_grow_is_looked_at_more_often_the_sooner_it_is_full() {
        let pressure = |growable, free, time_to_full: Option<u64>| Pressure {
            level: PressureLevel::None,
            free: Bytes(free),
            dirty: Bytes(0),
            total: Bytes(1000),
            growable: Bytes(growable),
            time_to_full: time_to_full.map(Duration::from_secs),
            fastest: Vec::new(),
        };
        assert_eq!(calm(&pressure(500, 150, None), Bytes(100)), USUAL);
        assert_eq!(calm(&pressure(0, 250, None), Bytes(100)), USUAL);
        assert_eq!(calm(&pressure(0, 150, None), Bytes(100)), PRESSED);
        assert_eq!(calm(&pressure(0, 150, Some(4)), Bytes(100)), Duration::from_millis(400));
        assert_eq!(calm(&pressure(0, 150, Some(0)), Bytes(100)), BRISK);
        assert_eq!(calm(&pressure(0, 500, Some(3600)), Bytes(100)), USUAL);
    }

    #[test]
    fn the_time_to_full_is_a_forecast_only_when_something_is_written() {
        assert_eq!(time_to_full(1 << 30, 0.0, Bytes(64 << 10)), None);
        assert_eq!(time_to_full(1 << 30, 16.0, Bytes(64 << 10)), Some(Duration::from_secs(1024)));
    }
}
