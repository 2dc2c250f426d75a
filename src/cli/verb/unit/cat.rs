//! `holmctl unit cat`

use std::fmt::Write as _;

use super::named;
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::units::{Declaration, Declared, Directories};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files or units, such as web, web.container or web.service
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let declared = Declared::load(&Directories::of_host());
    let texts: Result<Vec<_>, _> = args.names.iter().map(|name| text_of(named(&declared, name)?)).collect();
    output::write(&texts?.join("\n"))?;
    Ok(Status::SUCCESS)
}

/// The file, its drop-ins and its units, each with its place before it, as systemctl does.
fn text_of(file: &Declaration) -> Result<String, CliError> {
    let mut text = String::new();
    for path in std::iter::once(&file.source.path).chain(&file.source.drop_ins) {
        let shown = path.display();
        let read = std::fs::read(path).map_err(|source| CliError::io(format!("read {shown}"), source))?;
        let _ = write!(text, "# {shown}\n{}\n", String::from_utf8_lossy(&read).trim_end());
        text.push('\n');
    }
    for unit in &file.units {
        let _ = writeln!(text, "# /run/systemd/generator/{}", unit.name);
        text.push_str(unit.text.as_deref().unwrap_or("# masked\n"));
        for link in &unit.links {
            let _ = writeln!(text, "# link: {}", link.path);
        }
        text.push('\n');
    }
    text.pop();
    Ok(text)
}
