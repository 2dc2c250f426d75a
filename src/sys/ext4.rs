//! The ioctls of ext4.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Grows the mounted ext4 that `directory` (not opened with `O_PATH`) is on to `blocks` file-system blocks; no change
/// when it has as many. The device must be that large already. Needs `CAP_SYS_RESOURCE`. See ext4 `ioctl.c`.
pub fn resize(directory: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64 from the pointer, which is to a live local.
    unsafe { raw::resize_fs(directory.as_fd().as_raw_fd(), &raw const blocks) }.map(drop).map_err(io::Error::from)
}

mod raw {
    //! EXT4_IOC_RESIZE_FS.
    nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);
}
