//! Tables or JSON, colours, moments.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use clap::Args;
use serde_json::Value as Json;

use super::error::CliError;
use crate::model::{Usec, now_usec};
use crate::sys::localtime;

/// What every listing takes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ListArgs {
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    /// Leave out the header and the footer
    #[arg(long)]
    no_legend: bool,
}

impl ListArgs {
    /// Whether anything was said of how to list.
    pub(crate) fn is_set(self) -> bool {
        self.json || self.no_legend
    }

    /// Whether JSON was asked for.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// Writes a listing of `noun`s.
    pub(crate) fn write(self, table: &Table, json: impl FnOnce() -> Vec<Json>, noun: &str) -> Result<(), CliError> {
        if self.json {
            return write_json(&Json::Array(json()));
        }
        if table.rows.is_empty() {
            return if self.no_legend { Ok(()) } else { write(&format!("No {noun}s.\n")) };
        }
        let mut text = table.render(!self.no_legend, colours());
        if !self.no_legend {
            let plural = if table.rows.len() == 1 { "" } else { "s" };
            let _ = write!(text, "\n{} {noun}{plural} listed.\n", table.rows.len());
        }
        write(&text)
    }
}

/// Rows below headers, columns as wide as they need.
#[derive(Debug)]
pub(crate) struct Table {
    headers: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headers: &'static [&'static str]) -> Self {
        Self { headers, rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.headers.len(), "a cell for each header");
        self.rows.push(cells.into_iter().map(|cell| if cell.is_empty() { "-".into() } else { cell }).collect());
    }

    /// The text; nothing but headers when there is no row.
    pub(crate) fn render(&self, headers: bool, colours: bool) -> String {
        let mut widths: Vec<_> = self.headers.iter().map(|header| if headers { header.len() } else { 0 }).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if headers {
            let line = join(self.headers.iter().copied(), &widths);
            text = if colours { format!("{BOLD}{line}{PLAIN}\n") } else { format!("{line}\n") };
        }
        for row in &self.rows {
            text.push_str(&join(row.iter().map(String::as_str), &widths));
            text.push('\n');
        }
        text
    }
}

fn join<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let padded: Vec<_> = cells.zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    padded.join(" ").trim_end().to_owned()
}

/// Whether standard output takes colours: a terminal that can, and nobody who set `NO_COLOR` (no-color.org).
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The dot before a state: green while it lives, red when it failed.
pub(crate) fn dot(state: &str) -> String {
    match state {
        "created" | "stopped" => "○".into(),
        _ => coloured(state, "●"),
    }
}

/// A text in the colour of a state.
pub(crate) fn coloured(state: &str, text: &str) -> String {
    let colour = match state {
        _ if !colours() => return text.into(),
        "running" | "ok" => "\x1b[1;32m",
        "failed" | "out-of-data" | "read-only" | "needs-check" => "\x1b[1;31m",
        "starting" | "stopping" | "frozen" | "low-data" | "low-metadata" => "\x1b[1;33m",
        _ => return text.into(),
    };
    format!("{colour}{text}{PLAIN}")
}

/// Writes to standard output.
pub(crate) fn write(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => CliError::Closed,
        _ => CliError::io("write to standard output", source),
    })
}

/// Says something on standard error, in one piece. When nobody can hear it, because the terminal is gone, it is not said.
pub(crate) fn tell(text: &str) {
    drop(io::stderr().write_all(format!("holmctl: {text}\n").as_bytes()));
}

/// Writes JSON: indented on a terminal, one line otherwise.
pub(crate) fn write_json(value: &Json) -> Result<(), CliError> {
    let text = if io::stdout().is_terminal() { format!("{value:#}\n") } else { format!("{value}\n") };
    write(&text)
}

/// A moment and how long ago it was.
pub(crate) fn since(moment: Usec) -> String {
    let Some(text) = moment_text(moment) else { return String::new() };
    match now_usec().checked_sub(moment) {
        Some(ago) => format!("{text}; {} ago", rough_span(ago)),
        None => text,
    }
}

/// A length of time as people say it: below a minute in one unit.
pub(crate) fn rough_span(usec: Usec) -> String {
    match usec {
        0..1_000 => span(usec),
        1_000..1_000_000 => span(usec - usec % 1_000),
        _ => span(usec - usec % 1_000_000),
    }
}

/// A moment as an option of journalctl (systemd.time(7)).
pub(crate) fn since_argument(moment: Usec) -> String {
    format!("--since=@{}.{:06}", moment / 1_000_000, moment % 1_000_000)
}

/// A moment in local time; `None` for 0, which is "never".
pub(crate) fn moment_text(moment: Usec) -> Option<String> {
    if moment == 0 { None } else { localtime::format(i64::try_from(moment / 1_000_000).ok()?) }
}

/// A name made of a moment, in local time.
pub(crate) fn stamp(moment: Usec) -> Option<String> {
    localtime::stamp(i64::try_from(moment / 1_000_000).ok()?)
}

/// A length of time with its two largest units, as systemd writes it.
pub(crate) fn span(usec: Usec) -> String {
    const UNITS: [(&str, u64); 6] =
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];
    let Some(first) = UNITS.iter().position(|(_, size)| usec >= *size) else { return "0s".into() };
    let mut rest = usec;
    let mut parts = Vec::new();
    for (unit, size) in &UNITS[first..(first + 2).min(UNITS.len())] {
        if rest / size > 0 {
            parts.push(format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a-long-name".into(), "running".into()]);
        table.row(["web".into(), String::new()]);
        assert_eq!(table.render(true, false), "NAME        STATE\na-long-name running\nweb         -\n");
        assert_eq!(table.render(false, false), "a-long-name running\nweb         -\n");
    }

    #[test]
    fn only_headers_are_bold() {
        let table = Table::new(&["NAME"]);
        assert_eq!(table.render(true, true), "\x1b[1mNAME\x1b[0m\n");
    }

    #[test]
    fn what_was_long_ago_is_said_roughly() {
        assert_eq!(rough_span(1_685_123), "1s");
        assert_eq!(rough_span(69_813), "69ms");
        assert_eq!(rough_span(80_999_999), "1min 20s");
        assert_eq!(rough_span(5), "5us");
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(61_000_000), "1min 1s");
        assert_eq!(span(3_600_000_000), "1h");
        assert_eq!(span(90_061_000_000), "1d 1h");
        assert_eq!(span(1_500), "1ms 500us");
    }
}
