//! The caller's terminal while a payload has it: raw mode, and two threads that copy.
//!
//! Threads, because the caller's side may be anything (a file cannot be awaited with epoll(7), and its descriptor is
//! shared with others, so it must not be made non-blocking). They end with the process.

use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use rustix::termios::Termios;
use tokio::sync::Notify;

use super::error::CliError;
use crate::sys::tty;

/// A terminal's master, connected to standard input and output.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: Arc<OwnedFd>,
    drained: Arc<Notify>,
    detached: Arc<Notify>,
    _raw: Option<RawMode>,
}

impl Terminal {
    /// Connects it. Without `interactive` only the output.
    pub(crate) fn connect(master: OwnedFd, interactive: bool) -> Result<Self, CliError> {
        let master = Arc::new(master);
        let raw = if interactive && io::stdin().is_terminal() { Some(RawMode::enter()?) } else { None };
        let terminal = Self { master, drained: Arc::default(), detached: Arc::default(), _raw: raw };
        let (output, drained) = (Arc::clone(&terminal.master), Arc::clone(&terminal.drained));
        spawn(move || copy_output(&output, &drained))?;
        if interactive {
            let (input, detached) = (Arc::clone(&terminal.master), Arc::clone(&terminal.detached));
            spawn(move || copy_input(&input, &detached))?;
        }
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the payload's side the size of ours.
    pub(crate) fn resize(&self) {
        if let Some(size) = size() {
            // The payload may have gone meanwhile; then the size does not matter.
            drop(tty::set_window_size(&*self.master, size));
        }
    }

    /// Completes when the user pressed `^]` three times within a second. May be cancelled.
    pub(crate) async fn detached(&self) {
        self.detached.notified().await;
    }

    /// Completes when the user did that (true), or when the payload's side is closed and all it wrote has been shown.
    pub(crate) async fn gone(&self) -> bool {
        tokio::select! {
            () = self.detached() => true,
            () = self.drained.notified() => false,
        }
    }

    /// Shows what is left after the payload has ended. Something it left behind may hold its terminal open, so this
    /// waits no longer than a moment.
    pub(crate) async fn finish(self) {
        drop(tokio::time::timeout(LAST_OUTPUT, self.drained.notified()).await);
    }
}

/// Rows and columns of the caller's terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tty::window_size(io::stdin()).or_else(|_| tty::window_size(io::stdout())).ok();
    size.filter(|size| *size != (0, 0))
}

fn spawn(copy: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
    std::thread::Builder::new().spawn(copy).map_err(|source| CliError::io("start a thread", source))?;
    Ok(())
}

fn copy_output(master: &OwnedFd, drained: &Notify) {
    let stdout = io::stdout();
    let mut buffer = [0; 16384];
    // EIO is how a master says that the other side is closed.
    while let Ok(length @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(master, &mut buffer)) {
        if write_all(&stdout, &buffer[..length]).is_err() {
            break;
        }
    }
    drained.notify_one();
}

fn copy_input(master: &OwnedFd, detached: &Notify) {
    // Asked now: one that has gone away is none any more.
    let on_terminal = io::stdin().is_terminal();
    let mut stdin = io::stdin().lock();
    let mut escape = Escape::default();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stdin.read(&mut buffer) {
        if escape.completed_by(&buffer[..length], Instant::now()) {
            return detached.notify_one();
        }
        if write_all(master, &buffer[..length]).is_err() {
            return;
        }
    }
    if !on_terminal {
        // The end of a file, as a terminal tells it. The payload may have gone already.
        let _ = write_all(master, &[END_OF_TRANSMISSION]);
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&to, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Counts `^]` presses, as machinectl does.
#[derive(Debug, Default)]
struct Escape {
    presses: u8,
    first: Option<Instant>,
}

impl Escape {
    fn completed_by(&mut self, bytes: &[u8], now: Instant) -> bool {
        for byte in bytes {
            if *byte != ESCAPE {
                self.presses = 0;
                continue;
            }
            if self.presses == 0 || self.first.is_none_or(|first| now.duration_since(first) > ESCAPE_WITHIN) {
                self.presses = 0;
                self.first = Some(now);
            }
            self.presses += 1;
            if self.presses == 3 {
                return true;
            }
        }
        false
    }
}

/// Raw mode of standard input, until dropped; a panic ends it too.
#[derive(Debug)]
pub(crate) struct RawMode(());

static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

impl RawMode {
    fn enter() -> Result<Self, CliError> {
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                leave_raw_mode();
                hook(info);
            }));
        });
        let before = tty::make_raw(io::stdin()).map_err(|e| CliError::io("switch the terminal to raw mode", e))?;
        *BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before);
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        leave_raw_mode();
    }
}

fn leave_raw_mode() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        // A terminal that is gone needs no settings.
        drop(tty::restore(io::stdin(), &before));
    }
}

const ESCAPE: u8 = 0x1d;
const ESCAPE_WITHIN: Duration = Duration::from_secs(1);
const END_OF_TRANSMISSION: u8 = 0x04;
const LAST_OUTPUT: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_presses_within_a_second_detach() {
        let start = Instant::now();
        let mut escape = Escape::default();
        assert!(!escape.completed_by(&[ESCAPE], start));
        assert!(!escape.completed_by(&[ESCAPE], start + Duration::from_millis(300)));
        assert!(escape.completed_by(&[ESCAPE], start + Duration::from_millis(600)));
    }

    #[test]
    fn other_keys_and_slow_presses_do_not() {
        let start = Instant::now();
        let mut escape = Escape::default();
        assert!(!escape.completed_by(&[ESCAPE, ESCAPE, b'a', ESCAPE], start));
        assert!(!escape.completed_by(&[ESCAPE], start + Duration::from_millis(100)));
        assert!(!escape.completed_by(&[ESCAPE], start + Duration::from_secs(2)));
        assert!(!escape.completed_by(&[ESCAPE], start + Duration::from_secs(2)));
        assert!(escape.completed_by(&[ESCAPE], start + Duration::from_secs(2)));
    }
}
