//! Kernel calls: the only floor with `unsafe`. One file per kernel facility; no domain words.

#[cfg(feature = "daemon")]
pub mod dm;
#[cfg(feature = "daemon")]
pub mod ext4;
#[cfg(feature = "daemon")]
pub mod fsmount;
#[cfg(feature = "daemon")]
pub mod loopdev;
#[cfg(feature = "daemon")]
pub mod uevent;
