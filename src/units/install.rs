//! `[Install]`, which the generator applies itself: systemd cannot enable a unit that was generated.

use super::index::Index;
use super::name::{FileName, is_unit_name};
use super::problem::Problem;
use super::syntax::Assignment;
use super::unit::Link;
use super::value::Parsed;
use super::words::split;

/// Keys and the directories of their links.
const DIRECTORIES: [(&str, &str); 3] = [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")];

/// What a section `[Install]` says.
#[derive(Debug, Default)]
pub(super) struct Install<'a> {
    section: Vec<&'a Assignment>,
    default_instance: Option<String>,
}

impl<'a> Install<'a> {
    /// Reads it. Mistakes are added to `problems`.
    pub(super) fn of(name: &FileName, section: &[&'a Assignment], problems: &mut Vec<Problem>) -> Self {
        let mut install = Self { section: section.to_vec(), default_instance: None };
        for assignment in section {
            let wrong = match assignment.key.as_str() {
                "Alias" | "WantedBy" | "RequiredBy" | "UpheldBy" => None,
                "DefaultInstance" => install.take_default(name, &assignment.value).err(),
                "Also" => Some("not supported: enable each file by itself".to_owned()),
                key if key.starts_with("X-") => None,
                _ => Some(
                    "no such key in [Install]: use Alias, WantedBy, RequiredBy, UpheldBy or DefaultInstance".into(),
                ),
            };
            problems.extend(wrong.map(|message| assignment.problem(message)));
        }
        install
    }

    fn take_default(&mut self, name: &FileName, value: &str) -> Parsed<()> {
        // Of an instance it is what its template says.
        if name.instance().is_none() {
            return Err("only a template, whose name ends in '@', has one".into());
        }
        if value.is_empty() || is_unit_name(&format!("x@{value}.service")) {
            self.default_instance = (!value.is_empty()).then(|| value.to_owned());
            return Ok(());
        }
        Err("is not the name of an instance".into())
    }

    /// The links for a unit; for one of the socket of a container only those of `sockets.target`, which are not the
    /// container's. A template has links only with a `DefaultInstance=`.
    pub(super) fn links(&self, service: &str, socket: Socket, index: &Index, problems: &mut Vec<Problem>) -> Vec<Link> {
        let Some(unit) = self.instance_of(service) else { return Vec::new() };
        let mut links = Vec::new();
        for (key, directory) in DIRECTORIES {
            for (assignment, word) in self.words(key, problems) {
                if (word == "sockets.target") != (socket == Socket::Own) && socket != Socket::None {
                    continue;
                }
                match target_of(&word, &unit, index) {
                    Ok(target) => links
                        .push(Link { path: format!("{target}.{directory}/{unit}"), target: format!("../{service}") }),
                    Err(message) => problems.push(assignment.problem(message)),
                }
            }
        }
        if socket != Socket::Own {
            for (assignment, word) in self.words("Alias", problems) {
                match resolved(&word, &unit) {
                    Ok(alias) if is_unit_name(&alias) && alias.ends_with(".service") => {
                        links.push(Link { path: alias, target: service.to_owned() });
                    }
                    _ => problems.push(assignment.problem(format!("'{word}' is not the name of a service"))),
                }
            }
        }
        links.sort();
        links.dedup();
        links
    }

    /// Whether there is anything that makes systemd start it by itself.
    pub(super) fn is_wanted(&self) -> bool {
        DIRECTORIES.iter().any(|(key, _)| !self.words(key, &mut Vec::new()).is_empty())
    }

    /// The unit that the links are for: of a template its default instance.
    fn instance_of(&self, unit: &str) -> Option<String> {
        match unit.split_once("@.") {
            None => Some(unit.to_owned()),
            Some((prefix, suffix)) => self.default_instance.as_ref().map(|name| format!("{prefix}@{name}.{suffix}")),
        }
    }

    /// The words of a list, after the last empty assignment.
    fn words(&self, key: &str, problems: &mut Vec<Problem>) -> Vec<(&'a Assignment, String)> {
        let mut words = Vec::new();
        for assignment in self.section.iter().filter(|assignment| assignment.key == key) {
            if assignment.value.is_empty() {
                words.clear();
                continue;
            }
            match split(&assignment.value) {
                Ok(found) => words.extend(found.into_iter().map(|word| (*assignment, word))),
                Err(message) => problems.push(assignment.problem(message)),
            }
        }
        words
    }
}

/// Which unit of a container links are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    /// The service; it has no socket.
    None,
    /// The service; `sockets.target` is its socket's.
    Beside,
    /// The socket.
    Own,
}

/// The unit that a word of `WantedBy=` and the like means.
fn target_of(word: &str, unit: &str, index: &Index) -> Parsed<String> {
    let name = match index.find(word)? {
        Some((_, entry)) => entry.service,
        None => resolved(word, unit)?,
    };
    if is_unit_name(&name) {
        Ok(name)
    } else {
        Err(format!("'{name}' is not the name of a unit, such as 'multi-user.target'"))
    }
}

/// Resolves the specifiers that can be known from the unit's name (systemd.unit(5)).
fn resolved(word: &str, unit: &str) -> Parsed<String> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut text = String::new();
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('i') => text.push_str(instance),
            Some('j') => text.push_str(prefix.rsplit('-').next().unwrap_or(prefix)),
            Some('n') => text.push_str(unit),
            Some('N') => text.push_str(stem),
            Some('p') => text.push_str(prefix),
            Some('%') => text.push('%'),
            _ => return Err("only the specifiers %i, %j, %n, %N and %p can be used here".into()),
        }
    }
    Ok(text)
}
