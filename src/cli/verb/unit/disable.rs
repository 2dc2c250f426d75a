//! `holmctl unit disable`

use std::fs;

use super::{named, switch_of, systemctl};
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::units::{Declaration, Declared, Directories};

/// What is dropped in to a file that shall not be started by itself.
const SWITCH: &str = "# Made by 'holmctl unit disable'; 'holmctl unit enable' removes it.
[Install]
Alias=
WantedBy=
RequiredBy=
UpheldBy=
";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files or units, such as web, web.container or web.service
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// And stop them
    #[arg(long)]
    now: bool,
    /// Do not have systemd read its units again
    #[arg(long, conflicts_with = "now")]
    no_reload: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let directories = Directories::of_host();
    let declared = Declared::load(&directories);
    let files: Result<Vec<_>, _> = args.names.iter().map(|name| named(&declared, name)).collect();
    let files = files?;
    // Stopped while systemd still knows them: an instance is gone then.
    let units = files.iter().flat_map(|file| &file.units).map(|unit| unit.name.clone());
    let units: Vec<_> = units.filter(|name| !name.contains("@.")).collect();
    systemctl(false, args.now.then_some("stop"), &units)?;
    for file in &files {
        disable(&directories, file)?;
    }
    systemctl(!args.no_reload, None, &[])?;
    Ok(Status::SUCCESS)
}

fn disable(directories: &Directories, file: &Declaration) -> Result<(), CliError> {
    let path = &file.source.path;
    if is_link_of_instance(directories, file) {
        return fs::remove_file(path).map_err(|source| CliError::io(format!("remove {}", path.display()), source));
    }
    let switch = switch_of(directories, file);
    let directory = switch.parent().unwrap_or(directories.first());
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&switch, SWITCH));
    written.map_err(|source| CliError::io(format!("write {}", switch.display()), source))
}

/// Whether it is what `enable` makes of a template.
fn is_link_of_instance(directories: &Directories, file: &Declaration) -> bool {
    let path = &file.source.path;
    file.source.name.template().is_some() && path.is_symlink() && path.starts_with(directories.first())
}
