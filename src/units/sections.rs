//! The assignments of a file and its drop-ins, by section, and those that are passed on to systemd.

use std::path::Path;

use super::index::Index;
use super::problem::{Problem, did_you_mean, shown};
use super::syntax::Assignment;
use super::unit::Text;

/// Keys of `[Unit]` that take names of units, so those of declaring files too.
const NAMES: [&str; 22] = [
    "After",
    "Before",
    "Wants",
    "Requires",
    "Requisite",
    "BindsTo",
    "PartOf",
    "Upholds",
    "Conflicts",
    "OnFailure",
    "OnSuccess",
    "PropagatesReloadTo",
    "ReloadPropagatedFrom",
    "PropagatesStopTo",
    "StopPropagatedFrom",
    "JoinsNamespaceOf",
    "WantedBy",
    "RequiredBy",
    "UpheldBy",
    "RequiresOverridable",
    "RequisiteOverridable",
    "BindTo",
];

/// What a file and its drop-ins say.
#[derive(Debug)]
pub(super) struct Sections<'a> {
    path: &'a Path,
    assignments: &'a [Assignment],
}

impl<'a> Sections<'a> {
    /// Of a file. A section that is not among those `known` is a problem, once.
    pub(super) fn new(
        path: &'a Path,
        assignments: &'a [Assignment],
        known: &[&str],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut seen = Vec::new();
        for assignment in assignments {
            let name: &str = &assignment.section;
            // systemd leaves such sections to others.
            if known.contains(&name) || name.starts_with("X-") || seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let meant = did_you_mean(name, known.iter().copied());
            let allowed: Vec<_> = known.iter().map(|name| format!("[{name}]")).collect();
            let message =
                format!("no section [{}] is possible here{meant}: there are {}", shown(name), allowed.join(", "));
            problems.push(assignment.place.problem(message.replace("?: there", "? There")));
        }
        Self { path, assignments }
    }

    /// The file.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// The assignments of a section, in order.
    pub(super) fn of(&self, section: &str) -> Vec<&'a Assignment> {
        self.assignments.iter().filter(|assignment| *assignment.section == *section).collect()
    }

    /// The value that counts of a key of which only the last does.
    pub(super) fn last(&self, section: &str, key: &str) -> Option<&'a str> {
        let last = self.of(section).into_iter().rfind(|assignment| assignment.key == key)?;
        Some(last.value.as_str()).filter(|value| !value.is_empty())
    }

    /// Passes a section on as it is.
    pub(super) fn pass(&self, section: &str, text: &mut Text) {
        for assignment in self.of(section) {
            text.line(&assignment.key, &assignment.value);
        }
    }

    /// Passes `[Unit]` on, with the units that declaring files become in the place of their names.
    pub(super) fn pass_unit(&self, text: &mut Text, index: &Index, problems: &mut Vec<Problem>) {
        for assignment in self.of("Unit") {
            if !NAMES.contains(&assignment.key.as_str()) {
                text.line(&assignment.key, &assignment.value);
                continue;
            }
            let mut words = Vec::new();
            for word in assignment.value.split_ascii_whitespace() {
                match index.find(word) {
                    Ok(Some((_, entry))) => words.push(entry.service),
                    Ok(None) => words.push(word.to_owned()),
                    Err(message) => problems.push(assignment.problem(message)),
                }
            }
            text.line(&assignment.key, &words.join(" "));
        }
    }
}
