//! What a container's restart policy comes to, from its ends and what people asked for. Pure: the time is an argument.

use crate::model::{RestartPolicy, RestartWhen, Usec, in_usec};
use crate::records::{LastRun, Restarts};

/// What follows the end of a run, or a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It rests.
    Rest,
    /// It is tried again; when that is, is noted.
    Again,
    /// It would be tried again, but was too often.
    GivenUp,
}

/// Somebody asked for a start: everything begins anew.
pub(super) fn asked_for() -> Restarts {
    Restarts { wanted: true, ..Restarts::default() }
}

/// Somebody asked for a stop, or a run ended that is followed by none.
pub(super) fn let_rest(restarts: &mut Restarts) {
    restarts.wanted = false;
    restarts.next_usec = 0;
}

/// A try begins.
pub(super) fn tried(restarts: &mut Restarts) {
    restarts.count = restarts.count.saturating_add(1);
    restarts.next_usec = 0;
}

/// Decides after an end at `now`. `lasted`: how long the run was; 0 when it never came to be.
pub(super) fn after_end(
    policy: &RestartPolicy,
    restarts: &mut Restarts,
    last: &LastRun,
    lasted: Usec,
    now: Usec,
) -> Verdict {
    if !restarts.wanted || !policy.when.covers(last.result, last.exit) {
        let_rest(restarts);
        return Verdict::Rest;
    }
    if lasted > policy.long_run() {
        (restarts.tries, restarts.within, restarts.interval_usec) = (0, 0, 0);
    }
    if is_too_often(policy, restarts, now) {
        let_rest(restarts);
        return Verdict::GivenUp;
    }
    let wait = policy.delay(restarts.tries);
    restarts.tries = restarts.tries.saturating_add(1);
    restarts.next_usec = now.saturating_add(in_usec(wait)).max(1);
    Verdict::Again
}

/// What a daemon that starts makes of a container without a payload. `rebooted`: its last run ended with the system, or
/// before that. One that waited for its next try waits on. After a reboot only one that always runs is started: others
/// ended as the system did, which is no failure of theirs.
pub(super) fn at_start(policy: &RestartPolicy, restarts: &mut Restarts, rebooted: bool, now: Usec) {
    if !restarts.wanted || policy.when == RestartWhen::No {
        return let_rest(restarts);
    }
    if restarts.next_usec > 0 {
        // A clock that was set back must not make the wait longer than it ever is.
        let longest = in_usec(policy.delay(restarts.tries.saturating_sub(1)));
        restarts.next_usec = restarts.next_usec.min(now.saturating_add(longest)).max(1);
        return;
    }
    if rebooted && policy.when == RestartWhen::Always {
        *restarts = Restarts { next_usec: now.max(1), ..asked_for() };
        return;
    }
    let_rest(restarts);
}

/// Counts the try that is due, as systemd counts starts: in an interval that begins with the first of them.
fn is_too_often(policy: &RestartPolicy, restarts: &mut Restarts, now: Usec) -> bool {
    if policy.limit == 0 {
        return false;
    }
    let ever = policy.limit_interval_usec == RestartPolicy::EVER;
    let over = !ever && now >= restarts.interval_usec.saturating_add(policy.limit_interval_usec);
    if restarts.interval_usec == 0 || over {
        (restarts.interval_usec, restarts.within) = (now.max(1), 0);
    }
    if restarts.within >= policy.limit {
        return true;
    }
    restarts.within += 1;
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Exit, RunResult};

    const SECOND: Usec = 1_000_000;

    fn ended(result: RunResult, exit: Option<Exit>) -> LastRun {
        LastRun {
            run: 1,
            started_usec: 0,
            exit,
            result,
            failed: true,
            stopped_usec: 0,
            oom_kills: 0,
            figures: Default::default(),
        }
    }

    fn failure() -> LastRun {
        ended(RunResult::ExitCode, Some(Exit::Code(1)))
    }

    fn policy(when: RestartWhen) -> RestartPolicy {
        RestartPolicy { when, delay_usec: SECOND, steps: 2, max_delay_usec: 100 * SECOND, ..Default::default() }
    }

    #[test]
    fn waits_grow_while_runs_are_short_and_begin_anew_after_a_long_one() {
        let policy = policy(RestartWhen::OnFailure);
        let mut restarts = asked_for();
        let mut waits = Vec::new();
        for lasted in [0, 0, 0, 101 * SECOND] {
            match after_end(&policy, &mut restarts, &failure(), lasted, 7) {
                Verdict::Again => waits.push((restarts.next_usec - 7) / SECOND),
                other => panic!("{other:?}"),
            }
            tried(&mut restarts);
        }
        assert_eq!(waits, [1, 10, 100, 1]);
        assert_eq!((restarts.count, restarts.next_usec), (4, 0));
    }

    #[test]
    fn a_stop_that_was_asked_for_and_an_end_that_is_not_covered_are_the_end_of_it() {
        let policy = policy(RestartWhen::OnFailure);
        let mut restarts = asked_for();
        let_rest(&mut restarts);
        assert_eq!(after_end(&policy, &mut restarts, &failure(), 0, 7), Verdict::Rest);
        let mut restarts = asked_for();
        let success = ended(RunResult::Success, Some(Exit::Code(0)));
        assert_eq!(after_end(&policy, &mut restarts, &success, 0, 7), Verdict::Rest);
        assert!(!restarts.wanted);
    }

    #[test]
    fn a_limit_without_an_interval_counts_all() {
        let policy = RestartPolicy { limit: 2, ..policy(RestartWhen::Always) };
        let mut restarts = asked_for();
        let mut verdict = |now| after_end(&policy, &mut restarts, &failure(), 0, now);
        assert_eq!(verdict(SECOND), Verdict::Again);
        assert_eq!(verdict(1000 * SECOND), Verdict::Again);
        assert_eq!(verdict(2000 * SECOND), Verdict::GivenUp);
        assert_eq!(verdict(2001 * SECOND), Verdict::Rest, "what was given up stays so");
    }

    #[test]
    fn a_limit_with_an_interval_counts_in_that() {
        let policy = RestartPolicy { limit: 2, limit_interval_usec: 10 * SECOND, ..policy(RestartWhen::Always) };
        let mut restarts = asked_for();
        let mut verdict = |now| after_end(&policy, &mut restarts, &failure(), 0, now);
        for now in [1, 2, 11, 12] {
            assert_eq!(verdict(now * SECOND), Verdict::Again, "at {now} s");
        }
        assert_eq!(verdict(13 * SECOND), Verdict::GivenUp);
    }

    #[test]
    fn what_waited_waits_on_and_what_always_runs_comes_back_after_a_reboot() {
        let due = |when, before: Restarts, rebooted| {
            let mut restarts = before;
            at_start(&policy(when), &mut restarts, rebooted, 50 * SECOND);
            restarts.next_usec / SECOND
        };
        let waiting = |next| Restarts { tries: 1, next_usec: next * SECOND, ..asked_for() };
        assert_eq!(due(RestartWhen::OnFailure, waiting(49), false), 49);
        assert_eq!(due(RestartWhen::OnFailure, waiting(5000), true), 51, "the clock was set back");
        assert_eq!(due(RestartWhen::Always, asked_for(), true), 50);
        assert_eq!(due(RestartWhen::Always, asked_for(), false), 0);
        assert_eq!(due(RestartWhen::OnFailure, asked_for(), true), 0);
        assert_eq!(due(RestartWhen::Always, Restarts::default(), true), 0, "somebody had stopped it");
        assert_eq!(due(RestartWhen::No, asked_for(), true), 0);
    }
}
