//! Text → assignments, as systemd.syntax(7) has it: sections, comments, lines that go on.

use std::path::Path;
use std::sync::Arc;

use super::problem::{Place, Problem, shown};

/// A file's largest size: systemd's own limit of one line.
const MAX_BYTES: usize = 1 << 20;

/// `KEY=VALUE` in a section. The value is without the blanks around it, and otherwise as it was written: specifiers,
/// quotes and escapes are still in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) section: Arc<str>,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Place,
}

impl Assignment {
    /// A mistake in this assignment.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        self.place.problem_of(&self.key, message)
    }
}

/// What a file has in it, in order. Every mistake is added to `problems`; what is not mistaken is still given back.
pub(super) fn parse(text: &[u8], file: &Path, problems: &mut Vec<Problem>) -> Vec<Assignment> {
    let mut reader = Reader { file: Arc::from(file), section: None, found: Vec::new(), problems };
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes: at most {MAX_BYTES} are possible", text.len());
        reader.problems.push(Place::whole(file).problem(message));
        return reader.found;
    }
    reader.read(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
    reader.found
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

struct Reader<'a> {
    file: Arc<Path>,
    section: Option<Arc<str>>,
    found: Vec<Assignment>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn read(&mut self, text: &[u8]) {
        // The line that goes on, and where it began.
        let mut open: Option<(usize, String)> = None;
        for (index, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let Some(line) = self.text_of(bytes, number) else {
                open = None;
                continue;
            };
            let line = line.trim_start_matches(BLANK);
            if line.starts_with(['#', ';']) {
                continue;
            }
            let (began, mut whole) = open.take().unwrap_or((number, String::new()));
            whole.push_str(line);
            if goes_on(&whole) {
                whole.pop();
                whole.push(' ');
                open = Some((began, whole));
            } else {
                self.line(whole.trim_matches(BLANK), began);
            }
        }
        if let Some((began, whole)) = open {
            self.line(whole.trim_matches(BLANK), began);
        }
    }

    fn text_of<'t>(&mut self, bytes: &'t [u8], number: usize) -> Option<&'t str> {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let place = self.place(number);
        let message = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => "the line has a NUL byte in it",
            Ok(text) => return Some(text),
            Err(_) => "the line is not UTF-8",
        };
        self.problems.push(place.problem(message));
        None
    }

    fn line(&mut self, line: &str, number: usize) {
        if line.is_empty() {
            return;
        }
        let place = self.place(number);
        if let Some(header) = line.strip_prefix('[') {
            match header.strip_suffix(']') {
                Some(name) if !name.is_empty() && !name.contains(['[', ']']) => self.section = Some(Arc::from(name)),
                _ => {
                    // What follows belongs to no section that anybody meant.
                    self.section = None;
                    self.problems.push(place.problem(format!("'{}' is not a section: write [NAME]", shown(line))));
                }
            }
            return;
        }
        let Some((key, value)) = line.split_once('=') else {
            self.problems.push(place.problem(format!("'{}' is not of the form KEY=VALUE", shown(line))));
            return;
        };
        let (key, value) = (key.trim_end_matches(BLANK), value.trim_start_matches(BLANK));
        if key.is_empty() {
            self.problems.push(place.problem("there is no key before the '='"));
            return;
        }
        match &self.section {
            Some(section) => self.found.push(Assignment {
                section: Arc::clone(section),
                key: key.to_owned(),
                value: value.to_owned(),
                place,
            }),
            None => {
                self.problems.push(place.problem_of(key, "stands in no section: write one above, such as [Container]"))
            }
        }
    }

    fn place(&self, line: usize) -> Place {
        Place { file: Arc::clone(&self.file), line }
    }
}

/// Whether the last backslash is not itself escaped.
fn goes_on(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = (String, String, String, usize);

    fn parsed(text: &str) -> (Vec<Row>, Vec<String>) {
        let mut problems = Vec::new();
        let found = parse(text.as_bytes(), Path::new("f"), &mut problems);
        let found = found.into_iter().map(|a| (a.section.to_string(), a.key, a.value, a.place.line)).collect();
        (found, problems.iter().map(ToString::to_string).collect())
    }

    fn one(section: &str, key: &str, value: &str, line: usize) -> Row {
        (section.into(), key.into(), value.into(), line)
    }

    #[test]
    fn sections_assignments_and_comments() {
        let text = "\u{feff}# a comment\n\n[Unit]\r\nDescription = a b \n; another\n[Container]\nImage=\n  Exec=x=y\n";
        let expected = vec![
            one("Unit", "Description", "a b", 4),
            one("Container", "Image", "", 7),
            one("Container", "Exec", "x=y", 8),
        ];
        assert_eq!(parsed(text), (expected, vec![]));
    }

    #[test]
    fn a_line_goes_on_after_a_backslash_and_over_comments() {
        let text = "[S]\nExec=a \\\n# not this\n  b \\\n  c\nPath=C:\\\\\nLast=x\\";
        let expected = vec![one("S", "Exec", "a  b  c", 2), one("S", "Path", "C:\\\\", 6), one("S", "Last", "x", 7)];
        assert_eq!(parsed(text), (expected, vec![]));
    }

    #[test]
    fn every_mistake_has_its_line() {
        let (found, problems) = parsed("A=1\n[S]\nno assignment\n[T\nB=2\n[S]\n=3\nC=3");
        assert_eq!(found, [one("S", "C", "3", 8)]);
        assert_eq!(
            problems,
            [
                "f:1: A=: stands in no section: write one above, such as [Container]",
                "f:3: 'no assignment' is not of the form KEY=VALUE",
                "f:4: '[T' is not a section: write [NAME]",
                "f:5: B=: stands in no section: write one above, such as [Container]",
                "f:7: there is no key before the '='",
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let mut problems = Vec::new();
        assert!(parse(b"[S]\nA=\xff\xfe\nB=\0\n", Path::new("f"), &mut problems).is_empty());
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, ["f:2: the line is not UTF-8", "f:3: the line has a NUL byte in it"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut problems = Vec::new();
            for assignment in parse(&text, Path::new("f"), &mut problems) {
                prop_assert!(!assignment.key.is_empty() && assignment.place.line > 0);
            }
        }
    }
}
