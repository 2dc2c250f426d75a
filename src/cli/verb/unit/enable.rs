//! `holmctl unit enable`
//!
//! The generator applies `[Install]` by itself, so a file is enabled by being there: what there is to do is to take back
//! what `disable` did, or to make an instance of a template.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use super::{named, switch_of, systemctl};
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::units::{Declared, Directories, FileName};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files or units, such as web, web.container or web.service; web@blue makes an instance of web@.container
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// And start them
    #[arg(long)]
    now: bool,
    /// Do not have systemd read its units again
    #[arg(long, conflicts_with = "now")]
    no_reload: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let directories = Directories::of_host();
    for name in &args.names {
        enable(&directories, name)?;
    }
    let declared = Declared::load(&directories);
    let mut services = Vec::new();
    for name in &args.names {
        let file = named(&declared, name)?;
        if let Some(problem) = file.problems.first() {
            return Err(CliError::Usage(format!("{problem} ('holmctl unit verify' shows all)")));
        }
        if !file.wanted {
            let message = "says nowhere what wants it: add [Install] with WantedBy=multi-user.target";
            return Err(CliError::Usage(format!(
                "{} {message}, 'holmctl unit edit {name}'",
                file.source.path.display()
            )));
        }
        services.push(file.service());
    }
    systemctl(!args.no_reload, args.now.then_some("start"), &services)?;
    Ok(Status::SUCCESS)
}

fn enable(directories: &Directories, name: &str) -> Result<(), CliError> {
    let declared = Declared::load(directories);
    let Some(file) = declared.find(name) else { return instance(directories, &declared, name) };
    let switch = switch_of(directories, file);
    match fs::remove_file(&switch) {
        Ok(()) => {
            // Where nothing else is dropped in, the directory was made for it.
            if let Some(directory) = switch.parent() {
                drop(fs::remove_dir(directory));
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CliError::io(format!("remove {}", switch.display()), source)),
    }
}

/// Makes an instance of a template: a link to it by the instance's name.
fn instance(directories: &Directories, declared: &Declared, name: &str) -> Result<(), CliError> {
    let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".container")).unwrap_or(name);
    let file = FileName::parse(&format!("{stem}.container"));
    let template = file.as_ref().and_then(FileName::template);
    let (Some(file), Some(template)) = (file, template) else { return named(declared, name).map(drop) };
    let template = named(declared, &template.to_string())?;
    let link = directories.first().join(file.to_string());
    let made = fs::create_dir_all(directories.first()).and_then(|()| symlink(&template.source.path, &link));
    made.map_err(|source| CliError::io(format!("link {}", link.display()), source))
}
