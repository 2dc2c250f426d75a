//! `holmctl clone`

use zbus::Variant;

use crate::cli::exit::Status;
use crate::cli::{Outcome, output};
use crate::client::{Client, Goal, Jobs, Options};
use crate::model::{ContainerName, SnapshotName};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container; it may run
    container: String,
    /// The new container's name
    #[arg(value_name = "NAME")]
    name: ContainerName,
    /// Take it as it was at this snapshot
    #[arg(long)]
    snapshot: Option<SnapshotName>,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let mut jobs = Jobs::listen(&client, &[]).await?;
    let mut options = Options::new();
    if let Some(snapshot) = &args.snapshot {
        options.insert("Snapshot", Variant::from(snapshot.as_str()));
    }
    let job = client.container(&args.container).await?.clone(args.name.as_str(), &options).await?;
    jobs.wait(&job, Goal::Nothing(&args.container), |_| {}).await?;
    output::write(&format!("{}\n", args.name))?;
    if let Some(frozen) = jobs.frozen(&job) {
        output::tell(&super::snapshot::held_still(&args.container, frozen));
    }
    Ok(Status::SUCCESS)
}
