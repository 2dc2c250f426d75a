//! How a run ended.

use serde::{Deserialize, Serialize};

use super::Usec;

/// How a process ended, from its wait status (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It called exit with this status (0 to 255).
    Code(u8),
    /// It was ended by this signal.
    Signal {
        /// The signal's number.
        number: u8,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

impl Exit {
    /// Reads a wait status as wait(2) describes it. `None` for a status that is not an end.
    pub fn from_wait_status(status: i32) -> Option<Self> {
        let low = u8::try_from(status & 0x7f).ok()?;
        let code = u8::try_from((status >> 8) & 0xff).ok()?;
        match low {
            0 => Some(Self::Code(code)),
            0x7f => None,
            number => Some(Self::Signal { number, core_dumped: status & 0x80 != 0 }),
        }
    }

    /// The exit status other container tools show: the code, or 128 plus the signal's number.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal { number, .. } => 128 + i32::from(number),
        }
    }
}

/// The last figures of a run's cgroup; a file that did not exist leaves its figure out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// CPU time in µs (cpu.stat `usage_usec`).
    pub cpu_usec: Option<u64>,
    /// Peak memory in bytes (memory.peak).
    pub memory_peak: Option<u64>,
    /// Peak number of tasks (pids.peak).
    pub tasks_peak: Option<u64>,
    /// Bytes read from block devices (io.stat `rbytes`, summed).
    pub io_read: Option<u64>,
    /// Bytes written to block devices (io.stat `wbytes`, summed).
    pub io_written: Option<u64>,
}

/// What the monitor writes when the payload has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Version of this record's format; this build writes and reads [`ExitRecord::VERSION`].
    pub version: u32,
    /// Which run ended: the number that the daemon gave it.
    pub run: u64,
    /// How the leader ended.
    pub exit: Exit,
    /// Whether the leader was the init of a system that asked to be rebooted. Absent in records of older versions.
    #[serde(default)]
    pub reboot: bool,
    /// When, µs since the epoch.
    pub exited_usec: Usec,
    /// Processes killed by the kernel for lack of memory during this run (memory.events `oom_kill`).
    pub oom_kills: u64,
    /// The cgroup's last figures.
    pub figures: Figures,
    /// What the monitor itself did towards the end, asked by systemd. Absent in records of older versions.
    #[serde(default)]
    pub stop: StopCourse,
    /// Whether it killed everything without ever having seen the leader take the stop signal. Absent in records of older
    /// versions.
    #[serde(default)]
    pub unheard: bool,
}

/// How far a stop went that a monitor was asked for by systemd, and not by holmd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopCourse {
    /// Nobody asked for one.
    #[default]
    None,
    /// It passed the stop signal on.
    Asked,
    /// The stop timeout passed after that, and it killed everything.
    Forced,
}

impl ExitRecord {
    /// The format's version.
    pub const VERSION: u32 = 1;
}

/// What the monitor tells the caller of a run or an exec over the SOCK_SEQPACKET socket that the caller passed: one
/// JSON message a packet, at most [`MonitorMessage::MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorMessage {
    /// The terminal's master comes along (SCM_RIGHTS, one descriptor).
    Terminal,
    /// The process ended; nothing follows.
    Exited {
        /// How.
        exit: Exit,
        /// Processes of the container that the kernel killed for lack of memory during the run.
        oom_kills: u64,
    },
    /// The payload said something about itself (sd_notify(3)), lines of `NAME=VALUE`. Only to a caller that asked for it.
    Notified(String),
}

impl MonitorMessage {
    /// Largest message in bytes.
    pub const MAX: usize = 4096;
}

/// The plain word for how the last run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunResult {
    /// Never run, or running.
    None,
    /// Exit status 0.
    Success,
    /// Another exit status.
    ExitCode,
    /// Ended by a signal.
    Signal,
    /// Ended by a signal that dumped core.
    CoreDump,
    /// Killed by the kernel for lack of memory.
    OomKill,
    /// Had to be killed after the stop timeout.
    Timeout,
    /// Ended unseen: nobody is left who knows how.
    Lost,
}

impl RunResult {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Success => "success",
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::CoreDump => "core-dump",
            Self::OomKill => "oom-kill",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
        }
    }

    /// The word for an end. `oom_killed`: the kernel killed at least one process for lack of memory;
    /// `forced`: the stop timeout had passed and everything was killed.
    pub fn of(exit: Exit, oom_killed: bool, forced: bool) -> Self {
        match exit {
            Exit::Signal { number: 9, .. } if forced => Self::Timeout,
            Exit::Signal { number: 9, .. } if oom_killed => Self::OomKill,
            Exit::Signal { core_dumped: true, .. } => Self::CoreDump,
            Exit::Signal { .. } => Self::Signal,
            Exit::Code(0) => Self::Success,
            Exit::Code(_) => Self::ExitCode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_read_as_wait_2_says() {
        assert_eq!(Exit::from_wait_status(42 << 8), Some(Exit::Code(42)));
        assert_eq!(Exit::from_wait_status(9), Some(Exit::Signal { number: 9, core_dumped: false }));
        assert_eq!(Exit::from_wait_status(6 | 0x80), Some(Exit::Signal { number: 6, core_dumped: true }));
        assert_eq!(Exit::from_wait_status(0x137f), None, "stopped is not ended");
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let old = r#"{"version": 1, "run": 3, "exit": {"code": 7}, "exited_usec": 5, "oom_kills": 0,
            "figures": {"cpu_usec": 1, "memory_peak": null, "tasks_peak": null, "io_read": null, "io_written": null}}"#;
        let record: ExitRecord = serde_json::from_str(old).unwrap();
        assert_eq!((record.exit, record.stop, record.reboot), (Exit::Code(7), StopCourse::None, false));
    }

    #[test]
    fn a_kill_is_named_by_its_reason() {
        let kill = Exit::Signal { number: 9, core_dumped: false };
        assert_eq!(RunResult::of(kill, false, false), RunResult::Signal);
        assert_eq!(RunResult::of(kill, true, false), RunResult::OomKill);
        assert_eq!(RunResult::of(kill, true, true), RunResult::Timeout);
        assert_eq!(RunResult::of(Exit::Code(1), true, false), RunResult::ExitCode);
    }
}
