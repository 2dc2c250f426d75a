//! `holmctl kill`

use clap::ValueEnum;

use crate::cli::container_args::parse_signal;
use crate::cli::{Outcome, many};
use crate::client::Client;
use crate::model::Signal;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// The signal
    #[arg(short, long, default_value = "SIGTERM", value_parser = parse_signal)]
    signal: Signal,
    /// Whom it reaches
    #[arg(long, value_enum, default_value_t = Who::All, visible_alias = "kill-whom")]
    who: Who,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Who {
    /// The first process
    Leader,
    /// Every process
    All,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    let who = match args.who {
        Who::Leader => "leader",
        Who::All => "all",
    };
    many::each(&args.names, async |name| Ok(client.container(name).await?.kill(who, args.signal.number()).await?)).await
}
