//! `holmctl device snapshot`

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::client::{Client, Options};
use crate::model::{DeviceId, now_usec};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Then remove the oldest of those that this verb made, so that so many are left
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// The device
    id: DeviceId,
}

pub(super) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let devices = client.devices().await?;
    let id = name_of(&args.id, now_usec())?;
    devices.snapshot_device(id.as_str(), args.id.as_str(), &Options::new()).await?;
    output::write(&format!("{id}\n"))?;
    let Some(keep) = args.keep else { return Ok(Status::SUCCESS) };
    let known = devices.list_devices().await?.into_iter().map(|(id, ..)| id).collect();
    for old in surplus(known, &args.id, keep as usize) {
        devices.remove_device(&old).await?;
    }
    Ok(Status::SUCCESS)
}

/// `ID:MOMENT`, in µs since 1970: of any two the later one is larger.
fn name_of(id: &DeviceId, now: u64) -> Result<DeviceId, CliError> {
    Ok(DeviceId::parse(&format!("{id}:{now}"))?)
}

/// Those beyond the newest `keep`. Only what can have been made here counts.
fn surplus(known: Vec<String>, id: &DeviceId, keep: usize) -> Vec<String> {
    let prefix = format!("{id}:");
    let moment = |name: &String| name.strip_prefix(&prefix).and_then(|moment| moment.parse::<u64>().ok());
    let mut made: Vec<_> = known.into_iter().filter_map(|name| Some((moment(&name)?, name))).collect();
    made.sort();
    made.truncate(made.len().saturating_sub(keep));
    made.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshots_are_kept() {
        let id = DeviceId::parse("volume:data").unwrap();
        let known = [
            "base",
            "volume:data",
            "volume:data:30",
            "volume:data:9",
            "volume:data:x",
            "volume:data2:1",
            "volume:data:20",
        ];
        let known: Vec<_> = known.map(str::to_owned).to_vec();
        assert_eq!(surplus(known.clone(), &id, 1), ["volume:data:9", "volume:data:20"]);
        assert!(surplus(known, &id, 3).is_empty());
        assert_eq!(name_of(&id, 7).unwrap().as_str(), "volume:data:7");
    }
}
