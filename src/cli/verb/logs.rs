//! `holmctl logs`: what a container wrote is in the journal, so journalctl shows it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::client::Client;
use crate::model::ContainerName;

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
    let unit = unit(&args.container).await;
    let source = journalctl(&args, &unit).exec();
    Err(CliError::io("run journalctl", source))
}

fn journalctl(args: &Args, unit: &str) -> Command {
    let mut command = Command::new("journalctl");
    command.arg(format!("_SYSTEMD_UNIT={unit}")).args(["--no-pager", "--quiet", "--output", &args.output]);
    if args.follow {
        command.arg("--follow");
        if args.lines.is_none() {
            command.arg("--no-tail");
        }
    }
    for (option, value) in [("--lines", &args.lines), ("--since", &args.since)] {
        if let Some(value) = value {
            command.arg(format!("{option}={value}"));
        }
    }
    command
}

/// The unit as the daemon knows it. When the container is gone, or the daemon is, it is what the name makes.
pub(super) async fn unit(name: &ContainerName) -> String {
    let known = async {
        let client = Client::connect().await.ok()?;
        client.container(name.as_str()).await.ok()?.unit().await.ok()
    };
    known.await.filter(|unit| !unit.is_empty()).unwrap_or_else(|| scope(name))
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
        let words = |args: &Args| {
            let command = journalctl(args, "u.scope");
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            words(&args(None)),
            ["_SYSTEMD_UNIT=u.scope", "--no-pager", "--quiet", "--output", "cat", "--follow", "--no-tail"]
        );
        assert_eq!(
            words(&args(Some("5"))),
            ["_SYSTEMD_UNIT=u.scope", "--no-pager", "--quiet", "--output", "cat", "--follow", "--lines=5"]
        );
    }
}
