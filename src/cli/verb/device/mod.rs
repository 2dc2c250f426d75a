//! `holmctl device …`, a file for each.

mod add;
mod check;
mod findings;
mod grow;
mod list;
mod mount;
mod rm;
mod salvage;
mod status;
mod trim;
mod umount;

use zbus::OwnedObjectPath;

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::progress::Progress;
use crate::client::{Client, DeviceSetProxy, Goal, Jobs};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the devices of the pool
    List(list::Args),
    /// Show how the pool is
    Status(status::Args),
    /// Make the pool, or the file system of a container or device, larger
    Grow(grow::Args),
    /// Compare what pool, journal and devices say
    Check(check::Args),
    /// Give back to the pool what file systems in use do not need
    Trim,
    /// Add a device of your own, as a snapshot of another
    Add(add::Args),
    /// Remove devices of your own, or one that is on no record
    Rm(rm::Args),
    /// Mount the tree of a device on a directory
    Mount(mount::Args),
    /// Take the mounts of devices' trees away
    Umount(umount::Args),
    /// Rebuild a journal that is lost or too old from what the devices say; holmd must be stopped
    Salvage(salvage::Args),
}

pub(crate) async fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::List(args) => list::run(args).await,
        Verb::Status(args) => status::run(args).await,
        Verb::Grow(args) => grow::run(args).await,
        Verb::Check(args) => check::run(args).await,
        Verb::Trim => trim::run().await,
        Verb::Add(args) => add::run(args).await,
        Verb::Rm(args) => rm::run(args).await,
        Verb::Mount(args) => mount::run(args).await,
        Verb::Umount(args) => umount::run(args).await,
        Verb::Salvage(args) => salvage::run(args),
    }
}

/// Has the daemon do something about the pool that takes a while, and waits for its end.
async fn upkeep(
    client: &Client,
    what: &str,
    begin: impl AsyncFnOnce(&DeviceSetProxy<'static>) -> zbus::Result<OwnedObjectPath>,
) -> Result<(), CliError> {
    let mut jobs = Jobs::listen(client, &[]).await?;
    let job = begin(&client.devices().await?).await?;
    let mut progress = Progress::new(what.to_owned());
    let ended = jobs.wait(&job, Goal::Nothing("the pool"), |at| progress.update(at)).await;
    progress.finish();
    Ok(ended?)
}
