//! The clock that counts from boot on and that nobody sets (clock_gettime(2), `CLOCK_BOOTTIME`).
#![allow(unsafe_code)]

use std::time::Duration;

/// How long ago the kernel was booted, time asleep included. Only a reboot sets it back, not one of userspace alone.
pub fn since_boot() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live local that the kernel fills in. The call fails only for a clock that does not exist, and
    // this one has since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
    }
}
