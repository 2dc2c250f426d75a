//! The loopback interface of the current network namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `IFF_UP` as the field has it, which is narrower than the constant.
const UP: libc::c_short = 1;

/// Sets `lo` up; the kernel then gives it 127.0.0.1 and ::1 (netdevice(7), `SIOCSIFFLAGS`). Needs CAP_NET_ADMIN.
pub fn up() -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid ifreq: arrays, integers and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    // Every other flag of `lo` is read-only or the kernel's own, so this sets exactly one.
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which is initialised and outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
