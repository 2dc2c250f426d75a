//! Checks of whether what a container does works.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Exit, Usec};

/// How a container is, by its own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nobody looks: it has no check, or does not run.
    #[default]
    None,
    /// It runs, and its check has not passed yet.
    Starting,
    /// Its check passed, and has not failed too often since.
    Healthy,
    /// Its check failed too often.
    Unhealthy,
}

impl Health {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is done with a container that is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthAction {
    /// It is only told.
    #[default]
    None,
    /// It is killed; its restart policy may start it again.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped, and rests.
    Stop,
}

impl HealthAction {
    /// Every word.
    pub const ALL: [Self; 4] = [Self::None, Self::Kill, Self::Restart, Self::Stop];

    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

impl FromStr for HealthAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            format!("'{}' is none of none, kill, restart, stop", text.chars().take(80).collect::<String>())
        })
    }
}

/// A container's check. Like the command of the same name in an image's configuration, but that it may come sooner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Program and arguments, run inside as the payload's user; status 0 is a pass.
    pub command: Vec<String>,
    /// The time from one check to the next, in µs.
    pub interval_usec: Usec,
    /// How long one may take, in µs, before it is killed and counts as failed.
    pub timeout_usec: Usec,
    /// How many in a row must fail.
    pub retries: u32,
    /// For how long after the start failures do not count, in µs.
    pub start_period_usec: Usec,
    /// What is done with one that is unhealthy.
    pub action: HealthAction,
}

impl HealthCheck {
    /// What is not said: every 30 s, for at most 30 s, three in a row, as other container tools have it.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            interval_usec: 30_000_000,
            timeout_usec: 30_000_000,
            retries: 3,
            start_period_usec: 0,
            action: HealthAction::None,
        }
    }

    /// How long one may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_usec)
    }

    /// For how long after the start failures do not count: never shorter than the interval, after which others look for the
    /// first time.
    pub fn grace(&self) -> Duration {
        Duration::from_micros(self.start_period_usec.max(self.interval_usec))
    }

    /// The wait before the next check, after this many since the start. Until it has passed once, or failures count, it is
    /// looked at often: who waits for it should not wait for the interval.
    pub fn wait(&self, settled: bool, checks: u32) -> Duration {
        let interval = Duration::from_micros(self.interval_usec);
        if settled {
            return interval;
        }
        FIRST_WAIT.saturating_mul(1 << checks.min(16)).min(interval)
    }
}

/// How long after the start the first check comes; the distance doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When it ended, µs since the epoch.
    pub at_usec: Usec,
    /// How long it took, in µs.
    pub took_usec: Usec,
    /// How it ended; absent when it was killed after its time, or could not be begun.
    pub exit: Option<Exit>,
    /// The beginning of what it wrote, or why it could not be begun.
    pub output: String,
}

impl Checked {
    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.exit == Some(Exit::Code(0))
    }
}

/// How it stands with a run's health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthState {
    /// The word for it.
    pub health: Health,
    /// How many checks in a row have failed, of those that count.
    pub failures: u32,
    /// How many there were.
    pub checks: u32,
    /// The last one.
    pub last: Option<Checked>,
}

impl HealthState {
    /// That of a run that has just begun.
    pub fn starting() -> Self {
        Self { health: Health::Starting, ..Self::default() }
    }

    /// Takes a check into account. `counts`: its failure does, because the time of grace is over.
    pub fn take(&mut self, check: &HealthCheck, checked: Checked, counts: bool) {
        self.checks = self.checks.saturating_add(1);
        if checked.passed() {
            (self.health, self.failures) = (Health::Healthy, 0);
        } else if counts || self.health != Health::Starting {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= check.retries.max(1) {
                self.health = Health::Unhealthy;
            }
        }
        self.last = Some(checked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck { retries: 2, interval_usec: 1_000_000, ..HealthCheck::new(vec!["true".into()]) }
    }

    fn checked(exit: Option<Exit>) -> Checked {
        Checked { at_usec: 1, took_usec: 1, exit, output: String::new() }
    }

    /// Passes and failures, of which those in capitals count, and what comes of them.
    #[test]
    fn a_check_that_fails_too_often_in_a_row_is_unhealthy() {
        let cases = [
            ("", Health::Starting, 0),
            ("ffff", Health::Starting, 0),
            ("F", Health::Starting, 1),
            ("FF", Health::Unhealthy, 2),
            ("p", Health::Healthy, 0),
            ("pf", Health::Healthy, 1),
            ("pff", Health::Unhealthy, 2),
            ("pffp", Health::Healthy, 0),
            ("FpF", Health::Healthy, 1),
        ];
        for (checks, health, failures) in cases {
            let mut state = HealthState::starting();
            for letter in checks.chars() {
                let exit = if letter == 'p' { Some(Exit::Code(0)) } else { None };
                state.take(&check(), checked(exit), letter == 'F');
            }
            assert_eq!((state.health, state.failures), (health, failures), "{checks}");
        }
    }

    #[test]
    fn it_is_looked_at_often_until_it_is_settled() {
        let waits: Vec<_> = (0..6).map(|checks| check().wait(false, checks).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(check().wait(true, 0), Duration::from_secs(1));
        assert_eq!(check().wait(false, u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn the_time_of_grace_is_no_shorter_than_the_interval() {
        assert_eq!(check().grace(), Duration::from_secs(1));
        assert_eq!(HealthCheck { start_period_usec: 5_000_000, ..check() }.grace(), Duration::from_secs(5));
    }
}
