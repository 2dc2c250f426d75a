//! Whether a container whose run has ended is started again, and when: in systemd's words (systemd.service(5)).

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Exit, RunResult, Usec};

/// After which ends a container is started again (`Restart=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartWhen {
    /// After none.
    #[default]
    No,
    /// After a clean one: status 0, or one of the signals HUP, INT, TERM and PIPE.
    OnSuccess,
    /// After any that is not clean.
    OnFailure,
    /// After a signal that is not clean, a timeout, a kill for lack of memory, and an end that nobody saw.
    OnAbnormal,
    /// After a signal that is not clean.
    OnAbort,
    /// After every one, and after a reboot.
    Always,
}

impl RestartWhen {
    /// Every word.
    pub const ALL: [Self; 6] =
        [Self::No, Self::OnSuccess, Self::OnFailure, Self::OnAbnormal, Self::OnAbort, Self::Always];

    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnSuccess => "on-success",
            Self::OnFailure => "on-failure",
            Self::OnAbnormal => "on-abnormal",
            Self::OnAbort => "on-abort",
            Self::Always => "always",
        }
    }

    /// Whether a run that ended so is followed by another (the table of `Restart=` in systemd.service(5)). A run that
    /// never came to be, [`RunResult::None`], is as one that ended with a status of its own.
    pub fn covers(self, result: RunResult, exit: Option<Exit>) -> bool {
        if self == Self::Always {
            return true;
        }
        let when: &[Self] = match result {
            RunResult::Success => &[Self::OnSuccess],
            RunResult::Signal if is_clean(exit) => &[Self::OnSuccess],
            RunResult::None | RunResult::ExitCode => &[Self::OnFailure],
            RunResult::Signal | RunResult::CoreDump => &[Self::OnFailure, Self::OnAbnormal, Self::OnAbort],
            RunResult::OomKill | RunResult::Timeout | RunResult::Lost => &[Self::OnFailure, Self::OnAbnormal],
        };
        when.contains(&self)
    }
}

impl FromStr for RestartWhen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|when| when.as_str() == text)
            .ok_or_else(|| format!("'{}' is none of {words}", text.chars().take(80).collect::<String>()))
    }
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which ends (`Restart=`).
    pub when: RestartWhen,
    /// The wait before the first try, in µs (`RestartSec=`).
    pub delay_usec: Usec,
    /// In how many steps the wait grows; 0 for not at all (`RestartSteps=`).
    pub steps: u32,
    /// To how much, in µs (`RestartMaxDelaySec=`).
    pub max_delay_usec: Usec,
    /// How many tries there are within the interval; 0 for any number (`StartLimitBurst=`).
    pub limit: u32,
    /// The interval in µs; [`RestartPolicy::EVER`] for all tries since a start that somebody asked for or a long run
    /// (`StartLimitIntervalSec=`).
    pub limit_interval_usec: Usec,
}

impl Default for RestartPolicy {
    /// Never; and for who only says when: a tenth of a second, which grows to a minute, for ever.
    fn default() -> Self {
        Self {
            when: RestartWhen::No,
            delay_usec: 100_000,
            steps: 10,
            max_delay_usec: 60_000_000,
            limit: 0,
            limit_interval_usec: Self::EVER,
        }
    }
}

impl RestartPolicy {
    /// An interval without an end, as systemd writes it.
    pub const EVER: Usec = Usec::MAX;

    /// The wait before the next try, after this many in a row. It grows by the same factor in each step, from the first
    /// wait to the longest, as systemd's does.
    pub fn delay(&self, tries: u32) -> Duration {
        let grows = self.steps > 0 && self.delay_usec > 0 && self.delay_usec < self.max_delay_usec;
        match tries {
            _ if !grows || self.max_delay_usec == Self::EVER => Duration::from_micros(self.delay_usec),
            tries if tries >= self.steps => Duration::from_micros(self.max_delay_usec),
            tries => self.grown(f64::from(tries) / f64::from(self.steps)),
        }
    }

    /// How long a run must last to be no try in a row with those before it.
    pub fn long_run(&self) -> Usec {
        if self.max_delay_usec == Self::EVER { self.delay_usec } else { self.max_delay_usec.max(self.delay_usec) }
    }

    fn grown(&self, part: f64) -> Duration {
        let (first, longest) = (Duration::from_micros(self.delay_usec), Duration::from_micros(self.max_delay_usec));
        first.mul_f64(longest.div_duration_f64(first).powf(part))
    }
}

/// The signals that systemd takes for a clean end of a service.
fn is_clean(exit: Option<Exit>) -> bool {
    const CLEAN: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];
    matches!(exit, Some(Exit::Signal { number, .. }) if CLEAN.contains(&i32::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table in systemd.service(5).
    #[test]
    fn every_word_covers_the_ends_that_systemd_says() {
        use RestartWhen::{Always, OnAbnormal, OnAbort, OnFailure, OnSuccess};
        let signal = |number| Some(Exit::Signal { number, core_dumped: false });
        let cases: [(RunResult, Option<Exit>, &[RestartWhen]); 9] = [
            (RunResult::Success, Some(Exit::Code(0)), &[OnSuccess, Always]),
            (RunResult::Signal, signal(15), &[OnSuccess, Always]),
            (RunResult::ExitCode, Some(Exit::Code(1)), &[OnFailure, Always]),
            (RunResult::None, None, &[OnFailure, Always]),
            (RunResult::Signal, signal(9), &[OnFailure, OnAbnormal, OnAbort, Always]),
            (RunResult::CoreDump, signal(6), &[OnFailure, OnAbnormal, OnAbort, Always]),
            (RunResult::Timeout, signal(9), &[OnFailure, OnAbnormal, Always]),
            (RunResult::OomKill, signal(9), &[OnFailure, OnAbnormal, Always]),
            (RunResult::Lost, None, &[OnFailure, OnAbnormal, Always]),
        ];
        for (result, exit, expected) in cases {
            let covering: Vec<_> = RestartWhen::ALL.into_iter().filter(|when| when.covers(result, exit)).collect();
            assert_eq!(covering, expected, "{result:?} {exit:?}");
        }
    }

    #[test]
    fn every_word_is_read_back() {
        for when in RestartWhen::ALL {
            assert_eq!(when.as_str().parse(), Ok(when));
        }
        assert!("sometimes".parse::<RestartWhen>().unwrap_err().contains("on-failure"));
    }

    #[test]
    fn the_wait_grows_by_the_same_factor_to_the_longest() {
        let policy = RestartPolicy { delay_usec: 1_000, steps: 3, max_delay_usec: 1_000_000, ..Default::default() };
        let waits: Vec<_> = (0..5).map(|tries| policy.delay(tries).as_micros()).collect();
        assert_eq!(waits[0], 1_000);
        assert!(waits[1].abs_diff(10_000) <= 1 && waits[2].abs_diff(100_000) <= 1, "{waits:?}");
        assert_eq!(waits[3..], [1_000_000, 1_000_000]);
    }

    #[test]
    fn a_wait_that_cannot_grow_stays() {
        let same = |policy: RestartPolicy| assert_eq!(policy.delay(7), policy.delay(0));
        same(RestartPolicy { steps: 0, ..Default::default() });
        same(RestartPolicy { delay_usec: 0, ..Default::default() });
        same(RestartPolicy { delay_usec: 120_000_000, ..Default::default() });
        same(RestartPolicy { max_delay_usec: RestartPolicy::EVER, ..Default::default() });
    }
}
