//! The small init that stays PID 1 above a command which is not made to be one: it reaps what is orphaned and hands on
//! signals. It has the command's own rights, nothing open but where it hears of signals, and cannot be traced.

use crate::model::Exit;
use crate::sys::process;
use crate::sys::signal::{self, SignalFd};

/// Stays until the command with this process id has ended, and ends as it did (128 plus the number after a signal); the
/// kernel then kills whatever else is left in the pid namespace. All signals are blocked, as the monitor left them.
pub(super) fn stay(command: u32) -> ! {
    // Above all the pipes of standard input and output: their readers wait for the last copy to close. What still owns a
    // descriptor here is never dropped, because this never returns.
    let _ = process::close_from(0);
    let _ = process::set_name(c"holm-init");
    let command_pid = i32::try_from(command).expect("process ids fit");
    let signals = SignalFd::all();
    let next = || signals.as_ref().ok().and_then(|signals| signals.wait().ok()).unwrap_or_else(signal::wait_any);
    loop {
        match next() {
            libc::SIGCHLD => reap(command),
            // It may have just ended; then SIGCHLD is next.
            number => drop(process::send_signal(command_pid, number)),
        }
    }
}

/// Takes every ended child; ends with the command. One SIGCHLD may stand for many.
fn reap(command: u32) {
    while let Ok(Some((pid, status))) = process::reap_any() {
        if pid == command {
            process::exit_now(exit_status(status));
        }
    }
}

/// What a shell would show.
fn exit_status(wait_status: i32) -> u8 {
    let status = Exit::from_wait_status(wait_status).map_or(255, Exit::status);
    u8::try_from(status).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_ends_as_its_command_did() {
        assert_eq!(exit_status(42 << 8), 42);
        assert_eq!(exit_status(9), 137);
        assert_eq!(exit_status(64), 192);
    }
}
