//! Process descriptors (pidfd_open(2), pidfd_send_signal(2)): a process that cannot turn into another one.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};

/// A descriptor, close-on-exec, of the process with this id. The caller must know that the id cannot have been reused, for example
/// because the process is its own child and not reaped.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number (1 to 64, real-time ones included). `ESRCH` when the process has ended, `EINVAL` for a number out of
/// range.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a null siginfo makes the kernel fill it as kill(2) does; no other memory is passed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the process has ended, reaped or not. Does not wait.
pub fn has_ended(pidfd: impl AsFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_range_is_refused() {
        let own = open(std::process::id()).unwrap();
        assert_eq!(send_signal(&own, 65).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        send_signal(&own, 0).unwrap();
    }

    #[test]
    fn an_ended_process_is_told_from_a_living_one() {
        assert!(!has_ended(open(std::process::id()).unwrap()).unwrap());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = open(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&pidfd).unwrap());
        assert_eq!(send_signal(&pidfd, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
