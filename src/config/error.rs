//! Mistakes in a configuration, and where they are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory is there and cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file's text is wrong.
    #[error("{0}")]
    Invalid(Mistake),
    /// Keys that are right by themselves do not go together, whichever files they are in.
    #[error("{key} {message}")]
    Together {
        /// One of them.
        key: &'static str,
        /// What is wrong and what to do.
        message: &'static str,
    },
}

/// What is wrong in a file. Shown in one line, `FILE:LINE:COLUMN: KEY: MESSAGE`, as compilers do and editors understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key with its table, such as `storage.driver`; empty when the text is no TOML at all.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Mistake {
    /// Translates a parser's error about `text`.
    pub(super) fn of(path: &Path, text: &str, mut error: toml::de::Error) -> Self {
        let (line, column) = position(text, error.span().map_or(text.len(), |span| span.start));
        let message = error.message().trim_end().replace('\n', ", ");
        // Without the text the error shows its key instead of the place, and it has no other way to tell it.
        error.set_input(None);
        let (key, message) = with_unknown_key(key_of(&error.to_string()), message);
        Self { path: path.to_owned(), line, column, key, message }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, key, message } = self;
        write!(f, "{}:{line}:{column}: ", path.display())?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(message)
    }
}

/// An unknown key is reported for the table that it is in: puts it into the key, and speaks of keys instead of fields.
fn with_unknown_key(table: String, message: String) -> (String, String) {
    let Some((key, allowed)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, ")) else {
        return (table, message);
    };
    let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    (key, format!("unknown key, {allowed}"))
}

/// Line and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The key in an error's last line, which is ``in `KEY` ``.
fn key_of(shown: &str) -> String {
    let last = shown.trim_end().lines().next_back().unwrap_or_default();
    last.strip_prefix("in `").and_then(|key| key.strip_suffix('`')).unwrap_or_default().to_owned()
}
