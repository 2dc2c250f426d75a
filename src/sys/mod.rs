//! Kernel calls: the only floor with `unsafe`. One file per kernel facility; no domain words.

#[cfg(feature = "daemon")]
pub mod kill;
#[cfg(feature = "daemon")]
pub mod proc;
#[cfg(feature = "daemon")]
pub mod readiness;
pub mod inherited;
