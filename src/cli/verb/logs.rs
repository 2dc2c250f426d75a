//! `holmctl logs`: what a container wrote is in the journal, so journalctl shows it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cli::error::CliError;
use crate::cli::{Outcome, output};
use crate::client::{Client, ClientError};
use crate::model::{ContainerName, ErrorCode, Usec};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
    /// How many lines of the past
    #[arg(short = 'n', long, visible_alias = "tail", value_name = "NUMBER")]
    lines: Option<String>,
    /// Show entries from this moment on, as journalctl reads it
    #[arg(short = 'S', long)]
    since: Option<String>,
    /// How journalctl writes them: cat, short, json, …
    #[arg(short, long, value_name = "FORMAT", default_value = "cat")]
    output: String,
    /// The container; it may be gone
    container: ContainerName,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let known = known(&args.container).await;
    let source = Source::of(&args.container, known)?;
    let source = journalctl(&args, &source).exec();
    Err(CliError::io("run journalctl", source))
}

/// Where in the journal it is.
#[derive(Debug)]
struct Source {
    unit: String,
    /// When the container was made: what was written before is by a former one of its name.
    since: Usec,
}

impl Source {
    /// When the container is gone, or the daemon is, the unit is what the name makes, if that ever wrote anything.
    fn of(name: &ContainerName, known: Result<Self, ClientError>) -> Result<Self, ClientError> {
        known.or_else(|error| {
            let source = Self { unit: scope(name), since: 0 };
            let unknown = error.is(ErrorCode::NoSuchContainer) && !source.has_something();
            if unknown { Err(error) } else { Ok(source) }
        })
    }

    fn has_something(&self) -> bool {
        let mut look = Command::new("journalctl");
        look.arg(self.matches()).args(["--no-pager", "--quiet", "--lines=1", "--output=cat"]);
        // Where journalctl does not run the one that shows the lines says so.
        look.output().map_or(true, |output| !output.status.success() || !output.stdout.is_empty())
    }

    fn matches(&self) -> String {
        format!("_SYSTEMD_UNIT={}", self.unit)
    }
}

fn journalctl(args: &Args, source: &Source) -> Command {
    let mut command = Command::new("journalctl");
    command.arg(source.matches()).args(["--no-pager", "--quiet", "--all", "--output", &args.output]);
    if args.follow {
        command.arg("--follow");
        if args.lines.is_none() {
            command.arg("--no-tail");
        }
    }
    if let Some(lines) = &args.lines {
        command.arg(format!("--lines={lines}"));
    }
    match &args.since {
        Some(since) => drop(command.arg(format!("--since={since}"))),
        None if source.since > 0 => drop(command.arg(output::since_argument(source.since))),
        None => {}
    }
    command
}

/// What the daemon knows.
async fn known(name: &ContainerName) -> Result<Source, ClientError> {
    let client = Client::connect().await?;
    let container = client.container(name.as_str()).await?;
    let properties = client.properties(container.inner().path(), "org.holm1.Container").await?;
    Ok(Source { unit: properties.text("Unit"), since: properties.number("CreatedUSec") })
}

/// The scope of a container, escaped as systemd-escape(1) does; of what a name may have, only `-` needs it.
fn scope(name: &ContainerName) -> String {
    format!("holm-{}.scope", name.as_str().replace('-', r"\x2d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_a_unit() {
        assert_eq!(scope(&ContainerName::parse("web").unwrap()), "holm-web.scope");
        assert_eq!(scope(&ContainerName::parse("db-1_a.b").unwrap()), r"holm-db\x2d1_a.b.scope");
    }

    #[test]
    fn following_begins_with_all_there_is() {
        let args = |lines: Option<&str>| Args {
            follow: true,
            lines: lines.map(str::to_owned),
            since: None,
            output: "cat".into(),
            container: ContainerName::parse("web").unwrap(),
        };
        let words = |args: &Args, since| {
            let command = journalctl(args, &Source { unit: "u.scope".into(), since });
            command.get_args().skip(1).map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let always = ["--no-pager", "--quiet", "--all", "--output", "cat", "--follow"];
        assert_eq!(words(&args(None), 0), [&always[..], &["--no-tail"]].concat());
        assert_eq!(words(&args(Some("5")), 0), [&always[..], &["--lines=5"]].concat());
        assert_eq!(words(&args(Some("5")), 7_900_000), [&always[..], &["--lines=5", "--since=@7.900000"]].concat());
    }
}
