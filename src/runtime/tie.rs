//! A payload that is stopped with its caller.
//!
//! The caller's end is told by the kernel, so this works whatever becomes of holmd: the caller was killed, or shut its socket down
//! for writing because it wants the payload to end and to hear of that.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// The caller, and what is left of the time that a stop may take.
#[derive(Debug)]
pub(super) struct Tie {
    caller: OwnedFd,
    timeout: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The caller wants it to run.
    Held,
    /// It was asked to end, and is killed at this moment.
    Asked(Instant),
    /// It was killed.
    Killed,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Ask the payload to end.
    Ask,
    /// Kill it.
    Kill,
}

impl Tie {
    pub(super) fn new(caller: OwnedFd, timeout: Duration) -> Self {
        Self { caller, timeout, state: State::Held }
    }

    /// What to wait for; nothing any more when the caller has gone.
    pub(super) fn awaited(&self) -> Option<PollFd<'_>> {
        (self.state == State::Held).then(|| PollFd::from_borrowed_fd(self.caller.as_fd(), PollFlags::RDHUP))
    }

    /// How long to wait at most; `None` is for ever.
    pub(super) fn limit(&self, now: Instant) -> Option<Timespec> {
        let State::Asked(end) = self.state else { return None };
        // A time too long for the kernel is for ever.
        Timespec::try_from(end.saturating_duration_since(now)).ok()
    }

    /// After the wait: `came` is whether what was awaited did.
    pub(super) fn go_on(&mut self, came: bool, now: Instant) -> Due {
        match self.state {
            State::Held if came => {
                // A time without an end is the kernel's for ever.
                self.state = now.checked_add(self.timeout).map_or(State::Killed, State::Asked);
                Due::Ask
            }
            State::Asked(end) if now >= end => {
                self.state = State::Killed;
                Due::Kill
            }
            State::Held | State::Asked(_) | State::Killed => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn poll(tie: &Tie) -> bool {
        let mut events: Vec<_> = tie.awaited().into_iter().collect();
        rustix::event::poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn the_end_of_the_caller_is_a_stop_with_its_timeout() {
        let (ours, callers) = socket::packet_pair().unwrap();
        let (mut tie, now) = (Tie::new(ours, TIMEOUT), Instant::now());
        assert!(!poll(&tie) && tie.limit(now).is_none());
        assert_eq!(tie.go_on(false, now), Due::Nothing);
        drop(callers);
        assert!(poll(&tie));
        assert_eq!(tie.go_on(true, now), Due::Ask);
        assert!(tie.awaited().is_none(), "it would be told without end");
        assert_eq!(tie.limit(now).unwrap().tv_sec, 10);
        assert_eq!(tie.go_on(false, now + TIMEOUT / 2), Due::Nothing);
        assert_eq!(tie.go_on(false, now + TIMEOUT), Due::Kill);
        assert_eq!((tie.go_on(false, now + TIMEOUT), tie.limit(now)), (Due::Nothing, None));
    }

    #[test]
    fn a_caller_that_shuts_its_side_down_can_still_be_told_the_end() {
        let (ours, callers) = socket::packet_pair().unwrap();
        let other = ours.try_clone().unwrap();
        let mut tie = Tie::new(ours, TIMEOUT);
        socket::shut_down(callers.as_fd()).unwrap();
        assert!(poll(&tie));
        assert_eq!(tie.go_on(true, Instant::now()), Due::Ask);
        socket::send_now(other.as_fd(), b"end", &[]).unwrap();
        assert_eq!(socket::receive(callers.as_fd(), &mut [0; 8]).unwrap().0, 3);
    }

    #[test]
    fn a_stop_without_an_end_waits_for_ever() {
        let (ours, _callers) = socket::packet_pair().unwrap();
        let mut tie = Tie::new(ours, Duration::MAX);
        assert_eq!(tie.go_on(true, Instant::now()), Due::Ask);
        assert_eq!(tie.limit(Instant::now()), None);
        assert_eq!(tie.go_on(false, Instant::now()), Due::Nothing);
    }
}
