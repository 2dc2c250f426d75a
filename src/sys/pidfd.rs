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

/// How a process ended, as a wait status (wait(2)), told by the kernel although it was not our child: once its parent has
/// reaped it, from Linux 6.15 on, and only through a descriptor that was open before. `None` when the kernel does not say,
/// for whichever of these reasons.
pub fn exit_status(pidfd: impl AsFd) -> io::Result<Option<i32>> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the kernel writes at most the size that is part of the request's number, which is that of `Info`, to a live local.
    match unsafe { raw::get_info(pidfd.as_fd().as_raw_fd(), &raw mut info) } {
        Ok(_) => Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code)),
        // An older kernel, or a process that is reaped and of which nothing was kept.
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EINVAL | nix::errno::Errno::ESRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a process that has ended is reaped by its parent, at most this long. Whether it is.
pub fn wait_until_reaped(pidfd: impl AsFd, limit: Timespec) -> io::Result<bool> {
    // Nothing is asked for: a hang-up is told in any case.
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::empty())], Some(&limit))? > 0)
}

/// `struct pidfd_info` of linux/pidfd.h in its first version, which every later one begins with.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;

mod raw {
    //! PIDFD_GET_INFO.
    nix::ioctl_readwrite!(get_info, 0xFF, 11, super::Info);
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
    fn the_size_is_that_of_the_first_version() {
        assert_eq!(std::mem::size_of::<Info>(), 64);
    }

    #[test]
    fn the_kernel_tells_how_a_reaped_process_ended_if_it_can() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 42"]).spawn().unwrap();
        let pidfd = open(child.id()).unwrap();
        assert_eq!(exit_status(open(std::process::id()).unwrap()).unwrap(), None, "it runs");
        child.wait().unwrap();
        match exit_status(&pidfd).unwrap() {
            Some(status) => {
                assert_eq!(status, 42 << 8);
                assert!(wait_until_reaped(&pidfd, Timespec { tv_sec: 0, tv_nsec: 0 }).unwrap());
            }
            None => eprintln!("skipped: a kernel before 6.15"),
        }
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
