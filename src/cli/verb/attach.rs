//! `holmctl attach`

use std::os::fd::OwnedFd;

use super::wait;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::session::{Ending, Payload, Session};
use crate::cli::{Outcome, output};
use crate::client::{Client, ClientError};
use crate::model::ErrorCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A container with a terminal (`run --tty`)
    container: String,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let container = client.container(&args.container).await?;
    // Listening begins before, so that an end right after attaching is not missed.
    let mut waiter = wait::Waiter::new(&client, &args.container).await?;
    let master = container.attach().await?.remove("terminal").ok_or_else(|| no_terminal(&args.container))?;
    output::tell(&format!("attached to {}: press ^] three times within a second to leave it", args.container));
    let session = Session::of_terminal(OwnedFd::from(master))?;
    let payload = Payload::Container(container, client.clone(), args.container.clone());
    match session.follow(&payload, None).await? {
        Ending::Exited(exit) | Ending::Stopped(exit) => Ok(exit.into()),
        Ending::Detached => Ok(Status::SUCCESS),
        Ending::Closed => Ok(waiter.end().await?),
    }
}

fn no_terminal(name: &str) -> CliError {
    let message = format!("the container '{name}' has no terminal: run it with --tty");
    ClientError::Refused { code: ErrorCode::NotSupported, message }.into()
}
