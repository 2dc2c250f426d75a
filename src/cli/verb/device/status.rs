//! `holmctl device status`

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::cli::report::Report;
use crate::client::{Client, Properties};
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let devices = client.devices().await?;
    let pool = client.properties(devices.inner().path(), "org.holm1.DeviceSet").await?;
    if args.json {
        output::write_json(&pool.to_json())?;
    } else {
        output::write(&text(&pool))?;
    }
    Ok(Status::SUCCESS)
}

fn text(pool: &Properties) -> String {
    let state = pool.text("State");
    let of = |used, total| share(pool.number(used), pool.number(total));
    let mut report = Report::default();
    report.title(&format!("{} {}", output::dot(&state), pool.text("Pool")));
    report.line("State", &output::coloured(&state, &state));
    report.line("Driver", &pool.text("Driver"));
    report.line("Data", &of("DataUsed", "DataTotal"));
    report.line("Metadata", &of("MetadataUsed", "MetadataTotal"));
    report.line("Block", &Bytes(pool.number("BlockSize")).to_string());
    report.line("Devices", &format!("{}, {} active", pool.number("Devices"), pool.number("Active")));
    report.line("Transaction", &pool.number("TransactionId").to_string());
    report.into_text()
}

fn share(used: u64, total: u64) -> String {
    match used.saturating_mul(100).checked_div(total) {
        Some(percent) => format!("{} of {} ({percent}%)", Bytes(used), Bytes(total)),
        None => Bytes(used).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(share(1 << 20, 4 << 20), "1M of 4M (25%)");
        assert_eq!(share(5, 0), "5B");
    }
}
