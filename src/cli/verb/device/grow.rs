//! `holmctl device grow`

use super::upkeep;
use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::client::Client;
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make the pool's data so large in all
    #[arg(long, value_name = "SIZE", required_unless_present = "metadata")]
    data: Option<Bytes>,
    /// Make the pool's metadata so large in all
    #[arg(long, value_name = "SIZE")]
    metadata: Option<Bytes>,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let bytes = |size: Option<Bytes>| size.map_or(0, |size| size.0);
    let (data, metadata) = (bytes(args.data), bytes(args.metadata));
    upkeep(&client, "growing the pool", async |devices| devices.grow(data, metadata).await).await?;
    Ok(Status::SUCCESS)
}
