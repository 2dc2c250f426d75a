//! File descriptors that were open when this program started.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes ownership of descriptors that whoever executed this program left open for it. To be called before anything
/// else opens or takes descriptors; a second call takes nothing and fails with EBUSY. A number that is not open fails
/// with EBADF, and nothing is taken.
pub fn take_inherited(numbers: impl IntoIterator<Item = RawFd>) -> io::Result<Vec<OwnedFd>> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let numbers: Vec<RawFd> = numbers.into_iter().collect();
    for &number in &numbers {
        // SAFETY: F_GETFD reads a flag of the descriptor's table entry and touches no memory of ours.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the descriptors are open (just checked), and nobody else in the process owns them: they were there when
    // it started, before any code of ours ran, and the flag above lets only one caller take them.
    Ok(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

static TAKEN: AtomicBool = AtomicBool::new(false);
