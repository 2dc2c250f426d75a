//! `Volume=` and `Mount=`: what of the host is seen inside.

use std::path::{Component, Path, PathBuf};

use super::super::key::Context;
use super::super::name::Kind;
use super::super::problem::shown;
use super::super::value::{Parsed, absolute};
use super::super::words::literal;
use super::Container;

/// `SOURCE:DESTINATION[:OPTION,…]`
pub(super) fn volume(container: &mut Container, value: &str, context: &Context<'_>) -> Parsed<()> {
    let parts: Vec<_> = value.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [source, destination] => (source, destination, ""),
        [source, destination, options] => (source, destination, options),
        [_] => return Err(format!("'{}' has no destination: write SOURCE:DESTINATION", shown(value))),
        _ => return Err(format!("'{}' is not of the form SOURCE:DESTINATION[:ro]", shown(value))),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        read_only = volume_option(option)?.unwrap_or(read_only);
    }
    add(container, source, destination, read_only, context)
}

/// Whether it says read-only.
fn volume_option(option: &str) -> Parsed<Option<bool>> {
    match option {
        "ro" => Ok(Some(true)),
        "rw" => Ok(Some(false)),
        // What a bind mount is here anyway.
        "rbind" | "bind" | "private" | "rprivate" => Ok(None),
        "z" | "Z" => Err(format!("'{option}' is not supported: Holm sets no SELinux labels; leave it out")),
        "U" => Err("'U' is not supported: chown the directory; of a .volume file use User= there".into()),
        other => Err(format!("'{}' is not supported: use 'ro' or 'rw'", shown(other))),
    }
}

/// `type=bind,source=…,destination=…[,ro]`
pub(super) fn mount(container: &mut Container, value: &str, context: &Context<'_>) -> Parsed<()> {
    let (mut kind, mut source, mut destination, mut read_only) = ("", None, None, false);
    for part in value.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key.trim() {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "destination" | "dst" | "target" => destination = Some(value),
            "ro" | "readonly" => read_only = super::super::value::boolean(value)?,
            "rw" => read_only = !super::super::value::boolean(value)?,
            other => {
                return Err(format!("'{}' is not supported: use type, source, destination and ro", shown(other)));
            }
        }
    }
    match kind {
        "bind" | "volume" => {}
        "" => return Err("the type is missing: write type=bind or type=volume".into()),
        "tmpfs" => return Err("tmpfs mounts come later: mount a directory".into()),
        other => {
            return Err(format!("type '{}' is not supported: use 'bind', or 'volume' for FILE.volume", shown(other)));
        }
    }
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err("source= and destination= are needed".into());
    };
    add(container, source, destination, read_only, context)
}

fn add(c: &mut Container, source: &str, destination: &str, read_only: bool, context: &Context<'_>) -> Parsed<()> {
    let destination = absolute(destination).map_err(|message| format!("destination: {message}"))?;
    let source = match context.index.find(source)? {
        Some((Kind::Volume, entry)) => {
            c.require(entry.service);
            entry.thing
        }
        Some(_) => return Err(format!("'{}' is not a .volume file", shown(source))),
        None => {
            let path = host_path(source, context)?;
            // What is still to be resolved may turn out to be anything; systemd resolves it there as well.
            if !c.mounts.contains(&path) && !path.contains('$') {
                c.mounts.push(path.clone());
            }
            path
        }
    };
    let mode = if read_only { ":ro" } else { "" };
    c.option("--volume", &format!("{source}:{destination}{mode}"));
    Ok(())
}

/// A path of the host: absolute, or, with a dot before it, beside the file that it is written in.
pub(super) fn host_path(text: &str, context: &Context<'_>) -> Parsed<String> {
    if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        let directory = context.place.file.parent().unwrap_or(Path::new("/"));
        let directory = std::path::absolute(directory).map_err(|error| error.to_string())?;
        // Of the directory every letter is meant; what follows may have specifiers.
        let directory = directory.to_str().ok_or("the directory of the file is not UTF-8")?;
        return Ok(normal(&PathBuf::from(literal(directory)).join(text)));
    }
    if !text.contains('/') && !text.starts_with(['%', '$']) {
        let shown = shown(text);
        return Err(format!("'{shown}' is not a path: for a volume write a file '{shown}.volume' and name that"));
    }
    absolute(text)
}

/// Without `.` and `..`, by its letters alone.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    format!("/{}", parts.join("/"))
}
