//! Block devices: Linux `include/uapi/linux/fs.h`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// How many bytes the block device has.
pub fn size(device: &File) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 to the pointer, which is to a live local.
    unsafe { raw::get_size(device.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Tells the block device that `length` bytes from `start` on hold nothing any more. EOPNOTSUPP when it cannot.
pub fn discard(device: &File, start: u64, length: u64) -> io::Result<()> {
    let range = [start, length];
    // SAFETY: BLKDISCARD reads two u64 from the pointer, which is to a live local array of two.
    unsafe { raw::discard(device.as_raw_fd(), &raw const range) }.map(drop).map_err(io::Error::from)
}

/// The node of the block device with this `MAJOR:MINOR`, as the kernel names it.
pub fn node(number: &str) -> io::Result<PathBuf> {
    let device = std::fs::read_link(Path::new("/sys/dev/block").join(number))?;
    let name = device.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    // A name with slashes has these in their place there.
    Ok(Path::new("/dev").join(name.to_string_lossy().replace('!', "/")))
}

mod raw {
    //! BLKGETSIZE64, BLKDISCARD. Both are numbers of a time before sizes were in them as they should be.
    nix::ioctl_read!(get_size, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(discard, 0x1277, [u64; 2]);
}
