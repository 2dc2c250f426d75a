//! `holmctl device rm`

use crate::cli::exit::Status;
use crate::cli::{Outcome, many};
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devices
    #[arg(required_unless_present = "foreign", value_name = "ID")]
    ids: Vec<String>,
    /// Delete a device for good that is on no record, by its number in the pool
    #[arg(long, value_name = "NUMBER", conflicts_with = "ids")]
    foreign: Option<u32>,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let devices = &client.devices().await?;
    if let Some(number) = args.foreign {
        devices.remove_foreign(number).await?;
        return Ok(Status::SUCCESS);
    }
    many::each(&args.ids, async |id| Ok(devices.remove_device(id).await?)).await
}
