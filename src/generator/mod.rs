//! `holm-generator`, a generator of systemd's (systemd.generator(7)): run early at boot and at each reload of systemd, it
//! writes the units of the files that declare containers.
//!
//! It must never hold up a boot: whatever is wrong is said in the journal, by way of the kernel's log, and the rest is done.

mod log;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::units::{Declared, Directories};

/// Writes the units into the directory that is the first argument. Always a success: systemd could do nothing about a
/// failure.
pub fn main() -> ExitCode {
    match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(directory) => {
            let declared = Declared::load(&Directories::of_host());
            let failed = declared.files.iter().flat_map(|file| write::units(&directory, &file.units));
            let failed: Vec<_> = failed.map(|error| error.to_string()).collect();
            log::all(declared.all_problems().map(ToString::to_string).chain(failed));
        }
        None => {
            log::all(["called without a directory: systemd calls this, people call 'holmctl unit verify'".to_owned()])
        }
    }
    ExitCode::SUCCESS
}
