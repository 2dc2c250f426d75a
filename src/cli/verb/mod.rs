//! One file per verb.

pub(super) mod attach;
pub(super) mod completion;
pub(super) mod create;
pub(super) mod device;
pub(super) mod doctor;
pub(super) mod events;
pub(super) mod exec;
pub(super) mod freeze;
pub(super) mod image;
pub(super) mod kill;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod rename;
pub(super) mod restart;
pub(super) mod rm;
pub(super) mod run;
pub(super) mod shell;
pub(super) mod show;
pub(super) mod start;
pub(super) mod stats;
pub(super) mod status;
pub(super) mod stop;
pub(super) mod thaw;
pub(super) mod wait;
