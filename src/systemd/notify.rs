//! What a service tells its manager, and what it is given back (sd_notify(3), sd_listen_fds(3)).
//!
//! Run by hand, without a manager, every call does nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::sys::inherited::take_inherited;

/// The daemon answers calls. To be said before containers are restored or started: their scopes are ordered after the
/// daemon's unit, and systemd lets them wait until this.
pub fn ready(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))])
}

/// The daemon stops, and what it does meanwhile.
pub fn stopping(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))])
}

/// The line that `systemctl status` shows.
pub fn status(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Status(&one_line(status))])
}

/// Gives a descriptor to the manager, which hands it back when the daemon is started again ([`take_stored`]). It keeps
/// it until [`forget`], even when the other side is gone: by default it would close a pidfd just when its process has
/// ended, which is when it is worth most. Names are ours to keep distinct; several descriptors may share one.
pub fn store(name: &str, fd: impl AsFd) -> io::Result<()> {
    check_name(name)?;
    let state = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&state, &[fd.as_fd()])
}

/// Makes the manager close every stored descriptor of that name.
pub fn forget(name: &str) -> io::Result<()> {
    check_name(name)?;
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// The descriptors that an earlier daemon has stored, with their names, in no particular order. To be called once and
/// before anything else opens descriptors: first in `main`. A second call takes nothing and fails.
pub fn take_stored() -> io::Result<Vec<(String, OwnedFd)>> {
    let (numbers, names): (Vec<_>, Vec<_>) = sd_notify::listen_fds_with_names()?.unzip();
    Ok(names.into_iter().zip(take_inherited(numbers)?).collect())
}

/// How often the manager wants to hear from the daemon; `None` when it does not (WatchdogSec=).
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Answers the manager's watchdog for ever, at half of its interval, each time after `alive` has said yes. `alive`
/// should go the way that a request goes, so that a daemon which hangs is restarted although this task still runs.
/// It may take as long as it likes: a late answer is no answer.
pub async fn answer_watchdog<F>(every: Duration, alive: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let mut ticks = interval((every / 2).max(SHORTEST_TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if alive().await
            && let Err(error) = sd_notify::notify(&[NotifyState::Watchdog])
        {
            tracing::debug!(%error, "cannot answer the watchdog");
        }
    }
}

/// Does `work`, which may take longer than TimeoutStartSec= or TimeoutStopSec= allow, and asks for more time as long as
/// it goes on.
pub async fn with_more_time<T>(work: impl Future<Output = T>) -> T {
    ask_while(EXTEND_EVERY, work).await
}

async fn ask_while<T>(every: Duration, work: impl Future<Output = T>) -> T {
    let more_time = async {
        let mut ticks = interval(every);
        loop {
            ticks.tick().await;
            if let Err(error) = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(EXTEND_USEC)]) {
                tracing::debug!(%error, "cannot ask for more time");
            }
        }
    };
    tokio::select! {
        result = work => result,
        () = more_time => unreachable!("asking for more time has no end"),
    }
}

/// The protocol has a field a line.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// The rule of sd_notify(3) for FDNAME=; with a bad name systemd would store the descriptor as `stored`.
fn check_name(name: &str) -> io::Result<()> {
    let valid = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if valid { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

const SHORTEST_TICK: Duration = Duration::from_millis(1);
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// Three times the interval, so that one late message does not end us.
const EXTEND_USEC: u32 = 15_000_000;

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
