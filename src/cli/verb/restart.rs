//! `holmctl restart`

use super::stop::How;
use crate::cli::many::Missing;
use crate::cli::{Outcome, many};
use crate::client::{Client, Goal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    #[command(flatten)]
    how: How,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    let options = &args.how.options();
    many::jobs(client, &args.names, Goal::Running, Missing::FAILS, async |name: &str| {
        Ok(client.container(name).await?.restart(options).await?)
    })
    .await
}
