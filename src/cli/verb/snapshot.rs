//! `holmctl snapshot`

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output::{ListArgs, Table};
use crate::cli::{Outcome, output};
use crate::client::{Client, Goal, Jobs};
use crate::model::{SnapshotName, Usec, now_usec};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container; it may run
    container: String,
    /// The snapshot; one made of the time when absent
    #[arg(value_name = "NAME", required_if_eq("remove", "true"), conflicts_with = "list")]
    name: Option<SnapshotName>,
    /// List the container's snapshots
    #[arg(short, long, conflicts_with = "remove")]
    list: bool,
    /// Remove the snapshot
    #[arg(short, long)]
    remove: bool,
    #[command(flatten)]
    listing: ListArgs,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    if args.list {
        return list(&client, &args).await;
    }
    if args.listing.is_set() {
        return Err(CliError::Usage("--json and --no-legend are for listings: use them with --list".into()));
    }
    let container = client.container(&args.container).await?;
    let mut jobs = Jobs::listen(&client, &[]).await?;
    let name = match &args.name {
        Some(name) => name.to_string(),
        None => output::stamp(now_usec()).ok_or_else(|| CliError::Usage("the clock is wrong: give a name".into()))?,
    };
    let job = if args.remove { container.remove_snapshot(&name).await? } else { container.snapshot(&name).await? };
    jobs.wait(&job, Goal::Nothing(&args.container), |_| {}).await?;
    if args.remove {
        return Ok(Status::SUCCESS);
    }
    output::write(&format!("{name}\n"))?;
    if let Some(frozen) = jobs.frozen(&job) {
        output::tell(&held_still(&args.container, frozen));
    }
    Ok(Status::SUCCESS)
}

async fn list(client: &Client, args: &Args) -> Outcome {
    let mut snapshots = client.container(&args.container).await?.snapshots().await?;
    snapshots.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    let mut table = Table::new(&["NAME", "MADE"]);
    for (name, made) in &snapshots {
        table.row([name.clone(), output::moment_text(*made).unwrap_or_default()]);
    }
    let json = || snapshots.iter().map(|(name, made)| json!({"name": name, "made_usec": made})).collect();
    args.listing.write(&table, json, "snapshot")?;
    Ok(Status::SUCCESS)
}

/// What is said of a container that ran meanwhile.
pub(super) fn held_still(container: &str, frozen: Usec) -> String {
    let tenths = frozen / 100;
    format!("{container} was held still for {}.{} ms", tenths / 10, tenths % 10)
}
