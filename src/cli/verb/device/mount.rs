//! `holmctl device mount`

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
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
    /// Make the directory when it is missing; nothing is done when something is mounted there already
    #[arg(long)]
    if_missing: bool,
    /// The device
    id: String,
    /// The directory
    directory: PathBuf,
}

pub(super) async fn run(args: Args) -> Outcome {
    let shown = args.directory.display();
    if args.if_missing && is_there(&args.directory)? {
        return Ok(Status::SUCCESS);
    }
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(&args.directory);
    let directory = directory.map_err(|source| CliError::io(format!("open the directory {shown}"), source))?;
    let options = if args.read_only { Options::from([("ReadOnly", Variant::from(true))]) } else { Options::new() };
    let client = Client::connect().await?;
    client.devices().await?.mount_device(&args.id, &Fd::from(&directory), &options).await?;
    Ok(Status::SUCCESS)
}

/// Makes the directory, and says whether something is mounted on it.
fn is_there(directory: &Path) -> Result<bool, CliError> {
    let shown = directory.display();
    fs::create_dir_all(directory).map_err(|source| CliError::io(format!("make the directory {shown}"), source))?;
    let known = statx(CWD, directory, AtFlags::empty(), StatxFlags::BASIC_STATS);
    let known = known.map_err(|source| CliError::io(format!("look at {shown}"), source.into()))?;
    Ok(known.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
