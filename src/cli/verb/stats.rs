//! `holmctl stats`

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::list::is_active;
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output::{self, ListArgs, Table};
use crate::client::{Client, ClientError, Properties};
use crate::model::{Bytes, ErrorCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers; all that run when none is named
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
    /// Show them once, measured over a second
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let mut before = sample(&client, &args.names).await?;
    // Rates need two looks at a distance; this is a clock, not a wait for something.
    let mut clock = tokio::time::interval(EVERY);
    clock.tick().await;
    loop {
        clock.tick().await;
        let now = sample(&client, &args.names).await?;
        show(&args, &before, &now)?;
        if args.no_stream {
            return Ok(Status::SUCCESS);
        }
        before = now;
    }
}

/// The figures of each container at one moment, in order of name.
#[derive(Debug)]
struct Sample {
    at: Instant,
    rows: Vec<(String, Figures)>,
}

/// What is used, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) cpu_usec: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) memory_max: Option<u64>,
    pub(super) tasks: Option<u64>,
    pub(super) tasks_max: Option<u64>,
    io_read: Option<u64>,
    io_written: Option<u64>,
}

impl Figures {
    /// From the keys of `GetStats`. The greatest number is systemd's word for "no limit".
    pub(super) fn of(stats: &Properties) -> Self {
        let get = |name| stats.get(name).map(|_| stats.number(name)).filter(|value| *value != u64::MAX);
        Self {
            cpu_usec: get("CPUUsageUSec").or_else(|| get("CPUUsageNSec").map(|nsec| nsec / 1000)),
            memory: get("MemoryCurrent"),
            memory_max: get("MemoryMax"),
            tasks: get("TasksCurrent"),
            tasks_max: get("TasksMax"),
            io_read: get("IOReadBytes"),
            io_written: get("IOWriteBytes"),
        }
    }
}

/// The figures of one container.
pub(super) async fn figures(client: &Client, name: &str) -> Result<Figures, ClientError> {
    let stats = client.container(name).await?.get_stats().await?;
    Ok(Figures::of(&Properties::from_map(stats)))
}

async fn sample(client: &Client, names: &[String]) -> Result<Sample, CliError> {
    let all = names.is_empty();
    let mut names = names.to_vec();
    if all {
        let containers = client.manager().await?.list_containers().await?;
        names.extend(containers.into_iter().filter(|(_, state, ..)| is_active(state)).map(|(name, ..)| name));
    }
    let mut rows = Vec::new();
    for name in names {
        match figures(client, &name).await {
            Ok(figures) => rows.push((name, figures)),
            // It ended between the list and the look.
            Err(error) if all && (error.is(ErrorCode::NotRunning) || error.is(ErrorCode::NoSuchContainer)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Sample { at: Instant::now(), rows })
}

fn show(args: &Args, before: &Sample, now: &Sample) -> Result<(), CliError> {
    let earlier: HashMap<_, _> = before.rows.iter().map(|(name, figures)| (name, figures)).collect();
    let elapsed = now.at.duration_since(before.at);
    let rows: Vec<_> = now
        .rows
        .iter()
        .map(|(name, figures)| (name, figures, earlier.get(name).and_then(|b| load(b, figures, elapsed))))
        .collect();
    let mut table = Table::new(&["NAME", "CPU", "MEMORY", "LIMIT", "TASKS", "READ", "WRITTEN"]);
    for (name, figures, load) in &rows {
        let bytes = |value: Option<u64>| value.map(|value| Bytes(value).to_string()).unwrap_or_default();
        table.row([
            (*name).clone(),
            load.map(percent).unwrap_or_default(),
            bytes(figures.memory),
            bytes(figures.memory_max),
            figures.tasks.map(|tasks| tasks.to_string()).unwrap_or_default(),
            bytes(figures.io_read),
            bytes(figures.io_written),
        ]);
    }
    if !args.no_stream && !args.list.json() && io::stdout().is_terminal() {
        output::write("\x1b[H\x1b[J")?;
    }
    let json = || rows.iter().map(|(name, figures, load)| to_json(name, figures, *load)).collect();
    args.list.write(&table, json, "container")
}

/// CPU time per time, in tenths of a percent of one CPU.
fn load(before: &Figures, now: &Figures, elapsed: Duration) -> Option<u64> {
    let used = now.cpu_usec?.saturating_sub(before.cpu_usec?);
    used.saturating_mul(1000).checked_div(u64::try_from(elapsed.as_micros()).ok()?)
}

fn percent(tenths: u64) -> String {
    format!("{}.{}%", tenths / 10, tenths % 10)
}

fn to_json(name: &str, figures: &Figures, load: Option<u64>) -> Json {
    json!({
        "name": name,
        "cpu_permille": load,
        "cpu_usec": figures.cpu_usec,
        "memory": figures.memory,
        "memory_max": figures.memory_max,
        "tasks": figures.tasks,
        "tasks_max": figures.tasks_max,
        "io_read": figures.io_read,
        "io_written": figures.io_written,
    })
}

const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use zbus::OwnedVariant;

    use super::*;

    #[test]
    fn load_is_cpu_time_per_time() {
        let at = |usec| Figures { cpu_usec: Some(usec), ..Figures::default() };
        let tenths = load(&at(1_000_000), &at(1_500_000), Duration::from_secs(1)).unwrap();
        assert_eq!(percent(tenths), "50.0%");
        assert_eq!(load(&Figures::default(), &at(1), Duration::from_secs(1)), None);
        assert_eq!(load(&at(0), &at(1), Duration::ZERO), None);
    }

    #[test]
    fn no_limit_is_no_number() {
        let stats = [("MemoryCurrent".to_owned(), 5u64), ("MemoryMax".to_owned(), u64::MAX)];
        let stats = stats.map(|(name, value)| (name, OwnedVariant::from(value)));
        let figures = Figures::of(&Properties::from_map(stats.into()));
        assert_eq!((figures.memory, figures.memory_max), (Some(5), None));
    }
}
