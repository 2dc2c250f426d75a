//! `holmctl runs`

use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output::{self, ListArgs, Table};
use crate::client::{Client, Properties};
use crate::model::{Bytes, Signal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container
    container: String,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = Client::connect().await?;
    let runs = client.container(&args.container).await?.get_runs().await?;
    let runs: Vec<_> = runs.into_iter().map(Properties::from_map).collect();
    let mut table = Table::new(&["RUN", "STARTED", "TOOK", "RESULT", "STATUS", "MEMORY", "CPU", "OOM"]);
    for run in &runs {
        table.row(row(run));
    }
    args.list.write(&table, || runs.iter().map(Properties::to_json).collect(), "run")?;
    Ok(Status::SUCCESS)
}

fn row(run: &Properties) -> [String; 8] {
    let number = |name: &str| run.get(name).map(|_| run.number(name));
    let (started, ended) = (run.number("StartedUSec"), run.number("EndedUSec"));
    let took = if ended > 0 && started > 0 { output::rough_span(ended.saturating_sub(started)) } else { String::new() };
    [
        run.number("Run").to_string(),
        output::moment_text(started).unwrap_or_default(),
        took,
        if ended > 0 { run.text("Result") } else { "running".into() },
        status(run),
        number("MemoryPeak").map(|bytes| Bytes(bytes).to_string()).unwrap_or_default(),
        number("CPUUsageUSec").map(output::rough_span).unwrap_or_default(),
        number("OOMKills").filter(|kills| *kills > 0).map(|kills| kills.to_string()).unwrap_or_default(),
    ]
}

/// The status, or the signal's name; nothing when nobody knows.
fn status(run: &Properties) -> String {
    match (run.status("Signal"), run.status("ExitStatus")) {
        (number @ 1.., _) => Signal::from_number(number).map_or_else(|_| number.to_string(), |name| name.to_string()),
        (_, ..=-1) => String::new(),
        (_, status) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use zbus::{OwnedVariant, Str};

    use super::*;

    #[test]
    fn a_run_is_a_row() {
        let values = [
            ("Run", OwnedVariant::from(3u64)),
            ("StartedUSec", OwnedVariant::from(1_000_000u64)),
            ("EndedUSec", OwnedVariant::from(3_500_000u64)),
            ("Result", Str::from("oom-kill").into()),
            ("ExitStatus", OwnedVariant::from(137)),
            ("Signal", OwnedVariant::from(9)),
            ("OOMKills", OwnedVariant::from(1u64)),
            ("MemoryPeak", OwnedVariant::from(16u64 << 20)),
        ];
        let run = Properties::from_map(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let [number, _, took, result, status, memory, cpu, oom] = row(&run);
        assert_eq!([number, took, result, status], ["3", "2s", "oom-kill", "SIGKILL"].map(str::to_owned));
        assert_eq!([memory, cpu, oom], ["16M", "", "1"].map(str::to_owned));
    }
}
