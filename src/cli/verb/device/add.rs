//! `holmctl device add`

use zbus::Variant;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::client::{Client, ClientError, DeviceSetProxy, Options, Properties};
use crate::model::{Bytes, DeviceId, ErrorCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id: anything that does not begin with holm, container:, layer:, image: or snapshot:
    id: DeviceId,
    /// The device that it is a snapshot of; one with an empty tree when absent
    #[arg(long, value_name = "ID", default_value = "base")]
    base: DeviceId,
    /// Its size; that of the base when absent
    #[arg(long)]
    size: Option<Bytes>,
    /// When it is there already it stays, and is only made as large as --size says if it is smaller
    #[arg(long)]
    if_missing: bool,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let options: Options = args.size.map(|size| ("Size", Variant::from(size.0))).into_iter().collect();
    let devices = client.devices().await?;
    let added = devices.snapshot_device(args.id.as_str(), args.base.as_str(), &options).await;
    let frozen = match added.map_err(ClientError::from) {
        Err(error) if args.if_missing && error.is(ErrorCode::NameInUse) => return there(&devices, &args).await,
        added => added?,
    };
    if frozen > 0 {
        output::write(&format!("{} was held still for {}.\n", args.base, output::rough_span(frozen)))?;
    }
    Ok(Status::SUCCESS)
}

/// It is there: all that may be left to do is to make it larger.
async fn there(devices: &DeviceSetProxy<'static>, args: &Args) -> Outcome {
    let Some(wanted) = args.size else { return Ok(Status::SUCCESS) };
    let known = devices.describe_devices().await?.into_iter().find(|(id, _)| id == args.id.as_str());
    let size = known.map_or(0, |(_, known)| Properties::from_map(known).number("Size"));
    if size < wanted.0 {
        devices.resize_device(args.id.as_str(), wanted.0).await?;
    }
    Ok(Status::SUCCESS)
}
