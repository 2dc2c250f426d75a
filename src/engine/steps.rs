//! How long the steps of an operation took: what `benches/run` makes its table of.
//!
//! One debug line for each operation, and none while it is under way: a line costs the journal more than most steps
//! take.

use std::fmt;
use std::time::Instant;

use tracing::debug;

use crate::model::{ContainerName, Usec, now_usec};

/// The steps of one operation, in order.
#[derive(Debug)]
pub(super) struct Steps {
    began_usec: Usec,
    last: Instant,
    laps: Vec<(String, u64)>,
}

impl Steps {
    /// The operation begins.
    pub(super) fn begin() -> Self {
        Self { began_usec: now_usec(), last: Instant::now(), laps: Vec::with_capacity(8) }
    }

    /// A step is done.
    pub(super) fn lap(&mut self, name: &str) {
        self.laps.push((name.to_owned(), usec(self.last)));
        self.last = Instant::now();
    }

    /// Steps that were measured elsewhere, and are part of the next lap.
    pub(super) fn inside(&mut self, prefix: &str, steps: &[(String, u64)]) {
        self.laps.extend(steps.iter().map(|(name, usec)| (format!("{prefix}.{name}"), *usec)));
    }

    /// The laps so far, as part of somebody else's.
    pub(super) fn into_laps(self) -> Vec<(String, u64)> {
        self.laps
    }

    /// The operation is over. The line's fields: `OP`, `CONTAINER`, `BEGAN_USEC` and `ENDED_USEC` (µs since the epoch)
    /// and `STEPS` (`Name=µs`, parted by blanks; those with a dot are part of the next one without).
    pub(super) fn finish(self, op: &str, container: &ContainerName) {
        let (began_usec, ended_usec) = (self.began_usec, now_usec());
        debug!(op, %container, began_usec, ended_usec, steps = %self, "the steps of {op}");
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, usec)) in self.laps.iter().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            write!(f, "{blank}{name}={usec}")?;
        }
        Ok(())
    }
}

fn usec(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_words_that_a_script_can_split() {
        let mut steps = Steps::begin();
        steps.inside("Scope", &[("Spawn".to_owned(), 12), ("Job".to_owned(), 7)]);
        steps.lap("Prepare");
        let text = steps.to_string();
        assert!(text.starts_with("Scope.Spawn=12 Scope.Job=7 Prepare="), "{text}");
    }
}
