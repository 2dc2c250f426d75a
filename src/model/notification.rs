//! What a payload says about itself (sd_notify(3)).

use super::Usec;

/// The part of a message that concerns others than the service manager's own books.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notification {
    lines: Vec<String>,
}

/// What may be passed on. Not what a container could mislead a service manager with: its main process, its descriptors, who else
/// may speak for it.
const KNOWN: [&str; 9] = [
    "READY",
    "STATUS",
    "STOPPING",
    "RELOADING",
    "MONOTONIC_USEC",
    "WATCHDOG",
    "EXTEND_TIMEOUT_USEC",
    "ERRNO",
    "EXIT_STATUS",
];

/// Longest in bytes, well below a packet to the caller.
const MAX: usize = 1024;

impl Notification {
    /// Reads a message: lines of `NAME=VALUE`. What is not known is left out, and what is not printable is a question mark.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut room = MAX;
        let known = |line: &&str| line.split_once('=').is_some_and(|(name, _)| KNOWN.contains(&name));
        let plain = |line: &str| line.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let fits = |line: &String| match room.checked_sub(line.len() + 1) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        Self { lines: text.lines().filter(known).map(plain).filter(fits).collect() }
    }

    /// The message again; empty when nothing of it is left.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Whether it counts as started.
    pub fn is_ready(&self) -> bool {
        self.value("READY") == Some("1")
    }

    /// How it is, in its own words.
    pub fn status(&self) -> Option<&str> {
        self.value("STATUS")
    }

    /// How much longer it may take, in µs from now (`EXTEND_TIMEOUT_USEC=`).
    pub fn more_time(&self) -> Option<Usec> {
        self.value("EXTEND_TIMEOUT_USEC")?.parse().ok()
    }

    /// Whether all it says is that it lives.
    pub fn is_pulse(&self) -> bool {
        self.lines.iter().all(|line| line.starts_with("WATCHDOG="))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().rev().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name)).map(|pair| pair.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_others_is_kept() {
        let message =
            Notification::parse(b"READY=1\nMAINPID=1\nFDSTORE=1\nNOTIFYACCESS=all\nSTATUS=a \x1b[1m line\nnonsense");
        assert_eq!(message.text(), "READY=1\nSTATUS=a ?[1m line");
        assert!(message.is_ready() && !message.is_pulse());
        assert_eq!(message.status(), Some("a ?[1m line"));
        assert_eq!(Notification::parse(b"EXTEND_TIMEOUT_USEC=5000000").more_time(), Some(5_000_000));
        assert_eq!(Notification::parse(b"EXTEND_TIMEOUT_USEC=-1").more_time(), None);
        assert_eq!(Notification::parse(b"MAINPID=1").text(), "");
        assert!(!Notification::parse(b"READY=0").is_ready());
    }

    #[test]
    fn a_pulse_says_nothing_else() {
        assert!(Notification::parse(b"WATCHDOG=1").is_pulse());
        assert!(!Notification::parse(b"WATCHDOG=1\nSTATUS=x").is_pulse());
    }

    #[test]
    fn a_long_line_is_left_out_and_the_others_are_not() {
        let long = format!("STATUS={}\nREADY=1", "x".repeat(4000));
        assert_eq!(Notification::parse(long.as_bytes()).text(), "READY=1");
        assert_eq!(Notification::parse(b"\xff\xfe=\nSTATUS=\xff").text(), "STATUS=\u{fffd}");
    }
}
