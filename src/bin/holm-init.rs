//! The monitor of a container, and of each further process in one. Built static; holmd starts it, nobody else has use for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    holm::runtime::monitor_main()
}
