//! How far a long operation is: a bar on a terminal, a line now and then otherwise.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use crate::client::JobProgress;
use crate::model::{Bytes, Usec};
use crate::sys::tty;

/// Shows progress on standard error; standard output is for results.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    on_terminal: bool,
    began: Instant,
    said: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(what: String) -> Self {
        let on_terminal = io::stderr().is_terminal();
        show(&if on_terminal { format!("\r{what} …\x1b[K") } else { format!("{what}\n") });
        Self { what, on_terminal, began: Instant::now(), said: (!on_terminal).then(Instant::now) }
    }

    pub(crate) fn update(&mut self, progress: JobProgress) {
        let every = if self.on_terminal { BETWEEN_BARS } else { BETWEEN_LINES };
        if self.said.is_some_and(|said| said.elapsed() < every) {
            return;
        }
        self.said = Some(Instant::now());
        if self.on_terminal {
            let (_, columns) = tty::window_size(io::stderr()).unwrap_or((24, 80));
            show(&format!("\r{}\x1b[K", bar(&self.what, progress, self.began.elapsed(), usize::from(columns))));
        } else {
            show(&format!("{}\n", line(&self.what, progress)));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if self.on_terminal {
            show("\r\x1b[K");
        }
    }
}

/// A terminal that is gone needs no bar.
fn show(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

fn line(what: &str, progress: JobProgress) -> String {
    let done = Bytes(progress.done);
    match (progress.done.saturating_mul(100)).checked_div(progress.total) {
        Some(percent) => format!("{what}: {percent}% ({done} of {})", Bytes(progress.total)),
        None => format!("{what}: {done}"),
    }
}

/// One line of less than `columns`: the bar takes what the rest leaves, and the name is cut before the figures are.
fn bar(what: &str, progress: JobProgress, elapsed: Duration, columns: usize) -> String {
    let figures = figures(progress, elapsed);
    let room = columns.saturating_sub(figures.chars().count() + 2);
    let name: String = what.chars().take(room).collect();
    let inner = (room - name.chars().count()).saturating_sub(4).min(WIDEST);
    if progress.total == 0 || inner < NARROWEST {
        return format!("{name} {figures}");
    }
    let full = usize::try_from(u128::from(progress.done) * inner as u128 / u128::from(progress.total)).unwrap_or(inner);
    let full = full.min(inner);
    format!("{name} [{}{}] {figures}", "#".repeat(full), ".".repeat(inner - full))
}

fn figures(progress: JobProgress, elapsed: Duration) -> String {
    let JobProgress { done, total } = progress;
    let micros = elapsed.as_micros().max(1);
    let rate = u64::try_from(u128::from(done) * 1_000_000 / micros).unwrap_or(u64::MAX);
    let Some(percent) = done.saturating_mul(100).checked_div(total) else {
        return format!("{} {}/s", Bytes(done), Bytes(rate));
    };
    let left = total.saturating_sub(done).checked_div(rate).map(clock).unwrap_or_default();
    format!("{percent:>3}% {} of {} {}/s{left}", Bytes(done), Bytes(total), Bytes(rate))
}

/// Seconds as people read them off a clock.
fn clock(seconds: Usec) -> String {
    match seconds {
        0..36_000 => format!(" {}:{:02}", seconds / 60, seconds % 60),
        _ => String::new(),
    }
}

const BETWEEN_BARS: Duration = Duration::from_millis(100);
const BETWEEN_LINES: Duration = Duration::from_secs(2);
const WIDEST: usize = 40;
const NARROWEST: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: JobProgress = JobProgress { done: 512 << 10, total: 1 << 20 };

    #[test]
    fn lines_say_how_far_it_is() {
        assert_eq!(line("importing x", JobProgress { done: 512, total: 2048 }), "importing x: 25% (512B of 2K)");
        assert_eq!(line("importing x", JobProgress { done: 1024, total: 0 }), "importing x: 1K");
    }

    #[test]
    fn a_bar_fills_from_the_left() {
        let text = bar("importing x", HALF, Duration::from_secs(2), 64);
        assert_eq!(text, "importing x [##########..........]  50% 512K of 1M 256K/s 0:02");
    }

    #[test]
    fn a_bar_never_wraps() {
        for columns in [0, 1, 20, 40, 60, 80, 200] {
            for what in ["x", "importing a file with quite a long name"] {
                let width = bar(what, HALF, Duration::from_secs(2), columns).chars().count();
                assert!(width <= columns.max(32), "{columns}: {width}");
            }
        }
    }

    #[test]
    fn without_a_total_there_is_no_bar() {
        let progress = JobProgress { done: 3 << 20, total: 0 };
        assert_eq!(bar("importing x", progress, Duration::from_secs(1), 80), "importing x 3M 3M/s");
    }
}
