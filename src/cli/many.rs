//! Verbs that take several names: each is tried, each failure is told, the worst status is ours.

use zbus::OwnedObjectPath;

use super::Outcome;
use super::error::CliError;
use super::exit::{self, Status};
use crate::client::{Client, ClientError, Goal, Jobs};
use crate::model::ErrorCode;

/// Does something at once with each.
pub(super) async fn each(names: &[String], mut action: impl AsyncFnMut(&str) -> Result<(), CliError>) -> Outcome {
    let mut worst = Status::SUCCESS;
    for name in names {
        if let Err(error) = action(name).await {
            worst = worst.max(exit::report(&error));
        }
    }
    Ok(worst)
}

/// What to do about those that there is nothing to do with.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Missing {
    /// It is no failure when there is nothing to do: no such container, or one that does not run
    #[arg(long)]
    ignore: bool,
}

impl Missing {
    /// It is a failure.
    pub(super) const FAILS: Self = Self { ignore: false };

    /// Whether this failure is none.
    pub(super) fn forgives(self, error: &ClientError) -> bool {
        let nothing =
            [ErrorCode::NoSuchContainer, ErrorCode::NotRunning, ErrorCode::NotMounted, ErrorCode::NoSuchDevice];
        self.ignore && nothing.into_iter().any(|code| error.is(code))
    }
}

/// Starts a job for each, and waits for all of them: they run side by side.
pub(super) async fn jobs<'a>(
    client: &Client,
    names: &'a [String],
    goal: fn(&'a str) -> Goal<'a>,
    missing: Missing,
    start: impl AsyncFnMut(&str) -> Result<OwnedObjectPath, CliError>,
) -> Outcome {
    Ok(jobs_done(client, names, goal, missing, start).await?.0)
}

/// As [`jobs`]; also those of `names` whose job did what it was to do.
pub(super) async fn jobs_done<'a>(
    client: &Client,
    names: &'a [String],
    goal: fn(&'a str) -> Goal<'a>,
    missing: Missing,
    mut start: impl AsyncFnMut(&str) -> Result<OwnedObjectPath, CliError>,
) -> Result<(Status, Vec<&'a str>), CliError> {
    let mut jobs = Jobs::listen(client, &[]).await?;
    let mut started = Vec::new();
    let mut worst = Status::SUCCESS;
    for name in names {
        match start(name).await {
            Ok(job) => started.push((name.as_str(), job)),
            Err(CliError::Client(error)) if missing.forgives(&error) => {}
            Err(error) => worst = worst.max(exit::report(&error)),
        }
    }
    let mut done = Vec::new();
    for (name, job) in started {
        match jobs.wait(&job, goal(name), |_| {}).await {
            Ok(()) => done.push(name),
            Err(error) if missing.forgives(&error) => {}
            Err(error) => worst = worst.max(exit::report(&error.into())),
        }
    }
    Ok((worst, done))
}
