//! `holmctl exec`

use std::os::fd::OwnedFd;

use crate::cli::Outcome;
use crate::cli::container_args::environment;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::session::{Ending, Payload, Session, Streams};
use crate::client::{Client, ClientError, ExecOptions, ProcessProxy};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not wait for its end
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// User inside; the container's when absent
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside; the container's when absent
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// The container, and what to run in it
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

/// A process to run.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) container: String,
    pub(super) argv: Vec<String>,
    pub(super) options: ExecOptions,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let streams = Streams { interactive: args.interactive, terminal: args.tty };
    let mut words = args.words.into_iter();
    let options = ExecOptions {
        environment: environment(&[], &args.env, args.tty, |name| std::env::var(name).ok())?,
        working_directory: args.workdir,
        user: args.user,
        terminal: args.tty,
        detach: args.detach,
    };
    let command = Command { container: words.next().unwrap_or_default(), argv: words.collect(), options };
    if args.detach { detached(command).await } else { attached(command, streams).await }
}

async fn detached(command: Command) -> Outcome {
    let client = Client::connect().await?;
    let container = client.container(&command.container).await?;
    container.exec(&command.argv, &command.options.into_dict()).await?;
    Ok(Status::SUCCESS)
}

/// Runs it and follows it until its end; `shell` does the same.
pub(super) async fn attached(command: Command, streams: Streams) -> Outcome {
    let (mut session, io) = Session::prepare(streams)?;
    let client = Client::connect().await?;
    let container = client.container(&command.container).await?;
    let mut options = command.options.into_dict();
    io.add_to(&mut options);
    let (path, mut fds) = container.exec(&command.argv, &options).await?;
    // Our copy of the monitor's side of the socket: while it is open, nobody's end can be seen.
    drop(options);
    let process = client.process_at(path).await?;
    if let Some(master) = fds.remove("terminal") {
        session.connect(OwnedFd::from(master))?;
    }
    match session.follow(&Payload::Process(process.clone()), None).await? {
        Ending::Exited(exit) | Ending::Stopped(exit) => Ok(exit.into()),
        // It is killed when our connection ends.
        Ending::Detached => Ok(Status::SUCCESS),
        Ending::Closed => unseen(&process, &command.container).await,
    }
}

/// The monitor did not say how it ended; the daemon may know.
async fn unseen(process: &ProcessProxy<'_>, container: &str) -> Result<Status, CliError> {
    match (process.state().await?.as_str(), process.exit_status().await?) {
        ("exited", status @ 0..) => Ok(Status::from_bus(status)),
        _ => Err(ClientError::Lost { subject: container.to_owned() }.into()),
    }
}
