//! `holmctl device mount`

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use zbus::{Fd, Variant};

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::client::{Client, Options};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Mount it read-only, as Holm's own devices must be
    #[arg(short, long)]
    read_only: bool,
    /// The device
    id: String,
    /// The directory
    directory: PathBuf,
}

pub(super) async fn run(args: Args) -> Outcome {
    let shown = args.directory.display();
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(&args.directory);
    let directory = directory.map_err(|source| CliError::io(format!("open the directory {shown}"), source))?;
    let options = if args.read_only { Options::from([("ReadOnly", Variant::from(true))]) } else { Options::new() };
    let client = Client::connect().await?;
    client.devices().await?.mount_device(&args.id, &Fd::from(&directory), &options).await?;
    Ok(Status::SUCCESS)
}
