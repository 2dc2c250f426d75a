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
    let of_unit = |file: &Declaration, unit: &str| -> Vec<Problem> {
        let prefix = format!("{}:", directory.path().join(unit).display());
        said.lines().filter_map(|line| of_line(file, unit, line.strip_prefix(&prefix)?)).collect()
    };
    let of_file = |file: &&Declaration| units(file).flat_map(|(name, _)| of_unit(file, &name)).collect();
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

/// `LINE: MESSAGE` about a unit, as a mistake in the file that the line comes from. None for lines that are from no file: a
/// systemd may be too old for what we write ourselves.
fn of_line(file: &Declaration, unit: &str, said: &str) -> Option<Problem> {
    let (line, message) = said.split_once(": ")?;
    let message = message.trim_end_matches('.').replace(", ignoring", "");
    file.problem_in(unit, line.parse().ok()?, format!("systemd: {message}"))
}
