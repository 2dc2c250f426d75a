//! `holmctl logs`: what a container wrote is in the journal, so journalctl shows it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value as Json;

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::client::{Client, ClientError, Properties};
use crate::model::{ContainerName, ErrorCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
    /// How many lines of the past
    #[arg(short = 'n', long, visible_alias = "tail", value_name = "NUMBER")]
    lines: Option<String>,
    /// Show entries from this moment on, as journalctl reads it
    #[arg(short = 'S', long, value_name = "MOMENT", allow_hyphen_values = true)]
    since: Option<String>,
    /// Show entries up to this moment
    #[arg(short = 'U', long, value_name = "MOMENT", allow_hyphen_values = true)]
    until: Option<String>,
    /// Show entries of this priority and more urgent ones; standard error is err, standard output info
    #[arg(short, long)]
    priority: Option<String>,
    /// Show one run: its number, 0 for the last, -1 for the one before
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    run: Option<i64>,
    /// How journalctl writes them: cat, short, json, …
    #[arg(short, long, value_name = "FORMAT", default_value = "cat")]
    output: String,
    /// The container; it may be gone
    container: ContainerName,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let known = known(&args.container).await;
    let source = Source::of(&args.container, known)?;
    let run = args.run.map(|run| source.run(run)).transpose()?;
    let source = journalctl(&args, &source, run).exec();
    Err(CliError::io("run journalctl", source))
}

/// Where in the journal it is.
#[derive(Debug, Default)]
struct Source {
    unit: String,
    /// The container's id: others of its name have another. Empty when nobody knows.
    id: String,
    /// The number of its last run; 0 when nobody knows.
    last_run: u64,
}

impl Source {
    /// When the container is gone, or the daemon is, it is the last one of that name that wrote anything.
    fn of(name: &ContainerName, known: Result<Self, ClientError>) -> Result<Self, ClientError> {
        known.or_else(|error| match Self::from_journal(scope(name)) {
            Some(source) => Ok(source),
            None if error.is(ErrorCode::NoSuchContainer) => Err(error),
            None => Ok(Self { unit: scope(name), ..Self::default() }),
        })
    }

    /// What the last line of a scope says; `None` when there is none.
    fn from_journal(unit: String) -> Option<Self> {
        let mut look = Command::new("journalctl");
        look.arg(format!("_SYSTEMD_UNIT={unit}"));
        look.args(["--no-pager", "--quiet", "--lines=1", "--output=json", "--output-fields=CONTAINER_ID,HOLM_RUN"]);
        // Where journalctl does not run the one that shows the lines says so.
        let output = look.output().ok()?;
        Self::from_line(unit, &output.stdout)
    }

    fn from_line(unit: String, line: &[u8]) -> Option<Self> {
        let entry: Json = serde_json::from_slice(line).ok()?;
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        Some(Self { unit, id: text("CONTAINER_ID"), last_run: text("HOLM_RUN").parse().unwrap_or(0) })
    }

    /// The number of a run that is counted from the last one when it is not above 0.
    fn run(&self, run: i64) -> Result<u64, CliError> {
        let number = match u64::try_from(run) {
            Ok(number) if number > 0 => Some(number),
            _ => self.last_run.checked_sub(run.unsigned_abs()).filter(|number| *number > 0),
        };
        number.ok_or_else(|| CliError::Usage(format!("there is no run {run}: the last one is {}", self.last_run)))
    }
}

fn journalctl(args: &Args, source: &Source, run: Option<u64>) -> Command {
    let mut command = Command::new("journalctl");
    command.arg(format!("_SYSTEMD_UNIT={}", source.unit));
    if !source.id.is_empty() {
        command.arg(format!("CONTAINER_ID={}", source.id));
    }
    command.args(run.map(|run| format!("HOLM_RUN={run}")));
    command.args(["--no-pager", "--quiet", "--all", "--output", &args.output]);
    if args.follow {
        command.arg("--follow");
        if args.lines.is_none() {
            command.arg("--no-tail");
        }
    }
    let given = [("lines", &args.lines), ("since", &args.since), ("until", &args.until), ("priority", &args.priority)];
    command.args(given.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_ref()?))));
    command
}

/// What the daemon knows.
async fn known(name: &ContainerName) -> Result<Source, ClientError> {
    let client = Client::connect().await?;
    let container = client.container(name.as_str()).await?;
    let properties = client.properties(container.inner().path(), "org.holm1.Container").await?;
    let runs = container.get_runs().await?;
    let last_run = runs.into_iter().last().map_or(0, |run| Properties::from_map(run).number("Run"));
    Ok(Source { unit: properties.text("Unit"), id: properties.text("Id"), last_run })
}

/// The scope of a container.
fn scope(name: &ContainerName) -> String {
    format!("holm-{name}.scope")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn words(line: &[&str], source: &Source) -> Vec<String> {
        let args = Line::try_parse_from([&["logs"], line].concat()).unwrap().args;
        let run = args.run.map(|run| source.run(run).unwrap());
        let command = journalctl(&args, source, run);
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    const ALWAYS: [&str; 5] = ["--no-pager", "--quiet", "--all", "--output", "cat"];

    #[test]
    fn following_begins_with_all_there_is() {
        let source = Source { unit: "u.scope".into(), ..Source::default() };
        let begin = [&["_SYSTEMD_UNIT=u.scope"], &ALWAYS[..]].concat();
        assert_eq!(words(&["web"], &source), begin);
        assert_eq!(words(&["-f", "web"], &source), [&begin[..], &["--follow", "--no-tail"]].concat());
        assert_eq!(words(&["-f", "-n", "5", "web"], &source), [&begin[..], &["--follow", "--lines=5"]].concat());
    }

    #[test]
    fn what_is_asked_for_is_asked_of_journalctl() {
        let source = Source { unit: "u.scope".into(), id: "12ab".into(), last_run: 7 };
        let line = ["--since", "-1h", "--until", "now", "-p", "err", "--run", "-2", "web"];
        let begin = ["_SYSTEMD_UNIT=u.scope", "CONTAINER_ID=12ab", "HOLM_RUN=5"];
        let end = ["--since=-1h", "--until=now", "--priority=err"];
        assert_eq!(words(&line, &source), [&begin[..], &ALWAYS, &end].concat());
    }

    #[test]
    fn runs_are_numbers_or_counted_from_the_last() {
        let source = Source { last_run: 3, ..Source::default() };
        assert_eq!([0, -2, 2].map(|run| source.run(run).unwrap()), [3, 1, 2]);
        assert!(source.run(-3).is_err());
        assert!(Source::default().run(0).is_err());
    }

    #[test]
    fn a_container_that_is_gone_is_found_by_its_last_line() {
        let line = br#"{"CONTAINER_ID":"12ab","HOLM_RUN":"4","__CURSOR":"s=1"}"#;
        let source = Source::from_line("u.scope".into(), line).unwrap();
        assert_eq!((source.id.as_str(), source.last_run), ("12ab", 4));
        assert!(Source::from_line("u.scope".into(), b"").is_none());
        assert_eq!(scope(&ContainerName::parse("db-1_a.b").unwrap()), "holm-db-1_a.b.scope");
    }
}
