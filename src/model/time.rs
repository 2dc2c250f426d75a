//! Times as they are shown and stored.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds: since the epoch for a moment, or as a length.
pub type Usec = u64;

/// Now, µs since the epoch.
pub fn now_usec() -> Usec {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
