//! How fast devices take room: pure arithmetic over samples.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::metadata::Listing;

/// Old samples count half after this.
const HALF_LIFE: Duration = Duration::from_secs(15);

/// The pool commits once a second, so more often there is nothing to see.
const SHORTEST: Duration = Duration::from_millis(900);

/// Averages per device, weighted towards now.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<Instant>,
    devices: BTreeMap<u32, Pace>,
}

/// One device's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// Blocks it maps.
    pub(super) mapped: u64,
    /// Blocks per second.
    pub(super) per_second: f64,
}

impl Meter {
    /// Whether another sample would tell something.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= SHORTEST)
    }

    /// Takes a sample. A device that is new starts at rest: what a snapshot maps from the start is shared.
    pub(super) fn sample(&mut self, now: Instant, listing: &Listing) {
        if !self.is_due(now) {
            return;
        }
        let passed = self.last.map(|last| now.saturating_duration_since(last).as_secs_f64());
        self.last = Some(now);
        let devices = listing.iter().map(|(thin, details)| {
            let mapped = details.mapped_blocks;
            let pace = match (self.devices.get(thin), passed) {
                (Some(old), Some(passed)) => Pace { mapped, per_second: blend(*old, mapped, passed) },
                _ => Pace { mapped, per_second: 0.0 },
            };
            (*thin, pace)
        });
        self.devices = devices.collect();
    }

    /// Every device's pace as of the last sample.
    pub(super) fn paces(&self) -> &BTreeMap<u32, Pace> {
        &self.devices
    }

    /// Blocks per second of all.
    pub(super) fn total(&self) -> f64 {
        self.devices.values().map(|pace| pace.per_second).sum()
    }
}

/// How fast the pool as a whole takes room now: from its own count, which is new at any moment.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Gauge {
    /// Takes the number of blocks in use; blocks per second since the last time.
    #[expect(clippy::cast_precision_loss, reason = "a pace needs no more than 52 bits")]
    pub(super) fn read(&mut self, now: Instant, used: u64) -> f64 {
        let Some((then, before)) = self.last else {
            self.last = Some((now, used));
            return 0.0;
        };
        let passed = now.saturating_duration_since(then);
        if passed >= TOO_SOON {
            self.per_second = used.saturating_sub(before) as f64 / passed.as_secs_f64();
            self.last = Some((now, used));
        }
        self.per_second
    }
}

/// Less than this apart two counts say more about the page cache's bursts than about a pace.
const TOO_SOON: Duration = Duration::from_millis(50);

#[expect(clippy::cast_precision_loss, reason = "an average needs no more than 52 bits")]
fn blend(old: Pace, mapped: u64, passed: f64) -> f64 {
    let now = mapped.saturating_sub(old.mapped) as f64 / passed;
    let kept = 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64());
    old.per_second * kept + now * (1.0 - kept)
}

#[cfg(test)]
mod tests {

    use super::super::metadata::Details;
    use super::*;

    #[test]
    fn a_gauge_follows_at_once() {
        let (mut gauge, start) = (Gauge::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let read: Vec<_> =
            [(0, 50), (100, 60), (110, 90), (200, 60)].map(|(millis, used)| gauge.read(at(millis), used)).into();
        assert_eq!(read, [0.0, 100.0, 100.0, 0.0]);
    }

    fn listing(devices: &[(u32, u64)]) -> Listing {
        devices.iter().map(|(thin, mapped)| (*thin, Details { stamp: 1, mapped_blocks: *mapped })).collect()
    }

    #[test]
    fn a_steady_writer_is_measured_and_a_snapshot_is_none() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        for second in 0..90u64 {
            let now = start + Duration::from_secs(second);
            meter.sample(now, &listing(&[(1, 100 * second), (2, 5000)]));
        }
        let writer = meter.paces()[&1];
        assert!((95.0..=100.0).contains(&writer.per_second), "{writer:?}");
        assert_eq!(meter.paces()[&2].per_second, 0.0);
        let later = start + Duration::from_secs(105);
        meter.sample(later, &listing(&[(1, 8900), (3, 8900)]));
        assert!((40.0..=60.0).contains(&meter.total()), "half of it after one half-life: {}", meter.total());
        assert!(!meter.paces().contains_key(&2));
    }

    #[test]
    fn samples_that_are_too_close_are_one() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.sample(start, &listing(&[(1, 0)]));
        meter.sample(start + Duration::from_millis(1), &listing(&[(1, 1000)]));
        assert_eq!(meter.total(), 0.0);
    }
}
