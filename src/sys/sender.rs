//! Who sent a signal (sigaction(2), `SA_SIGINFO`): what signalled processes hear from tokio tells only that it came.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// Of the last SIGTERM; 0 before the first.
static SENDER: AtomicI32 = AtomicI32::new(0);

/// Begins to note who sends SIGTERM. Whoever is told of the signal by a handler installed later, as all of tokio's are,
/// finds its sender noted already.
pub fn note_senders_of_term() -> io::Result<()> {
    let note = |info: &libc::siginfo_t| {
        // SAFETY: SIGTERM comes from kill(2), sigqueue(3) or pidfd_send_signal(2) of a process, or from the kernel: the
        // field is set for all of them (0 for the kernel).
        SENDER.store(unsafe { info.si_pid() }, Ordering::Release);
    };
    // SAFETY: the action does nothing but an atomic store, which is async-signal-safe (signal-safety(7)).
    unsafe { signal_hook_registry::register_sigaction(libc::SIGTERM, note) }?;
    Ok(())
}

/// The process that sent the last SIGTERM, by its id in our PID namespace; `None` before the first, and for one from
/// the kernel or from outside the namespace. The process may be gone.
pub fn sender_of_last_term() -> Option<u32> {
    u32::try_from(SENDER.load(Ordering::Acquire)).ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_noted_before_tokio_hears_of_the_signal() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            note_senders_of_term().unwrap();
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            let own = std::process::id();
            let mut sender = std::process::Command::new("sh").args(["-c", &format!("kill {own}")]).spawn().unwrap();
            term.recv().await;
            assert_eq!(sender_of_last_term(), Some(sender.id()));
            sender.wait().unwrap();
        });
    }
}
