//! Signals by number to a process held by pidfd.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sends signal `number` (1 to 64, real-time ones included) through a pidfd (pidfd_send_signal(2)).
/// `ESRCH` when the process has ended, `EINVAL` for a number out of range.
pub fn pidfd_signal(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the call reads no memory of ours: the info pointer is null, which the kernel takes as kill(2)'s.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, number, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    #[test]
    fn a_number_out_of_range_is_refused() {
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        assert_eq!(pidfd_signal(&own, 65).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        pidfd_signal(&own, 0).unwrap();
    }
}
