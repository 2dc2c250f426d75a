//! `holmctl device …`

use serde_json::json;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output::{self, ListArgs, Table};
use crate::client::{Client, Properties};
use crate::model::Bytes;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the devices of the pool
    List(ListArgs),
    /// Show how the pool is
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::List(args) => list(args).await,
        Verb::Status(args) => status(args).await,
    }
}

async fn list(args: ListArgs) -> Outcome {
    let client = Client::connect().await?;
    let mut devices = client.devices().await?.list_devices().await?;
    devices.sort();
    let mut table = Table::new(&["DEVICE", "THIN ID", "BASE", "MAPPED", "ACTIVE"]);
    for (id, thin, base, mapped, active) in &devices {
        let active = if *active { "yes" } else { "no" };
        table.row([id.clone(), thin.to_string(), base.clone(), Bytes(*mapped).to_string(), active.into()]);
    }
    let json = || {
        let object = |(id, thin, base, mapped, active): &(String, u32, String, u64, bool)| json!({"id": id, "thin_id": thin, "base": base, "mapped": mapped, "active": active});
        devices.iter().map(object).collect()
    };
    args.write(&table, json, "device")?;
    Ok(Status::SUCCESS)
}

async fn status(args: StatusArgs) -> Outcome {
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
    format!(
        "{} {}\n       State: {state}\n      Driver: {}\n        Data: {}\n    Metadata: {}\n       Block: {}\n     Devices: {}, {} active\n Transaction: {}\n",
        output::dot(&state),
        pool.text("Pool"),
        pool.text("Driver"),
        of("DataUsed", "DataTotal"),
        of("MetadataUsed", "MetadataTotal"),
        Bytes(pool.number("BlockSize")),
        pool.number("Devices"),
        pool.number("Active"),
        pool.number("TransactionId"),
    )
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
