//! Verbs that take several names: each is tried, each failure is told, the worst status is ours.

use zbus::OwnedObjectPath;

use super::Outcome;
use super::error::CliError;
use super::exit::{self, Status};
use crate::client::{Client, Goal, Jobs};

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

/// Starts a job for each, and waits for all of them: they run side by side.
pub(super) async fn jobs<'a>(
    client: &Client,
    names: &'a [String],
    goal: fn(&'a str) -> Goal<'a>,
    mut start: impl AsyncFnMut(&str) -> Result<OwnedObjectPath, CliError>,
) -> Outcome {
    let mut jobs = Jobs::listen(client, &[]).await?;
    let mut started = Vec::new();
    let mut worst = Status::SUCCESS;
    for name in names {
        match start(name).await {
            Ok(job) => started.push((name.as_str(), job)),
            Err(error) => worst = worst.max(exit::report(&error)),
        }
    }
    for (name, job) in started {
        if let Err(error) = jobs.wait(&job, goal(name), |_| {}).await {
            worst = worst.max(exit::report(&error.into()));
        }
    }
    Ok(worst)
}
