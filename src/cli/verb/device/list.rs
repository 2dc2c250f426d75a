//! `holmctl device list`

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use zbus::OwnedVariant;

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output::{ListArgs, Table};
use crate::client::{Client, Properties};
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListArgs,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let described = client.devices().await?.describe_devices().await?;
    let mut devices: Vec<_> = described.into_iter().map(Device::of).collect();
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    let mut table = Table::new(&["DEVICE", "THIN ID", "BASE", "SIZE", "MAPPED", "ACTIVE", "STATE", "OF"]);
    devices.iter().for_each(|device| table.row(device.cells()));
    args.list.write(&table, || devices.iter().map(Device::to_json).collect(), "device")?;
    Ok(Status::SUCCESS)
}

/// A device, as it is listed.
#[derive(Debug)]
struct Device {
    id: String,
    known: Properties,
}

impl Device {
    fn of((id, known): (String, HashMap<String, OwnedVariant>)) -> Self {
        Self { id, known: Properties::from_map(known) }
    }

    fn cells(&self) -> [String; 8] {
        let known = &self.known;
        let bytes = |key| Bytes(known.number(key)).to_string();
        let active = if known.flag("Active") { "yes" } else { "no" }.to_owned();
        let users = known.texts("Users").join(", ");
        let thin = known.number("ThinId").to_string();
        [self.id.clone(), thin, known.text("Base"), bytes("Size"), bytes("Mapped"), active, known.text("State"), users]
    }

    fn to_json(&self) -> Json {
        let known = &self.known;
        json!({
            "id": self.id,
            "thin_id": known.number("ThinId"),
            "base": known.text("Base"),
            "size": known.number("Size"),
            "mapped": known.number("Mapped"),
            "active": known.flag("Active"),
            "state": known.text("State"),
            "own": known.flag("Own"),
            "of": known.texts("Users"),
        })
    }
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    #[test]
    fn a_device_is_shown_with_what_needs_it() {
        let own = |value: Variant<'_>| value.try_into_owned().unwrap();
        let known = [
            ("ThinId", own(7u32.into())),
            ("Size", own((1u64 << 30).into())),
            ("Mapped", own((1u64 << 20).into())),
            ("Active", own(true.into())),
            ("State", own("ready".into())),
            ("Users", own(vec!["image a", "image b"].into())),
        ];
        let device = Device::of(("layer:1".into(), known.map(|(key, value)| (key.to_owned(), value)).into()));
        assert_eq!(device.cells(), ["layer:1", "7", "", "1G", "1M", "yes", "ready", "image a, image b"]);
        let json = device.to_json();
        assert_eq!(
            (&json["of"], &json["base"], &json["own"]),
            (&json!(["image a", "image b"]), &json!(""), &json!(false))
        );
    }
}
