//! `holmctl device grow`

use zbus::Variant;

use super::{container, upkeep};
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::client::{Client, Options};
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container, or the device of other software's, to make larger
    #[arg(required_unless_present_any = ["data", "metadata"], conflicts_with_all = ["data", "metadata"], requires = "size")]
    name: Option<String>,
    /// So large in all
    size: Option<Bytes>,
    /// Make the pool's data so large in all
    #[arg(long, value_name = "SIZE")]
    data: Option<Bytes>,
    /// Make the pool's metadata so large in all
    #[arg(long, value_name = "SIZE")]
    metadata: Option<Bytes>,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    match (args.name, args.size) {
        (Some(name), Some(size)) => grow_one(&client, &name, size).await?,
        _ => grow_pool(&client, args.data, args.metadata).await?,
    }
    Ok(Status::SUCCESS)
}

async fn grow_one(client: &Client, name: &str, size: Bytes) -> Result<(), CliError> {
    if let Some(container) = container(client, name).await? {
        let resources = Options::from([("Size", Variant::from(size.0))]);
        return Ok(container.set_resources(&resources).await?);
    }
    client.devices().await?.resize_device(name, size.0).await?;
    Ok(())
}

async fn grow_pool(client: &Client, data: Option<Bytes>, metadata: Option<Bytes>) -> Result<(), CliError> {
    let [data, metadata] = [data, metadata].map(|size| size.map_or(0, |size| size.0));
    upkeep(client, "growing the pool", async |devices| devices.grow(data, metadata).await).await
}
