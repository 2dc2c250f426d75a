//! Makes units of systemd of the files that declare containers. systemd runs it; nobody else has use for it. Built static.

use std::process::ExitCode;

fn main() -> ExitCode {
    holm::generator::main()
}
