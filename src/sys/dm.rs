//! The device-mapper ioctls that make uevents: suspend, resume and remove, with cookie 0.
//!
//! The `devicemapper` crate waits for udev, without a bound, after each of them. With `event_nr` 0 nobody waits: the
//! node `/dev/dm-N` is made and removed by the kernel itself (devtmpfs). See Linux `include/uapi/linux/dm-ioctl.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// When a device goes that is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remove {
    /// Not at all: EBUSY.
    IfIdle,
    /// When its last user closes it: `DM_DEFERRED_REMOVE`.
    AtLastClose,
}

/// Suspends device `name`: writes out what is pending, freezes its file system, then holds new I/O until
/// [`resume`]. `control` is an open `/dev/mapper/control`.
pub fn suspend(control: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = Request::new(name, FLAG_SUSPEND)?;
    // SAFETY: see `call`; DM_DEV_SUSPEND reads and writes the fixed header only.
    call(unsafe { raw::dev_suspend(control.as_fd().as_raw_fd(), &raw mut request) })
}

/// Resumes device `name`; a table loaded before becomes the live one.
pub fn resume(control: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = Request::new(name, 0)?;
    // SAFETY: see `call`; DM_DEV_SUSPEND reads and writes the fixed header only.
    call(unsafe { raw::dev_suspend(control.as_fd().as_raw_fd(), &raw mut request) })
}

/// Makes the table that was loaded for device `name` the live one, and lets it run: suspends it first without writing
/// anything out (I/O that waits is kept and goes to the new table), all in one call, so that nobody who dies in the
/// middle leaves it suspended. On an error it may be suspended: call [`resume`].
pub fn replace_table(control: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = Request::new(name, FLAG_SKIP_LOCKFS | FLAG_NOFLUSH)?;
    // SAFETY: see `call`; DM_DEV_SUSPEND reads and writes the fixed header only.
    call(unsafe { raw::dev_suspend(control.as_fd().as_raw_fd(), &raw mut request) })
}

/// Removes device `name`. ENXIO when there is none.
pub fn remove(control: impl AsFd, name: &str, when: Remove) -> io::Result<()> {
    let flags = match when {
        Remove::IfIdle => 0,
        Remove::AtLastClose => FLAG_DEFERRED_REMOVE,
    };
    let mut request = Request::new(name, flags)?;
    // SAFETY: see `call`; DM_DEV_REMOVE reads and writes the fixed header only.
    call(unsafe { raw::dev_remove(control.as_fd().as_raw_fd(), &raw mut request) })
}

/// The pointer of each call is to a live `Request`, which is `repr(C)`, laid out as `struct dm_ioctl` (its size is
/// checked below), and says its own size in `data_size`, so the kernel stays inside it.
fn call(result: nix::Result<libc::c_int>) -> io::Result<()> {
    result.map(drop).map_err(io::Error::from)
}

/// `struct dm_ioctl`.
#[repr(C)]
struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

const SIZE: u32 = 312;
const _: () = assert!(size_of::<Request>() == SIZE as usize);

const FLAG_SUSPEND: u32 = 1 << 1;
const FLAG_SKIP_LOCKFS: u32 = 1 << 10;
const FLAG_NOFLUSH: u32 = 1 << 11;
const FLAG_DEFERRED_REMOVE: u32 = 1 << 17;

mod raw {
    //! DM_DEV_REMOVE and DM_DEV_SUSPEND.
    use super::Request;
    nix::ioctl_readwrite!(dev_remove, 0xfd, 4, Request);
    nix::ioctl_readwrite!(dev_suspend, 0xfd, 6, Request);
}

impl Request {
    fn new(device: &str, flags: u32) -> io::Result<Self> {
        let mut name = [0; 128];
        // One byte stays for the terminating zero.
        let room = name.get_mut(..device.len()).filter(|room| room.len() < 128);
        room.ok_or(io::ErrorKind::InvalidFilename)?.copy_from_slice(device.as_bytes());
        Ok(Self {
            version: [4, 0, 0],
            data_size: SIZE,
            data_start: SIZE,
            target_count: 0,
            open_count: 0,
            flags,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name,
            uuid: [0; 129],
            data: [0; 7],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_room_for_the_final_zero_is_refused() {
        assert!(Request::new(&"x".repeat(127), 0).is_ok());
        assert!(Request::new(&"x".repeat(128), 0).is_err());
        assert!(Request::new(&"x".repeat(500), 0).is_err());
    }
}
