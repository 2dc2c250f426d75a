//! Holm: containers as first-class citizens of systemd.
//!
//! The floors, lowest first; a module imports only from floors below its own (`tests/layering.rs` holds this):
//!
//! | floor | modules |
//! |---|---|
//! | 4 | `daemon` |
//! | 3 | `dbus`, `cli`, `generator` |
//! | 2 | `engine`, `client` |
//! | 1 | `config`, `records`, `storage`, `images`, `systemd`, `runtime`, `units` |
//! | 0 | `model`, `sys` |

pub mod generator;
pub mod model;
pub mod runtime;
pub mod sys;
pub mod units;

#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod dbus;
#[cfg(feature = "daemon")]
pub mod engine;
#[cfg(feature = "daemon")]
pub mod images;
#[cfg(feature = "daemon")]
pub mod records;
#[cfg(feature = "daemon")]
pub mod storage;
#[cfg(feature = "daemon")]
pub mod systemd;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod client;

#[cfg(all(test, feature = "daemon"))]
mod testbus;
