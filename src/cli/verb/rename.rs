//! `holmctl rename`

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::client::Client;
use crate::model::ContainerName;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: ContainerName,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    client.container(&args.container).await?.rename(args.name.as_str()).await?;
    Ok(Status::SUCCESS)
}
