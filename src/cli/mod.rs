//! The command line: one file per verb below `verb/`.
//!
//! | file | what |
//! |---|---|
//! | `error.rs`, `exit.rs` | every failure is one line; its exit status |
//! | `output.rs` | tables or JSON, colours, moments |
//! | `container_args.rs` | the options that `run` and `create` share |
//! | `notify.rs` | what the unit that we run in is told |
//! | `session.rs` | follows a payload until it ends: monitor, signals, terminal |
//! | `passed.rs` | descriptors and credentials that go on to the payload |
//! | `system.rs` | images that call themselves a whole system |
//! | `terminal.rs` | raw mode and the two copying threads |
//! | `report.rs` | what is shown of one object |
//! | `progress.rs` | a bar on a terminal, lines otherwise |
//! | `many.rs` | verbs that take several names |
//! | `stamp.rs` | which archive an image came from |

mod container_args;
mod error;
mod exit;
mod journal;
mod many;
mod notify;
mod output;
mod passed;
mod progress;
mod report;
mod service;
mod session;
mod stamp;
mod system;
mod terminal;
mod verb;
mod warnings;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use error::CliError;
use exit::Status;
use verb::*;

/// What every verb comes to: an exit status, or the one line that says why not.
type Outcome = Result<Status, CliError>;

/// Containers as first-class citizens of systemd.
#[derive(Debug, Parser)]
#[command(name = "holmctl", version, max_term_width = 110, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Define a container and run it
    Run(run::Args),
    /// Define a container
    Create(create::Args),
    /// Start containers
    Start(start::Args),
    /// Stop containers politely, then by force
    Stop(stop::Args),
    /// Stop and start containers
    Restart(restart::Args),
    /// Send a signal to containers
    Kill(kill::Args),
    /// Freeze containers
    Freeze(freeze::Args),
    /// Let frozen containers go on
    Thaw(thaw::Args),
    /// Remove containers
    Rm(rm::Args),
    /// Rename a container
    Rename(rename::Args),
    /// Change what containers may use, at once and for good
    Update(update::Args),
    /// Make, list or remove snapshots of a container
    Snapshot(snapshot::Args),
    /// Bring a container that does not run back to a snapshot
    Rollback(rollback::Args),
    /// Make a container of another, as it is now or was at a snapshot
    Clone(clone::Args),
    /// List containers
    List(list::Args),
    /// Show how containers are
    Status(status::Args),
    /// Show properties of containers
    Show(show::Args),
    /// Run a command in a running container
    Exec(exec::Args),
    /// Open a shell in a running container
    Shell(shell::Args),
    /// Attach to a container's terminal
    Attach(attach::Args),
    /// Show what a container wrote
    Logs(logs::Args),
    /// Show how a container's last runs ended, and what they used
    Runs(runs::Args),
    /// Wait until containers have ended
    Wait(wait::Args),
    /// Show what containers use
    Stats(stats::Args),
    /// Show what happens, as it happens
    Events(events::Args),
    /// Images
    #[command(subcommand)]
    Image(image::Verb),
    /// The pool of devices
    #[command(subcommand)]
    Device(device::Verb),
    /// Files that declare containers
    #[command(subcommand)]
    Unit(unit::Verb),
    /// Check this host, and say what is missing
    Doctor(doctor::Args),
    /// Write a completion script for a shell
    Completion(completion::Args),
}

/// Parses the command line, does what it says, and gives back the exit status of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(&error, &verb_of(std::env::args().skip(1))),
    };
    // Before anything is opened here.
    let inherited = match passed::inherited() {
        Ok(inherited) => inherited,
        Err(error) => return exit::report(&error).into(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return exit::report(&CliError::io("start", source)).into(),
    };
    match runtime.block_on(dispatch(cli.verb, inherited)) {
        Ok(status) => status.into(),
        Err(error) => exit::report(&error).into(),
    }
}

/// The verb that a command line begins with, such as `image import`.
fn verb_of(words: impl Iterator<Item = String>) -> String {
    let mut command = Cli::command();
    let mut verb = Vec::new();
    for word in words {
        let Some(sub) = command.find_subcommand(&word).cloned() else { break };
        command = sub;
        verb.push(word);
    }
    verb.join(" ")
}

async fn dispatch(verb: Verb, inherited: passed::Named) -> Outcome {
    match verb {
        Verb::Run(args) => run::run(args, inherited).await,
        Verb::Create(args) => create::run(args).await,
        Verb::Start(args) => start::run(args, inherited).await,
        Verb::Stop(args) => stop::run(args).await,
        Verb::Restart(args) => restart::run(args).await,
        Verb::Kill(args) => kill::run(args).await,
        Verb::Freeze(args) => freeze::run(args).await,
        Verb::Thaw(args) => thaw::run(args).await,
        Verb::Rm(args) => rm::run(args).await,
        Verb::Rename(args) => rename::run(args).await,
        Verb::Update(args) => update::run(args).await,
        Verb::Snapshot(args) => snapshot::run(args).await,
        Verb::Rollback(args) => rollback::run(args).await,
        Verb::Clone(args) => clone::run(args).await,
        Verb::List(args) => list::run(args).await,
        Verb::Status(args) => status::run(args).await,
        Verb::Show(args) => show::run(args).await,
        Verb::Exec(args) => exec::run(args).await,
        Verb::Shell(args) => shell::run(args).await,
        Verb::Attach(args) => attach::run(args).await,
        Verb::Logs(args) => logs::run(args).await,
        Verb::Runs(args) => runs::run(args).await,
        Verb::Wait(args) => wait::run(args).await,
        Verb::Stats(args) => stats::run(args).await,
        Verb::Events(args) => events::run(args).await,
        Verb::Image(verb) => image::run(verb).await,
        Verb::Device(verb) => device::run(verb).await,
        Verb::Unit(verb) => unit::run(verb),
        Verb::Doctor(args) => doctor::run(args).await,
        Verb::Completion(args) => completion::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_verb_is_what_a_line_begins_with() {
        let verb = |line: &str| verb_of(line.split(' ').map(str::to_owned));
        assert_eq!(verb("image import --bogus"), "image import");
        assert_eq!(verb("run --memory much image"), "run");
        assert_eq!(verb("--bogus run"), "");
    }
}
