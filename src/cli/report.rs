//! What is shown of one object: right-aligned keys, and trees.

use std::fmt::Write as _;

/// Lines with right-aligned keys, as machinectl's and systemctl's `status` have them.
#[derive(Debug, Default)]
pub(crate) struct Report(String);

impl Report {
    /// The line above the others.
    pub(crate) fn title(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }

    /// A line; nothing when there is no value.
    pub(crate) fn line(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            let _ = writeln!(self.0, "{key:>WIDTH$}: {value}");
        }
    }

    /// A line for each value, with the key before the first.
    pub(crate) fn lines<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        for (index, value) in values.into_iter().enumerate() {
            if index == 0 {
                self.line(key, value);
            } else {
                let _ = writeln!(self.0, "{:INDENT$}{value}", "");
            }
        }
    }

    /// Groups with their members, below the values.
    pub(crate) fn tree(&mut self, groups: &[(String, Vec<String>)]) {
        for (group, fork, bar) in forks(groups) {
            let _ = writeln!(self.0, "{:INDENT$}{fork}{}", "", group.0);
            for (member, fork, _) in forks(&group.1) {
                let _ = writeln!(self.0, "{:INDENT$}{bar}{fork}{member}", "");
            }
        }
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Each with what is drawn before it, and before what is below it.
fn forks<T>(items: &[T]) -> impl Iterator<Item = (&T, &'static str, &'static str)> {
    let last = items.len().saturating_sub(1);
    items.iter().enumerate().map(move |(index, item)| match index == last {
        true => (item, "└─", "  "),
        false => (item, "├─", "│ "),
    })
}

/// A command line as a shell takes it: words with anything unusual in quotes. Control characters are shown as escapes,
/// for a terminal would obey them.
pub(crate) fn quoted(words: &[String]) -> String {
    words.iter().map(|word| quoted_word(word)).collect::<Vec<_>>().join(" ")
}

fn quoted_word(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from("'");
    for letter in word.chars() {
        match letter {
            '\'' => text.push_str(r"'\''"),
            letter if letter.is_control() => text.extend(letter.escape_default()),
            letter => text.push(letter),
        }
    }
    text.push('\'');
    text
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(&byte)
}

const WIDTH: usize = 12;
const INDENT: usize = WIDTH + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_shows_groups_and_their_members() {
        let mut report = Report::default();
        report.line("CGroup", "/holm.slice/holm-web.scope");
        report.tree(&[
            ("payload".into(), vec!["7 sleep 1d".into(), "8 cat".into()]),
            ("supervisor".into(), vec!["6 holm-init".into()]),
        ]);
        let expected = "      CGroup: /holm.slice/holm-web.scope
              ├─payload
              │ ├─7 sleep 1d
              │ └─8 cat
              └─supervisor
                └─6 holm-init
";
        assert_eq!(report.into_text(), expected);
    }

    #[test]
    fn values_are_below_one_another_and_empty_ones_left_out() {
        let mut report = Report::default();
        report.lines("Layers", ["a", "b"]);
        report.lines("Labels", []);
        report.line("OS", "");
        assert_eq!(report.into_text(), "      Layers: a\n              b\n");
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_take_them_apart() {
        let words = |words: &[&str]| quoted(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["sleep", "1d"]), "sleep 1d");
        assert_eq!(words(&["sh", "-c", "echo \"$x\"; it's", ""]), r#"sh -c 'echo "$x"; it'\''s' ''"#);
        assert_eq!(words(&["a\nb\x1b[1m"]), r"'a\nb\u{1b}[1m'");
    }
}
