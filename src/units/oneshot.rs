//! The units of volumes and images: they do something once, and stay active.

use super::index::{self, Index};
use super::install::{Install, Socket};
use super::name::FileName;
use super::problem::{Place, Problem, shown};
use super::sections::Sections;
use super::unit::{HOLMCTL, Text, Unit};
use super::value::Parsed;
use super::words::quoted;

/// What a unit does.
#[derive(Debug)]
pub(super) struct Oneshot {
    description: String,
    /// Its commands, in order, with specifiers as systemd takes them.
    pub(super) start: Vec<Vec<String>>,
    /// What holmctl does at its end.
    pub(super) stop: Option<Vec<String>>,
    /// What has to be mounted before.
    pub(super) mounts: Option<String>,
    pub(super) state_directory: Option<&'static str>,
}

impl Oneshot {
    pub(super) fn new(description: String) -> Self {
        Self { description, start: Vec::new(), stop: None, mounts: None, state_directory: None }
    }

    /// Adds a command of holmctl.
    pub(super) fn start_holmctl(&mut self, mut words: Vec<String>) {
        words.insert(0, HOLMCTL.to_owned());
        self.start.push(words);
    }
}

/// Checks a `ServiceName=`.
pub(super) fn service_name(value: &str) -> Parsed<()> {
    if index::is_service_stem(value) {
        return Ok(());
    }
    Err(format!("'{}' is not the name of a service without its end, such as 'web'", shown(value)))
}

/// The unit.
pub(super) fn unit(
    name: &FileName,
    what: Oneshot,
    sections: &Sections<'_>,
    index: &Index,
    problems: &mut Vec<Problem>,
) -> Unit {
    if name.instance().is_some() {
        let message = format!("templates of .{} files come later: write a file for each", name.kind().suffix());
        problems.push(Place::whole(sections.path()).problem(message));
    }
    let mut text = Text::of(sections.path(), &name.to_string());
    text.line("Description", &what.description);
    sections.pass_unit(&mut text, index, problems);
    text.line("Wants", "holmd.service");
    text.line("After", "holmd.service");
    if let Some(path) = &what.mounts {
        text.line("RequiresMountsFor", &quoted(path));
    }
    text.section("Service");
    text.line("Type", "oneshot");
    text.line("RemainAfterExit", "yes");
    // However long it takes: the timeout of whoever waits for it does not run meanwhile.
    text.line("TimeoutStartSec", "infinity");
    if let Some(directory) = what.state_directory {
        text.line("StateDirectory", directory);
    }
    for assignment in sections.of("Service") {
        match assignment.key.as_str() {
            "ExecStart" | "ExecStop" | "Type" | "RemainAfterExit" => {
                let message = format!("is said by [{}]: leave it out", name.kind().section());
                problems.push(assignment.problem(message));
            }
            key => text.line(key, &assignment.value),
        }
    }
    for words in &what.start {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        text.line("ExecStart", &words.join(" "));
    }
    if let Some(words) = &what.stop {
        text.holmctl("ExecStop", words.iter().map(String::as_str));
    }
    let install = Install::of(name, &sections.of("Install"), problems);
    let service = index::service_of(name, sections.last(name.kind().section(), "ServiceName"));
    Unit { links: install.links(&service, Socket::None, index, problems), name: service, text: Some(text.into_text()) }
}
