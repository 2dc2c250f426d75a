//! `holmctl stop`

use zbus::Variant;

use crate::cli::container_args::{parse_seconds, parse_signal};
use crate::cli::many::Missing;
use crate::cli::{Outcome, many, warnings};
use crate::client::{Client, Goal, Options};
use crate::model::{Signal, Usec};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    missing: Missing,
}

/// How to stop; `restart` takes the same.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// How long it may take before everything is killed, in seconds
    #[arg(short, long, value_name = "SECONDS", visible_alias = "timeout", value_parser = parse_seconds)]
    time: Option<Usec>,
    /// The signal that asks it to end
    #[arg(short, long, value_parser = parse_signal)]
    signal: Option<Signal>,
}

impl How {
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new();
        if let Some(time) = self.time {
            options.insert("TimeoutUSec", Variant::from(time));
        }
        if let Some(signal) = self.signal {
            options.insert("Signal", Variant::from(signal.number()));
        }
        options
    }
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    let options = &args.how.options();
    let stop = async |name: &str| Ok(client.container(name).await?.stop(options).await?);
    let (worst, stopped) = many::jobs_done(client, &args.names, Goal::Stopped, args.missing, stop).await?;
    for name in stopped {
        // One that was to be removed at its end is gone: the journal has how it ended.
        if let Ok(container) = client.container(name).await {
            warnings::tell_killed(&container, name).await;
        }
    }
    Ok(worst)
}
