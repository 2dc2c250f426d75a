//! `holmctl device …`

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output::{self, ListArgs, Table};
use crate::cli::report::Report;
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
    let users = users(client.objects().await?.into_values().flatten());
    let users_of = |id: &String| users.get(id).map(|users| users.join(", ")).unwrap_or_default();
    let mut table = Table::new(&["DEVICE", "THIN ID", "BASE", "MAPPED", "ACTIVE", "OF"]);
    for (id, thin, base, mapped, active) in &devices {
        let active = if *active { "yes" } else { "no" };
        let mapped = Bytes(*mapped).to_string();
        table.row([id.clone(), thin.to_string(), base.clone(), mapped, active.into(), users_of(id)]);
    }
    let json = || {
        let object = |(id, thin, base, mapped, active): &(String, u32, String, u64, bool)| json!({"id": id, "thin_id": thin, "base": base, "mapped": mapped, "active": active, "of": users.get(id).cloned().unwrap_or_default()});
        devices.iter().map(object).collect()
    };
    args.write(&table, json, "device")?;
    Ok(Status::SUCCESS)
}

/// Which container, and which images, each device is the root of.
fn users(interfaces: impl Iterator<Item = (String, Properties)>) -> BTreeMap<String, Vec<String>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (interface, properties) in interfaces {
        let (device, kind) = match interface.as_str() {
            "org.holm1.Container" => (format!("container:{}", properties.text("Id")), "container"),
            "org.holm1.Image" => (properties.text("Device"), "image"),
            _ => continue,
        };
        users.entry(device).or_default().push(format!("{kind} {}", properties.text("Name")));
    }
    users
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
    use zbus::{OwnedVariant, Str};

    use super::*;

    #[test]
    fn a_device_is_named_by_what_it_is_the_root_of() {
        let properties = |pairs: &[(&str, &str)]| {
            let own = |text: &str| OwnedVariant::from(Str::from(text.to_owned()));
            Properties::from_map(pairs.iter().map(|(key, text)| ((*key).to_owned(), own(text))).collect())
        };
        let image = |name| ("org.holm1.Image".to_owned(), properties(&[("Device", "layer:1"), ("Name", name)]));
        let container = ("org.holm1.Container".to_owned(), properties(&[("Id", "2"), ("Name", "web")]));
        let users = users([image("a"), image("b"), container].into_iter());
        assert_eq!(users["layer:1"], ["image a", "image b"]);
        assert_eq!(users["container:2"], ["container web"]);
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(share(1 << 20, 4 << 20), "1M of 4M (25%)");
        assert_eq!(share(5, 0), "5B");
    }
}
