//! `holmctl rollback`

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::client::{Client, Goal, Jobs};
use crate::model::SnapshotName;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container; it must not run
    container: String,
    /// The snapshot; it stays
    snapshot: SnapshotName,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let mut jobs = Jobs::listen(&client, &[]).await?;
    let job = client.container(&args.container).await?.rollback(args.snapshot.as_str()).await?;
    jobs.wait(&job, Goal::Nothing(&args.container), |_| {}).await?;
    Ok(Status::SUCCESS)
}
