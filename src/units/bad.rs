//! The unit of a file with mistakes. It is there, so that nobody looks for it in vain; it fails when it is started, at boot
//! too when the file says that it is wanted, and says why.

use super::files::Source;
use super::problem::Problem;
use super::unit::{Link, Text, Unit, one_line, path_word};
use super::words::without_specifiers;

/// The unit, in the place of the one called `name`.
pub(super) fn unit(source: &Source, name: String, links: Vec<Link>, problems: &[Problem]) -> Unit {
    let mut text = Text::of(&source.path, &source.name.to_string());
    text.line("Description", &without_specifiers(&one_line(&description(source, problems))));
    text.line("Documentation", "man:holm.unit(5)");
    text.section("Service");
    text.line("Type", "oneshot");
    text.line("SyslogIdentifier", &without_specifiers(&source.name.to_string()));
    let path = path_word(&source.path);
    text.holmctl("ExecStart", ["unit", "explain", "--unit=%n", &path]);
    Unit { name, text: Some(text.into_text()), links }
}

/// The first mistake; how many more there are.
fn description(source: &Source, problems: &[Problem]) -> String {
    let Some(first) = problems.first() else { return format!("{} is wrong", source.name) };
    let of_file = first.file == source.path;
    let first = if of_file { first.without_file() } else { first.to_string() };
    let more = if problems.len() > 1 { format!(" (and {} more)", problems.len() - 1) } else { String::new() };
    format!("{} is wrong: {first}{more}", source.name)
}
