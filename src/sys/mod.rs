//! Kernel calls: the only floor with `unsafe`. One file per kernel facility; no domain words.

#[cfg(feature = "daemon")]
pub mod kill;
#[cfg(feature = "daemon")]
pub mod proc;
#[cfg(feature = "daemon")]
pub mod readiness;
pub mod inherited;
pub mod capability;
pub mod cgroup;
pub mod loopback;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod rooted;
pub mod signal;
pub mod socket;
