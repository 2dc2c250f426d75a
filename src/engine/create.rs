//! From a request and an image to a container's definition.

use std::collections::BTreeMap;

use super::error::EngineError;
use super::request::CreateRequest;
use crate::model::{
    BindMount, ContainerId, ContainerName, ContainerSpec, ImageConfig, ImageInfo, Limits, NetworkMode, Process,
    StopPolicy,
};

/// What a container gets when neither caller nor image says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    /// Stop timeout in µs.
    pub(super) stop_timeout_usec: u64,
    /// Largest number of tasks.
    pub(super) pids_limit: Option<u64>,
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
    let process = process(&request, &image.config)?;
    request.hostname.as_deref().map_or(Ok(()), check_hostname)?;
    request.slice.as_deref().map_or(Ok(()), check_slice)?;
    request.mounts.iter().try_for_each(check_mount)?;
    check_limits(&request.limits)?;
    Ok(ContainerSpec {
        name,
        id,
        image: image.name.clone(),
        process,
        hostname: request.hostname,
        network: request.network.unwrap_or(NetworkMode::None),
        read_only: request.read_only,
        mounts: request.mounts,
        limits: Limits { pids: request.limits.pids.or(defaults.pids_limit), ..request.limits },
        size: request.size,
        slice: request.slice,
        stop: StopPolicy {
            signal: request.stop_signal.or(image.config.stop_signal).unwrap_or(StopPolicy::default().signal),
            timeout_usec: request.stop_timeout_usec.unwrap_or(defaults.stop_timeout_usec),
        },
        lifetime: request.lifetime,
        survive_soft_reboot: request.survive_soft_reboot,
        labels: image.config.labels.clone().into_iter().chain(request.labels).collect::<BTreeMap<_, _>>(),
    })
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

fn invalid(message: &str) -> EngineError {
    EngineError::InvalidConfig(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, DeviceId, ImageName};

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
        let defaults = Defaults { stop_timeout_usec: 7, pids_limit: Some(99) };
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
    fn nonsense_is_refused_with_the_reason() {
        let image = image(&[], &["x"]);
        let bad = [
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
