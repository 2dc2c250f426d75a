//! A container's runs as dictionaries.

use zbus::Variant;

use super::super::runs::dictionaries;
use super::samples;
use crate::engine::{ContainerView, LastRun};
use crate::model::{Exit, Figures, RunResult};

#[test]
fn a_run_says_what_is_known_of_it() {
    let run = LastRun {
        run: 3,
        started_usec: 5,
        exit: Some(Exit::Signal { number: 9, core_dumped: false }),
        result: RunResult::OomKill,
        failed: true,
        stopped_usec: 7,
        oom_kills: 1,
        figures: Figures { memory_peak: Some(4096), ..Figures::default() },
    };
    let view = ContainerView { run: 4, started_usec: 8, runs: vec![run].into(), ..samples::running("web") };
    let runs = dictionaries(&view);
    assert_eq!(runs.len(), 2);
    assert_eq!((&runs[0]["Signal"], &runs[0]["ExitStatus"]), (&Variant::I32(9), &Variant::I32(137)));
    assert_eq!(runs[0]["MemoryPeak"], Variant::U64(4096));
    assert!(!runs[0].contains_key("CPUUsageUSec"));
    assert_eq!((&runs[1]["Run"], runs[1].len()), (&Variant::U64(4), 2));
}
