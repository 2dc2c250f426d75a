//! `holmctl shell`

use std::io::{self, IsTerminal};

use super::exec::{Command, attached};
use crate::cli::Outcome;
use crate::cli::container_args::environment;
use crate::cli::session::Streams;
use crate::client::ExecOptions;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Set a variable; without a value it is taken from here
    #[arg(short = 'E', long = "setenv", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The container, with the user before it if that is not root, and what to run instead of the user's shell
    #[arg(required = true, trailing_var_arg = true, value_names = ["[USER@]CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let terminal = io::stdin().is_terminal();
    let (user, container) = target(&args.words[0]);
    let options = ExecOptions {
        environment: environment(&[], &args.env, terminal, |name| std::env::var(name).ok())?,
        user: Some(user.to_owned()),
        terminal,
        ..ExecOptions::default()
    };
    let command = Command { container: container.to_owned(), argv: argv(&args.words[1..]), options };
    attached(command, Streams { interactive: true, terminal }).await
}

/// User and container.
fn target(word: &str) -> (&str, &str) {
    match word.rsplit_once('@') {
        Some(("", container)) => ("root", container),
        Some(pair) => pair,
        None => ("root", word),
    }
}

/// The command, or the user's login shell. Which one that is only the container knows, so a small script asks there.
fn argv(command: &[String]) -> Vec<String> {
    if command.is_empty() { ["/bin/sh", "-c", LOGIN_SHELL].map(str::to_owned).into() } else { command.to_vec() }
}

/// `cd` falls back to where it is; the shell to the one that runs this.
const LOGIN_SHELL: &str = r#"me=$(id -u); while IFS=: read -r _ _ uid _ _ home shell; do
[ "$uid" = "$me" ] && break; done </etc/passwd
[ -d "$home" ] && HOME=$home && export HOME && cd "$home"
[ -x "$shell" ] || shell=/bin/sh
SHELL=$shell; export SHELL; exec "$shell" -l"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_before_the_at() {
        assert_eq!(target("web"), ("root", "web"));
        assert_eq!(target("joe@web"), ("joe", "web"));
        assert_eq!(target("@web"), ("root", "web"));
    }

    #[test]
    fn the_script_finds_a_shell() {
        let script = LOGIN_SHELL.replace("exec \"$shell\" -l", "echo \"$shell\"");
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let shell = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && shell.starts_with('/'), "{shell:?} {output:?}");
    }
}
