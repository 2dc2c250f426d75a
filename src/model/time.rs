//! Times as they are shown and stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds: since the epoch for a moment, or as a length.
pub type Usec = u64;

/// Now, µs since the epoch.
pub fn now_usec() -> Usec {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    in_usec(elapsed)
}

/// A time in µs; one that is too long for that is the longest.
pub fn in_usec(duration: Duration) -> Usec {
    Usec::try_from(duration.as_micros()).unwrap_or(Usec::MAX)
}
