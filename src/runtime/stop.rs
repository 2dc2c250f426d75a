//! A stop that systemd asks the monitor for, seen through to its end: holmd may be dead, and knows nothing of it in any case.
//!
//! The kernel drops a signal that the first process of a pid namespace does not take yet. So a payload that is stopped
//! while it still begins is sent the signal at once, which is dropped then, and again as soon as it is seen to listen.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::cgroups::Scope;
use super::monitor::Wake;
use crate::model::{StopCourse, StopPolicy};
use crate::sys::process::Child;
use crate::sys::{pidfd, signal};

/// A container's stop, which may never be asked for.
#[derive(Debug)]
pub(super) struct Stop<'a> {
    leader: &'a Child,
    scope: &'a Scope,
    policy: StopPolicy,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    /// When everything is killed; never, when that is too far away to be counted.
    deadline: Option<Instant>,
    /// How long to wait until the leader is looked at again; absent once it has the signal.
    listen: Option<Duration>,
    forced: bool,
    /// Whether the leader had not taken the signal when everything was killed.
    unheard: bool,
}

impl<'a> Stop<'a> {
    pub(super) fn new(leader: &'a Child, scope: &'a Scope, policy: StopPolicy) -> Self {
        Self { leader, scope, policy, under_way: None }
    }

    /// Does what is due; after how long it wants to be called again.
    pub(super) fn go_on(&mut self, wake: Wake) -> Option<Duration> {
        if wake == Wake::Asked {
            self.begin();
        }
        let now = Instant::now();
        let due = self.under_way.as_ref()?.deadline.is_some_and(|deadline| deadline <= now);
        if due {
            self.scope.kill_payload();
        } else {
            self.speak();
        }
        let under_way = self.under_way.as_mut()?;
        if due {
            // Of one that was looked at once at most, and killed at once, nothing is known.
            let unheard = under_way.listen.is_some_and(|pause| pause > 2 * FIRST_LOOK);
            *under_way = UnderWay { deadline: None, listen: None, forced: true, unheard };
        }
        let left = under_way.deadline.map(|deadline| deadline.saturating_duration_since(now));
        left.into_iter().chain(under_way.listen).min()
    }

    /// How far it went.
    pub(super) fn course(&self) -> StopCourse {
        match &self.under_way {
            None => StopCourse::None,
            Some(UnderWay { forced: false, .. }) => StopCourse::Asked,
            Some(UnderWay { forced: true, .. }) => StopCourse::Forced,
        }
    }

    /// Whether everything was killed without the leader ever having been seen to take the signal.
    pub(super) fn unheard(&self) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.unheard)
    }

    /// The first request sets the deadline; a later one only has the signal sent again.
    fn begin(&mut self) {
        let listen = Some(FIRST_LOOK);
        match &mut self.under_way {
            Some(UnderWay { forced: true, .. }) => {}
            Some(under_way) => under_way.listen = listen,
            None => {
                // One that is frozen hears nothing.
                self.scope.thaw_payload();
                let deadline = Instant::now().checked_add(self.policy.timeout());
                self.under_way = Some(UnderWay { deadline, listen, forced: false, unheard: false });
            }
        }
    }

    /// Sends the signal if it would be taken, or is to be tried again later.
    fn speak(&mut self) {
        let Some(pause) = self.under_way.as_ref().and_then(|under_way| under_way.listen) else { return };
        let signal = self.policy.signal.number();
        // Not reaped, so the number is its own. What cannot be looked at has ended, and the wait sees that next.
        let heard = signal::is_heard(self.leader.pid, signal).unwrap_or(true);
        // What waits for signals in sigwaitinfo(2) takes it and is not seen to; to what does not, the kernel does not give it.
        if heard || pause == FIRST_LOOK {
            let _ = pidfd::send_signal(self.leader.pidfd.as_fd(), signal);
        }
        if let Some(under_way) = &mut self.under_way {
            under_way.listen = (!heard).then(|| (pause * 2).min(LAST_LOOK));
        }
    }
}

/// Nothing tells when a process begins to catch a signal: it has to be looked at, often at first and then rarely.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(250);
