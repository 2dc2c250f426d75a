//! Dictionaries of options → requests of the engine. The table of keys is in `docs/dbus.md`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use zbus::Fd;

use super::error::{Error, Result};
use super::options::{Dictionary, Options};
use crate::engine::{
    CloneRequest, CreateRequest, ExecRequest, RemoveOptions, ResourceRequest, RunIo, StopOptions, Who,
};
use crate::model::{
    BindMount, Bytes, Capabilities, ContainerName, ImageName, Lifetime, Limits, NetworkMode, Signal, SnapshotName,
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
pub(super) fn run(name: &str, image: &str, options: Dictionary) -> Result<(CreateRequest, RunIo)> {
    let mut options = Options::new(options);
    let request = create_from(name, image, &mut options)?;
    let io = RunIo { wanted_by: options.parse("WantedBy", unit)?, ..io_from(&mut options)? };
    options.finish()?;
    Ok((request, io))
}

/// The options of `Start`.
pub(super) fn start(options: Dictionary) -> Result<RunIo> {
    let mut options = Options::new(options);
    let io = RunIo { wanted_by: options.parse("WantedBy", unit)?, ..io_from(&mut options)? };
    options.finish()?;
    Ok(io)
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
        network: options.parse("Network", network)?,
        read_only: options.flag("ReadOnly")?,
        mounts: options.parse("BindMounts", bind_mounts)?.unwrap_or_default(),
        limits: limits(options)?,
        size: options.parse("Size", positive)?.map(Bytes),
        slice: options.parse("Slice", slice)?,
        stop_signal: options.parse("StopSignal", Signal::from_number)?,
        stop_timeout_usec: options.take("StopTimeoutUSec")?,
        lifetime: if options.flag("AutoRemove")? { Lifetime::OneRun } else { Lifetime::Kept },
        survive_soft_reboot: options.flag("SurviveSoftReboot")?,
        labels: options.parse("Labels", labels)?.unwrap_or_default(),
        capabilities: capabilities(options)?,
        no_new_privileges: options.take("NoNewPrivileges")?,
    };
    bounded(request.command.iter().chain(request.entrypoint.iter().flatten()).chain(&request.environment))?;
    Ok(request)
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
        wanted_by: None,
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

fn capabilities(options: &mut Options) -> Result<Capabilities> {
    Ok(Capabilities {
        add: options.parse("CapabilitiesAdd", capability_names)?.unwrap_or_default(),
        drop: options.parse("CapabilitiesDrop", capability_names)?.unwrap_or_default(),
    })
}

// ---- one value each; the error says what is wanted, the caller adds the key

type Parsed<T> = std::result::Result<T, String>;

/// The unit of a service, as it is named on the bus (systemd.unit(5)).
fn unit(name: String) -> Parsed<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let good = name.len() <= 255 && name.strip_suffix(".service").is_some_and(|stem| !stem.is_empty());
    if good && name.bytes().all(known) { Ok(name) } else { Err(format!("'{name}' is not the name of a service")) }
}

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

fn network(word: String) -> Parsed<NetworkMode> {
    match word.as_str() {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(format!("'{}' is neither 'none' nor 'host'", excerpt(other))),
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
