//! The options that `run` and `create` share, and what they say on the bus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::error::CliError;
use crate::client::CreateOptions;
use crate::model::{
    BindMount, Bytes, ContainerName, HealthAction, ImageName, LogRate, Ready, RestartWhen, Signal, SignalError, Usec,
};

/// What defines a container.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// The container's name; one is made up when absent
    #[arg(long)]
    pub(crate) name: Option<ContainerName>,
    /// Keep standard input open and pass it on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the payload a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Show a file or directory of the host inside
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:ro]", value_parser = parse_mount)]
    volume: Vec<BindMount>,
    /// Most memory, such as 512M
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Most CPU time, in CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    cpus: Option<Usec>,
    /// Most tasks
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<u64>,
    /// Size of the root file system, such as 10G
    #[arg(long, value_name = "BYTES")]
    size: Option<Bytes>,
    /// User inside: name or number, with :GROUP if wanted
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// Host name inside; the container's name when absent
    #[arg(long)]
    hostname: Option<String>,
    /// Network
    #[arg(long, visible_alias = "net", value_enum)]
    network: Option<Network>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Let set-user-id programs gain privileges
    #[arg(long)]
    new_privileges: bool,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Run a small init as process 1
    #[arg(long, overrides_with = "no_init")]
    init: bool,
    /// Run the command as process 1
    #[arg(long, overrides_with = "init")]
    no_init: bool,
    /// Whether the payload is the init of a whole system
    #[arg(long, value_enum, value_name = "WHEN")]
    systemd: Option<Systemd>,
    /// How long a stop may take before everything is killed
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    stop_timeout: Option<Usec>,
    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    stop_signal: Option<Signal>,
    /// How many lines of its output the journal takes, such as 1000/30: in seconds; none for any number
    #[arg(long, value_name = "LINES/SECONDS", value_parser = parse_log_rate)]
    log_rate_limit: Option<LogRate>,
    /// When it counts as started: exec (its program runs), notify (it says so) or healthy (its check passes)
    #[arg(long, value_name = "WHEN")]
    ready: Option<Ready>,
    /// How long that may take before it is stopped; 0 for ever
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    start_timeout: Option<Usec>,
    /// A command inside that tells by its status whether all is well: a line for a shell, or a JSON array of words
    #[arg(long, value_name = "COMMAND", value_parser = parse_health_command)]
    health_cmd: Option<HealthCommand>,
    /// The time from one check to the next
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    health_interval: Option<Usec>,
    /// How long one may take
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    health_timeout: Option<Usec>,
    /// How many in a row must fail
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// For how long after the start failures do not count
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    health_start_period: Option<Usec>,
    /// What to do when it is unhealthy: none, kill, restart or stop
    #[arg(long, value_name = "ACTION")]
    health_on_failure: Option<HealthAction>,
    /// No check, whatever the image says
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
    /// Start it again after which ends: no, on-success, on-failure, on-abnormal, on-abort or always; with a number, at most
    /// so often
    #[arg(long, value_name = "WHEN[:NUMBER]", value_parser = parse_restart)]
    restart: Option<Restart>,
    /// The wait before the first try, which grows with each
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "restart")]
    restart_delay: Option<Usec>,
    /// The longest wait
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "restart")]
    restart_max_delay: Option<Usec>,
    /// In how many steps the wait grows; 0 for not at all
    #[arg(long, value_name = "NUMBER", requires = "restart")]
    restart_steps: Option<u32>,
    /// How many tries there are; 0 for any number
    #[arg(long, value_name = "NUMBER", requires = "restart")]
    restart_limit: Option<u32>,
    /// Count only the tries of so much time
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "restart")]
    restart_limit_interval: Option<Usec>,
    /// Run on when only the system's userspace is rebooted (systemctl soft-reboot)
    #[arg(long)]
    survive_soft_reboot: bool,
    /// A note on the container
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Replace the image's entry point: a word, or a JSON array of words; empty for none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Slice of the scope
    #[arg(long)]
    slice: Option<String>,
    /// The image, and what to run in it
    // One list, so that everything behind the image belongs to the payload, options too.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    /// Loopback only
    None,
    /// The host's
    Host,
}

/// Program and arguments.
#[derive(Debug, Clone)]
struct HealthCommand(Vec<String>);

/// `WHEN[:NUMBER]`.
#[derive(Debug, Clone, Copy)]
struct Restart {
    when: RestartWhen,
    limit: Option<u32>,
}

/// As people know it from other container tools.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Systemd {
    /// If the command names an init here, not in the image
    Auto,
    /// Yes
    Always,
    /// No
    Never,
}

impl ContainerArgs {
    /// Whether the container goes when it has ended.
    pub(crate) fn auto_remove(&self) -> bool {
        self.rm
    }

    /// Whether the program, and with it what it is, is left to the image.
    pub(crate) fn leaves_program(&self) -> bool {
        let auto = matches!(self.systemd, None | Some(Systemd::Auto));
        self.words.len() == 1 && self.entrypoint.is_none() && !self.init && auto
    }

    /// Whether its start is done once its program runs.
    pub(crate) fn is_ready_at_exec(&self) -> bool {
        matches!(self.ready, None | Some(Ready::Exec))
    }

    /// The name as it is passed: empty asks for a generated one.
    pub(crate) fn bus_name(&self) -> &str {
        self.name.as_ref().map_or("", ContainerName::as_str)
    }

    /// The image's name.
    pub(crate) fn image(&self) -> Result<ImageName, CliError> {
        Ok(ImageName::parse(&self.words[0])?)
    }

    /// What they say. `variable` looks up our own environment.
    pub(crate) fn options(self, variable: impl Fn(&str) -> Option<String>) -> Result<CreateOptions, CliError> {
        let mut words = self.words.into_iter();
        words.next();
        Ok(CreateOptions {
            command: words.collect(),
            entrypoint: self.entrypoint.as_deref().map(parse_entrypoint).transpose()?,
            environment: environment(&self.env_file, &self.env, self.tty, variable)?,
            working_directory: self.workdir,
            user: self.user,
            hostname: self.hostname,
            terminal: self.tty,
            init: if self.init { Some(true) } else { self.no_init.then_some(false) },
            boot: self.systemd.map(|systemd| match systemd {
                Systemd::Auto => "auto".into(),
                Systemd::Always => "yes".into(),
                Systemd::Never => "no".into(),
            }),
            network: self.network.map(|network| match network {
                Network::None => "none".into(),
                Network::Host => "host".into(),
            }),
            read_only: self.read_only,
            mounts: self.volume,
            memory: self.memory,
            tasks: self.pids_limit,
            cpu_usec_per_sec: self.cpus,
            size: self.size,
            slice: self.slice,
            stop_signal: self.stop_signal,
            stop_timeout_usec: self.stop_timeout,
            auto_remove: self.rm,
            log_rate: self.log_rate_limit.map(|rate| (rate.burst, rate.interval_usec)),
            ready: self.ready.map(|ready| ready.as_str().to_owned()),
            start_timeout_usec: self.start_timeout,
            health_command: if self.no_healthcheck {
                Some(Vec::new())
            } else {
                self.health_cmd.map(|command| command.0)
            },
            health_interval_usec: self.health_interval,
            health_timeout_usec: self.health_timeout,
            health_retries: self.health_retries,
            health_start_period_usec: self.health_start_period,
            health_action: self.health_on_failure.map(|action| action.as_str().to_owned()),
            restart: self.restart.as_ref().map(|restart| restart.when.as_str().to_owned()),
            restart_usec: self.restart_delay,
            restart_steps: self.restart_steps,
            restart_max_delay_usec: self.restart_max_delay,
            restart_limit: self.restart_limit.or(self.restart.and_then(|restart| restart.limit)),
            restart_limit_interval_usec: self.restart_limit_interval,
            survive_soft_reboot: self.survive_soft_reboot,
            labels: labels(&self.label),
            cap_add: capabilities(&self.cap_add),
            cap_drop: capabilities(&self.cap_drop),
            no_new_privileges: self.new_privileges.then_some(false),
        })
    }
}

/// `NAME=VALUE` entries: files first, then single ones, then our TERM for a terminal unless something set it.
pub(crate) fn environment(
    files: &[PathBuf],
    entries: &[String],
    terminal: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, CliError> {
    let mut words = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|source| CliError::io(format!("read the variables in {}", file.display()), source))?;
        words.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
    }
    words.extend(entries.iter().cloned());
    let mut result = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("", _)) => return Err(CliError::Usage(format!("'{word}' is not NAME=VALUE"))),
            Some(_) => result.push(word),
            None => result.extend(variable(&word).map(|value| format!("{word}={value}"))),
        }
    }
    if terminal && !result.iter().any(|entry| entry.starts_with("TERM=")) {
        result.extend(variable("TERM").map(|term| format!("TERM={term}")));
    }
    Ok(result)
}

fn labels(words: &[String]) -> BTreeMap<String, String> {
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), value.to_owned())
    };
    words.iter().map(pair).collect()
}

/// Names without the prefix, upper case; several may be joined with commas.
fn capabilities(words: &[String]) -> Vec<String> {
    let name = |word: &str| {
        let upper = word.trim().to_ascii_uppercase();
        upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
    };
    words.iter().flat_map(|word| word.split(',')).map(name).filter(|name| !name.is_empty()).collect()
}

fn parse_entrypoint(text: &str) -> Result<Vec<String>, CliError> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| CliError::Usage(format!("--entrypoint is not a JSON array of strings: {error}")));
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
}

/// `SOURCE:DESTINATION[:ro|rw]`; a relative source is taken from the working directory.
fn parse_mount(text: &str) -> Result<BindMount, String> {
    let parts: Vec<_> = text.split(':').collect();
    let (source, destination, read_only) = match parts[..] {
        [source, destination] | [source, destination, "rw"] => (source, destination, false),
        [source, destination, "ro"] => (source, destination, true),
        _ => return Err("write SOURCE:DESTINATION or SOURCE:DESTINATION:ro".into()),
    };
    if !destination.starts_with('/') {
        return Err(format!("the destination '{destination}' must be an absolute path"));
    }
    if source.is_empty() {
        return Err("the source is empty".into());
    }
    // Other tools take a bare word for the name of a volume, which would quietly be another thing here.
    if !source.contains('/') && !matches!(source, "." | "..") {
        return Err(format!("named volumes do not exist: for the directory '{source}' write './{source}'"));
    }
    let source = std::path::absolute(Path::new(source)).map_err(|error| error.to_string())?;
    let source = source.into_os_string().into_string().map_err(|_| "the source is not UTF-8")?;
    Ok(BindMount { source, destination: destination.to_owned(), read_only })
}

/// `LINES/SECONDS`, or `none`.
fn parse_log_rate(text: &str) -> Result<LogRate, String> {
    if text == "none" {
        return Ok(LogRate { interval_usec: 0, burst: 0 });
    }
    let error = || "write LINES/SECONDS, such as 1000/30, or none".to_owned();
    let (lines, seconds) = text.split_once('/').ok_or_else(error)?;
    let burst = lines.parse().ok().filter(|lines| *lines > 0).ok_or_else(error)?;
    let interval_usec = parse_seconds(seconds).ok().filter(|usec| *usec > 0).ok_or_else(error)?;
    Ok(LogRate { interval_usec, burst })
}

/// `none` is none, as people know it from elsewhere; a line that begins with a bracket is an array.
fn parse_health_command(text: &str) -> Result<HealthCommand, String> {
    match text.trim_start() {
        "" => Err("the command is empty: for no check say --no-healthcheck".into()),
        "none" => Ok(HealthCommand(Vec::new())),
        array if array.starts_with('[') => serde_json::from_str(array)
            .map(HealthCommand)
            .map_err(|error| format!("this is not a JSON array of strings: {error}")),
        _ => Ok(HealthCommand(["/bin/sh", "-c", text].map(str::to_owned).to_vec())),
    }
}

/// A word of systemd's, or one that people know from elsewhere and that means the same here.
fn parse_restart(text: &str) -> Result<Restart, String> {
    let (word, limit) = match text.split_once(':') {
        Some((word, limit)) => {
            let number = limit.parse().map_err(|_| format!("'{limit}' is not a number of tries"))?;
            (word, Some(number))
        }
        None => (text, None),
    };
    let when = if word == "unless-stopped" { RestartWhen::Always } else { word.parse()? };
    Ok(Restart { when, limit })
}

/// CPUs as µs of CPU time per second of wall-clock time.
pub(crate) fn parse_cpus(text: &str) -> Result<Usec, String> {
    match parse_seconds(text) {
        Ok(0) | Err(_) => Err("write a number of CPUs above 0, such as 1.5".into()),
        cpus => cpus,
    }
}

/// Seconds with up to six decimals, as µs.
pub(crate) fn parse_seconds(text: &str) -> Result<Usec, String> {
    let error = || "write a number of seconds, such as 10 or 0.5".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return Err(error());
    }
    let whole: u64 = whole.parse().map_err(|_| error())?;
    let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| error())?;
    whole.checked_mul(1_000_000).and_then(|usec| usec.checked_add(fraction)).ok_or_else(error)
}

/// A signal by name or number.
pub(crate) fn parse_signal(text: &str) -> Result<Signal, SignalError> {
    text.parse()
}

#[cfg(test)]
#[path = "container_args_tests.rs"]
mod tests;
