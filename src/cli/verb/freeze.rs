//! `holmctl freeze`

use crate::cli::{Outcome, many};
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    many::each(&args.names, async |name| Ok(client.container(name).await?.freeze().await?)).await
}
