//! `holmctl completion`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::exit::Status;
use crate::cli::{Cli, Outcome, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: Args) -> Outcome {
    output::write(&script(args.shell))?;
    Ok(Status::SUCCESS)
}

/// What clap makes of the options, and for bash and fish the names of containers, images and devices.
fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holmctl", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        _ => script,
    }
}

/// Puts names before what `_holmctl` offers.
const BASH: &str = r#"
_holmctl_with_names() {
    _holmctl "$@"
    local current="${COMP_WORDS[COMP_CWORD]}" names=
    [[ $current == -* || $COMP_CWORD -lt 2 ]] && return
    case "${COMP_WORDS[1]}" in
        start|stop|restart|kill|freeze|thaw|rm|rename|status|show|exec|shell|attach|logs|wait|stats)
            names=$(holmctl list --all --no-legend 2>/dev/null | cut -d ' ' -f 1) ;;
        run|create)
            names=$(holmctl image list --no-legend 2>/dev/null | cut -d ' ' -f 1) ;;
        image)
            [[ $COMP_CWORD -gt 2 && ${COMP_WORDS[2]} =~ ^(inspect|rm|tag)$ ]] &&
                names=$(holmctl image list --no-legend 2>/dev/null | cut -d ' ' -f 1) ;;
        device)
            [[ $COMP_CWORD -gt 2 && ${COMP_WORDS[2]} =~ ^(rm|mount|umount|grow|trim)$ ]] &&
                names=$(holmctl device list --no-legend 2>/dev/null | cut -d ' ' -f 1) ;;
    esac
    COMPREPLY+=($(compgen -W "$names" -- "$current"))
}
complete -F _holmctl_with_names -o nosort -o bashdefault -o default holmctl
"#;

const FISH: &str = r#"
complete -c holmctl -n "__fish_seen_subcommand_from start stop restart kill freeze thaw rm rename status show exec shell attach logs wait stats; and not __fish_seen_subcommand_from image device" -f -a "(holmctl list --all --no-legend 2>/dev/null | string split -f 1 ' ')"
complete -c holmctl -n "__fish_seen_subcommand_from run create inspect tag; or __fish_seen_subcommand_from image; and __fish_seen_subcommand_from rm" -f -a "(holmctl image list --no-legend 2>/dev/null | string split -f 1 ' ')"
complete -c holmctl -n "__fish_seen_subcommand_from device; and __fish_seen_subcommand_from rm mount umount grow trim" -f -a "(holmctl device list --no-legend 2>/dev/null | string split -f 1 ' ')"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_has_a_script_with_every_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell}: {}", verb.get_name());
            }
        }
    }

    #[test]
    fn bash_takes_the_script() {
        let checked = std::process::Command::new("bash").args(["-n", "-c", &script(Shell::Bash)]).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}
