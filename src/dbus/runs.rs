//! A container's runs as dictionaries.

use std::collections::HashMap;

use zbus::Variant;

use crate::engine::{ContainerView, LastRun};
use crate::model::Exit;

type Dictionary = HashMap<&'static str, Variant<'static>>;

/// Those that are remembered, and the one under way, newest last.
pub(super) fn dictionaries(view: &ContainerView) -> Vec<Dictionary> {
    let mut runs: Vec<_> = view.runs.iter().map(ended).collect();
    if view.leader != 0 {
        runs.push(HashMap::from([("Run", view.run.into()), ("StartedUSec", view.started_usec.into())]));
    }
    runs
}

/// What is not known is left out.
fn ended(run: &LastRun) -> Dictionary {
    let signal = match run.exit {
        Some(Exit::Signal { number, .. }) => i32::from(number),
        Some(Exit::Code(_)) | None => 0,
    };
    let mut values = HashMap::from([
        ("Run", run.run.into()),
        ("StartedUSec", run.started_usec.into()),
        ("EndedUSec", run.stopped_usec.into()),
        ("Result", run.result.as_str().into()),
        ("ExitStatus", run.exit.map_or(-1, Exit::status).into()),
        ("Signal", signal.into()),
        ("Failed", run.failed.into()),
        ("OOMKills", run.oom_kills.into()),
    ]);
    let figures = [
        ("CPUUsageUSec", run.figures.cpu_usec),
        ("MemoryPeak", run.figures.memory_peak),
        ("TasksPeak", run.figures.tasks_peak),
        ("IOReadBytes", run.figures.io_read),
        ("IOWriteBytes", run.figures.io_written),
    ];
    values.extend(figures.into_iter().filter_map(|(name, figure)| Some((name, figure?.into()))));
    values
}
