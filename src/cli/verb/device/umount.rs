//! `holmctl device umount`

use crate::cli::{Outcome, many};
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devices
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let devices = &client.devices().await?;
    many::each(&args.ids, async |id| Ok(devices.unmount_device(id).await?)).await
}
