//! From a request and an image to a container's definition.

use std::collections::BTreeMap;

use super::boot::{self, Said};
use super::error::EngineError;
use super::patience;
use super::request::{CreateRequest, HealthRequest};
use crate::model::{
    BindMount, ContainerId, ContainerName, ContainerSpec, HealthCheck, ImageConfig, ImageInfo, Lifetime, Limits,
    NetworkMode, Process, Ready, RestartWhen, Signal, StopPolicy,
};

/// What a container gets when neither caller nor image says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    /// Stop timeout in µs.
    pub(super) stop_timeout_usec: u64,
    /// Largest number of tasks.
    pub(super) pids_limit: Option<u64>,
    /// Whether an image may make itself a whole system.
    pub(super) images_may_boot: bool,
}

/// Joins request, image and defaults. Nothing is changed on an error.
pub(super) fn define(
    request: CreateRequest,
    image: &ImageInfo,
    id: ContainerId,
    defaults: &Defaults,
) -> Result<ContainerSpec, EngineError> {
    let name = match &request.name {
        Some(name) => name.clone(),
        None => generated_name(image, &id)?,
    };
    let mut process = process(&request, &image.config)?;
    let boot = Said::of(&request, &image.config).wants(&process, &image.config, defaults.images_may_boot)?;
    let network = request.network.unwrap_or(NetworkMode::None);
    if boot {
        check_soft_reboot(&request)?;
        boot::adapt(&mut process, network, request.no_new_privileges);
    }
    let stop = stop_policy(&request, &image.config, boot, defaults);
    request.hostname.as_deref().map_or(Ok(()), check_hostname)?;
    request.slice.as_deref().map_or(Ok(()), check_slice)?;
    request.mounts.iter().try_for_each(check_mount)?;
    check_limits(&request.limits)?;
    check_restart(&request)?;
    let health = health(request.health, image.config.health.as_ref())?;
    if request.ready == Ready::Healthy && health.is_none() {
        return Err(invalid("a container that is ready when it is healthy needs a check: say which command that is"));
    }
    if request.ready == Ready::Exec && request.start_timeout_usec.is_some() {
        return Err(invalid(
            "a container that is ready when its program runs needs no time to start: say that it is 'notify' or 'healthy'",
        ));
    }
    Ok(ContainerSpec {
        name,
        id,
        image: image.name.clone(),
        process,
        boot,
        hostname: request.hostname,
        network,
        read_only: request.read_only,
        mounts: request.mounts,
        limits: Limits { pids: request.limits.pids.or(defaults.pids_limit), ..request.limits },
        size: request.size,
        slice: request.slice,
        stop,
        lifetime: request.lifetime,
        restart: request.restart,
        health,
        ready: request.ready,
        start_timeout_usec: request.start_timeout_usec.map(|usec| if usec == 0 { patience::FOREVER } else { usec }),
        log_rate: request.log_rate,
        survive_soft_reboot: request.survive_soft_reboot,
        labels: image.config.labels.clone().into_iter().chain(request.labels).collect::<BTreeMap<_, _>>(),
    })
}

/// A whole system is asked and given time as systemd does it for its own units (DefaultTimeoutStopSec=).
fn stop_policy(request: &CreateRequest, image: &ImageConfig, boot: bool, defaults: &Defaults) -> StopPolicy {
    let (signal, timeout_usec) = match boot {
        true => (Signal::HALT, defaults.stop_timeout_usec.max(boot::STOP_TIMEOUT_USEC)),
        false => (StopPolicy::default().signal, defaults.stop_timeout_usec),
    };
    StopPolicy {
        signal: request.stop_signal.or(image.stop_signal).unwrap_or(signal),
        timeout_usec: request.stop_timeout_usec.unwrap_or(timeout_usec),
    }
}

fn process(request: &CreateRequest, image: &ImageConfig) -> Result<Process, EngineError> {
    let working_directory = request.working_directory.clone().or_else(|| image.working_directory.clone());
    if let Some(directory) = &working_directory {
        check_absolute("the working directory", directory)?;
    }
    Ok(Process {
        command: command(request, image)?,
        environment: environment(&image.environment, &request.environment)?,
        working_directory,
        user: request.user.clone().or_else(|| image.user.clone()).filter(|user| !user.is_empty()),
        terminal: request.terminal,
        init: request.init,
        capabilities: request.capabilities.clone(),
        no_new_privileges: request.no_new_privileges.unwrap_or(true),
    })
}

/// OCI image-spec, config.md: Entrypoint, then Cmd; an entry point of the caller's drops the image's Cmd.
fn command(request: &CreateRequest, image: &ImageConfig) -> Result<Vec<String>, EngineError> {
    let entrypoint = request.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let arguments = match (&request.command, &request.entrypoint) {
        (command, _) if !command.is_empty() => command.as_slice(),
        (_, None) => image.command.as_slice(),
        (_, Some(_)) => &[],
    };
    let command: Vec<_> = entrypoint.iter().chain(arguments).cloned().collect();
    match command.first() {
        None => Err(invalid("the image names no command: give one after the image's name")),
        Some(program) if program.is_empty() => Err(invalid("the command is empty: name a program")),
        Some(_) if command.iter().any(|word| word.contains('\0')) => {
            Err(invalid("a word of the command contains a NUL byte"))
        }
        Some(_) => Ok(command),
    }
}

/// `over` replaces entries of `under` with the same name; the order of first appearance is kept.
pub(super) fn environment(under: &[String], over: &[String]) -> Result<Vec<String>, EngineError> {
    let mut merged: Vec<(String, String)> = Vec::new();
    for entry in under.iter().chain(over) {
        let (name, value) = entry
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !entry.contains('\0'))
            .ok_or_else(|| invalid(&format!("'{entry}' is not an environment entry: write NAME=VALUE")))?;
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some(known) => value.clone_into(&mut known.1),
            None => merged.push((name.to_owned(), value.to_owned())),
        }
    }
    Ok(merged.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

fn generated_name(image: &ImageInfo, id: &ContainerId) -> Result<ContainerName, EngineError> {
    let last = image.name.as_str().rsplit('/').next().unwrap_or_default();
    let stem: String = last
        .split([':', '@'])
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(40)
        .collect();
    name_after(&stem, id)
}

/// A name that nobody has, which begins with `stem`: the beginning of a name, at most 57 letters.
pub(super) fn name_after(stem: &str, id: &ContainerId) -> Result<ContainerName, EngineError> {
    Ok(ContainerName::parse(&format!("{}-{}", if stem.is_empty() { "container" } else { stem }, &id.as_str()[..6]))?)
}

/// sethostname(2) takes 64 bytes; the letters are those of hostname(7).
fn check_hostname(hostname: &str) -> Result<(), EngineError> {
    let good = (1..=64).contains(&hostname.len())
        && hostname.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    if good {
        Ok(())
    } else {
        Err(invalid(&format!(
            "'{hostname}' is not a host name: use letters, digits and '-' in labels joined by '.', at most 64"
        )))
    }
}

fn check_slice(slice: &str) -> Result<(), EngineError> {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    let good = !stem.is_empty()
        && slice.len() <= 255
        && !stem.starts_with('-')
        && !stem.ends_with('-')
        && !stem.contains("--")
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:\\".contains(&b));
    if good {
        Ok(())
    } else {
        Err(invalid(&format!("'{slice}' is not a slice: write a unit name such as holm-batch.slice")))
    }
}

fn check_mount(mount: &BindMount) -> Result<(), EngineError> {
    check_absolute("the source of a mount", &mount.source)?;
    check_absolute("the destination of a mount", &mount.destination)?;
    if mount.destination.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(invalid("a mount cannot replace the container's root: choose another destination"));
    }
    Ok(())
}

fn check_absolute(what: &str, path: &str) -> Result<(), EngineError> {
    if path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..") {
        Ok(())
    } else {
        Err(invalid(&format!("{what} is '{path}': write an absolute path without '..'")))
    }
}

/// The image's check with what the caller says otherwise.
fn health(request: HealthRequest, image: Option<&HealthCheck>) -> Result<Option<HealthCheck>, EngineError> {
    let silent = request == HealthRequest::default();
    let mut check = match (request.command, image) {
        (Some(command), _) if command.is_empty() => return Ok(None),
        (Some(command), Some(image)) => HealthCheck { command, ..image.clone() },
        (Some(command), None) => HealthCheck::new(command),
        (None, Some(image)) => image.clone(),
        (None, None) if silent => return Ok(None),
        (None, None) => return Err(invalid("the image has no check of its own: say which command checks the health")),
    };
    check.interval_usec = request.interval_usec.unwrap_or(check.interval_usec);
    check.timeout_usec = request.timeout_usec.unwrap_or(check.timeout_usec);
    check.retries = request.retries.unwrap_or(check.retries);
    check.start_period_usec = request.start_period_usec.unwrap_or(check.start_period_usec);
    check.action = request.action.unwrap_or(check.action);
    if check.command.iter().any(|word| word.contains('\0')) || check.command[0].is_empty() {
        return Err(invalid("the command that checks the health is empty or contains a NUL byte"));
    }
    if check.interval_usec < SHORTEST_CHECK || check.timeout_usec < SHORTEST_CHECK {
        return Err(invalid("the interval and the timeout of a check are at least 0.1 s"));
    }
    Ok(Some(check))
}

fn check_restart(request: &CreateRequest) -> Result<(), EngineError> {
    if request.restart.when != RestartWhen::No && request.lifetime == Lifetime::OneRun {
        return Err(invalid(
            "a container that is removed after its run cannot be started again: leave one of them out",
        ));
    }
    Ok(())
}

/// What systemd leaves alone over a soft-reboot is marked at the very control group that a process is in.
fn check_soft_reboot(request: &CreateRequest) -> Result<(), EngineError> {
    if request.survive_soft_reboot {
        return Err(invalid(
            "a whole system makes control groups of its own, and systemd kills those over a soft-reboot: leave out either \
             'Boot' (--systemd) or 'SurviveSoftReboot'",
        ));
    }
    Ok(())
}

pub(super) fn check_limits(limits: &Limits) -> Result<(), EngineError> {
    if limits.memory.is_some_and(|memory| memory.0 < 1 << 20) {
        return Err(invalid("the memory limit is below 1M: nothing can run in that"));
    }
    if limits.cpu_usec_per_sec.is_some_and(|cpu| cpu < 1000) {
        return Err(invalid("the CPU limit is below 0.001 CPUs: systemd cannot set that"));
    }
    if limits.pids == Some(0) {
        return Err(invalid("the limit of tasks is 0: nothing can run in that"));
    }
    Ok(())
}

/// In µs: shorter ones would keep the host busy with nothing else.
const SHORTEST_CHECK: u64 = 100_000;

pub(super) fn invalid(message: &str) -> EngineError {
    EngineError::InvalidConfig(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Boot, Bytes, DeviceId, ImageName, RestartPolicy};

    fn image(entrypoint: &[&str], command: &[&str]) -> ImageInfo {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ImageInfo {
            name: ImageName::parse("example.org/tools/busybox:1").unwrap(),
            digest: String::new(),
            size: Bytes(0),
            created_usec: 0,
            layers: vec![],
            device: DeviceId::parse("layer:0").unwrap(),
            devices: vec![],
            config: ImageConfig {
                entrypoint: words(entrypoint),
                command: words(command),
                environment: vec!["PATH=/bin".into(), "A=1".into()],
                ..ImageConfig::default()
            },
        }
    }

    fn spec(request: CreateRequest, image: &ImageInfo) -> Result<ContainerSpec, EngineError> {
        let defaults = Defaults { stop_timeout_usec: 7, pids_limit: Some(99), images_may_boot: false };
        define(request, image, ContainerId::from_random([1; 16]), &defaults)
    }

    fn request(command: &[&str]) -> CreateRequest {
        CreateRequest { command: command.iter().map(|w| (*w).to_owned()).collect(), ..CreateRequest::default() }
    }

    #[test]
    fn the_command_replaces_the_images_arguments_but_not_its_entry_point() {
        let image = image(&["/entry"], &["default"]);
        assert_eq!(spec(request(&[]), &image).unwrap().process.command, ["/entry", "default"]);
        assert_eq!(spec(request(&["x"]), &image).unwrap().process.command, ["/entry", "x"]);
        let own = CreateRequest { entrypoint: Some(vec!["/own".into()]), ..request(&[]) };
        assert_eq!(spec(own, &image).unwrap().process.command, ["/own"]);
    }

    #[test]
    fn an_image_without_a_command_needs_one() {
        assert!(matches!(spec(request(&[]), &image(&[], &[])), Err(EngineError::InvalidConfig(_))));
    }

    #[test]
    fn the_callers_environment_wins() {
        let request = CreateRequest { environment: vec!["A=2".into(), "B=".into()], ..request(&["x"]) };
        assert_eq!(spec(request, &image(&[], &[])).unwrap().process.environment, ["PATH=/bin", "A=2", "B="]);
        assert!(environment(&[], &["NOVALUE".into()]).is_err());
    }

    #[test]
    fn a_generated_name_says_which_image() {
        let name = spec(request(&["x"]), &image(&[], &[])).unwrap().name;
        assert!(name.as_str().starts_with("busybox-"), "{name}");
    }

    #[test]
    fn defaults_fill_what_nobody_said() {
        let spec = spec(request(&["x"]), &image(&[], &[])).unwrap();
        assert_eq!(spec.limits.pids, Some(99));
        assert_eq!(spec.stop.timeout_usec, 7);
    }

    #[test]
    fn no_image_gives_itself_privileges() {
        let mut image = image(&["/sbin/init"], &[]);
        image.config.stop_signal = Some(Signal::HALT);
        let plain = spec(request(&[]), &image).unwrap();
        assert!(!plain.boot && plain.process.no_new_privileges && plain.process.capabilities.add.is_empty());
        assert_eq!((plain.stop.signal, plain.stop.timeout_usec), (Signal::HALT, 7));
        let asked = spec(CreateRequest { boot: Boot::Yes, ..request(&[]) }, &image).unwrap();
        assert!(asked.boot && asked.process.capabilities.add.contains(&"SYS_ADMIN".to_owned()));
    }

    #[test]
    fn the_images_check_holds_but_for_what_the_caller_says() {
        let words = |text: &str| vec![text.to_owned()];
        let image = HealthCheck { retries: 7, ..HealthCheck::new(words("image")) };
        let made = |request: HealthRequest, image| health(request, image).unwrap();
        assert_eq!(made(HealthRequest::default(), None), None);
        assert_eq!(made(HealthRequest::default(), Some(&image)), Some(image.clone()));
        let none = HealthRequest { command: Some(vec![]), ..HealthRequest::default() };
        assert_eq!(made(none, Some(&image)), None);
        let own =
            HealthRequest { command: Some(words("own")), timeout_usec: Some(500_000), ..HealthRequest::default() };
        let check = made(own.clone(), Some(&image)).unwrap();
        assert_eq!((check.command, check.timeout_usec, check.retries), (words("own"), 500_000, 7));
        assert_eq!(made(own, None).unwrap().retries, 3);
        let action = HealthRequest { retries: Some(1), ..HealthRequest::default() };
        assert!(health(action, None).is_err());
        let hasty = HealthRequest { interval_usec: Some(99_999), ..HealthRequest::default() };
        assert!(health(hasty, Some(&image)).is_err());
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let image = image(&[], &["x"]);
        let bad = [
            CreateRequest {
                restart: RestartPolicy { when: RestartWhen::Always, ..RestartPolicy::default() },
                lifetime: Lifetime::OneRun,
                ..CreateRequest::default()
            },
            CreateRequest { ready: Ready::Healthy, ..CreateRequest::default() },
            CreateRequest { boot: Boot::Yes, survive_soft_reboot: true, ..CreateRequest::default() },
            CreateRequest { survive_soft_reboot: true, ..self::request(&["/sbin/init"]) },
            CreateRequest { start_timeout_usec: Some(1), ..CreateRequest::default() },
            CreateRequest { hostname: Some("a_b".into()), ..CreateRequest::default() },
            CreateRequest { slice: Some("holm".into()), ..CreateRequest::default() },
            CreateRequest { working_directory: Some("relative".into()), ..CreateRequest::default() },
            CreateRequest { limits: Limits { pids: Some(0), ..Limits::default() }, ..CreateRequest::default() },
            CreateRequest {
                mounts: vec![BindMount { source: "/a".into(), destination: "/../etc".into(), read_only: false }],
                ..CreateRequest::default()
            },
        ];
        for request in bad {
            assert!(matches!(spec(request.clone(), &image), Err(EngineError::InvalidConfig(_))), "{request:?}");
        }
    }
}
