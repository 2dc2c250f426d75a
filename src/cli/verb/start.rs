//! `holmctl start`

use crate::cli::{Outcome, many};
use crate::client::{Client, Goal, Options};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    many::jobs(client, &args.names, Goal::Running, async |name: &str| {
        Ok(client.container(name).await?.start(&Options::new()).await?)
    })
    .await
}
