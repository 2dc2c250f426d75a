//! `holmctl list`

use serde_json::json;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output::{ListArgs, Table};
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show those that do not run, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let mut containers = client.manager().await?.list_containers().await?;
    containers.retain(|(_, state, ..)| args.all || is_active(state));
    containers.sort_by(|a, b| a.0.cmp(&b.0));
    let mut table = Table::new(&["NAME", "STATE", "IMAGE", "UNIT"]);
    for (name, state, image, unit, _) in &containers {
        table.row([name.clone(), state.clone(), image.clone(), unit.clone()]);
    }
    let json = || {
        let object = |(name, state, image, unit, _): &(String, String, String, String, _)| json!({"name": name, "state": state, "image": image, "unit": unit});
        containers.iter().map(object).collect()
    };
    args.list.write(&table, json, "container")?;
    Ok(Status::SUCCESS)
}

/// Whether there is a payload, or soon will be. A state of a later version counts: better shown than hidden.
pub(crate) fn is_active(state: &str) -> bool {
    !matches!(state, "created" | "stopped" | "failed")
}
