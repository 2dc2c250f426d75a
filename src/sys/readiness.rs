//! Waiting for a descriptor in an async task.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor owned together with its registration at the runtime's reactor.
#[derive(Debug)]
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Registers `fd`. Must be called inside a tokio runtime with I/O enabled.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd stays open, and stays the same open file, until it is dropped; it is dropped with the
        // registration, which AsyncFd removes first.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map(Self).map_err(io::Error::from)
    }

    /// Waits until the descriptor is readable for good, as a pidfd is once its process has ended (pidfd_open(2)). From
    /// then on it returns at once: the readiness is never cleared.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
