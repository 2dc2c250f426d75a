//! Telling a device which blocks a file system does not use: `FITRIM`, Linux `include/uapi/linux/fs.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Discards every free block of the mounted file system that `directory` (not opened with `O_PATH`) is on, in runs of
/// at least `smallest` bytes; the number of bytes that were discarded. EOPNOTSUPP when file system or device cannot.
pub fn trim(directory: impl AsFd, smallest: u64) -> io::Result<u64> {
    let mut range = Range { start: 0, length: u64::MAX, smallest };
    // SAFETY: FITRIM reads and writes one `struct fstrim_range`, whose layout `Range` has, at a live local.
    unsafe { raw::fitrim(directory.as_fd().as_raw_fd(), &raw mut range) }?;
    Ok(range.length)
}

/// `struct fstrim_range`.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
    smallest: u64,
}

mod raw {
    //! FITRIM.
    nix::ioctl_readwrite!(fitrim, b'X', 121, super::Range);
}
