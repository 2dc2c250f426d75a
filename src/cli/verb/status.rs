//! `holmctl status`, in machinectl's manner.

use std::process::Command;

use super::stats::{Figures, figures};
use crate::cli::error::CliError;
use crate::cli::report::{Report, quoted};
use crate::cli::{Outcome, many, output};
use crate::client::{Client, ClientError, ContainerProxy, Properties};
use crate::model::{Bytes, Signal, Usec, now_usec};

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
    let mut gap = "";
    many::each(&args.names, async |name| {
        let text = status(client, name, args.lines).await?;
        output::write(&format!("{}{text}", std::mem::replace(&mut gap, "\n")))
    })
    .await
}

async fn status(client: &Client, name: &str, lines: u32) -> Result<String, CliError> {
    let container = client.container(name).await?;
    let properties = client.properties(container.inner().path(), "org.holm1.Container").await?;
    let mut report = Report::default();
    // What is not there while it does not run, or not for everybody, is left out.
    describe(&mut report, &properties);
    report.line("Health", &health(&properties, &check(&container).await.unwrap_or_default()));
    report.line("OS", &container.get_os_release().await.ok().and_then(os).unwrap_or_default());
    report.line("Unit", &properties.text("Unit"));
    limits(&mut report, &figures(client, name).await.unwrap_or_default());
    report.lines("Warnings", container.warnings().await.unwrap_or_default().iter().map(String::as_str));
    report.line("Root", &root(client, &properties).await.ok().flatten().unwrap_or_default());
    report.line("Snapshots", &snapshots(container.snapshots().await.unwrap_or_default()));
    report.line("CGroup", &properties.text("ControlGroup"));
    report.tree(&groups(processes(&container).await.unwrap_or_default()));
    let mut text = report.into_text();
    let journal = journal(&properties.text("Unit"), properties.number("CreatedUSec"), lines);
    if !journal.is_empty() {
        text.push('\n');
        text.push_str(&journal);
    }
    Ok(text)
}

fn describe(report: &mut Report, properties: &Properties) {
    let get = |name| properties.text(name);
    let state = get("State");
    report.title(&format!("{} {} ({})", output::dot(&state), get("Name"), get("Id")));
    report.line("State", &state_line(properties));
    let moment = match state.as_str() {
        "created" => "CreatedUSec",
        "stopped" | "failed" => "StoppedUSec",
        _ => "StartedUSec",
    };
    report.line("Since", &output::since(properties.number(moment)));
    report.line("Restarts", &restarts(properties, now_usec()));
    report.line("Leader", &leader(properties.number("Leader")));
    report.line("Image", &get("Image"));
    report.line("Command", &quoted(&properties.texts("Command")));
    report.lines("Labels", properties.texts("Labels").iter().map(String::as_str));
}

/// The state and what to know about it.
/// The newest first, and not so many that they fill the screen.
fn snapshots(mut snapshots: Vec<(String, u64)>) -> String {
    const SHOWN: usize = 3;
    snapshots.sort_by_key(|(_, made)| std::cmp::Reverse(*made));
    let names: Vec<_> = snapshots.iter().take(SHOWN).map(|(name, _)| name.as_str()).collect();
    match snapshots.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn state_line(properties: &Properties) -> String {
    let state = properties.text("State");
    let text = properties.text("StatusText");
    let detail = match state.as_str() {
        _ if !text.is_empty() => text,
        "stopped" | "failed" => ending(&properties.text("Result"), properties.status("ExitStatus")),
        "starting" if properties.number("NextRestartUSec") > 0 => {
            ending(&properties.text("Result"), properties.status("ExitStatus"))
        }
        _ => String::new(),
    };
    let shown = output::coloured(&state, &state);
    if detail.is_empty() { shown } else { format!("{shown} ({detail})") }
}

/// How the last run ended. A status above 128 is a signal's, unless the payload itself said so.
fn ending(result: &str, status: i32) -> String {
    let signal = Signal::from_number(status - 128).ok().filter(|_| result != "exit-code");
    match (status, signal) {
        (..=-1, _) => result.to_owned(),
        (_, Some(signal)) => format!("{result}, {signal}"),
        (_, None) => format!("{result}, status {status}"),
    }
}

/// What its policy has done and will do; nothing when it has none.
fn restarts(properties: &Properties, now: Usec) -> String {
    let policy = properties.text("RestartPolicy");
    if policy.is_empty() || policy == "no" {
        return String::new();
    }
    let count = properties.number("RestartCount");
    match properties.number("NextRestartUSec") {
        0 => format!("{count} ({policy})"),
        next => format!("{count} ({policy}), the next in {}", output::rough_span(next.saturating_sub(now))),
    }
}

/// What the last check said.
async fn check(container: &ContainerProxy<'_>) -> Result<Properties, ClientError> {
    Ok(Properties::from_map(container.get_health().await?))
}

/// The word, and what led to it; nothing where nobody looks.
fn health(properties: &Properties, check: &Properties) -> String {
    let health = properties.text("Health");
    if health.is_empty() || health == "none" {
        return String::new();
    }
    if check.number("LastUSec") == 0 {
        return health;
    }
    let how = match check.status("ExitStatus") {
        0 => "passed".to_owned(),
        -1 => "failed".to_owned(),
        status => format!("status {status}"),
    };
    let failures = match check.number("Failures") {
        0 => String::new(),
        failures => format!(", {failures} failed in a row"),
    };
    let said = check.text("Output").lines().next().map(|line| format!(": {line}")).unwrap_or_default();
    format!("{health} (last check {how}, {} ago{failures}){said}", ago(check.number("LastUSec")))
}

fn ago(moment: Usec) -> String {
    output::rough_span(now_usec().saturating_sub(moment))
}

fn leader(pid: u64) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        _ if pid == 0 => String::new(),
        Ok(name) => format!("{pid} ({})", name.trim_end()),
        Err(_) => pid.to_string(),
    }
}

fn os(mut fields: std::collections::HashMap<String, String>) -> Option<String> {
    fields.remove("PRETTY_NAME").or_else(|| fields.remove("NAME"))
}

fn limits(report: &mut Report, figures: &Figures) {
    let limited = |value: String, limit: Option<String>| match limit {
        Some(limit) => format!("{value} (limit {limit})"),
        None => value,
    };
    let bytes = |value| Bytes(value).to_string();
    let count = |value: u64| value.to_string();
    let tasks = figures.tasks.map(|tasks| limited(count(tasks), figures.tasks_max.map(count)));
    let memory = figures.memory.map(|memory| limited(bytes(memory), figures.memory_max.map(bytes)));
    for (key, value) in [("Tasks", tasks), ("Memory", memory), ("CPU", figures.cpu_usec.map(output::span))] {
        report.line(key, &value.unwrap_or_default());
    }
}

/// The container's device in the pool.
async fn root(client: &Client, properties: &Properties) -> Result<Option<String>, ClientError> {
    let id = format!("container:{}", properties.text("Id"));
    let devices = client.devices().await?.list_devices().await?;
    let device = devices.into_iter().find(|device| device.0 == id);
    Ok(device.map(|(id, thin, _, mapped, active)| root_line(&id, thin, mapped, properties.number("Size"), active)))
}

fn root_line(id: &str, thin: u32, mapped: u64, size: u64, active: bool) -> String {
    let size = if size > 0 { format!(" of {}", Bytes(size)) } else { String::new() };
    let active = if active { "active" } else { "inactive" };
    format!("{id} (thin device {thin}), {}{size} mapped, {active}", Bytes(mapped))
}

type Processes = Vec<(String, u32, String)>;

async fn processes(container: &ContainerProxy<'_>) -> Result<Processes, ClientError> {
    Ok(container.get_processes().await?)
}

/// Sub-groups with their processes, in order.
fn groups(mut processes: Processes) -> Vec<(String, Vec<String>)> {
    processes.sort();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (group, pid, command) in processes {
        let member = format!("{pid} {command}");
        match groups.last_mut() {
            Some((last, members)) if *last == group => members.push(member),
            _ => groups.push((group, vec![member])),
        }
    }
    groups
}

/// The last lines, as `systemctl status` has them, of this container and not of a former one of its name; empty where
/// there is no journal.
fn journal(unit: &str, created: Usec, lines: u32) -> String {
    if lines == 0 {
        return String::new();
    }
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet", "--output=short", "-n", &lines.to_string(), "-u", unit]);
    command.arg(output::since_argument(created));
    let output = command.stderr(std::process::Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use zbus::{OwnedVariant, Str};

    use super::*;

    fn text(pairs: &[(&str, &str)]) -> Vec<(String, OwnedVariant)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Str::from((*v).to_owned()).into())).collect()
    }

    #[test]
    fn processes_are_shown_by_group() {
        let process = |group: &str, pid, command: &str| (group.to_owned(), pid, command.to_owned());
        let processes =
            vec![process("supervisor", 6, "holm-init"), process("payload", 8, "cat"), process("payload", 7, "sh")];
        let expected = [
            ("payload".to_owned(), vec!["7 sh".to_owned(), "8 cat".to_owned()]),
            ("supervisor".to_owned(), vec!["6 holm-init".to_owned()]),
        ];
        assert_eq!(groups(processes), expected);
    }

    #[test]
    fn the_newest_snapshots_are_shown() {
        let made = |count: u64| (0..count).map(|number| (format!("s{number}"), number)).collect();
        assert_eq!(snapshots(made(0)), "");
        assert_eq!(snapshots(made(2)), "s1, s0");
        assert_eq!(snapshots(made(5)), "s4, s3, s2 and 2 more");
    }

    #[test]
    fn a_state_says_how_it_came_to_be() {
        let mut values = text(&[("State", "stopped"), ("Result", "exit-code")]);
        values.push(("ExitStatus".into(), OwnedVariant::from(3)));
        assert_eq!(state_line(&Properties::from_map(values.into_iter().collect())), "stopped (exit-code, status 3)");
        let failed = text(&[("State", "failed"), ("StatusText", "no such program")]);
        assert_eq!(state_line(&Properties::from_map(failed.into_iter().collect())), "failed (no such program)");
    }

    #[test]
    fn health_says_what_led_to_it() {
        let properties = Properties::from_map(text(&[("Health", "unhealthy")]).into_iter().collect());
        let mut check = text(&[("Output", "no answer\nat all")]);
        check.push(("ExitStatus".into(), OwnedVariant::from(7)));
        check.push(("Failures".into(), OwnedVariant::from(3u32)));
        check.push(("LastUSec".into(), OwnedVariant::from(now_usec())));
        let line = health(&properties, &Properties::from_map(check.into_iter().collect()));
        assert!(line.starts_with("unhealthy (last check status 7, "), "{line}");
        assert!(line.ends_with(" ago, 3 failed in a row): no answer"), "{line}");
        assert_eq!(
            health(&Properties::from_map(text(&[("Health", "none")]).into_iter().collect()), &Properties::default()),
            ""
        );
    }

    #[test]
    fn a_policy_says_what_it_has_done_and_will_do() {
        let mut values = text(&[("RestartPolicy", "on-failure")]);
        values.push(("RestartCount".into(), OwnedVariant::from(3u32)));
        let properties = |values: &[(String, OwnedVariant)]| {
            Properties::from_map(values.iter().map(|(k, v)| (k.clone(), v.try_clone().unwrap())).collect())
        };
        assert_eq!(restarts(&properties(&values), 7), "3 (on-failure)");
        values.push(("NextRestartUSec".into(), OwnedVariant::from(5_000_007u64)));
        assert_eq!(restarts(&properties(&values), 7), "3 (on-failure), the next in 5s");
        assert_eq!(restarts(&properties(&text(&[("RestartPolicy", "no")])), 7), "");
    }

    #[test]
    fn a_signal_is_named_unless_it_was_none() {
        assert_eq!(ending("timeout", 137), "timeout, SIGKILL");
        assert_eq!(ending("exit-code", 137), "exit-code, status 137");
        assert_eq!(ending("success", 0), "success, status 0");
        assert_eq!(ending("lost", -1), "lost");
    }

    #[test]
    fn a_root_has_its_size_when_one_was_asked_for() {
        assert_eq!(root_line("container:7", 9, 8 << 20, 0, true), "container:7 (thin device 9), 8M mapped, active");
        let line = "container:7 (thin device 9), 8M of 10G mapped, inactive";
        assert_eq!(root_line("container:7", 9, 8 << 20, 10 << 30, false), line);
    }
}
