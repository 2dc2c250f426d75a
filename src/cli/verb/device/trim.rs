//! `holmctl device trim`

use super::upkeep;
use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::client::Client;
use crate::model::Bytes;

pub(super) async fn run() -> Outcome {
    let client = Client::connect().await?;
    upkeep(&client, "trimming", async |devices| devices.trim().await).await?;
    let (_, bytes, trimmed, failed) = client.devices().await?.get_trim_report().await?;
    for (id, reason) in &failed {
        output::tell(&format!("{id} could not be trimmed: {reason}"));
    }
    output::write(&format!("{} given back, {trimmed} devices in use.\n", Bytes(bytes)))?;
    Ok(if failed.is_empty() { Status::SUCCESS } else { Status::FAILURE })
}
