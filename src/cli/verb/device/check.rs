//! `holmctl device check`

use super::findings::Findings;
use super::upkeep;
use crate::cli::Outcome;
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write labels anew that are wrong, and take devices back that are on no record but known; nothing is deleted
    #[arg(long)]
    repair: bool,
    /// Write a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    if args.repair {
        upkeep(&client, "repairing", async |devices| devices.repair().await).await?;
    } else {
        upkeep(&client, "checking", async |devices| devices.check().await).await?;
    }
    let (_, devices, findings, foreign) = client.devices().await?.get_check_report().await?;
    let report = Findings::of(devices, findings, foreign);
    report.write(args.json)?;
    Ok(report.status())
}
