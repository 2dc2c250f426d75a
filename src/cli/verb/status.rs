//! `holmctl status`, in machinectl's manner.

use std::fmt::Write as _;
use std::process::Command;

use super::stats::{Figures, figures};
use crate::cli::error::CliError;
use crate::cli::{Outcome, many, output};
use crate::client::{Client, ClientError, ContainerProxy, Properties};
use crate::model::Bytes;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// How many of its last lines to show
    #[arg(short = 'n', long, default_value_t = 10, value_name = "NUMBER")]
    lines: u32,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    let first = args.names.first().map(String::as_str);
    many::each(&args.names, async |name| {
        let gap = if Some(name) == first { "" } else { "\n" };
        output::write(&format!("{gap}{}", status(client, name, args.lines).await?))
    })
    .await
}

async fn status(client: &Client, name: &str, lines: u32) -> Result<String, CliError> {
    let container = client.container(name).await?;
    let properties = client.properties(container.inner().path(), "org.holm1.Container").await?;
    let mut report = Report::default();
    report.describe(&properties);
    // What follows is not there while it does not run, or not for everybody; then it is left out.
    report.figures(figures(client, name).await.unwrap_or_default());
    report.root(&properties, mapped(client, &properties).await.ok().flatten());
    report.tree(&properties, &processes(&container).await.unwrap_or_default());
    let mut text = report.0;
    if lines > 0 {
        let journal = journal(&properties.text("Unit"), lines);
        if !journal.is_empty() {
            let _ = write!(text, "\n{journal}");
        }
    }
    Ok(text)
}

type Processes = Vec<(String, u32, String)>;

async fn processes(container: &ContainerProxy<'_>) -> Result<Processes, ClientError> {
    let mut processes = container.get_processes().await?;
    processes.sort();
    Ok(processes)
}

/// Bytes of the pool that the container's device maps, and whether it is active.
async fn mapped(client: &Client, properties: &Properties) -> Result<Option<(u64, bool)>, ClientError> {
    let id = format!("container:{}", properties.text("Id"));
    let devices = client.devices().await?.list_devices().await?;
    Ok(devices.into_iter().find(|device| device.0 == id).map(|(_, _, _, mapped, active)| (mapped, active)))
}

/// The last lines, as `systemctl status` has them; empty where there is no journal.
fn journal(unit: &str, lines: u32) -> String {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet", "--output=short", "-n", &lines.to_string(), "-u", unit]);
    let output = command.stderr(std::process::Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Lines with right-aligned keys.
#[derive(Debug, Default)]
struct Report(String);

impl Report {
    fn line(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            let _ = writeln!(self.0, "{key:>12}: {value}");
        }
    }

    fn describe(&mut self, properties: &Properties) {
        let get = |name| properties.text(name);
        let state = get("State");
        let _ = writeln!(self.0, "{} {} ({})", output::dot(&state), get("Name"), get("Id"));
        self.line("State", &state_line(properties));
        let moment = match state.as_str() {
            "created" => "CreatedUSec",
            "stopped" | "failed" => "StoppedUSec",
            _ => "StartedUSec",
        };
        self.line("Since", &output::since(properties.number(moment)));
        match properties.number("Leader") {
            0 => {}
            leader => self.line("Leader", &leader_line(leader)),
        }
        self.line("Image", &get("Image"));
        self.line("Command", &get("Command"));
        self.line("Unit", &get("Unit"));
        self.line("Labels", &get("Labels"));
    }

    fn figures(&mut self, figures: Figures) {
        let limited = |value: String, limit: Option<String>| match limit {
            Some(limit) => format!("{value} (limit {limit})"),
            None => value,
        };
        let bytes = |value| Bytes(value).to_string();
        if let Some(tasks) = figures.tasks {
            self.line("Tasks", &limited(tasks.to_string(), figures.tasks_max.map(|limit| limit.to_string())));
        }
        if let Some(memory) = figures.memory {
            self.line("Memory", &limited(bytes(memory), figures.memory_max.map(bytes)));
        }
        if let Some(cpu) = figures.cpu_usec {
            self.line("CPU", &output::span(cpu));
        }
    }

    fn root(&mut self, properties: &Properties, mapped: Option<(u64, bool)>) {
        let size = Bytes(properties.number("Size"));
        let Some((mapped, active)) = mapped else { return };
        let state = if active { "active" } else { "inactive" };
        let line = format!("container:{}, {size}, {} mapped, {state}", properties.text("Id"), Bytes(mapped));
        self.line("Root", &line);
    }

    /// The control group with its processes, by sub-group.
    fn tree(&mut self, properties: &Properties, processes: &Processes) {
        self.line("CGroup", &properties.text("ControlGroup"));
        let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
        for (group, pid, command) in processes {
            let text = format!("{pid} {command}");
            match groups.last_mut() {
                Some((last, members)) if last == group => members.push(text),
                _ => groups.push((group, vec![text])),
            }
        }
        let last = groups.len().saturating_sub(1);
        for (index, (group, members)) in groups.iter().enumerate() {
            let (fork, bar) = if index == last { ("└─", "  ") } else { ("├─", "│ ") };
            let _ = writeln!(self.0, "{INDENT}{fork}{}", if group.is_empty() { "." } else { group });
            for (index, member) in members.iter().enumerate() {
                let fork = if index + 1 == members.len() { "└─" } else { "├─" };
                let _ = writeln!(self.0, "{INDENT}{bar}{fork}{member}");
            }
        }
    }
}

/// The state and what to know about it.
fn state_line(properties: &Properties) -> String {
    let state = properties.text("State");
    let text = properties.text("StatusText");
    let detail = match state.as_str() {
        _ if !text.is_empty() => text,
        "stopped" | "failed" if properties.status("ExitStatus") >= 0 => {
            format!("{}, status {}", properties.text("Result"), properties.status("ExitStatus"))
        }
        "stopped" | "failed" => properties.text("Result"),
        _ => String::new(),
    };
    if detail.is_empty() { state } else { format!("{state} ({detail})") }
}

fn leader_line(leader: u64) -> String {
    match std::fs::read_to_string(format!("/proc/{leader}/comm")) {
        Ok(name) => format!("{leader} ({})", name.trim_end()),
        Err(_) => leader.to_string(),
    }
}

const INDENT: &str = "              ";

#[cfg(test)]
mod tests {
    use zbus::{OwnedVariant, Str};

    use super::*;

    fn text(pairs: &[(&str, &str)]) -> Vec<(String, OwnedVariant)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Str::from((*v).to_owned()).into())).collect()
    }

    #[test]
    fn a_tree_shows_groups_and_their_processes() {
        let properties =
            Properties::from_map(text(&[("ControlGroup", "/holm.slice/holm-web.scope")]).into_iter().collect());
        let processes = [("payload", 7, "sleep 1d"), ("payload", 8, "cat"), ("supervisor", 6, "holm-init")];
        let processes = processes.map(|(group, pid, command)| (group.into(), pid, command.into())).to_vec();
        let mut report = Report::default();
        report.tree(&properties, &processes);
        let expected = "      CGroup: /holm.slice/holm-web.scope
              ├─payload
              │ ├─7 sleep 1d
              │ └─8 cat
              └─supervisor
                └─6 holm-init
";
        assert_eq!(report.0, expected);
    }

    #[test]
    fn a_state_says_how_it_came_to_be() {
        let mut values = text(&[("State", "stopped"), ("Result", "exit-code")]);
        values.push(("ExitStatus".into(), OwnedVariant::from(3)));
        assert_eq!(state_line(&Properties::from_map(values.into_iter().collect())), "stopped (exit-code, status 3)");
        let failed = text(&[("State", "failed"), ("StatusText", "no such program")]);
        assert_eq!(state_line(&Properties::from_map(failed.into_iter().collect())), "failed (no such program)");
    }
}
