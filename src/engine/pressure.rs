//! A pool that is full and cannot grow: the containers that fill it are held still until there is room again.
//!
//! A writer to a full pool waits in the kernel, and gets errors when that has waited long enough: what it wrote is lost
//! then. One that is held still has lost nothing.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::warn;

use super::devices::health;
use super::table::{Inner, container_device};
use crate::storage::{Pressure, PressureLevel};

/// What is left of the room at the pace of the last minute; the set speaks once a second.
const SOON: Duration = Duration::from_secs(2);

/// While there is little room, they go on no sooner than this after somebody was held: whoever writes that fast fills the
/// rest at once.
const CALM: Duration = Duration::from_secs(10);

/// Looks after the containers' side of the pool's room from now on.
pub(super) fn watch(inner: &Arc<Inner>) {
    let weak: Weak<Inner> = Arc::downgrade(inner);
    // Who is held already was held by the daemon before, a moment ago.
    let last_held = Mutex::new(Instant::now());
    inner.devices.on_pressure(Box::new(move |pressure| {
        if let Some(inner) = weak.upgrade() {
            health::pressed(&inner, pressure);
            respond(&inner, pressure, &mut last_held.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }));
}

/// On the thread of the DeviceSet, which waits for this before it gives the last reserve to the writers.
fn respond(inner: &Inner, pressure: &Pressure, last_held: &mut Instant) {
    match decide(pressure, last_held.elapsed()) {
        Response::Hold(count) => {
            hold(inner, pressure, count);
            *last_held = Instant::now();
        }
        Response::Release => release(inner),
        Response::Nothing => {}
    }
}

fn hold(inner: &Inner, pressure: &Pressure, count: usize) {
    let containers = inner.all();
    let of = |growth: &crate::storage::DeviceGrowth| {
        containers.iter().find(|container| container_device(container.view().id()) == growth.id)
    };
    let mut writers: Vec<_> = pressure.fastest.iter().filter_map(of).collect();
    if writers.is_empty() && pressure.level == PressureLevel::Full {
        // So fast that nobody was seen to write.
        writers.extend(&containers);
    }
    let mut held = 0;
    for container in writers {
        if held == count {
            return;
        }
        match container.hold() {
            Ok(ran) => held += usize::from(ran),
            Err(error) => {
                warn!(container = %container.view().name(), op = "hold", "cannot be held still: {error}, ignoring");
            }
        }
    }
}

fn release(inner: &Inner) {
    for container in inner.all() {
        container.ask(super::container::Request::Release);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Response {
    /// Hold so many of the fastest writers.
    Hold(usize),
    /// Let all that are held go on.
    Release,
    Nothing,
}

/// The fastest writer first, as one may do; everybody who writes when the end is near. They go on when twice the room is
/// free below which new devices are refused, so that they do not stop again at once.
fn decide(pressure: &Pressure, calm: Duration) -> Response {
    let left = pressure.free.0.saturating_sub(pressure.dirty.0);
    match pressure.level {
        PressureLevel::Full => Response::Hold(usize::MAX),
        PressureLevel::High if pressure.time_to_full.is_some_and(|left| left < SOON) => Response::Hold(usize::MAX),
        PressureLevel::High if left < pressure.total.0 / 20 => Response::Hold(1),
        PressureLevel::High => Response::Nothing,
        PressureLevel::Low if left < pressure.total.0 / 10 || calm < CALM => Response::Nothing,
        PressureLevel::Low | PressureLevel::None => Response::Release,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    fn pressure(level: PressureLevel, free: u64) -> Pressure {
        let (free, dirty, total, growable) = (Bytes(free), Bytes(10), Bytes(1000), Bytes(0));
        Pressure { level, free, dirty, total, growable, time_to_full: None, fastest: Vec::new() }
    }

    #[test]
    fn one_is_held_before_the_end_and_all_at_it() {
        let decide = |pressure: &Pressure| decide(pressure, CALM);
        assert_eq!(decide(&pressure(PressureLevel::High, 55)), Response::Hold(1));
        let soon = |seconds| Pressure {
            time_to_full: Some(Duration::from_secs(seconds)),
            ..pressure(PressureLevel::High, 400)
        };
        assert_eq!((decide(&soon(1)), decide(&soon(30))), (Response::Hold(usize::MAX), Response::Nothing));
        assert_eq!(decide(&pressure(PressureLevel::Full, 0)), Response::Hold(usize::MAX));
    }

    #[test]
    fn they_go_on_when_there_is_room_for_a_while() {
        assert_eq!(decide(&pressure(PressureLevel::Low, 105), CALM), Response::Nothing);
        assert_eq!(decide(&pressure(PressureLevel::Low, 110), CALM), Response::Release);
        assert_eq!(decide(&pressure(PressureLevel::Low, 110), CALM / 2), Response::Nothing, "they were just held");
        assert_eq!(decide(&pressure(PressureLevel::None, 10), Duration::ZERO), Response::Release);
    }
}
