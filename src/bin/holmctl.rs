//! The command line. Everything is in [`holm::cli`].

fn main() -> std::process::ExitCode {
    holm::cli::main()
}
