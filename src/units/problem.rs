//! What is wrong in a file, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One mistake in one file. It is shown as `FILE:LINE: KEY=: MESSAGE`, and the message says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// The key, if it is about one.
    pub key: Option<String>,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) line: usize,
}

impl Place {
    /// The file as a whole.
    pub(super) fn whole(file: &Path) -> Self {
        Self { file: Arc::from(file), line: 0 }
    }

    /// A mistake here that is about no key.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { file: self.file.to_path_buf(), line: self.line, key: None, message: message.into() }
    }

    /// A mistake here in the value of a key.
    pub(super) fn problem_of(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem { key: Some(shown(key)), ..self.problem(message) }
    }
}

impl Problem {
    /// Without the file's name, for where that is said already.
    pub fn without_file(&self) -> String {
        let line = if self.line > 0 { format!("line {}: ", self.line) } else { String::new() };
        let key = self.key.as_ref().map_or_else(String::new, |key| format!("{key}=: "));
        format!("{line}{key}{}", self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        match &self.key {
            Some(key) => write!(f, " {key}=: {}", self.message),
            None => write!(f, " {}", self.message),
        }
    }
}

/// The beginning of a text, fit for one line of a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).take(80).collect()
}

/// `: did you mean 'NAME'?` when one of the names is close to what was written, otherwise nothing.
pub(super) fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    // Longer than any name that could be meant, and the distance is quadratic.
    if written.len() > 64 {
        return String::new();
    }
    let close = names.into_iter().map(|name| (distance(written, name), name)).min_by_key(|(distance, _)| *distance);
    match close {
        Some((distance, name)) if distance <= (1 + name.len() / 5).min(3) && distance < name.len() => {
            format!(": did you mean '{name}'?")
        }
        _ => String::new(),
    }
}

/// How many letters must be added, removed, replaced or swapped with their neighbour, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_meant() {
        let names = ["Memory", "Image", "Volume", "PublishPort"];
        assert_eq!(did_you_mean("Memroy", names), ": did you mean 'Memory'?");
        assert_eq!(did_you_mean("image", names), ": did you mean 'Image'?");
        assert_eq!(did_you_mean("Volumes", names), ": did you mean 'Volume'?");
        assert_eq!(did_you_mean("Colour", names), "");
        assert_eq!(did_you_mean(&"x".repeat(1000), names), "");
    }

    #[test]
    fn a_problem_says_file_line_and_key() {
        let place = Place { file: Arc::from(Path::new("/etc/holm/units/web.container")), line: 7 };
        let problem = place.problem_of("Memory", "'much' is not a size");
        assert_eq!(problem.to_string(), "/etc/holm/units/web.container:7: Memory=: 'much' is not a size");
        assert_eq!(problem.without_file(), "line 7: Memory=: 'much' is not a size");
        assert_eq!(Place::whole(Path::new("/x")).problem("is bad").to_string(), "/x: is bad");
    }
}
