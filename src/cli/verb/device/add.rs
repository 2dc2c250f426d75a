//! `holmctl device add`

use zbus::Variant;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::client::{Client, Options};
use crate::model::{Bytes, DeviceId};

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
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let options: Options = args.size.map(|size| ("Size", Variant::from(size.0))).into_iter().collect();
    let frozen = client.devices().await?.snapshot_device(args.id.as_str(), args.base.as_str(), &options).await?;
    if frozen > 0 {
        output::write(&format!("{} was held still for {}.\n", args.base, output::rough_span(frozen)))?;
    }
    Ok(Status::SUCCESS)
}
