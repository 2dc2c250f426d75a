//! Work in another mount namespace (mount_namespaces(7)), on a thread that lives as long as the work: the other threads
//! stay where they are.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use rustix::thread::UnshareFlags;

use super::mount;
use super::namespace::{self, Namespaces};

/// Works in a copy of this process's mount namespace, which goes with the thread: what is mounted in it shows nowhere else,
/// and nothing that is mounted elsewhere meanwhile shows in it.
pub fn in_a_copy<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_a_thread(|| {
        leave(UnshareFlags::NEWNS)?;
        mount::make_all_private()?;
        work()
    })
}

/// Works in the mount namespace of the process behind `pidfd`; `/` is that namespace's root then (setns(2)). ESRCH when the
/// process has ended.
pub fn in_that_of<T: Send>(pidfd: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_a_thread(|| {
        // setns(2) refuses a thread that shares its root and working directory with others.
        leave(UnshareFlags::FS)?;
        namespace::join(pidfd, Namespaces::MOUNT)?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("holm-mount".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Stops sharing with the other threads.
fn leave(what: UnshareFlags) -> io::Result<()> {
    // SAFETY: of what unshare can take apart, only descriptor tables are dangerous (CLONE_FILES); this is not asked for.
    Ok(unsafe { rustix::thread::unshare_unsafe(what) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_may_not_says_so_and_the_others_stay() {
        let here = || std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let before = here();
        match in_a_copy(|| Ok(here())) {
            Ok(there) => assert_ne!(there, before),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        assert_eq!(here(), before);
    }
}
