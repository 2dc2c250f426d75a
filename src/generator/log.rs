//! What the generator has to say. Early at boot there is no journal yet, so it goes through the kernel's log, from which
//! the journal takes it; on standard error where there is none, as in a container.

use std::fs::OpenOptions;
use std::io::Write;

/// `LOG_USER | LOG_ERR` (syslog(3)): of a program, not of the kernel, so that journald reads the name.
const PRIORITY: u8 = (1 << 3) | 3;
/// What the kernel takes of one entry, with room for what it puts before it.
const MAX_BYTES: usize = 900;

/// Says all of it, an entry each.
pub(super) fn all(messages: impl IntoIterator<Item = String>) {
    for message in messages {
        // An entry is one write to a file of its own. Nothing can be done when nobody can hear it.
        let kernel = OpenOptions::new().write(true).open("/dev/kmsg");
        if kernel.and_then(|mut kernel| kernel.write_all(entry(&message).as_bytes())).is_err() {
            drop(std::io::stderr().write_all(format!("holm-generator: {message}\n").as_bytes()));
        }
    }
}

fn entry(message: &str) -> String {
    let line: String = message.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    let end = (0..=line.len().min(MAX_BYTES)).rfind(|at| line.is_char_boundary(*at)).unwrap_or(0);
    format!("<{PRIORITY}>holm-generator[{}]: {}\n", std::process::id(), &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_that_the_kernel_takes() {
        let text = entry(&format!("a\nb{}", "\u{e4}".repeat(2000)));
        assert!(text.starts_with("<11>holm-generator[") && text.contains("]: a?b\u{e4}"), "{text}");
        assert!(text.len() < 1000 && text.ends_with('\n') && text.matches('\n').count() == 1);
    }
}
