//! Namespaces (namespaces(7)): joining and leaving.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

pub use rustix::thread::ThreadNameSpaceType as Namespaces;

/// Joins namespaces of the process behind `pidfd` in one step: all or none (setns(2), Linux 5.8). For the pid namespace it
/// is the children made afterwards that are in it. Joining a mount namespace changes root and working directory to its root.
pub fn join(pidfd: BorrowedFd<'_>, namespaces: Namespaces) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(pidfd, namespaces)?)
}

/// Moves the process into a new cgroup namespace rooted at the cgroup it is in now (cgroup_namespaces(7)).
pub fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: of what unshare can take apart, only descriptor tables are dangerous (CLONE_FILES); this is not asked for.
    match unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the host name of the UTS namespace that the process is in.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}
