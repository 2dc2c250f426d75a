//! Files that declare containers, and the units of systemd that they become. Text in, text out: nothing here talks to
//! systemd, to the daemon, or to the kernel beyond reading the files.
//!
//! | file | what |
//! |---|---|
//! | this one | all files together → their units, or what is wrong |
//! | `files.rs`, `name.rs` | which files there are, with drop-ins; what their names say |
//! | `syntax.rs`, `words.rs`, `value.rs` | systemd.syntax(7): lines, quotes, specifiers, values |
//! | `key.rs` | tables of keys |
//! | `index.rs` | what files name one another by |
//! | `sections.rs`, `install.rs` | sections that are passed on; `[Install]` |
//! | `container/`, `volume.rs`, `image.rs`, `oneshot.rs` | the three kinds |
//! | `bad.rs` | the unit of a file with mistakes |
//! | `unit.rs`, `problem.rs` | what comes out |

mod bad;
mod container;
mod files;
mod image;
mod index;
mod install;
mod key;
mod name;
mod oneshot;
mod problem;
mod sections;
mod syntax;
mod unit;
mod value;
mod volume;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

pub use files::{DIRECTORIES, Directories, Source};
pub use key::Described;
pub use name::{FileName, Kind};
pub use problem::Problem;
pub use unit::{Link, Unit};

use index::Index;
use install::Install;
use problem::Place;
use sections::Sections;
use syntax::Assignment;

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The file.
    pub source: Source,
    /// What is wrong in it and its drop-ins. If anything is, its unit only says so when it is started.
    pub problems: Vec<Problem>,
    /// Its units, the service first. None when another file has a unit of that name already, which is a problem.
    pub units: Vec<Unit>,
    /// Whether it says that there is nothing of its name.
    pub masked: bool,
    /// Whether systemd starts it without being asked.
    pub wanted: bool,
}

/// Everything that is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The files, sorted by name.
    pub files: Vec<Declaration>,
    /// What is wrong with directories, and with files whose name cannot be used.
    pub problems: Vec<Problem>,
}

impl Declared {
    /// Reads the directories. Every file becomes a unit, whatever is in it.
    pub fn load(directories: &Directories) -> Self {
        let mut problems = Vec::new();
        let sources = directories.sources(&mut problems);
        let read: Vec<_> = sources.into_iter().map(Read::of).collect();
        let mut index = Index::default();
        for file in read.iter().filter(|file| !file.source.is_masked()) {
            index.add(&file.source.name, &file.assignments);
        }
        let mut files: Vec<_> = read.into_iter().map(|file| file.declare(&index)).collect();
        refuse_doubles(&mut files);
        Self { files, problems }
    }

    /// The file that somebody means by `web.container`, `web.service` or `web`, which is a container's unless there is none.
    pub fn find(&self, word: &str) -> Option<&Declaration> {
        let by_name = |name: &str| self.files.iter().find(|file| file.source.name.to_string() == name);
        let by_service = || self.files.iter().find(|file| file.service() == word);
        let by_kind = || Kind::ALL.iter().find_map(|kind| by_name(&format!("{word}.{}", kind.suffix())));
        by_name(word).or_else(by_service).or_else(by_kind)
    }

    /// All mistakes, those of directories first.
    pub fn all_problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().chain(self.files.iter().flat_map(|file| &file.problems))
    }
}

impl Declaration {
    /// The service that the file becomes, also when it is not its own.
    pub fn service(&self) -> String {
        self.units.first().map_or_else(|| index::service_of(&self.source.name, None), |unit| unit.name.clone())
    }

    /// A mistake in a line of one of its units, counted from 1, as one in the file that the line comes from: best from the same
    /// section and in the same words. None for a line that is in no file.
    pub fn problem_in(&self, unit: &str, line: usize, message: String) -> Option<Problem> {
        let unit = self.units.iter().find(|candidate| candidate.name == unit)?;
        let written = syntax::parse(unit.text.as_ref()?.as_bytes(), Path::new(&unit.name), &mut Vec::new());
        let wrong = written.into_iter().find(|assignment| assignment.place.line == line)?;
        let alike = self.source.read(&mut Vec::new()).into_iter().filter(|found| found.key == wrong.key);
        let best = alike.min_by_key(|found| (found.section != wrong.section, found.value != wrong.value))?;
        Some(best.problem(message))
    }
}

/// Name, form and text of every key of a kind's own section, the used ones first. A refused one has no form, and its text
/// says what to do instead.
pub fn keys(kind: Kind) -> Vec<Described> {
    match kind {
        Kind::Container => container::keys().into_iter().map(key::Key::described).collect(),
        Kind::Volume => volume::described().collect(),
        Kind::Image => image::described().collect(),
        Kind::Foreign(_) => Vec::new(),
    }
}

/// A file that was read.
struct Read {
    source: Source,
    assignments: Vec<Assignment>,
    problems: Vec<Problem>,
}

impl Read {
    fn of(source: Source) -> Self {
        let mut problems = Vec::new();
        let assignments = source.read(&mut problems);
        Self { source, assignments, problems }
    }

    fn declare(self, index: &Index) -> Declaration {
        let Self { source, assignments, mut problems } = self;
        let name = source.name.clone();
        if source.is_masked() {
            let unit = Unit { name: index::service_of(&name, None), text: None, links: Vec::new() };
            return Declaration { source, problems: Vec::new(), units: vec![unit], masked: true, wanted: false };
        }
        let known = match name.kind() {
            Kind::Container => ["Unit", "Container", "Service", "Socket", "Install"].as_slice(),
            Kind::Volume => &["Unit", "Volume", "Service", "Install"],
            Kind::Image => &["Unit", "Image", "Service", "Install"],
            Kind::Foreign(_) => &[],
        };
        let mut units = Vec::new();
        let mut wanted = false;
        if let Some(why) = name.kind().refusal() {
            // One reason is enough.
            problems = vec![Place::whole(&source.path).problem(why)];
        } else {
            let sections = Sections::new(&source.path, &assignments, known, &mut problems);
            units = match name.kind() {
                Kind::Container => container::units(&name, &sections, index, &mut problems),
                Kind::Volume => volume::units(&name, &sections, index, &mut problems),
                Kind::Image => image::units(&name, &sections, index, &mut problems),
                Kind::Foreign(_) => Vec::new(),
            };
            wanted = Install::of(&name, &sections.of("Install"), &mut Vec::new()).is_wanted();
        }
        in_order(&mut problems);
        if !problems.is_empty() {
            let service = units.into_iter().next();
            let (unit, links) = service
                .map_or_else(|| (index::service_of(&name, None), Vec::new()), |service| (service.name, service.links));
            units = vec![bad::unit(&source, unit, links, &problems)];
        }
        Declaration { source, problems, units, masked: false, wanted }
    }
}

/// By place, each once; what is about a whole file comes last, for it is often what remains.
fn in_order(problems: &mut Vec<Problem>) {
    problems.sort_by_key(|problem| (problem.line == 0, problem.file.clone(), problem.line));
    problems.dedup();
}

/// Of several files with a unit of one name, the first has it.
fn refuse_doubles(files: &mut [Declaration]) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let taken = file.units.iter().find_map(|unit| Some((unit.name.clone(), owners.get(&unit.name)?.clone())));
        if let Some((unit, owner)) = taken {
            let message = format!("its unit {unit} is that of {owner} already: choose another ServiceName=");
            file.problems.push(Place::whole(&file.source.path).problem(message));
            file.units.clear();
            continue;
        }
        owners.extend(file.units.iter().map(|unit| (unit.name.clone(), file.source.path.display().to_string())));
    }
}

#[cfg(test)]
mod tests;
