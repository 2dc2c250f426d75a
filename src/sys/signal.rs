//! Signal dispositions, masks and signalfd(2), by number so that real-time signals are included.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

/// Gives every signal its default action. Caught signals are reset by execve(2) anyway, ignored ones are not. Also those that
/// libc keeps for itself and refuses to touch: they may be ignored from a parent too.
pub fn reset_dispositions() {
    // `struct kernel_sigaction` of the kernel, all zero: SIG_DFL, no flags, no mask. Larger than on any architecture.
    let default = [0u64; 8];
    for signal in 1..=KERNEL_SIGNALS {
        // SAFETY: the kernel reads one sigaction from the array, which outlives the call; SIG_DFL runs no code. KILL and STOP
        // are refused, which is right.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                KERNEL_SIGNALS / 8,
            )
        };
    }
}

/// How many signals the kernel has; a set of them has a bit for each.
const KERNEL_SIGNALS: libc::c_long = 64;

/// Blocks every signal that can be blocked.
pub fn block_all() -> io::Result<()> {
    set_mask(&full_set())
}

/// Blocks none.
pub fn unblock_all() -> io::Result<()> {
    set_mask(&empty_set())
}

/// Ends this process by a signal, as if somebody had sent it to one that does not handle it. Returns only when that signal ends
/// nobody, or with the error that the system gave.
pub fn end_by(number: i32) -> io::Result<()> {
    reset_dispositions();
    unblock_all()?;
    // SAFETY: kill(2) touches no memory of ours.
    match unsafe { libc::kill(libc::getpid(), number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks one and no other.
pub fn block_only(signal: i32) -> io::Result<()> {
    let mut set = empty_set();
    // SAFETY: the set is initialised; a number that is no signal is refused with EINVAL.
    if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    set_mask(&set)
}

/// Waits for any signal, all of them being blocked, and takes it (sigwaitinfo(2)). Its number.
pub fn wait_any() -> i32 {
    let set = full_set();
    loop {
        // SAFETY: the set is initialised; a null info is allowed.
        let signal = unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
        // The only error for a valid set is EINTR.
        if signal > 0 {
            return signal;
        }
    }
}

/// Whether a signal is known to do something to a process now; one that waits in sigwaitinfo(2) takes it, and is not seen to. For the first process of a pid namespace the kernel drops what that
/// neither catches nor has blocked to take later, but for KILL and STOP (pid_namespaces(7)).
pub fn is_heard(pid: u32, signal: i32) -> io::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(matches!(signal, libc::SIGKILL | libc::SIGSTOP) || !is_first(&status) || takes(&status, signal))
}

/// Its id as its own pid namespace sees it comes last.
fn is_first(status: &str) -> bool {
    field(status, "NSpid:").split_whitespace().last() == Some("1")
}

/// Bit n - 1 of a mask stands for signal n.
fn takes(status: &str, signal: i32) -> bool {
    let set = |key| u64::from_str_radix(field(status, key), 16).unwrap_or(0);
    let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1u64.checked_shl(shift)).unwrap_or(0);
    (set("SigBlk:") | set("SigCgt:")) & bit != 0
}

/// proc_pid_status(5): a key a line.
fn field<'a>(status: &'a str, key: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(key)).map_or("", str::trim)
}

/// A descriptor that delivers blocked signals (signalfd(2)).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// One for these signals, which the caller has blocked. Close-on-exec and non-blocking.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = empty_set();
        for signal in signals {
            // SAFETY: the set is initialised; a number that is no signal is refused with EINVAL.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Self::of(&set)
    }

    /// One for every signal, all of them being blocked. Who reads from it shows in proc_pid_status(5) that it takes them, which one
    /// in sigwaitinfo(2) does not: the kernel unblocks them for that time.
    pub fn all() -> io::Result<Self> {
        Self::of(&full_set())
    }

    fn of(set: &libc::sigset_t) -> io::Result<Self> {
        // SAFETY: the set is initialised and outlives the call.
        let fd = unsafe { libc::signalfd(-1, std::ptr::from_ref(set), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just made this descriptor, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for a signal and takes it.
    pub fn wait(&self) -> io::Result<i32> {
        loop {
            if let Some(signal) = self.take()? {
                return Ok(signal);
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes one pending signal; `None` when there is none.
    pub fn take(&self) -> io::Result<Option<i32>> {
        let mut info = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // The number is the first field, `ssi_signo`, an u32 (signalfd(2)).
            Ok(_) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised; the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, std::ptr::from_ref(set), std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the whole set and cannot fail for a valid pointer.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set and cannot fail for a valid pointer.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_that_is_caught_or_blocked() {
        let status = "Name:\tsh\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000000002\nSigCgt:\t8000000000004000\n";
        let taken: Vec<_> = (1..=65).filter(|signal| takes(status, *signal)).collect();
        assert_eq!(taken, [15, 17, 64]);
    }

    #[test]
    fn only_the_first_process_of_a_namespace_is_deaf() {
        assert!(is_first("NStgid:\t7\t1\nNSpid:\t4711\t1\n") && !is_first("NSpid:\t4711\n") && !is_first(""));
        assert!(is_heard(std::process::id(), libc::SIGTERM).unwrap());
    }
}
