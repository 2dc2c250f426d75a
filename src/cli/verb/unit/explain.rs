//! `holmctl unit explain`: what the unit of a file with mistakes runs, so that `systemctl status` shows them.

use std::path::{Path, PathBuf};

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::units::{Declared, Directories};

/// `EX_CONFIG` (sysexits.h), which systemctl shows as CONFIG.
const WRONG: i32 = 78;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> Outcome {
    let directory = args.file.parent().unwrap_or(Path::new("/"));
    let declared = Declared::load(&Directories::of_host().with_first(directory));
    let file = declared.files.iter().find(|file| file.source.path == args.file);
    let problems = file.map(|file| file.problems.as_slice()).unwrap_or_default();
    // Without a name before them: these are lines of the unit in the journal.
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    if problems.is_empty() {
        output::tell(&format!(
            "{} is right now, or gone: 'systemctl daemon-reload' takes it over",
            args.file.display()
        ));
    }
    Ok(Status::from_bus(WRONG))
}
