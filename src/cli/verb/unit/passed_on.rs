//! What systemd finds in the sections that are passed on to it: `[Unit]`, `[Service]`, `[Socket]`, `[Install]`. It warns of a key
//! that it does not know, and goes on without it (systemd.syntax(7)); here that is a mistake like any other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::error::CliError;
use crate::units::{Declaration, Declared, Problem};

/// What systemd-analyze(1) has against the units of each of some declared files. Nothing of files that have mistakes of their
/// own, whose units only say so, nor where there is no systemd.
pub(super) fn mistakes(declared: &Declared, files: &[&Declaration]) -> Result<Vec<Vec<Problem>>, CliError> {
    let directory = tempfile::tempdir().map_err(|source| CliError::io("make a directory for units", source))?;
    let units = |file: &Declaration| file.units.clone().into_iter().filter_map(|unit| Some((unit.name, unit.text?)));
    for (name, text) in declared.files.iter().flat_map(units) {
        fs::write(directory.path().join(&name), text)
            .map_err(|source| CliError::io(format!("write {name}"), source))?;
    }
    let sound: Vec<_> = files.iter().filter(|file| file.problems.is_empty()).flat_map(|file| units(file)).collect();
    let paths: Vec<_> = sound.iter().map(|(name, _)| directory.path().join(name)).collect();
    let said = verify(directory.path(), &paths).map_err(|source| CliError::io("run systemd-analyze", source))?;
    let of_unit = |file: &Declaration, name: &str, text: &str| -> Vec<Problem> {
        let prefix = format!("{}:", directory.path().join(name).display());
        said.lines().filter_map(|line| of_line(file, text, line.strip_prefix(&prefix)?)).collect()
    };
    let of_file = |file: &&Declaration| units(file).flat_map(|(name, text)| of_unit(file, &name, &text)).collect();
    Ok(files.iter().map(of_file).collect())
}

/// What it says of units in a directory, which is looked into before the host's own.
fn verify(directory: &Path, units: &[PathBuf]) -> io::Result<String> {
    if units.is_empty() {
        return Ok(String::new());
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no", "--"]).args(units);
    // An empty path at the end stands for the usual ones.
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", directory.display()));
    command.env("SYSTEMD_LOG_COLOR", "0").env("SYSTEMD_LOG_LOCATION", "0").env("SYSTEMD_LOG_TIME", "0");
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// `LINE: MESSAGE` about a unit's text, as a mistake in the file that the line comes from. None for lines that are not from a
/// file: a systemd may be too old for what we write ourselves.
fn of_line(file: &Declaration, text: &str, said: &str) -> Option<Problem> {
    let (number, message) = said.split_once(": ")?;
    let number = number.parse::<usize>().ok()?;
    let wrong = assignments(text).find(|assignment| assignment.line == number)?;
    let sources = std::iter::once(&file.source.path).chain(&file.source.drop_ins);
    let (path, line) = sources.rev().find_map(|path| Some((path, wrong.line_in(&fs::read_to_string(path).ok()?)?)))?;
    let message = message.trim_end_matches('.').replace(", ignoring", "");
    Some(Problem { file: path.clone(), line, key: Some(wrong.key.to_owned()), message: format!("systemd: {message}") })
}

#[derive(Debug)]
struct Assignment<'a> {
    line: usize,
    section: &'a str,
    key: &'a str,
    value: &'a str,
}

fn assignments(text: &str) -> impl Iterator<Item = Assignment<'_>> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .scan("", |section, (index, line)| {
            if line.starts_with('[') {
                *section = line;
            }
            let split = line.split_once('=').filter(|_| !line.starts_with(['[', '#', ';']));
            Some(split.map(|(key, value)| Assignment {
                line: index + 1,
                section,
                key: key.trim(),
                value: value.trim(),
            }))
        })
        .flatten()
}

impl Assignment<'_> {
    /// Where a file says this: best in the same section and in the same words, which may be over several lines there.
    fn line_in(&self, text: &str) -> Option<usize> {
        let alike = assignments(text).filter(|found| found.key == self.key);
        let best = alike.min_by_key(|found| (found.section != self.section, found.value != self.value));
        best.map(|found| found.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_where_it_was_written() {
        let text = "[Container]\nEnvironment=a b\n[Service]\nRestart = always\n#Restart=alway\nEnvironment=a \\\n b\nRestart=alway\n";
        let line_of = |line: &str| {
            let unit = format!("[Service]\n{line}\n");
            assignments(&unit).next().unwrap().line_in(text)
        };
        assert_eq!(line_of("Restart=alway"), Some(8));
        assert_eq!(line_of("Restart=always"), Some(4));
        assert_eq!(line_of("Environment=a b"), Some(6));
        assert_eq!(line_of("Type=notify"), None);
    }
}
