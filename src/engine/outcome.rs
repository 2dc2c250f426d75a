//! How a run ended: from what the monitor wrote, and what was asked for, to what is remembered and shown. Pure but for
//! the clock, where nobody else noted the time.

use crate::model::{Exit, ExitRecord, RunResult, StopCourse, Usec, now_usec};
use crate::records::{LastRun, RunRecord};

/// How a run ended, as the records keep it, by its number and when it began. `run`: absent when its record went with the machine. Without an exit record
/// nobody knows.
pub(super) fn last_run(
    (number, started_usec): (u64, Usec),
    run: Option<&RunRecord>,
    exit: Option<&ExitRecord>,
) -> LastRun {
    let oom_kills = exit.map_or(0, |exit| exit.oom_kills);
    // By us, or by systemd or its caller's end through the monitor.
    let course = exit.map_or(StopCourse::None, |exit| exit.stop);
    let forced = run.is_some_and(|run| run.forced) || course == StopCourse::Forced;
    let stopping = run.is_some_and(|run| run.stopping) || course != StopCourse::None;
    let result = match exit {
        None => RunResult::Lost,
        // It was ended because it was not ready in time, whatever it made of that.
        Some(_) if run.is_some_and(|run| run.given_up) => RunResult::Timeout,
        Some(exit) => RunResult::of(exit.exit, oom_kills > 0, forced),
    };
    LastRun {
        run: number,
        started_usec,
        exit: exit.map(|exit| exit.exit),
        result,
        failed: failed(result, stopping),
        stopped_usec: exit.map_or_else(now_usec, |exit| exit.exited_usec),
        oom_kills,
        figures: exit.map(|exit| exit.figures).unwrap_or_default(),
    }
}

/// A run that was begun and whose payload never ran.
pub(super) fn never_started((number, started_usec): (u64, Usec)) -> LastRun {
    LastRun {
        run: number,
        started_usec,
        exit: None,
        result: RunResult::None,
        failed: true,
        stopped_usec: now_usec(),
        oom_kills: 0,
        figures: Default::default(),
    }
}

/// Whether an exit record belongs to this run.
pub(super) fn belongs(record: Option<ExitRecord>, run: u64) -> Option<ExitRecord> {
    record.filter(|record| record.run == run)
}

/// How a run ended, in words.
pub(super) fn in_words(last: &LastRun) -> String {
    match last.exit {
        None => last.result.as_str().to_owned(),
        Some(Exit::Code(code)) => format!("{}, status {code}", last.result.as_str()),
        Some(Exit::Signal { number, .. }) => format!("{}, signal {number}", last.result.as_str()),
    }
}

/// As with services: an end that nobody asked for and that is no success is a failure, and so is a stop that had to
/// be forced.
fn failed(result: RunResult, stopping: bool) -> bool {
    match result {
        RunResult::None | RunResult::Success => false,
        RunResult::Timeout | RunResult::Lost | RunResult::OomKill | RunResult::CoreDump => true,
        RunResult::ExitCode | RunResult::Signal => !stopping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stopping: bool, forced: bool) -> RunRecord {
        RunRecord {
            version: RunRecord::VERSION,
            run: 3,
            unit: "holm-web.scope".into(),
            control_group: "/holm.slice/holm-web.scope".into(),
            monitor: 1,
            monitor_start: 0,
            leader: 2,
            leader_start: 0,
            started_usec: 1,
            stopping,
            deadline_usec: None,
            unheard: None,
            wanted_by: None,
            forced,
            held: false,
            unready: false,
            given_up: false,
            ready_by_usec: 0,
            health: Default::default(),
        }
    }

    fn exit(exit: Exit, oom_kills: u64) -> ExitRecord {
        ExitRecord {
            version: ExitRecord::VERSION,
            run: 3,
            exit,
            reboot: false,
            exited_usec: 5,
            oom_kills,
            figures: Default::default(),
            stop: StopCourse::None,
            unheard: false,
        }
    }

    /// Exit, out-of-memory kills, stopping, forced → word, failed.
    #[test]
    fn every_end_has_its_word() {
        let signal = |number| Exit::Signal { number, core_dumped: false };
        let cases = [
            (Exit::Code(0), 0, false, false, RunResult::Success, false),
            (Exit::Code(3), 0, false, false, RunResult::ExitCode, true),
            (Exit::Code(143), 0, true, false, RunResult::ExitCode, false),
            (signal(9), 0, false, false, RunResult::Signal, true),
            (signal(15), 0, true, false, RunResult::Signal, false),
            (signal(9), 0, true, true, RunResult::Timeout, true),
            (signal(9), 1, false, false, RunResult::OomKill, true),
            (Exit::Signal { number: 11, core_dumped: true }, 0, false, false, RunResult::CoreDump, true),
        ];
        for (ended, oom_kills, stopping, forced, result, failed) in cases {
            let last = last_run((3, 1), Some(&run(stopping, forced)), Some(&exit(ended, oom_kills)));
            assert_eq!((last.result, last.failed), (result, failed), "{ended:?} {oom_kills} {stopping} {forced}");
            assert_eq!((last.run, last.exit, last.stopped_usec), (3, Some(ended), 5));
        }
    }

    #[test]
    fn one_that_was_never_ready_has_failed_however_it_ended() {
        let run = RunRecord { unready: true, given_up: true, ..run(true, false) };
        let last = last_run((3, 1), Some(&run), Some(&exit(Exit::Code(0), 0)));
        assert_eq!((last.result, last.failed), (RunResult::Timeout, true));
    }

    #[test]
    fn a_stop_of_systemds_counts_as_one_of_ours() {
        let ended = |number, stop| {
            let exit = Exit::Signal { number, core_dumped: false };
            last_run((3, 1), Some(&run(false, false)), Some(&ExitRecord { stop, ..self::exit(exit, 0) }))
        };
        let asked = ended(15, StopCourse::Asked);
        assert_eq!((asked.result, asked.failed), (RunResult::Signal, false));
        let forced = ended(9, StopCourse::Forced);
        assert_eq!((forced.result, forced.failed), (RunResult::Timeout, true));
    }

    #[test]
    fn an_end_that_nobody_saw_is_lost_and_a_failure() {
        let last = last_run((3, 1), None, None);
        assert_eq!((last.result, last.failed, last.exit), (RunResult::Lost, true, None));
        assert_eq!(in_words(&last), "lost");
    }

    #[test]
    fn an_exit_record_of_another_run_is_none_of_this_one() {
        assert!(belongs(Some(exit(Exit::Code(0), 0)), 4).is_none());
        assert!(belongs(Some(exit(Exit::Code(0), 0)), 3).is_some());
    }
}
