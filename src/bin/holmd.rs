//! The daemon.

fn main() -> std::process::ExitCode {
    holm::daemon::main()
}
