//! `holmctl device …`, a file for each.

mod add;
mod adopt;
mod check;
mod findings;
mod grow;
mod list;
mod mount;
mod offline;
mod rm;
mod salvage;
mod snapshot;
mod status;
mod trim;
mod umount;

use zbus::OwnedObjectPath;

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::progress::Progress;
use crate::client::{Client, ContainerProxy, DeviceSetProxy, Goal, Jobs};
use crate::model::{ContainerName, ErrorCode};

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
    Trim(trim::Args),
    /// Add a device of your own, as a snapshot of another
    Add(add::Args),
    /// Remove devices of your own, or one that is on no record
    Rm(rm::Args),
    /// Make a snapshot of a device of your own, as a device with the moment in its name
    Snapshot(snapshot::Args),
    /// Mount the tree of a device on a directory
    Mount(mount::Args),
    /// Take the mounts of devices' trees away
    Umount(umount::Args),
    /// Take the configured block devices or pool over, giving up anything else that is on them; holmd must be stopped
    Adopt(adopt::Args),
    /// Rebuild a journal that is lost or too old from what the devices say; holmd must be stopped
    Salvage(salvage::Args),
}

pub(crate) async fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::List(args) => list::run(args).await,
        Verb::Status(args) => status::run(args).await,
        Verb::Grow(args) => grow::run(args).await,
        Verb::Check(args) => check::run(args).await,
        Verb::Trim(args) => trim::run(args).await,
        Verb::Add(args) => add::run(args).await,
        Verb::Rm(args) => rm::run(args).await,
        Verb::Snapshot(args) => snapshot::run(args).await,
        Verb::Mount(args) => mount::run(args).await,
        Verb::Umount(args) => umount::run(args).await,
        Verb::Adopt(args) => adopt::run(args),
        Verb::Salvage(args) => salvage::run(args),
    }
}

/// The device that somebody means: the root of the container with this name, or the device with this id.
async fn device_of(client: &Client, name: &str) -> Result<String, CliError> {
    let Some(container) = container(client, name).await? else { return Ok(name.to_owned()) };
    let known = client.properties(container.inner().path(), "org.holm1.Container").await?;
    Ok(format!("container:{}", known.text("Id")))
}

/// The container with this name, if there is one. It goes before a device of the same id: its own has another.
async fn container(client: &Client, name: &str) -> Result<Option<ContainerProxy<'static>>, CliError> {
    if ContainerName::parse(name).is_err() {
        return Ok(None);
    }
    match client.container(name).await {
        Ok(container) => Ok(Some(container)),
        Err(error) if error.is(ErrorCode::NoSuchContainer) => Ok(None),
        Err(error) => Err(error.into()),
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
