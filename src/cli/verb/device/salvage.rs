//! `holmctl device salvage`

use super::offline;
use crate::cli::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    offline::run("--salvage", args.json)
}
