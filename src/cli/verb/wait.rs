//! `holmctl wait`

use zbus::OwnedObjectPath;

use super::list::is_active;
use crate::cli::error::CliError;
use crate::cli::exit::{self, Status};
use crate::cli::{Outcome, output};
use crate::client::{Client, ClientError, ContainerProxy, Rule, Signal, Signals};
use crate::model::ErrorCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers; our exit status is that of the last one
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let mut waiters = Vec::new();
    // All are listened to before the first is waited for: one that is removed at its end must not be missed.
    for name in &args.names {
        waiters.push(Waiter::new(&client, name).await);
    }
    let mut last = Status::SUCCESS;
    for waiter in waiters {
        last = match wait(waiter).await {
            Ok(status) => status,
            Err(error) => exit::report(&error),
        };
    }
    Ok(last)
}

async fn wait(waiter: Result<Waiter, CliError>) -> Outcome {
    let mut waiter = waiter?;
    let status = waiter.status().await?;
    output::write(&format!("{status}\n"))?;
    Ok(Status::from_bus(status))
}

/// Waits for one container's end.
#[derive(Debug)]
pub(super) struct Waiter {
    name: String,
    path: OwnedObjectPath,
    container: ContainerProxy<'static>,
    signals: Signals,
}

impl Waiter {
    /// Listens to it. Fails with `NoSuchContainer`.
    pub(super) async fn new(client: &Client, name: &str) -> Result<Self, CliError> {
        let container = client.container(name).await?;
        let path = OwnedObjectPath::from(container.inner().path().to_owned());
        let signals = client.signals(&[Rule::Object(path.as_str()), Rule::ContainersRemoved]).await?;
        Ok(Self { name: name.to_owned(), path, container, signals })
    }

    /// Its end as an exit status.
    pub(super) async fn end(&mut self) -> Outcome {
        Ok(Status::from_bus(self.status().await?))
    }

    /// The exit status of the run that goes on, or else of the last one. The daemon may come and go meanwhile: what it
    /// knows is asked for again.
    async fn status(&mut self) -> Result<i32, CliError> {
        loop {
            if let Some(status) = self.known().await? {
                return Ok(status);
            }
            loop {
                match self.signals.next().await {
                    Some(Signal::Exited { path, status, .. }) if path == self.path => return self.seen(status),
                    Some(Signal::Listed { member, path, .. }) if member == "ContainerRemoved" && path == self.path => {
                        return Err(self.lost());
                    }
                    // A new state, or the daemon's: ask again.
                    Some(Signal::Changed { path, values, .. })
                        if path == self.path
                            && !values.text("State").is_empty()
                            && !is_active(&values.text("State")) =>
                    {
                        break;
                    }
                    Some(Signal::DaemonGone) => break,
                    Some(_) => {}
                    None => return Err(ClientError::NoDaemon { message: "the bus is gone".into() }.into()),
                }
            }
        }
    }

    async fn known(&self) -> Result<Option<i32>, CliError> {
        let state = match self.container.state().await.map_err(ClientError::from) {
            Ok(state) => state,
            Err(ClientError::Mismatch { .. }) => return Err(self.lost()),
            Err(error) => return Err(error.into()),
        };
        if is_active(&state) {
            return Ok(None);
        }
        if state == "created" {
            return Err(self.never_ran());
        }
        self.seen(self.container.exit_status().await?).map(Some)
    }

    fn seen(&self, status: i32) -> Result<i32, CliError> {
        if status < 0 { Err(self.lost()) } else { Ok(status) }
    }

    fn lost(&self) -> CliError {
        ClientError::Lost { subject: self.name.clone() }.into()
    }

    fn never_ran(&self) -> CliError {
        let message = format!("the container '{}' has never run: start it with 'holmctl start {0}'", self.name);
        ClientError::Refused { code: ErrorCode::NotRunning, message }.into()
    }
}
