//! `holmctl unit verify`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::{named, passed_on};
use crate::cli::Outcome;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::units::{Declaration, Declared, Directories, FileName, Problem};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files, or names of those that systemd is given; all of the latter when absent
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Write a JSON array of the mistakes
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let Found { problems, wrong, files } = if args.files.is_empty() { everything()? } else { some(&args.files)? };
    if args.json {
        output::write_json(&problems.iter().map(object).collect())?;
    } else {
        // As compilers have them, so that editors find the place.
        problems.iter().for_each(|problem| eprintln!("{problem}"));
        if !problems.is_empty() {
            let plural = |count: usize| if count == 1 { "" } else { "s" };
            let (mistakes, s) = (problems.len(), plural(problems.len()));
            output::tell(&format!("{mistakes} mistake{s}, in {wrong} of {files} file{}", plural(files)));
        }
    }
    Ok(if problems.is_empty() { Status::SUCCESS } else { Status::UNFIT })
}

/// What was looked at.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    wrong: usize,
    files: usize,
}

impl Found {
    fn add(&mut self, declared: &Declared, files: &[&Declaration]) -> Result<(), CliError> {
        for (file, passed_on) in files.iter().zip(passed_on::mistakes(declared, files)?) {
            self.files += 1;
            self.wrong += usize::from(!(file.problems.is_empty() && passed_on.is_empty()));
            self.problems.extend(file.problems.iter().cloned().chain(passed_on));
        }
        Ok(())
    }
}

fn everything() -> Result<Found, CliError> {
    let declared = Declared::load(&Directories::of_host());
    let mut found = Found { problems: declared.problems.clone(), ..Found::default() };
    found.add(&declared, &declared.files.iter().collect::<Vec<_>>())?;
    Ok(found)
}

fn some(words: &[String]) -> Result<Found, CliError> {
    // Files of one directory may name one another, and systemd is asked once for all of them.
    let mut read: BTreeMap<PathBuf, (Declared, Vec<usize>)> = BTreeMap::new();
    for word in words {
        let Some(path) = path_of(word) else {
            let load = || (Declared::load(&Directories::of_host()), Vec::new());
            let (declared, asked) = read.entry(PathBuf::new()).or_insert_with(load);
            let path = &named(declared, word)?.source.path;
            asked.extend(declared.files.iter().position(|file| file.source.path == *path));
            continue;
        };
        let path = std::path::absolute(&path).map_err(|source| CliError::io(format!("find {word}"), source))?;
        std::fs::metadata(&path).map_err(|source| CliError::io(format!("read {word}"), source))?;
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let load = || (Declared::load(&Directories::of_host().with_first(&directory)), Vec::new());
        let (declared, asked) = read.entry(directory.clone()).or_insert_with(load);
        match declared.files.iter().position(|file| file.source.path == path) {
            Some(index) => asked.push(index),
            None => return Err(CliError::Usage(not_ours(declared, &path))),
        }
    }
    let mut found = Found::default();
    for (declared, asked) in read.values() {
        found.add(declared, &asked.iter().map(|index| &declared.files[*index]).collect::<Vec<_>>())?;
    }
    Ok(found)
}

/// A word is a path when it looks like one or there is such a file.
fn path_of(word: &str) -> Option<PathBuf> {
    (word.contains('/') || Path::new(word).is_file()).then(|| PathBuf::from(word))
}

fn not_ours(declared: &Declared, path: &Path) -> String {
    if let Some(problem) = declared.problems.iter().find(|problem| problem.file == path) {
        return problem.to_string();
    }
    let shown = path.display();
    match FileName::of(path) {
        Some(_) => format!("{shown} is hidden by another file of its name"),
        None => format!("{shown} declares nothing: its name must end in .container, .volume or .image"),
    }
}

fn object(problem: &Problem) -> Json {
    json!({"file": problem.file.to_string_lossy(), "line": problem.line, "key": problem.key, "message": problem.message})
}
