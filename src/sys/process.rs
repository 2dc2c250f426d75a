//! Processes: clone3(2), execve(2), close_range(2), the few prctl(2) calls a launcher needs.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::UnshareFlags;

/// Which side of [`clone_process`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller.
    Parent(Child),
    /// The new process.
    Child,
}

/// A process made by [`clone_process`]. Dropping it neither kills nor reaps.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: u32,
    /// A descriptor of it, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Duplicates the calling process as fork(2) does, into new namespaces and, when given, straight into a cgroup
/// (clone3(2), `CLONE_INTO_CGROUP`: cgroup v2, Linux 5.7). The child gets SIGCHLD as its exit signal.
///
/// A cgroup namespace made here would be rooted at the *caller's* cgroup (the kernel copies namespaces before it
/// places the child), so ask for it with unshare(2) in the child instead.
///
/// Fails with `EBUSY` when the process has more than one thread: only the calling thread would exist in the child,
/// with whatever locks the others held.
pub fn clone_process(namespaces: UnshareFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    if !is_single_threaded() {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: libc::c_int = -1;
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let arguments = CloneArguments {
        flags: u64::from(namespaces.bits()) | CLONE_PIDFD | into_cgroup,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
        ..CloneArguments::default()
    };
    // SAFETY: the struct is repr(C) with the kernel's layout (88 bytes, CLONE_ARGS_SIZE_VER2), lives across the call, and
    // `pidfd` outlives it too. Without CLONE_VM and with stack 0 the child goes on in a copy of this memory, as after
    // fork; the check above makes this its only thread, so no lock is held by a thread that is not there.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), std::mem::size_of::<CloneArguments>())
    };
    match u32::try_from(pid) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(0) => Ok(Cloned::Child),
        // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a fresh descriptor that nobody else owns.
        Ok(pid) => Ok(Cloned::Parent(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })),
    }
}

/// unshare(2) takes `CLONE_THREAD` only from a process with one thread, and then does nothing. Unlike /proc/self/task this
/// asks no file system, which may be the container's.
fn is_single_threaded() -> bool {
    // SAFETY: with this one flag the call changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// `struct clone_args` of linux/sched.h, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Replaces the program (execve(2)); returns only when that failed.
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    match nix::unistd::execve(program, arguments, environment) {
        Err(errno) => io::Error::from(errno),
    }
}

/// Marks every descriptor from `first` up close-on-exec (close_range(2), `CLOSE_RANGE_CLOEXEC`: Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_int = 4;
    // SAFETY: only a flag of the descriptors changes; none is closed, so no owner is surprised.
    match unsafe { libc::close_range(first, u32::MAX, CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts copies of these descriptors to `first` and the numbers after it, open over an execve. Nobody may own one of those numbers:
/// see [`above`].
pub fn place_from(first: i32, fds: &[OwnedFd]) -> io::Result<()> {
    for (number, fd) in (first..).zip(fds) {
        // SAFETY: what the number was before, if anything, belongs to nobody (see the doc), so no owner is surprised.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The same descriptor under a number that is not below `first`.
pub fn above(first: i32, fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= first { Ok(fd) } else { Ok(rustix::io::fcntl_dupfd_cloexec(&fd, first)?) }
}

/// Closes every descriptor from `first` up. To be called where no value owns one of them: as the first act of a
/// program, or right before it turns into a loop that needs none.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: closing descriptors breaks no memory; the caller owns none of them (see the doc), so none is reused under
    // an owner that would close it again.
    match unsafe { libc::close_range(first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes every descriptor but the standard ones and those given. As with [`close_from`], what owns one of the others must
/// never be dropped: for a child that goes on to an execve.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    for (first, last) in gaps(&kept) {
        // SAFETY: closing descriptors breaks no memory; nobody closes these again (see the doc).
        if unsafe { libc::close_range(first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The ranges from 3 up that have none of these sorted numbers in them.
fn gaps(kept: &[u32]) -> Vec<(u32, u32)> {
    let mut gaps = Vec::new();
    let mut next = 3;
    for number in kept.iter().copied().filter(|number| *number >= 3) {
        if number > next {
            gaps.push((next, number - 1));
        }
        next = number + 1;
    }
    gaps.push((next, u32::MAX));
    gaps
}

/// Ends the process at once: no destructors, no exit handlers, no flushing (_exit(2)). For children of
/// [`clone_process`], which share the parent's buffers and descriptors.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(libc::c_int::from(status)) }
}

/// Makes the process the leader of a new session, without a controlling terminal (setsid(2)).
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Sets the name that ps(1) shows for the process (prctl(2), `PR_SET_NAME`): at most 15 bytes count.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Makes the process undumpable: others of its user can neither trace it nor open its /proc files (prctl(2)).
pub fn make_undumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Waits until the child behind `pidfd` has ended, and reaps it (waitid(2), `P_PIDFD`). `ECHILD` if it is not ours.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<WaitIdStatus> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(status),
            // Without NOHANG there is always a status.
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reaps one ended child, whichever; `None` when no child has ended. Its process id and wait status (wait(2)).
pub fn reap_any() -> io::Result<Option<(u32, i32)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int and outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match u32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((pid, status))),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
    }
}

/// Sends a signal by number to a process id (kill(2)): only for a child that is not reaped, whose id cannot be reused.
pub fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes any numbers and touches no memory.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How likely the kernel is to kill the process for lack of memory, as a handle that also works where /proc is another's
/// (proc(5), `oom_score_adj`).
#[derive(Debug)]
pub struct OomScore(std::fs::File);

impl OomScore {
    /// Of the calling process.
    pub fn open() -> io::Result<Self> {
        Ok(Self(std::fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj")?))
    }

    /// Sets the adjustment, -1000 (never) to 1000. Children made afterwards inherit it. Lowering it needs CAP_SYS_RESOURCE.
    pub fn adjust(&self, adjustment: i16) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, adjustment.to_string().as_bytes(), 0)
    }
}

/// Gives memory back that a process about to sleep for long does not need: what the allocator keeps for later (malloc_trim(3))
/// and the mapping of the program's own code, which comes back from its file page by page when it is used (madvise(2)).
pub fn release_memory() {
    unsafe extern "C" {
        /// First byte of the program, and the byte after its code: every linker for ELF defines them (end(3), ld(1)).
        static __executable_start: u8;
        static etext: u8;
    }
    // SAFETY: malloc_trim may be called at any time from any thread. The linker's symbols are only taken the address of. What is
    // between them is mapped from the program file and never written (relocations are in the data segment, after it), so
    // dropping the pages loses nothing: MADV_DONTNEED reads them from the file again.
    unsafe {
        libc::malloc_trim(0);
        let (start, end) = (&raw const __executable_start, &raw const etext);
        let length = (end.addr() & !PAGE_MASK).saturating_sub(start.addr());
        libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED);
    }
}

/// Of the smallest page; where pages are larger the kernel refuses an odd length, which costs only memory.
const PAGE_MASK: usize = 4096 - 1;

/// Gives the process a new, empty session keyring (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`). `ENOSYS` where the kernel
/// has no keyrings.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_lies_between_the_gaps() {
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[0, 3, 4, 4, 9]), [(5, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&[5]), [(3, 4), (6, u32::MAX)]);
    }

    /// keyctl(2), `KEYCTL_GET_KEYRING_ID` of `KEY_SPEC_SESSION_KEYRING`.
    fn session_keyring() -> libc::c_long {
        // SAFETY: all arguments are numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }
    }

    #[test]
    fn a_session_keyring_is_new() {
        // Keyrings belong to threads; the others of this test keep theirs.
        let (before, joined, after) =
            std::thread::spawn(|| (session_keyring(), new_session_keyring(), session_keyring())).join().unwrap();
        match joined {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EDQUOT)) => {
                eprintln!("skipped: no keyrings here: {error}");
            }
            joined => {
                joined.unwrap();
                assert_ne!(before, after);
            }
        }
    }

    #[test]
    fn a_process_with_threads_is_not_cloned() {
        // The test harness has some.
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv().is_err());
        let error = clone_process(UnshareFlags::empty(), None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        drop(stop);
        other.join().unwrap();
    }
}
