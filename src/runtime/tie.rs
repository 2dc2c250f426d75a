//! A payload that is stopped with its caller.
//!
//! The caller's end is told by the kernel, so this works whatever becomes of holmd: the caller was killed, or shut its socket down
//! for writing because it wants the payload to end and to hear of that.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};

/// The caller, for as long as it wants the payload to run.
#[derive(Debug)]
pub(super) struct Tie(Option<OwnedFd>);

impl Tie {
    pub(super) fn new(caller: OwnedFd) -> Self {
        Self(Some(caller))
    }

    /// What to wait for; nothing any more when the caller has gone.
    pub(super) fn awaited(&self) -> Option<PollFd<'_>> {
        self.0.as_ref().map(|caller| PollFd::from_borrowed_fd(caller.as_fd(), PollFlags::RDHUP))
    }

    /// After what was awaited came: it would be told without end.
    pub(super) fn let_go(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::Timespec;

    use super::*;
    use crate::sys::socket;

    fn has_come(tie: &Tie) -> bool {
        let mut events: Vec<_> = tie.awaited().into_iter().collect();
        rustix::event::poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn the_end_of_the_caller_is_told_once() {
        let (ours, callers) = socket::packet_pair().unwrap();
        let mut tie = Tie::new(ours);
        assert!(!has_come(&tie));
        drop(callers);
        assert!(has_come(&tie));
        tie.let_go();
        assert!(tie.awaited().is_none());
    }

    #[test]
    fn a_caller_that_shuts_its_side_down_can_still_be_told_the_end() {
        let (ours, callers) = socket::packet_pair().unwrap();
        let other = ours.try_clone().unwrap();
        let mut tie = Tie::new(ours);
        socket::shut_down(callers.as_fd()).unwrap();
        assert!(has_come(&tie));
        tie.let_go();
        socket::send_now(other.as_fd(), b"end", &[]).unwrap();
        assert_eq!(socket::receive(callers.as_fd(), &mut [0; 8]).unwrap().0, 3);
    }
}
