//! What is made of files: units, as text and as links.

use std::fmt::Write as _;
use std::path::Path;

use super::words::{literal, quoted, without_specifiers};

/// The command that units run.
pub(super) const HOLMCTL: &str = "/usr/bin/holmctl";

/// A unit to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name, which is that of its file.
    pub name: String,
    /// What is in the file; nothing for a unit that is masked, which is a link to /dev/null.
    pub text: Option<String>,
    /// Links that make others know it.
    pub links: Vec<Link>,
}

/// A symbolic link beside the units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Where, below the directory of the units: `multi-user.target.wants/web.service`.
    pub path: String,
    /// What it says: `../web.service`.
    pub target: String,
}

/// The text of a unit as it grows.
#[derive(Debug)]
pub(super) struct Text(String);

impl Text {
    /// Begins one that was made from a file.
    pub(super) fn of(source: &Path, name: &str) -> Self {
        let mut text = Self(String::new());
        let _ = writeln!(text.0, "# Made by holm-generator(8). Changes here are lost: 'holmctl unit edit {name}'.");
        text.section("Unit");
        text.line("SourcePath", &without_specifiers(&one_line(&source.to_string_lossy())));
        text
    }

    pub(super) fn section(&mut self, name: &str) {
        let blank = if self.0.ends_with("\n\n") || self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{blank}[{name}]");
    }

    /// An assignment. The value must be one line.
    pub(super) fn line(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}={value}");
    }

    /// A command line of holmctl.
    pub(super) fn holmctl<'w>(&mut self, key: &str, words: impl IntoIterator<Item = &'w str>) {
        self.folded(key, words, []);
    }

    /// A long one: each of the options has a line, and so have the words behind them.
    pub(super) fn folded<'w>(
        &mut self,
        key: &str,
        words: impl IntoIterator<Item = &'w str>,
        folds: impl IntoIterator<Item = Vec<&'w str>>,
    ) {
        let joined = |words: Vec<&str>| words.into_iter().map(quoted).collect::<Vec<_>>().join(" ");
        let first = joined(words.into_iter().collect());
        let _ = write!(self.0, "{key}={HOLMCTL} {first}");
        for words in folds {
            let _ = write!(self.0, " \\\n    {}", joined(words));
        }
        self.0.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A path as a word of a command line that systemd takes as it is.
pub(super) fn path_word(path: &Path) -> String {
    literal(&path.to_string_lossy())
}

/// Without what would end the line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
