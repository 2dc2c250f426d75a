//! `holmctl device trim`

use super::{device_of, upkeep};
use crate::cli::exit::Status;
use crate::cli::{Outcome, many, output};
use crate::client::Client;
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers or devices, in use or not; every device that is in use when absent
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    if args.names.is_empty() { all(&client).await } else { each(&client, &args.names).await }
}

async fn all(client: &Client) -> Outcome {
    upkeep(client, "trimming", async |devices| devices.trim().await).await?;
    let (_, bytes, trimmed, failed) = client.devices().await?.get_trim_report().await?;
    for (id, reason) in &failed {
        output::tell(&format!("{id} could not be trimmed: {reason}"));
    }
    output::write(&format!("{} given back, {trimmed} devices in use.\n", Bytes(bytes)))?;
    Ok(if failed.is_empty() { Status::SUCCESS } else { Status::FAILURE })
}

async fn each(client: &Client, names: &[String]) -> Outcome {
    let devices = &client.devices().await?;
    many::each(names, async |name| {
        let bytes = devices.trim_device(&device_of(client, name).await?).await?;
        output::write(&format!("{name}: {} given back.\n", Bytes(bytes)))
    })
    .await
}
