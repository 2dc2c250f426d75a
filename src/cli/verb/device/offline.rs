//! What needs the DeviceSet and no daemon.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::findings::Findings;
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;

/// The work is `holmd`'s: it needs the configuration as the daemon reads it, and the DeviceSet itself. The bus is
/// not asked for anything, for that would start the daemon.
pub(super) fn run(option: &str, json: bool) -> Outcome {
    let program = beside_us("holmd");
    let output = Command::new(&program).arg(option).stdin(Stdio::null()).output();
    let output = output.map_err(|source| CliError::io(format!("run {}", program.display()), source))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().last().unwrap_or("it says nothing");
        return Err(CliError::Usage(line.strip_prefix("holmd: ").unwrap_or(line).to_owned()));
    }
    let report: Findings = serde_json::from_slice(&output.stdout)
        .map_err(|error| CliError::Usage(format!("{} is of another version: {error}", program.display())))?;
    report.write(json)?;
    Ok(Status::SUCCESS)
}

/// A program of ours where this one is, as packages install them.
fn beside_us(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    own.and_then(|path| Some(path.parent()?.join(name))).filter(|path| path.exists()).unwrap_or_else(|| name.into())
}
