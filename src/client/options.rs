//! What may be asked, as the `a{sv}` that goes over the bus. The keys are those of `docs/dbus.md`.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use zbus::{Fd, Variant};

use crate::model::{BindMount, Bytes, IoMax, Limits, Signal, Usec, Weight};

/// Options as they are passed. What is absent is not in it: the image and the daemon's configuration decide.
pub type Options = HashMap<&'static str, Variant<'static>>;

/// A container to define; `None` and empty values are not sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateOptions {
    /// Arguments, or the command when the image has no entry point.
    pub command: Vec<String>,
    /// Replaces the image's entry point; an empty one removes it.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=VALUE` entries.
    pub environment: Vec<String>,
    /// Working directory.
    pub working_directory: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Whether the payload gets a terminal.
    pub terminal: bool,
    /// Whether a small init is PID 1.
    pub init: Option<bool>,
    /// `auto`, `yes` or `no`: whether the payload is the init of a whole system.
    pub boot: Option<String>,
    /// `none` or `host`.
    pub network: Option<String>,
    /// Read-only root.
    pub read_only: bool,
    /// Host paths seen inside.
    pub mounts: Vec<BindMount>,
    /// Limits.
    pub limits: Limits,
    /// Size of the root.
    pub size: Option<Bytes>,
    /// Slice of the scope.
    pub slice: Option<String>,
    /// The signal that asks it to end.
    pub stop_signal: Option<Signal>,
    /// How long that may take.
    pub stop_timeout_usec: Option<Usec>,
    /// Whether it is removed after its run.
    pub auto_remove: bool,
    /// How many lines the journal takes, and within which time; 0 and 0 for any number.
    pub log_rate: Option<(u32, Usec)>,
    /// When it counts as started.
    pub ready: Option<String>,
    /// How long that may take; 0 for ever.
    pub start_timeout_usec: Option<Usec>,
    /// The command that checks its health; an empty one is none, whatever the image says.
    pub health_command: Option<Vec<String>>,
    /// The time from one check to the next.
    pub health_interval_usec: Option<Usec>,
    /// How long one may take.
    pub health_timeout_usec: Option<Usec>,
    /// How many in a row must fail.
    pub health_retries: Option<u32>,
    /// For how long failures do not count.
    pub health_start_period_usec: Option<Usec>,
    /// What is done with one that is unhealthy.
    pub health_action: Option<String>,
    /// After which ends it is started again.
    pub restart: Option<String>,
    /// The wait before the first try.
    pub restart_usec: Option<Usec>,
    /// In how many steps it grows.
    pub restart_steps: Option<u32>,
    /// To how much.
    pub restart_max_delay_usec: Option<Usec>,
    /// How many tries there are.
    pub restart_limit: Option<u32>,
    /// Within which time.
    pub restart_limit_interval_usec: Option<Usec>,
    /// Whether it runs on over a soft-reboot.
    pub survive_soft_reboot: bool,
    /// Notes.
    pub labels: BTreeMap<String, String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// `false` lets set-user-id programs gain privileges.
    pub no_new_privileges: Option<bool>,
}

impl CreateOptions {
    /// The dictionary.
    pub fn into_dict(self) -> Options {
        let mut dict = Dict::default();
        dict.list("Command", self.command);
        dict.some("Entrypoint", self.entrypoint);
        dict.list("Environment", self.environment);
        dict.some("WorkingDirectory", self.working_directory);
        dict.some("User", self.user);
        dict.some("Hostname", self.hostname);
        dict.flag("Terminal", self.terminal);
        dict.some("Init", self.init);
        dict.some("Boot", self.boot);
        dict.some("Network", self.network);
        dict.flag("ReadOnly", self.read_only);
        dict.list("BindMounts", self.mounts.into_iter().map(|m| (m.source, m.destination, m.read_only)).collect());
        dict.limits(self.limits);
        dict.some("Size", self.size.map(|bytes| bytes.0));
        dict.some("Slice", self.slice);
        dict.some("StopSignal", self.stop_signal.map(Signal::number));
        dict.some("StopTimeoutUSec", self.stop_timeout_usec);
        dict.flag("AutoRemove", self.auto_remove);
        dict.some("LogRateLimitBurst", self.log_rate.map(|(burst, _)| burst));
        dict.some("LogRateLimitIntervalUSec", self.log_rate.map(|(_, interval)| interval));
        dict.some("Ready", self.ready);
        dict.some("StartTimeoutUSec", self.start_timeout_usec);
        dict.some("HealthCommand", self.health_command);
        dict.some("HealthIntervalUSec", self.health_interval_usec);
        dict.some("HealthTimeoutUSec", self.health_timeout_usec);
        dict.some("HealthRetries", self.health_retries);
        dict.some("HealthStartPeriodUSec", self.health_start_period_usec);
        dict.some("HealthAction", self.health_action);
        dict.some("Restart", self.restart);
        dict.some("RestartUSec", self.restart_usec);
        dict.some("RestartSteps", self.restart_steps);
        dict.some("RestartMaxDelayUSec", self.restart_max_delay_usec);
        dict.some("RestartLimit", self.restart_limit);
        dict.some("RestartLimitIntervalUSec", self.restart_limit_interval_usec);
        dict.flag("SurviveSoftReboot", self.survive_soft_reboot);
        dict.some("Labels", Some(self.labels).filter(|labels| !labels.is_empty()));
        dict.list("CapabilitiesAdd", self.cap_add);
        dict.list("CapabilitiesDrop", self.cap_drop);
        dict.some("NoNewPrivileges", self.no_new_privileges);
        dict.0
    }
}

/// Limits to set, each as systemd has it; what is absent is not sent.
pub fn limits(limits: Limits) -> Options {
    let mut dict = Dict::default();
    dict.limits(limits);
    dict.0
}

/// A process to run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// `NAME=VALUE` entries.
    pub environment: Vec<String>,
    /// Working directory; the container's when absent.
    pub working_directory: Option<String>,
    /// User; the container's when absent.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether it lives on when the caller is gone.
    pub detach: bool,
}

impl ExecOptions {
    /// The dictionary.
    pub fn into_dict(self) -> Options {
        let mut dict = Dict::default();
        dict.list("Environment", self.environment);
        dict.some("WorkingDirectory", self.working_directory);
        dict.some("User", self.user);
        dict.flag("Terminal", self.terminal);
        dict.flag("Detach", self.detach);
        dict.0
    }
}

/// Where one run's input and output go, and who is told of its end.
#[derive(Debug, Default)]
pub struct Io {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
    /// Their side of a [`Monitor`](super::Monitor).
    pub monitor: Option<OwnedFd>,
    /// Rows and columns of the terminal.
    pub terminal_size: Option<(u16, u16)>,
    /// The unit on whose behalf it runs; empty: none, whatever the caller belongs to. Only for a run.
    pub wanted_by: Option<String>,
    /// Whether the monitor passes on what the payload says about itself. Only for a run.
    pub notify: bool,
    /// Descriptors for the payload, with their names. Only for a run.
    pub passed: Vec<(String, OwnedFd)>,
    /// Credentials: names, and what they are read from. Only for a run.
    pub credentials: Vec<(String, OwnedFd)>,
}

impl Io {
    /// Adds itself to a request. The descriptors are closed here when the dictionary is dropped.
    pub fn add_to(self, options: &mut Options) {
        let descriptors = [
            ("StandardInput", self.stdin),
            ("StandardOutput", self.stdout),
            ("StandardError", self.stderr),
            ("Monitor", self.monitor),
        ];
        for (key, fd) in descriptors {
            if let Some(fd) = fd {
                options.insert(key, Variant::Fd(Fd::from(fd)));
            }
        }
        if let Some(size) = self.terminal_size {
            options.insert("TerminalSize", Variant::from(size));
        }
        if let Some(unit) = self.wanted_by {
            options.insert("WantedBy", Variant::from(unit));
        }
        if self.notify {
            options.insert("Notify", Variant::from(true));
        }
        for (key, fds) in [("Fds", self.passed), ("Credentials", self.credentials)] {
            if !fds.is_empty() {
                let fds: Vec<_> = fds.into_iter().map(|(name, fd)| (name, Fd::from(fd))).collect();
                options.insert(key, Variant::from(fds));
            }
        }
    }
}

#[derive(Default)]
struct Dict(Options);

impl Dict {
    fn some<T: Into<Variant<'static>>>(&mut self, key: &'static str, value: Option<T>) {
        if let Some(value) = value {
            self.0.insert(key, value.into());
        }
    }

    fn limits(&mut self, limits: Limits) {
        self.some("MemoryMax", limits.memory.map(|bytes| bytes.0));
        self.some("TasksMax", limits.pids);
        self.some("CPUQuotaPerSecUSec", limits.cpu_usec_per_sec);
        self.some("MemoryHigh", limits.memory_high.map(|bytes| bytes.0));
        self.some("MemorySwapMax", limits.memory_swap.map(|bytes| bytes.0));
        self.some("CPUWeight", limits.cpu_weight.map(Weight::number));
        self.some("AllowedCPUs", limits.allowed_cpus.map(|cpus| cpus.to_mask()));
        self.some("IOWeight", limits.io_weight.map(Weight::number));
        let devices = |list: Vec<IoMax>| -> Vec<(String, u64)> {
            list.into_iter().map(|max| (max.device.unwrap_or_default(), max.per_sec)).collect()
        };
        self.some("IOReadBandwidthMax", limits.io_read_bandwidth.map(devices));
        self.some("IOWriteBandwidthMax", limits.io_write_bandwidth.map(devices));
        self.some("IOReadIOPSMax", limits.io_read_iops.map(devices));
        self.some("IOWriteIOPSMax", limits.io_write_iops.map(devices));
    }

    fn list<T>(&mut self, key: &'static str, values: Vec<T>)
    where
        Vec<T>: Into<Variant<'static>>,
    {
        self.some(key, Some(values).filter(|values| !values.is_empty()));
    }

    fn flag(&mut self, key: &'static str, value: bool) {
        self.some(key, value.then_some(true));
    }
}
