//! What holmd remembers on disk.
//!
//! ```text
//! <state>/containers/<id>/container.json   durable: what it is, how its last run ended
//! <state>/containers/<id>/exit.json        written by the monitor when a run has ended
//! <state>/images/<name>.json               durable
//! <runtime>/run/<id>.json                  until reboot: the run under way
//! ```
//!
//! Every file is versioned JSON, written to a temporary file and renamed into place, so that a reader sees the old
//! file or the new one. An unknown version is an error with advice, never a guess.

mod file;
mod store;

pub use file::{Durability, RecordError};
pub use store::{ContainerRecord, LastRun, Restarts, RunRecord, Store};
