//! `holmctl unit …`, a file for each: what the files that declare containers say. None of it needs the daemon.

mod cat;
mod disable;
mod edit;
mod enable;
mod explain;
mod list;
mod passed_on;
mod verify;

use std::path::PathBuf;
use std::process::Command;

use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::units::{Declaration, Declared, Directories};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Look for mistakes in files
    Verify(verify::Args),
    /// Show files with their drop-ins, and the units that they become
    Cat(cat::Args),
    /// Change a file, or what is dropped in to it, and look for mistakes before it counts
    Edit(edit::Args),
    /// Have systemd start what files declare, as their [Install] says
    Enable(enable::Args),
    /// Have systemd no longer start it by itself
    Disable(disable::Args),
    /// List files, and how their units are
    List(list::Args),
    /// Say what is wrong with a file; its unit runs this
    #[command(hide = true)]
    Explain(explain::Args),
}

pub(crate) fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Verify(args) => verify::run(&args),
        Verb::Cat(args) => cat::run(&args),
        Verb::Edit(args) => edit::run(&args),
        Verb::Enable(args) => enable::run(&args),
        Verb::Disable(args) => disable::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Explain(args) => explain::run(&args),
    }
}

/// What is declared by the name that somebody gave.
fn named<'d>(declared: &'d Declared, name: &str) -> Result<&'d Declaration, CliError> {
    declared
        .find(name)
        .ok_or_else(|| CliError::Usage(format!("no file declares '{name}': 'holmctl unit list' shows them")))
}

/// What a file is switched off by: a drop-in that comes after all others and takes back what `[Install]` says.
fn switch_of(directories: &Directories, file: &Declaration) -> PathBuf {
    directories.first().join(format!("{}.d", file.source.name)).join("zz-disabled.conf")
}

/// Has systemd read its units again, and does something with some.
fn systemctl(reload: bool, verb: Option<&str>, services: &[String]) -> Result<(), CliError> {
    if reload {
        call("daemon-reload", &[])?;
    }
    match verb {
        Some(verb) if !services.is_empty() => call(verb, services),
        _ => Ok(()),
    }
}

fn call(verb: &str, services: &[String]) -> Result<(), CliError> {
    let ended = Command::new("systemctl").arg(verb).arg("--").args(services).status();
    let ended = ended.map_err(|source| CliError::io("run systemctl", source))?;
    if ended.success() { Ok(()) } else { Err(CliError::Usage(format!("'systemctl {verb}' failed: {ended}"))) }
}
