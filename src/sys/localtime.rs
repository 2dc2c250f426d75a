//! Moments in the time zone of this host (localtime(3), strftime(3)).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// `seconds` since the epoch in local time, as `Sat 2026-11-21 23:12:05 UTC`. `None` when the year does not fit.
pub fn format(seconds: i64) -> Option<String> {
    formatted(seconds, c"%a %Y-%m-%d %H:%M:%S %Z")
}

/// `seconds` since the epoch in local time, as `20261121-231205`: sorts by time.
pub fn stamp(seconds: i64) -> Option<String> {
    formatted(seconds, c"%Y%m%d-%H%M%S")
}

fn formatted(seconds: i64, pattern: &CStr) -> Option<String> {
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: `seconds` and `parts` are valid for the length of the call, and localtime_r keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    let mut text = [0u8; 64];
    // SAFETY: localtime_r has filled `parts` (its tm_zone points into libc's own tables, which are never freed); the
    // pattern ends in NUL and strftime writes at most `text.len()` bytes.
    let length = unsafe { libc::strftime(text.as_mut_ptr().cast(), text.len(), pattern.as_ptr(), parts.as_ptr()) };
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_with_day_and_zone() {
        let text = format(1_000_000_000).unwrap();
        assert!(text.starts_with("Sun 2001-09-09 ") || text.starts_with("Sat 2001-09-08 "), "{text}");
        assert_eq!(text.split(' ').count(), 4, "{text}");
    }

    #[test]
    fn a_stamp_sorts_by_time() {
        let stamps = [stamp(1_000_000_000).unwrap(), stamp(1_000_000_001).unwrap()];
        assert!(stamps.is_sorted() && stamps.iter().all(|stamp| stamp.len() == 15), "{stamps:?}");
    }

    #[test]
    fn a_year_that_does_not_fit_has_no_text() {
        assert_eq!(format(i64::MAX), None);
    }
}
