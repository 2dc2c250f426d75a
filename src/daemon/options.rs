//! `holmd`'s command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{Config, StorageConfig};
use crate::model::Driver;
use crate::storage::thin::{Store, ThinConfig};
use crate::storage::{self, DriverChoice, Opened, StorageError};

/// What `--help` prints.
pub(super) const HELP: &str = "\
holmd, the daemon of Holm: containers as systemd scopes on thin snapshots, over D-Bus as org.holm1

Usage: holmd [--config-root DIR]... [--check-config | --salvage | --adopt | --shutdown |
             --version | --help]

  --config-root DIR  read DIR/holm.toml and DIR/holm.toml.d/*.toml instead of those in /usr/lib/holm
                     and /etc/holm; may be given more than once, later ones win
  --check-config     read the configuration, say what is wrong with it, and exit
  --salvage          rebuild a journal of the pool that is lost or too old, write what was found as JSON,
                     and exit; people use 'holmctl device salvage'
  --adopt            take the configured block devices or pool over, which are not known to be Holm's, giving
                     up anything else that is on them; write what was found as JSON, and exit; people use
                     'holmctl device adopt'
  --shutdown         at the end of the system, and only then: stop all containers and give the pool back, if
                     no daemon has; holm-shutdown.service does it
";

/// What the daemon is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Version,
    CheckConfig(Vec<PathBuf>),
    Salvage(Vec<PathBuf>),
    Adopt(Vec<PathBuf>),
    Shutdown(Vec<PathBuf>),
    Run(Vec<PathBuf>),
}

/// Reads the arguments after the program's name.
pub(super) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut roots = Vec::new();
    let mut command: fn(Vec<PathBuf>) -> Command = Command::Run;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version") => return Ok(Command::Version),
            Some("--check-config") => command = Command::CheckConfig,
            Some("--salvage") => command = Command::Salvage,
            Some("--adopt") => command = Command::Adopt,
            Some("--shutdown") => command = Command::Shutdown,
            Some("--config-root") => {
                roots.push(PathBuf::from(arguments.next().ok_or("--config-root needs a directory")?));
            }
            _ => return Err(format!("unknown argument {argument:?}: see 'holmd --help'")),
        }
    }
    if roots.is_empty() {
        roots = Config::ROOTS.iter().map(PathBuf::from).collect();
    }
    Ok(command(roots))
}

/// Opens the DeviceSet that the configuration wants.
pub(super) fn open_storage(config: &StorageConfig) -> Result<Opened, StorageError> {
    let choice = match config.driver {
        None => DriverChoice::Auto,
        Some(Driver::Thin) => DriverChoice::Thin,
        Some(Driver::Copy) => DriverChoice::Copy,
    };
    storage::open(choice, &thin_config(config))
}

/// The pool that the configuration wants.
pub(super) fn thin_config(config: &StorageConfig) -> ThinConfig {
    ThinConfig {
        store: store(config),
        prefix: config.prefix.clone(),
        data_size: config.data_size,
        data_max_size: config.data_max_size,
        metadata_size: config.metadata_size,
        base_size: config.base_size,
        file_system: config.filesystem,
        ..ThinConfig::new(config.directory.join("pool"))
    }
}

/// What the pool lies on; which keys go together was checked when they were read.
fn store(config: &StorageConfig) -> Store {
    match (&config.data_device, &config.metadata_device, &config.device, &config.pool) {
        (Some(data), Some(metadata), ..) => Store::Pair { data: data.clone(), metadata: metadata.clone() },
        (_, _, Some(device), _) => Store::Device(device.clone()),
        (.., Some(pool)) => Store::Pool(pool.clone()),
        _ => Store::Files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn without_arguments_it_runs_with_the_usual_roots() {
        assert_eq!(parsed(&[]), Ok(Command::Run(vec!["/usr/lib/holm".into(), "/etc/holm".into()])));
    }

    #[test]
    fn roots_replace_the_usual_ones() {
        assert_eq!(parsed(&["--check-config", "--config-root", "/x"]), Ok(Command::CheckConfig(vec!["/x".into()])));
    }

    #[test]
    fn salvage_reads_the_configuration_as_the_daemon_does() {
        let roots = ["/usr/lib/holm", "/etc/holm"].map(PathBuf::from).to_vec();
        assert_eq!(parsed(&["--salvage"]), Ok(Command::Salvage(roots)));
    }

    #[test]
    fn unknown_arguments_are_refused() {
        assert!(parsed(&["--chek-config"]).is_err());
        assert!(parsed(&["--config-root"]).is_err());
    }
}
