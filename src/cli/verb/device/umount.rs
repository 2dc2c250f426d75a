//! `holmctl device umount`

use crate::cli::many::Missing;
use crate::cli::{Outcome, many};
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devices
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    missing: Missing,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let devices = &client.devices().await?;
    many::each(&args.ids, async |id| match devices.unmount_device(id).await.map_err(ClientError::from) {
        Err(error) if !args.missing.forgives(&error) => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    })
    .await
}
