//! How far a long operation is: a bar on a terminal, a line now and then otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::client::JobProgress;
use crate::model::Bytes;

/// Shows progress on standard error; standard output is for results.
#[derive(Debug)]
pub(crate) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere.
    Lines {
        /// What is done, such as `importing x.tar`.
        what: String,
        /// When we last said something.
        said: Instant,
    },
}

impl Progress {
    pub(crate) fn new(what: String) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_style(spinner()).with_message(what);
            bar.enable_steady_tick(Duration::from_millis(120));
            Self::Bar(bar)
        } else {
            eprintln!("{what}");
            Self::Lines { what, said: Instant::now() }
        }
    }

    pub(crate) fn update(&mut self, progress: JobProgress) {
        match self {
            Self::Bar(bar) => {
                if progress.total > 0 && bar.length() != Some(progress.total) {
                    bar.set_length(progress.total);
                    bar.set_style(filled());
                }
                bar.set_position(progress.done);
            }
            Self::Lines { what, said } if said.elapsed() >= BETWEEN_LINES => {
                *said = Instant::now();
                eprintln!("{}", line(what, progress));
            }
            Self::Lines { .. } => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, progress: JobProgress) -> String {
    let done = Bytes(progress.done);
    match (progress.done.saturating_mul(100)).checked_div(progress.total) {
        Some(percent) => format!("{what}: {percent}% ({done} of {})", Bytes(progress.total)),
        None => format!("{what}: {done}"),
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}: {bytes} {bytes_per_sec}").expect("the template is well-formed")
}

fn filled() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .expect("the template is well-formed")
        .progress_chars("=> ")
}

const BETWEEN_LINES: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far_it_is() {
        assert_eq!(line("importing x", JobProgress { done: 512, total: 2048 }), "importing x: 25% (512B of 2K)");
        assert_eq!(line("importing x", JobProgress { done: 1024, total: 0 }), "importing x: 1K");
    }

    #[test]
    fn the_templates_are_well_formed() {
        drop((spinner(), filled()));
    }
}
