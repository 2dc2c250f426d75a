//! The life of a container: state and event → state and actions. Pure: no clock, no I/O, no lock.
//!
//! ```text
//!              start            launched
//!   resting ─────────► starting ─────────► running ◄──► frozen
//!      ▲                │ ▲ │ launch failed   │ stop      │ stop
//!      │◄───────────────┘ │ └──────────┐      ▼           ▼
//!      │◄─────────────────┼───────────────  stopping ◄────┘
//!      │        ended     │ due        │      │  ▲ deadline: killed
//!      ▼ remove           │            ▼      └──┘
//!    gone                 └───────  waiting ◄── ended, when its policy starts it again
//!      ▲── ended, when it lives for one run or a removal waits
//! ```
//!
//! A container that does not count as started when its program runs is `readying` between `starting` and `running`: it has a
//! payload, which can be stopped or may end.
//!
//! One task per container feeds events in and performs the actions, in order; a launch is performed to its end before
//! the next event is looked at, so a stop asked for meanwhile finds the container running.

use crate::model::{Lifetime, Status};

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// No payload; how it came to that is in the record.
    Resting,
    /// A launch is under way.
    Starting,
    /// The payload runs, and does not count as started yet.
    Readying,
    /// The payload runs.
    Running,
    /// The payload is frozen.
    Frozen,
    /// The payload was asked to end.
    Stopping {
        /// Whether it was killed.
        forced: bool,
        /// What comes after its end.
        next: Next,
    },
    /// No payload; its policy starts it again when its wait is over.
    Waiting,
    /// Removed.
    Gone,
}

/// What follows the end of a run that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Next {
    /// Rest.
    Rest,
    /// Start again.
    Start,
    /// Remove the container.
    Remove,
    /// What its policy says.
    Policy,
}

/// What happened, or is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// Start it.
    Start,
    /// The launch succeeded.
    Launched {
        /// Whether it counts as started with that.
        ready: bool,
    },
    /// It counts as started from now on.
    Ready,
    /// It never will.
    NotReady,
    /// The launch failed.
    LaunchFailed {
        /// Whether its policy tries it again.
        again: bool,
    },
    /// Stop it.
    Stop,
    /// Its monitor stops it.
    Leaving,
    /// Stop it if it runs, then start it.
    Restart,
    /// The stop timeout has passed.
    Deadline,
    /// The run is over.
    Ended {
        /// Whether its policy starts it again, if nobody asked for something else.
        again: bool,
    },
    /// The wait for the next try is over.
    Due,
    /// The run is over: it was a system that asked to be rebooted.
    Rebooted,
    /// Freeze it.
    Freeze,
    /// Thaw it.
    Thaw,
    /// Its payload has just been frozen for lack of room in the pool.
    Held,
    /// There is room again for a payload that was.
    Release,
    /// Remove it.
    Remove {
        /// Even if it runs.
        force: bool,
    },
}

/// What the container's task must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// Launch the payload; `Launched` or `LaunchFailed` follows.
    Launch,
    /// Ask the leader to end, and set the deadline.
    AskToEnd,
    /// Set the deadline of an end that somebody else sees to.
    AwaitEnd,
    /// Bring the deadline forward if this stop has less patience than the one under way.
    Hurry,
    /// Kill everything (cgroup.kill).
    KillAll,
    /// Freeze the payload's cgroup.
    Freeze,
    /// Thaw it.
    Thaw,
    /// Write down how the run ended.
    RecordEnd,
    /// Wait for the moment of the next try; `Due` follows.
    Wait,
    /// Delete the root and the record.
    Delete,
}

/// Why an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    /// There is no payload.
    NotRunning,
    /// There is a payload.
    Active,
    /// The container is gone.
    Gone,
}

/// The next state, and what to do on the way; or why not.
pub(super) type Step = Result<(State, &'static [Action]), Refusal>;

/// The whole policy.
pub(super) fn step(state: State, event: Event, lifetime: Lifetime) -> Step {
    use State::{Frozen, Gone, Readying, Resting, Running, Starting, Stopping, Waiting};
    match (state, event) {
        (Gone, _) => Err(Refusal::Gone),

        (Resting | Waiting, Event::Start | Event::Restart) | (Waiting, Event::Due) => Ok((Starting, &[Action::Launch])),
        (Starting | Readying | Running | Frozen | Stopping { .. }, Event::Start) => Err(Refusal::Active),

        (Starting, Event::Launched { ready: true }) | (Readying, Event::Ready) => Ok((Running, &[])),
        (Starting, Event::Launched { ready: false }) => Ok((Readying, &[])),
        (Readying, Event::NotReady) => Ok((stopping(Next::Policy), &[Action::AskToEnd])),
        // Too late.
        (Resting | Waiting | Starting | Running | Frozen | Stopping { .. }, Event::Ready | Event::NotReady) => {
            Ok((state, &[]))
        }
        (Starting, Event::LaunchFailed { again }) => Ok(after_no_launch(lifetime, again)),
        (
            Resting | Waiting | Readying | Running | Frozen | Stopping { .. },
            Event::Launched { .. } | Event::LaunchFailed { .. },
        ) => Ok((state, &[])),
        (Resting | Starting | Readying | Running | Frozen | Stopping { .. }, Event::Due) => Ok((state, &[])),

        (Resting | Waiting, Event::Stop) => Ok((Resting, &[])),
        (Readying | Running, Event::Stop) => Ok((stopping(Next::Rest), &[Action::AskToEnd])),
        (Frozen, Event::Stop) => Ok((stopping(Next::Rest), &[Action::AskToEnd, Action::Thaw])),
        (Starting, Event::Stop | Event::Restart) => Err(Refusal::Active),
        // A stop joins one that is under way, and takes back a restart that was to follow.
        (Stopping { forced, next: Next::Start | Next::Policy }, Event::Stop) => {
            Ok((Stopping { forced, next: Next::Rest }, &[Action::Hurry]))
        }
        (Stopping { .. }, Event::Stop) => Ok((state, &[Action::Hurry])),

        (Readying | Running, Event::Leaving) => Ok((stopping(Next::Rest), &[Action::AwaitEnd])),
        (Frozen, Event::Leaving) => Ok((stopping(Next::Rest), &[Action::AwaitEnd, Action::Thaw])),
        (Stopping { forced, next: Next::Start | Next::Policy }, Event::Leaving) => {
            Ok((Stopping { forced, next: Next::Rest }, &[]))
        }
        (Resting | Waiting | Starting | Stopping { next: Next::Rest | Next::Remove, .. }, Event::Leaving) => {
            Ok((state, &[]))
        }

        (Readying | Running, Event::Restart) => Ok((stopping(Next::Start), &[Action::AskToEnd])),
        (Frozen, Event::Restart) => Ok((stopping(Next::Start), &[Action::AskToEnd, Action::Thaw])),
        (Stopping { forced, next: Next::Rest | Next::Start | Next::Policy }, Event::Restart) => {
            Ok((Stopping { forced, next: Next::Start }, &[Action::Hurry]))
        }
        (Stopping { next: Next::Remove, .. }, Event::Restart) => Err(Refusal::Gone),

        (Stopping { forced: false, next }, Event::Deadline) => {
            Ok((Stopping { forced: true, next }, &[Action::KillAll]))
        }
        (
            Resting | Waiting | Starting | Readying | Running | Frozen | Stopping { forced: true, .. },
            Event::Deadline,
        ) => Ok((state, &[])),

        (Readying | Running | Frozen, Event::Rebooted) => Ok((Starting, &[Action::RecordEnd, Action::Launch])),
        (Readying | Running | Frozen | Stopping { next: Next::Policy, .. }, Event::Ended { again }) => {
            Ok(end(lifetime, again))
        }
        // What was asked for from outside comes before what a system wants for itself.
        (Stopping { next: Next::Rest, .. }, Event::Ended { .. } | Event::Rebooted)
        | (Stopping { next: Next::Policy, .. }, Event::Rebooted) => Ok(end(lifetime, false)),
        (Stopping { next: Next::Start, .. }, Event::Ended { .. } | Event::Rebooted) => {
            Ok((Starting, &[Action::RecordEnd, Action::Launch]))
        }
        (Stopping { next: Next::Remove, .. }, Event::Ended { .. } | Event::Rebooted) => {
            Ok((Gone, &[Action::RecordEnd, Action::Delete]))
        }
        (Resting | Waiting | Starting, Event::Ended { .. } | Event::Rebooted) => Ok((state, &[])),

        (Running, Event::Freeze) => Ok((Frozen, &[Action::Freeze])),
        (Frozen, Event::Thaw) => Ok((Running, &[Action::Thaw])),
        (Frozen, Event::Freeze) | (Running, Event::Thaw) => Ok((state, &[])),
        (Resting | Waiting | Starting | Readying | Stopping { .. }, Event::Freeze | Event::Thaw) => {
            Err(Refusal::NotRunning)
        }

        (Running | Frozen, Event::Held) => Ok((Frozen, &[])),
        // Too late: it is on its way to its end, which it must be able to go.
        (Starting | Readying | Stopping { .. }, Event::Held) => Ok((state, &[Action::Thaw])),
        (Frozen, Event::Release) => Ok((Running, &[Action::Thaw])),
        (Resting | Waiting, Event::Held)
        | (Resting | Waiting | Starting | Readying | Running | Stopping { .. }, Event::Release) => Ok((state, &[])),

        (Resting, Event::Remove { .. }) | (Waiting, Event::Remove { force: true }) => Ok((Gone, &[Action::Delete])),
        (Stopping { forced: true, .. }, Event::Remove { force: true }) => {
            Ok((Stopping { forced: true, next: Next::Remove }, &[]))
        }
        (Starting | Readying | Running | Frozen | Stopping { .. }, Event::Remove { force: true }) => {
            Ok((Stopping { forced: true, next: Next::Remove }, &[Action::KillAll]))
        }
        (Waiting | Starting | Readying | Running | Frozen | Stopping { .. }, Event::Remove { force: false }) => {
            Err(Refusal::Active)
        }
    }
}

impl State {
    /// The word shown outside. `started`: it was started at least once; `failed`: its last run or start failed.
    pub(super) fn status(self, started: bool, failed: bool) -> Status {
        match self {
            Self::Resting | Self::Gone if failed => Status::Failed,
            Self::Resting | Self::Gone if started => Status::Stopped,
            Self::Resting | Self::Gone => Status::Created,
            // As systemd has it for a service: activating (auto-restart).
            Self::Starting | Self::Readying | Self::Waiting => Status::Starting,
            Self::Running => Status::Running,
            Self::Frozen => Status::Frozen,
            Self::Stopping { .. } => Status::Stopping,
        }
    }
}

fn stopping(next: Next) -> State {
    State::Stopping { forced: false, next }
}

fn end(lifetime: Lifetime, again: bool) -> (State, &'static [Action]) {
    match lifetime {
        Lifetime::Kept if again => (State::Waiting, &[Action::RecordEnd, Action::Wait]),
        Lifetime::Kept => (State::Resting, &[Action::RecordEnd]),
        Lifetime::OneRun => (State::Gone, &[Action::RecordEnd, Action::Delete]),
    }
}

fn after_no_launch(lifetime: Lifetime, again: bool) -> (State, &'static [Action]) {
    match lifetime {
        Lifetime::Kept if again => (State::Waiting, &[Action::Wait]),
        Lifetime::Kept => (State::Resting, &[]),
        Lifetime::OneRun => (State::Gone, &[Action::Delete]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A launch of what is ready with that.
    const UP: Event = Event::Launched { ready: true };

    /// An end that nothing follows.
    const END: Event = Event::Ended { again: false };

    fn run(events: &[Event]) -> (State, Vec<Action>) {
        run_with(Lifetime::Kept, events)
    }

    fn run_with(lifetime: Lifetime, events: &[Event]) -> (State, Vec<Action>) {
        let mut state = State::Resting;
        let mut done = Vec::new();
        for event in events {
            let (next, actions) = step(state, *event, lifetime).unwrap();
            state = next;
            done.extend_from_slice(actions);
        }
        (state, done)
    }

    #[test]
    fn a_run_goes_from_rest_to_rest() {
        let (state, actions) = run(&[Event::Start, UP, END]);
        assert_eq!(state, State::Resting);
        assert_eq!(actions, [Action::Launch, Action::RecordEnd]);
    }

    #[test]
    fn a_container_of_one_run_is_gone_after_it() {
        let (state, actions) = run_with(Lifetime::OneRun, &[Event::Start, UP, END]);
        assert_eq!(state, State::Gone);
        assert_eq!(actions.last(), Some(&Action::Delete));
        assert_eq!(run_with(Lifetime::OneRun, &[Event::Start, Event::LaunchFailed { again: false }]).0, State::Gone);
    }

    #[test]
    fn a_payload_that_ignores_the_signal_is_killed_once() {
        let events = [Event::Start, UP, Event::Stop, Event::Deadline, Event::Deadline, END];
        let (state, actions) = run(&events);
        assert_eq!(state, State::Resting);
        assert_eq!(actions.iter().filter(|action| **action == Action::KillAll).count(), 1);
    }

    #[test]
    fn a_frozen_container_is_thawed_to_be_stopped() {
        let (_, actions) = run(&[Event::Start, UP, Event::Freeze, Event::Stop]);
        assert_eq!(actions[actions.len() - 2..], [Action::AskToEnd, Action::Thaw]);
    }

    #[test]
    fn stop_is_idempotent() {
        assert_eq!(run(&[Event::Stop]), (State::Resting, vec![]));
        let (state, actions) = run(&[Event::Start, UP, Event::Stop, Event::Stop]);
        assert_eq!(state, stopping(Next::Rest));
        assert_eq!(actions.iter().filter(|action| **action == Action::AskToEnd).count(), 1);
    }

    #[test]
    fn a_stop_by_the_monitor_is_one_that_nobody_else_asks_for() {
        let (state, actions) = run(&[Event::Start, UP, Event::Leaving]);
        assert_eq!((state, actions.last()), (stopping(Next::Rest), Some(&Action::AwaitEnd)));
        assert_eq!(run(&[Event::Start, UP, Event::Restart, Event::Leaving, END]).0, State::Resting);
        assert_eq!(run(&[Event::Start, UP, Event::Freeze, Event::Leaving]).1.last(), Some(&Action::Thaw));
    }

    #[test]
    fn a_restart_starts_again_after_the_end() {
        let (state, actions) = run(&[Event::Start, UP, Event::Restart, END]);
        assert_eq!(state, State::Starting);
        assert_eq!(actions.last(), Some(&Action::Launch));
    }

    #[test]
    fn a_system_that_reboots_starts_again_unless_it_is_being_stopped() {
        for lifetime in [Lifetime::Kept, Lifetime::OneRun] {
            let (state, actions) = run_with(lifetime, &[Event::Start, UP, Event::Rebooted]);
            assert_eq!(state, State::Starting);
            assert_eq!(actions, [Action::Launch, Action::RecordEnd, Action::Launch]);
        }
        assert_eq!(run(&[Event::Start, UP, Event::Stop, Event::Rebooted]).0, State::Resting);
    }

    #[test]
    fn a_stop_takes_a_pending_restart_back() {
        let (state, _) = run(&[Event::Start, UP, Event::Restart, Event::Stop, END]);
        assert_eq!(state, State::Resting);
    }

    #[test]
    fn only_force_removes_a_running_container() {
        assert_eq!(step(State::Running, Event::Remove { force: false }, Lifetime::Kept), Err(Refusal::Active));
        let (state, actions) = run(&[Event::Start, UP, Event::Remove { force: true }, END]);
        assert_eq!(state, State::Gone);
        assert_eq!(actions.last(), Some(&Action::Delete));
    }

    #[test]
    fn a_container_that_is_held_can_be_stopped_and_released() {
        let (_, actions) = run(&[Event::Start, UP, Event::Held, Event::Stop]);
        assert_eq!(actions[actions.len() - 2..], [Action::AskToEnd, Action::Thaw]);
        let (state, actions) = run(&[Event::Start, UP, Event::Stop, Event::Held]);
        assert_eq!((state, actions.last()), (stopping(Next::Rest), Some(&Action::Thaw)));
        assert_eq!(run(&[Event::Start, UP, Event::Held, Event::Release]).0, State::Running);
    }

    #[test]
    fn starting_twice_is_refused() {
        assert_eq!(step(State::Running, Event::Start, Lifetime::Kept), Err(Refusal::Active));
    }

    #[test]
    fn what_its_policy_starts_again_waits_and_is_launched_when_due() {
        let (state, actions) = run(&[Event::Start, UP, Event::Ended { again: true }]);
        assert_eq!(state, State::Waiting);
        assert_eq!(actions, [Action::Launch, Action::RecordEnd, Action::Wait]);
        let due = [Event::Start, UP, Event::Ended { again: true }, Event::Due];
        assert_eq!(run(&due).0, State::Starting);
        let failed = [&due[..], &[Event::LaunchFailed { again: true }]].concat();
        assert_eq!(run(&failed).0, State::Waiting);
    }

    #[test]
    fn a_stop_ends_the_wait_and_a_start_does_not_sit_it_out() {
        let waiting = [Event::Start, UP, Event::Ended { again: true }];
        let (state, _) = run(&[&waiting[..], &[Event::Stop, Event::Due]].concat());
        assert_eq!(state, State::Resting);
        assert_eq!(run(&[&waiting[..], &[Event::Start]].concat()).0, State::Starting);
        assert_eq!(step(State::Waiting, Event::Remove { force: false }, Lifetime::Kept), Err(Refusal::Active));
        assert_eq!(run(&[&waiting[..], &[Event::Remove { force: true }]].concat()).0, State::Gone);
    }

    #[test]
    fn a_stop_wins_over_the_policy_and_so_does_a_life_of_one_run() {
        let stopped = [Event::Start, UP, Event::Stop, Event::Ended { again: true }];
        assert_eq!(run(&stopped).0, State::Resting);
        let ended = [Event::Start, UP, Event::Ended { again: true }];
        assert_eq!(run_with(Lifetime::OneRun, &ended).0, State::Gone);
    }

    #[test]
    fn what_is_not_ready_yet_becomes_so_or_ends() {
        let readying = [Event::Start, Event::Launched { ready: false }];
        let after = |event| run(&[&readying[..], &[event]].concat());
        assert_eq!(run(&readying).0, State::Readying);
        assert_eq!(after(Event::Ready).0, State::Running);
        assert_eq!(after(Event::Stop).0, stopping(Next::Rest));
        assert_eq!(after(END).0, State::Resting);
        assert_eq!(after(Event::NotReady).1.last(), Some(&Action::AskToEnd));
        let never = [&readying[..], &[Event::NotReady]].concat();
        assert_eq!(run(&[&never[..], &[Event::Ended { again: true }]].concat()).0, State::Waiting);
        assert_eq!(run(&[&never[..], &[Event::Stop, Event::Ended { again: true }]].concat()).0, State::Resting);
        assert_eq!(step(State::Running, Event::NotReady, Lifetime::Kept), Ok((State::Running, &[][..])));
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Start),
            Just(Event::Stop),
            Just(Event::Restart),
            Just(Event::Leaving),
            Just(Event::Deadline),
            any::<bool>().prop_map(|again| Event::Ended { again }),
            Just(Event::Due),
            Just(Event::Ready),
            Just(Event::NotReady),
            Just(Event::Rebooted),
            Just(Event::Freeze),
            Just(Event::Thaw),
            Just(Event::Held),
            Just(Event::Release),
            any::<bool>().prop_map(|force| Event::Remove { force }),
        ]
    }

    proptest! {
        /// Whatever happens, a launch is always answered by exactly one recorded end or failure before the next launch,
        /// and nothing is deleted while a payload may run.
        #[test]
        fn a_payload_is_never_deleted_under_its_feet(
            events in prop::collection::vec(any_event(), 0..40), one_run: bool, ready: bool,
        ) {
            let lifetime = if one_run { Lifetime::OneRun } else { Lifetime::Kept };
            let mut state = State::Resting;
            let mut payload = false;
            for event in events {
                // The run's end is an event of the world: it comes only while there is a payload.
                if matches!(event, Event::Ended { .. } | Event::Rebooted) && !payload { continue; }
                let Ok((next, actions)) = step(state, event, lifetime) else { continue };
                state = next;
                for action in actions {
                    match action {
                        Action::Launch => { prop_assert!(!payload); payload = true; }
                        Action::RecordEnd => { prop_assert!(payload); payload = false; }
                        Action::Delete => prop_assert!(!payload),
                        _ => {}
                    }
                }
                if state == State::Starting {
                    let (next, _) = step(state, Event::Launched { ready }, lifetime).unwrap();
                    state = next;
                }
                prop_assert_eq!(payload, matches!(
                    state,
                    State::Readying | State::Running | State::Frozen | State::Stopping { .. }
                ));
            }
        }
    }
}
