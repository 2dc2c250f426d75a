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
    /// Also measure what is each device's own and would be free without it, which takes a while in a large pool
    #[arg(long)]
    exclusive: bool,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let proxy = client.devices().await?;
    // Measured before the list is read: what is written meanwhile must not make a part larger than the whole.
    let measured: HashMap<_, _> = match args.exclusive {
        true => proxy.measure_devices().await?.into_iter().collect(),
        false => HashMap::new(),
    };
    let mut devices: Vec<_> = proxy.describe_devices().await?.into_iter().map(Device::of).collect();
    devices.iter_mut().for_each(|device| device.exclusive = measured.get(&device.id).copied());
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    let headers: &[_] = if args.exclusive { &WITH_EXCLUSIVE } else { &HEADERS };
    let mut table = Table::new(headers);
    for device in &devices {
        if args.exclusive { table.row(device.cells_with_exclusive()) } else { table.row(device.cells()) }
    }
    args.list.write(&table, || devices.iter().map(Device::to_json).collect(), "device")?;
    Ok(Status::SUCCESS)
}

const HEADERS: [&str; 8] = ["DEVICE", "THIN ID", "BASE", "SIZE", "MAPPED", "ACTIVE", "STATE", "OF"];
const WITH_EXCLUSIVE: [&str; 9] = ["DEVICE", "THIN ID", "BASE", "SIZE", "MAPPED", "EXCLUSIVE", "ACTIVE", "STATE", "OF"];

/// A device, as it is listed.
#[derive(Debug)]
struct Device {
    id: String,
    known: Properties,
    /// Bytes of its own, if that was measured.
    exclusive: Option<u64>,
}

impl Device {
    fn of((id, known): (String, HashMap<String, OwnedVariant>)) -> Self {
        Self { id, known: Properties::from_map(known), exclusive: None }
    }

    fn cells(&self) -> [String; 8] {
        let known = &self.known;
        let bytes = |key| Bytes(known.number(key)).to_string();
        let active = if known.flag("Active") { "yes" } else { "no" }.to_owned();
        let users = known.texts("Users").join(", ");
        let thin = known.number("ThinId").to_string();
        [self.id.clone(), thin, known.text("Base"), bytes("Size"), bytes("Mapped"), active, known.text("State"), users]
    }

    fn cells_with_exclusive(&self) -> [String; 9] {
        let exclusive = self.exclusive.map(|bytes| Bytes(bytes).to_string()).unwrap_or_default();
        let [id, thin, base, size, mapped, active, state, users] = self.cells();
        [id, thin, base, size, mapped, exclusive, active, state, users]
    }

    fn to_json(&self) -> Json {
        let known = &self.known;
        let mut json = json!({
            "id": self.id,
            "thin_id": known.number("ThinId"),
            "base": known.text("Base"),
            "size": known.number("Size"),
            "mapped": known.number("Mapped"),
            "active": known.flag("Active"),
            "state": known.text("State"),
            "own": known.flag("Own"),
            "of": known.texts("Users"),
        });
        if let Some(bytes) = self.exclusive {
            json["exclusive"] = json!(bytes);
        }
        json
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
