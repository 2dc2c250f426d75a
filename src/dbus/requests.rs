//! Dictionaries of options → requests of the engine. The table of keys is in `docs/dbus.md`.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use zbus::Fd;

use super::error::{Error, Result};
use super::options::{Dictionary, Options};
use crate::engine::{
    CloneRequest, CreateRequest, ExecRequest, HealthRequest, Passed, RemoveOptions, ResourceRequest, RunIo,
    StopOptions, WantedBy, Who,
};
use crate::model::{
    BindMount, Boot, Bytes, Capabilities, ContainerName, ImageName, Lifetime, Limits, LogRate, NetworkMode,
    RestartPolicy, Signal, SnapshotName,
};

/// Most bytes of command line and environment together. The kernel takes a quarter of the stack limit (execve(2)), 2 MiB
/// by default, and needs room for pointers.
const MAX_WORDS: usize = 1 << 20;

/// The arguments of `CreateContainer`.
pub(super) fn create(name: &str, image: &str, options: Dictionary) -> Result<CreateRequest> {
    let mut options = Options::new(options);
    let request = create_from(name, image, &mut options)?;
    options.finish()?;
    Ok(request)
}

/// The arguments of `RunContainer`.
pub(super) fn run(name: &str, image: &str, options: Dictionary) -> Result<(CreateRequest, Start)> {
    let mut options = Options::new(options);
    let request = create_from(name, image, &mut options)?;
    let start = start_from(&mut options)?;
    options.finish()?;
    Ok((request, start))
}

/// What belongs to one run of a container.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) io: RunIo,
    /// Whether it is on behalf of the caller's service, if the caller is one's: unless it was said, or nobody follows the run.
    pub(super) for_caller: bool,
}

/// The options of `Start`.
pub(super) fn start(options: Dictionary) -> Result<Start> {
    let mut options = Options::new(options);
    let start = start_from(&mut options)?;
    options.finish()?;
    Ok(start)
}

/// The options of `Stop` and `Restart`.
pub(super) fn stop(options: Dictionary) -> Result<StopOptions> {
    let mut options = Options::new(options);
    let signal = options.parse("Signal", Signal::from_number)?;
    let timeout_usec = options.take::<u64>("TimeoutUSec")?;
    options.finish()?;
    Ok(StopOptions { signal, timeout_usec })
}

/// The options of `Remove`.
pub(super) fn remove(options: Dictionary) -> Result<RemoveOptions> {
    let mut options = Options::new(options);
    let force = options.flag("Force")?;
    options.finish()?;
    Ok(RemoveOptions { force })
}

/// The options of `SetResources`.
pub(super) fn resources(options: Dictionary) -> Result<ResourceRequest> {
    let mut options = Options::new(options);
    let request = ResourceRequest { limits: limits(&mut options)?, size: options.parse("Size", positive)?.map(Bytes) };
    options.finish()?;
    Ok(request)
}

/// The arguments of `Clone`.
pub(super) fn clone(name: &str, options: Dictionary) -> Result<CloneRequest> {
    let mut options = Options::new(options);
    let request = CloneRequest {
        name: if name.is_empty() { None } else { Some(ContainerName::parse(name)?) },
        snapshot: options.parse("Snapshot", |text: String| SnapshotName::parse(&text))?,
    };
    options.finish()?;
    Ok(request)
}

/// An `Exec`, parsed.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) request: ExecRequest,
    /// Whether the process outlives its caller.
    pub(super) detach: bool,
}

/// The arguments of `Exec`. The owner is not filled in.
pub(super) fn exec(command: Vec<String>, options: Dictionary) -> Result<Exec> {
    let mut options = Options::new(options);
    let request = ExecRequest {
        command: command_line(command)?,
        environment: environment(options.take("Environment")?.unwrap_or_default())?,
        working_directory: options.parse("WorkingDirectory", absolute)?,
        user: options.parse("User", user)?,
        terminal: options.flag("Terminal")?,
        io: io_from(&mut options)?,
        owner: None,
    };
    let detach = options.flag("Detach")?;
    options.finish()?;
    bounded(request.command.iter().chain(&request.environment))?;
    Ok(Exec { request, detach })
}

/// The arguments of `OpenShell`. The owner is not filled in.
pub(super) fn shell(name: &str, path: &str, args: Vec<String>, env: Vec<String>) -> Result<ExecRequest> {
    let argument = |error| Error::invalid(format!("user: {error}"));
    let request = ExecRequest {
        command: shell_command(path, args)?,
        environment: environment(env)?,
        user: if name.is_empty() { None } else { Some(user(name.to_owned()).map_err(argument)?) },
        terminal: true,
        ..ExecRequest::default()
    };
    bounded(request.command.iter().chain(&request.environment))?;
    Ok(request)
}

/// As machine1's OpenMachineShell takes it: `args` begins with the program's own name, which is not used here.
fn shell_command(path: &str, args: Vec<String>) -> Result<Vec<String>> {
    match (path, args.as_slice()) {
        ("", []) => Ok(["/bin/sh", "-c", LOGIN_SHELL].map(str::to_owned).to_vec()),
        ("", _) => Err(Error::invalid("arguments need the path of a shell: give both or neither")),
        _ => Ok(std::iter::once(path.to_owned()).chain(args.into_iter().skip(1)).collect()),
    }
}

/// Who a signal goes to, and which.
pub(super) fn kill(who: &str, signal: i32) -> Result<(Who, Signal)> {
    let who = match who {
        "leader" => Who::Leader,
        "all" => Who::All,
        other => return Err(Error::invalid(format!("'{}' is neither 'leader' nor 'all'", excerpt(other)))),
    };
    Ok((who, Signal::from_number(signal).map_err(|error| Error::invalid(error.to_string()))?))
}

/// A name that may be left to the other side.
pub(super) fn optional_image(name: &str) -> Result<Option<ImageName>> {
    if name.is_empty() { Ok(None) } else { Ok(Some(ImageName::normalized(name)?)) }
}

fn create_from(name: &str, image: &str, options: &mut Options) -> Result<CreateRequest> {
    let request = CreateRequest {
        name: if name.is_empty() { None } else { Some(ContainerName::parse(name)?) },
        image: Some(ImageName::normalized(image)?),
        command: options.take("Command")?.unwrap_or_default(),
        entrypoint: options.take("Entrypoint")?,
        environment: environment(options.take("Environment")?.unwrap_or_default())?,
        working_directory: options.parse("WorkingDirectory", absolute)?,
        user: options.parse("User", user)?,
        hostname: options.parse("Hostname", hostname)?,
        terminal: options.flag("Terminal")?,
        init: options.flag("Init")?,
        boot: options.parse("Boot", boot)?.unwrap_or_default(),
        network: options.parse("Network", network)?,
        read_only: options.flag("ReadOnly")?,
        mounts: options.parse("BindMounts", bind_mounts)?.unwrap_or_default(),
        limits: limits(options)?,
        size: options.parse("Size", positive)?.map(Bytes),
        slice: options.parse("Slice", slice)?,
        stop_signal: options.parse("StopSignal", Signal::from_number)?,
        stop_timeout_usec: options.take("StopTimeoutUSec")?,
        lifetime: if options.flag("AutoRemove")? { Lifetime::OneRun } else { Lifetime::Kept },
        restart: restart(options)?,
        log_rate: log_rate(options)?,
        ready: options.parse("Ready", |word: String| word.parse())?.unwrap_or_default(),
        start_timeout_usec: options.take("StartTimeoutUSec")?,
        health: health(options)?,
        survive_soft_reboot: options.flag("SurviveSoftReboot")?,
        labels: options.parse("Labels", labels)?.unwrap_or_default(),
        capabilities: capabilities(options)?,
        no_new_privileges: options.take("NoNewPrivileges")?,
    };
    bounded(request.command.iter().chain(request.entrypoint.iter().flatten()).chain(&request.environment))?;
    Ok(request)
}

fn start_from(options: &mut Options) -> Result<Start> {
    let wanted_by = options.parse("WantedBy", wanted_by)?;
    let mut io = io_from(options)?;
    let for_caller = wanted_by.is_none() && io.monitor.is_some();
    io.wanted_by = wanted_by.flatten();
    io.notify = options.flag("Notify")?;
    io.passed = options.parse("Fds", |fds| passed(fds, is_fd_name))?.unwrap_or_default();
    io.credentials = options.parse("Credentials", credentials)?.unwrap_or_default();
    Ok(Start { io, for_caller })
}

fn io_from(options: &mut Options) -> Result<RunIo> {
    Ok(RunIo {
        stdio: [
            descriptor(options, "StandardInput")?,
            descriptor(options, "StandardOutput")?,
            descriptor(options, "StandardError")?,
        ],
        monitor: descriptor(options, "Monitor")?,
        terminal_size: options.parse("TerminalSize", terminal_size)?,
        ..RunIo::default()
    })
}

fn descriptor(options: &mut Options, key: &'static str) -> Result<Option<OwnedFd>> {
    options.parse(key, |fd: Fd<'static>| OwnedFd::try_from(fd))
}

fn limits(options: &mut Options) -> Result<Limits> {
    Ok(Limits {
        memory: options.parse("MemoryMax", positive)?.map(Bytes),
        pids: options.parse("TasksMax", positive)?,
        cpu_usec_per_sec: options.parse("CPUQuotaPerSecUSec", positive)?,
    })
}

fn restart(options: &mut Options) -> Result<RestartPolicy> {
    let default = RestartPolicy::default();
    Ok(RestartPolicy {
        when: options.parse("Restart", |word: String| word.parse())?.unwrap_or(default.when),
        delay_usec: options.take("RestartUSec")?.unwrap_or(default.delay_usec),
        steps: options.take("RestartSteps")?.unwrap_or(default.steps),
        max_delay_usec: options.take("RestartMaxDelayUSec")?.unwrap_or(default.max_delay_usec),
        limit: options.take("RestartLimit")?.unwrap_or(default.limit),
        limit_interval_usec: options
            .parse("RestartLimitIntervalUSec", positive)?
            .unwrap_or(default.limit_interval_usec),
    })
}

/// Each of the two needs the other: there is no sense in one of systemd's defaults with one of the caller's.
fn log_rate(options: &mut Options) -> Result<Option<LogRate>> {
    let interval = options.take("LogRateLimitIntervalUSec")?;
    let burst = options.take("LogRateLimitBurst")?;
    match (interval, burst) {
        (None, None) => Ok(None),
        (Some(interval_usec), Some(burst)) => Ok(Some(LogRate { interval_usec, burst })),
        _ => Err(Error::invalid("options 'LogRateLimitIntervalUSec' and 'LogRateLimitBurst' go together: give both")),
    }
}

fn health(options: &mut Options) -> Result<HealthRequest> {
    Ok(HealthRequest {
        command: options.take("HealthCommand")?,
        interval_usec: options.parse("HealthIntervalUSec", positive)?,
        timeout_usec: options.parse("HealthTimeoutUSec", positive)?,
        retries: options.parse("HealthRetries", at_least_one)?,
        start_period_usec: options.take("HealthStartPeriodUSec")?,
        action: options.parse("HealthAction", |word: String| word.parse())?,
    })
}

fn capabilities(options: &mut Options) -> Result<Capabilities> {
    Ok(Capabilities {
        add: options.parse("CapabilitiesAdd", capability_names)?.unwrap_or_default(),
        drop: options.parse("CapabilitiesDrop", capability_names)?.unwrap_or_default(),
    })
}

// ---- one value each; the error says what is wanted, the caller adds the key

type Parsed<T> = std::result::Result<T, String>;

fn absolute(path: String) -> Parsed<String> {
    let climbs = path.split('/').any(|part| part == "..");
    if path.starts_with('/') && !climbs {
        Ok(path)
    } else {
        Err(format!("'{}' is not an absolute path without '..'", excerpt(&path)))
    }
}

fn bind_mounts(mounts: Vec<(String, String, bool)>) -> Parsed<Vec<BindMount>> {
    let mount = |(source, destination, read_only)| {
        Ok(BindMount { source: absolute(source)?, destination: absolute(destination)?, read_only })
    };
    mounts.into_iter().map(mount).collect()
}

fn positive(number: u64) -> Parsed<u64> {
    if number > 0 { Ok(number) } else { Err("must be greater than 0; leave it out for no limit of its own".into()) }
}

fn at_least_one(number: u32) -> Parsed<u32> {
    if number > 0 { Ok(number) } else { Err("must be greater than 0".into()) }
}

fn network(word: String) -> Parsed<NetworkMode> {
    match word.as_str() {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(format!("'{}' is neither 'none' nor 'host'", excerpt(other))),
    }
}

fn boot(word: String) -> Parsed<Boot> {
    match word.as_str() {
        "auto" => Ok(Boot::Auto),
        "yes" => Ok(Boot::Yes),
        "no" => Ok(Boot::No),
        other => Err(format!("'{}' is none of 'auto', 'yes' and 'no'", excerpt(other))),
    }
}

/// `user`, `uid`, `user:group` or `uid:gid`; whether they exist only the container knows.
fn user(text: String) -> Parsed<String> {
    let word = |word: &str| !word.is_empty() && word.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '/');
    let good = match text.split_once(':') {
        None => word(&text),
        Some((user, group)) => word(user) && word(group) && !group.contains(':'),
    };
    if good { Ok(text) } else { Err(format!("'{}' is not of the form USER or USER:GROUP", excerpt(&text))) }
}

/// hostname(7): at most 64 characters on Linux, labels of letters, digits and `-`.
fn hostname(text: String) -> Parsed<String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 64 && text.split('.').all(label) {
        Ok(text)
    } else {
        Err(format!("'{}' is not a host name of at most 64 letters, digits, '-', '_' and '.'", excerpt(&text)))
    }
}

/// A slice's unit name (systemd.slice(5)): parts joined by single dashes.
fn slice(text: String) -> Parsed<String> {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.' | b'\\'))
    };
    let name = text.strip_suffix(".slice").unwrap_or_default();
    if text.len() <= 255 && name.split('-').all(part) {
        Ok(text)
    } else {
        Err(format!("'{}' is not the name of a slice such as 'holm-web.slice'", excerpt(&text)))
    }
}

/// A unit's name (systemd.unit(5)); the empty text is none.
fn wanted_by(text: String) -> Parsed<Option<WantedBy>> {
    if text.is_empty() {
        return Ok(None);
    }
    let stem = text.rsplit_once('.').filter(|(_, kind)| UNITS.contains(kind)).map(|(stem, _)| stem);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    match stem {
        Some(stem) if !stem.is_empty() && text.len() <= 255 && stem.bytes().all(known) => {
            Ok(Some(WantedBy { unit: text, slice: None, control_group: None }))
        }
        _ => Err(format!("'{}' is not the name of a unit such as 'web.service'", excerpt(&text))),
    }
}

fn credentials(fds: Vec<(String, Fd<'static>)>) -> Parsed<Vec<Passed>> {
    let credentials = passed(fds, is_file_name)?;
    let mut known = HashSet::new();
    match credentials.iter().find(|credential| !known.insert(&credential.name)) {
        Some(twice) => Err(format!("'{}' is there twice", excerpt(&twice.name))),
        None => Ok(credentials),
    }
}

fn passed(fds: Vec<(String, Fd<'static>)>, is_name: fn(&str) -> bool) -> Parsed<Vec<Passed>> {
    let one = |(name, fd): (String, Fd<'static>)| match is_name(&name) {
        true => Ok(Passed { name, fd: OwnedFd::try_from(fd).map_err(|error| error.to_string())? }),
        false => Err(format!("'{}' is not a name that is possible here", excerpt(&name))),
    };
    fds.into_iter().map(one).collect()
}

/// FileDescriptorName= of systemd.socket(5). Several may have one name.
fn is_fd_name(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b':')
}

/// A credential is a file (systemd.exec(5), LoadCredential=).
fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && !matches!(name, "." | "..")
}

/// The kinds of unit that can want something which runs.
const UNITS: [&str; 4] = ["service", "scope", "target", "socket"];

fn labels(labels: HashMap<String, String>) -> Parsed<std::collections::BTreeMap<String, String>> {
    if labels.contains_key("") { Err("a label needs a name".into()) } else { Ok(labels.into_iter().collect()) }
}

fn capability_names(names: Vec<String>) -> Parsed<Vec<String>> {
    names.iter().map(|name| capability(name)).collect()
}

/// Accepts `net_admin` and `CAP_NET_ADMIN` too, as other container tools do.
fn capability(name: &str) -> Parsed<String> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" || caps::Capability::from_str(&format!("CAP_{bare}")).is_ok() {
        Ok(bare.to_owned())
    } else {
        Err(format!("'{}' is not a capability: use a name of capabilities(7) without CAP_, or ALL", excerpt(name)))
    }
}

fn terminal_size((rows, columns): (u16, u16)) -> Parsed<(u16, u16)> {
    if rows > 0 && columns > 0 { Ok((rows, columns)) } else { Err("rows and columns must be greater than 0".into()) }
}

fn command_line(command: Vec<String>) -> Result<Vec<String>> {
    match command.first() {
        Some(program) if !program.is_empty() => Ok(command),
        _ => Err(Error::invalid("a command needs a program: the first word must not be empty")),
    }
}

fn environment(entries: Vec<String>) -> Result<Vec<String>> {
    let named = |entry: &String| entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    if entries.iter().all(named) {
        return Ok(entries);
    }
    // Which one is not said: it may be a secret, and errors are logged.
    Err(Error::invalid("option 'Environment': every entry must be of the form NAME=VALUE"))
}

fn bounded<'a>(words: impl Iterator<Item = &'a String>) -> Result<()> {
    let bytes: usize = words.map(|word| word.len() + 1).sum();
    if bytes <= MAX_WORDS {
        return Ok(());
    }
    Err(Error::invalid(format!("command line and environment take {bytes} bytes: at most {MAX_WORDS} are possible")))
}

/// The beginning of a text, fit for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Becomes the login shell that the container's passwd(5) gives the user, in the user's home, or else `/bin/sh`.
const LOGIN_SHELL: &str = r#"me=$(id -u 2>/dev/null) shell=
if [ -r /etc/passwd ]; then
    while IFS=: read -r name password uid gid gecos home shell; do
        [ "$uid" = "$me" ] && break
        shell=
    done </etc/passwd
fi
[ -n "$shell" ] && cd "$home" 2>/dev/null
[ -x "$shell" ] || shell=/bin/sh
exec "$shell" -l
"#;

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
