//! `holmctl rm`

use zbus::Variant;

use crate::cli::many::Missing;
use crate::cli::{Outcome, many};
use crate::client::{Client, Goal, Options};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    missing: Missing,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    let manager = &client.manager().await?;
    let options = &if args.force { Options::from([("Force", Variant::from(true))]) } else { Options::new() };
    many::jobs(client, &args.names, Goal::Removed, args.missing, async |name: &str| {
        Ok(manager.remove_container(name, options).await?)
    })
    .await
}
