//! `holmctl unit explain`: what the unit of a file with mistakes runs, so that `systemctl status` shows them.

use std::path::{Path, PathBuf};

use crate::cli::exit::Status;
use crate::cli::{Outcome, journal, output};
use crate::units::{Declared, Directories};

/// `EX_CONFIG` (sysexits.h), which systemctl shows as CONFIG.
const WRONG: i32 = 78;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say it in the journal, as this unit
    #[arg(long)]
    unit: Option<String>,
    /// The file
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> Outcome {
    let directory = args.file.parent().unwrap_or(Path::new("/"));
    let declared = Declared::load(&Directories::of_host().with_first(directory));
    let file = declared.files.iter().find(|file| file.source.path == args.file);
    let problems = file.map(|file| file.problems.as_slice()).unwrap_or_default();
    if problems.is_empty() {
        output::tell(&format!(
            "{} is right now, or gone: 'systemctl daemon-reload' takes it over",
            args.file.display()
        ));
    }
    let messages: Vec<_> = problems.iter().map(ToString::to_string).collect();
    if args.unit.as_deref().is_none_or(|unit| !said(unit, &args.file, &messages)) {
        // Without a name before them: these are lines of the unit in the journal, too.
        messages.iter().for_each(|message| eprintln!("{message}"));
    }
    Ok(Status::from_bus(WRONG))
}

fn said(unit: &str, file: &Path, messages: &[String]) -> bool {
    let identifier = file.file_name().unwrap_or_default().to_string_lossy();
    journal::say(unit, &identifier, messages).is_ok()
}
