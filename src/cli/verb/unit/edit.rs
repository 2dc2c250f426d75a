//! `holmctl unit edit`

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{named, systemctl};
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::units::{Declaration, Declared, Directories, FileName};

/// What stands between what is written and what is only shown.
const BELOW: &str = "### What is below this line is dropped.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file or unit, such as web, web.container or web.service
    name: String,
    /// The whole file, in the administrator's directory, and not what is dropped in to it
    #[arg(long)]
    full: bool,
    /// Name of the drop-in
    #[arg(long, value_name = "NAME", default_value = "override.conf", conflicts_with = "full")]
    drop_in: String,
    /// Do not have systemd read its units again
    #[arg(long)]
    no_reload: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let directories = Directories::of_host();
    let declared = Declared::load(&directories);
    let place = match declared.find(&args.name) {
        Some(file) => Place::of(&directories, file, args)?,
        // A new one.
        None => Place::new(&directories, &args.name)?,
    };
    let Some(text) = place.edited()? else {
        output::tell("nothing was changed");
        return Ok(Status::SUCCESS);
    };
    place.put(&directories, &text)?;
    systemctl(!args.no_reload, None, &[])?;
    Ok(Status::SUCCESS)
}

/// What is edited.
#[derive(Debug)]
struct Place {
    /// The file that is written.
    path: PathBuf,
    /// The name of what it belongs to.
    name: String,
    /// What the editor begins with.
    before: String,
}

impl Place {
    fn of(directories: &Directories, file: &Declaration, args: &Args) -> Result<Self, CliError> {
        let name = file.source.name.to_string();
        if args.full {
            let path = directories.first().join(&name);
            return Ok(Self { path, name, before: read(&file.source.path)? });
        }
        if args.drop_in.contains('/') || !args.drop_in.ends_with(".conf") {
            return Err(CliError::Usage(format!(
                "'{}' is not the name of a drop-in: it must end in .conf",
                args.drop_in
            )));
        }
        let path = directories.first().join(format!("{name}.d")).join(&args.drop_in);
        let mut before = if path.exists() { read(&path)? } else { String::from("\n") };
        let _ = write!(before, "\n{BELOW}\n");
        for shown in std::iter::once(&file.source.path).chain(&file.source.drop_ins).filter(|shown| **shown != path) {
            let _ = writeln!(before, "\n# {}", shown.display());
            for line in read(shown)?.lines() {
                let _ = writeln!(before, "# {line}");
            }
        }
        Ok(Self { path, name, before })
    }

    fn new(directories: &Directories, name: &str) -> Result<Self, CliError> {
        let Some(file) = FileName::parse(name) else { return Err(missing(name)) };
        let path = directories.first().join(file.to_string());
        let before = "[Container]\nImage=\n\n[Install]\nWantedBy=multi-user.target\n".to_owned();
        Ok(Self { path, name: file.to_string(), before })
    }

    /// Has somebody edit a copy; `None` when it is as before, or empty.
    fn edited(&self) -> Result<Option<String>, CliError> {
        let copy = self.copy();
        let directory = copy.parent().unwrap_or(Path::new("/")).to_owned();
        let failed = |source| CliError::io(format!("write {}", copy.display()), source);
        fs::create_dir_all(&directory).map_err(failed)?;
        fs::write(&copy, &self.before).map_err(failed)?;
        let edited = open_editor(&copy).and_then(|()| read(&copy));
        drop(fs::remove_file(&copy));
        // Made for the copy alone, it goes again.
        drop(fs::remove_dir(&directory));
        let edited = edited?;
        let kept = |text: &str| text.split(BELOW).next().unwrap_or_default().trim().to_owned();
        if kept(&edited) == kept(&self.before) || kept(&edited).is_empty() {
            return Ok(None);
        }
        Ok(Some(kept(&edited) + "\n"))
    }

    /// Beside the file, hidden, so that nobody takes it for one.
    fn copy(&self) -> PathBuf {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.path.with_file_name(format!(".#{file}.{}", std::process::id()))
    }

    /// Writes it, if it is right; otherwise it is as before, and what was written is kept aside.
    fn put(&self, directories: &Directories, text: &str) -> Result<(), CliError> {
        let failed = |source| CliError::io(format!("write {}", self.path.display()), source);
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let before = match fs::read(&self.path) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(failed(source)),
        };
        replace(&self.path, text.as_bytes()).map_err(failed)?;
        let declared = Declared::load(directories);
        let problems = named(&declared, &self.name)?.problems.clone();
        if problems.is_empty() {
            return Ok(());
        }
        match before {
            Some(before) => replace(&self.path, &before).map_err(failed)?,
            None => fs::remove_file(&self.path).map_err(failed)?,
        }
        let aside = std::env::temp_dir().join(format!("{}.{}", self.name, std::process::id()));
        fs::write(&aside, text).map_err(|source| CliError::io(format!("write {}", aside.display()), source))?;
        problems.iter().for_each(|problem| eprintln!("{problem}"));
        Err(CliError::Usage(format!("nothing was changed; what you wrote is in {}", aside.display())))
    }
}

/// Writes a file in one step: whoever reads it sees the old or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let next = path.with_file_name(format!(".#{file}.new"));
    fs::write(&next, text)?;
    fs::rename(&next, path)
}

fn missing(name: &str) -> CliError {
    CliError::Usage(format!("no file declares '{name}': for a new one give its whole name, such as '{name}.container'"))
}

fn read(path: &Path) -> Result<String, CliError> {
    let text = fs::read(path).map_err(|source| CliError::io(format!("read {}", path.display()), source))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The editors that systemctl tries, in its order.
fn open_editor(file: &Path) -> Result<(), CliError> {
    let wanted =
        ["SYSTEMD_EDITOR", "EDITOR", "VISUAL"].iter().find_map(std::env::var_os).filter(|text| !text.is_empty());
    let editors: Vec<OsString> = match wanted {
        Some(editor) => vec![editor],
        None => ["editor", "nano", "vim", "vi"].map(OsString::from).to_vec(),
    };
    for editor in editors {
        // The variable may have arguments in it: a shell takes it apart.
        let mut command = Command::new("/bin/sh");
        let line = format!("exec {} \"$1\"", editor.to_string_lossy());
        match command.args(["-c", &line, "sh"]).arg(file).status() {
            Ok(ended) if ended.success() => return Ok(()),
            Ok(ended) if ended.code() == Some(127) => {}
            Ok(ended) => return Err(CliError::Usage(format!("the editor failed ({ended}): nothing was changed"))),
            Err(source) => return Err(CliError::io("run an editor", source)),
        }
    }
    Err(CliError::Usage("there is no editor: set $EDITOR".into()))
}
