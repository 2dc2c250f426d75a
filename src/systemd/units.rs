//! What journald adds to the lines of a unit, and how many it takes: files that it reads for each writer.
//!
//! For a service, systemd writes them from LogExtraFields= and LogRateLimit…= (systemd.exec(5)); of a scope it refuses these
//! settings, because it starts no process of it, and it neither writes nor removes files for one. journald does not tell the
//! two apart. The names are `log-extra-fields:UNIT`, with each field as its length (64 bits, little-endian) and its text, and
//! the links `log-rate-limit-interval:UNIT` (µs) and `log-rate-limit-burst:UNIT`, which point to their number. They have been
//! the same since systemd 236 and 240.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::model::LogRate;

/// What the journal is to know of a unit's lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitLog {
    /// Fields that each of its entries gets: names of capitals, digits and underscores, without one in front.
    pub fields: Vec<(&'static str, String)>,
    /// How many lines are taken; the journal's own limit when absent.
    pub rate: Option<LogRate>,
}

/// Writes the files of a unit; what an earlier one of its name left is replaced. In place before the unit's first line,
/// since journald remembers for a while what it has read for a process.
pub(super) fn write(unit: &str, log: &UnitLog) -> io::Result<()> {
    write_in(Path::new(DIRECTORY), unit, log)
}

/// Removes the files of a unit, if there are any.
pub(super) fn remove(unit: &str) -> io::Result<()> {
    remove_in(Path::new(DIRECTORY), unit)
}

/// Removes the files of all containers' scopes but these.
pub(super) fn sweep(keep: impl Fn(&str) -> bool) -> io::Result<()> {
    sweep_in(Path::new(DIRECTORY), keep)
}

fn write_in(directory: &Path, unit: &str, log: &UnitLog) -> io::Result<()> {
    replace(&path(directory, EXTRA_FIELDS, unit), |temporary| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(temporary)?;
        io::Write::write_all(&mut file, &encoded(&log.fields))
    })?;
    let numbers = log.rate.map(|rate| [rate.interval_usec, u64::from(rate.burst)]);
    for (index, kind) in [RATE_INTERVAL, RATE_BURST].into_iter().enumerate() {
        let link = path(directory, kind, unit);
        match numbers {
            Some(numbers) => replace(&link, |temporary| symlink(numbers[index].to_string(), temporary))?,
            None => absent_is_fine(fs::remove_file(&link))?,
        }
    }
    Ok(())
}

fn remove_in(directory: &Path, unit: &str) -> io::Result<()> {
    KINDS.iter().try_for_each(|kind| absent_is_fine(fs::remove_file(path(directory, kind, unit))))
}

fn sweep_in(directory: &Path, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let unit = name.to_str().and_then(|name| name.split_once(':')).filter(|(kind, _)| KINDS.contains(kind));
        let ours = unit.map(|(_, unit)| unit).filter(|unit| unit.starts_with("holm-") && unit.contains(".scope"));
        if ours.is_some_and(|unit| !keep(unit)) {
            absent_is_fine(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// A reader sees the old one or the new one.
fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    absent_is_fine(fs::remove_file(&temporary))?;
    make(&temporary)?;
    fs::rename(&temporary, path)
}

fn encoded(fields: &[(&'static str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let length = (name.len() + 1 + value.len()) as u64;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(format!("{name}={value}").as_bytes());
    }
    bytes
}

fn path(directory: &Path, kind: &str, unit: &str) -> PathBuf {
    directory.join(format!("{kind}:{unit}"))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

const DIRECTORY: &str = "/run/systemd/units";
const EXTRA_FIELDS: &str = "log-extra-fields";
const RATE_INTERVAL: &str = "log-rate-limit-interval";
const RATE_BURST: &str = "log-rate-limit-burst";
const KINDS: [&str; 3] = [EXTRA_FIELDS, RATE_INTERVAL, RATE_BURST];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn fields_and_limits_are_written_as_systemd_writes_them() {
        let directory = tempfile::tempdir().unwrap();
        let rate = LogRate { interval_usec: 30_000_000, burst: 100 };
        let log = UnitLog { fields: vec![("A", "b".into()), ("NAME", "web".into())], rate: Some(rate) };
        write_in(directory.path(), "holm-web.scope", &log).unwrap();
        let text = fs::read(directory.path().join("log-extra-fields:holm-web.scope")).unwrap();
        assert_eq!(text, b"\x03\0\0\0\0\0\0\0A=b\x08\0\0\0\0\0\0\0NAME=web");
        let link = |kind: &str| fs::read_link(directory.path().join(format!("{kind}:holm-web.scope"))).unwrap();
        assert_eq!(link(RATE_INTERVAL), Path::new("30000000"));
        assert_eq!(link(RATE_BURST), Path::new("100"));
        // The next run has no limit of its own.
        write_in(directory.path(), "holm-web.scope", &UnitLog::default()).unwrap();
        assert_eq!(names(directory.path()), ["log-extra-fields:holm-web.scope"]);
        remove_in(directory.path(), "holm-web.scope").unwrap();
        remove_in(directory.path(), "holm-web.scope").unwrap();
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn only_what_is_ours_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        for unit in ["holm-web.scope", "holm-old.scope", "holm-old.scope.new", "holmd.service", "other.scope"] {
            fs::write(directory.path().join(format!("log-extra-fields:{unit}")), "").unwrap();
        }
        fs::write(directory.path().join("invocation:holm-old.scope"), "").unwrap();
        sweep_in(directory.path(), |unit| unit == "holm-web.scope").unwrap();
        let left = [
            "invocation:holm-old.scope",
            "log-extra-fields:holm-web.scope",
            "log-extra-fields:holmd.service",
            "log-extra-fields:other.scope",
        ];
        assert_eq!(names(directory.path()), left);
    }
}
