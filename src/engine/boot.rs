//! Payloads that are a whole system: how one is recognised, and what it gets that others do not. Pure.

use super::create::invalid;
use super::error::EngineError;
use crate::model::{Boot, ImageConfig, NetworkMode, Process, Signal, Usec};

/// How long the end of a system may take: what systemd gives each of its units (systemd-system.conf(5), DefaultTimeoutStopSec=).
pub(super) const STOP_TIMEOUT_USEC: Usec = 90_000_000;

/// Where an init is, by the Filesystem Hierarchy Standard and where distributions moved it. Not `/init`, which in many images
/// of single services is a supervisor that wants none of this.
const INITS: [&str; 4] = ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init", "/bin/init"];

/// What an init of a whole system keeps beside the default: to mount and to make cgroups, to power itself off and reboot, and
/// what its services drop themselves (C21). None of audit (C22).
const CAPABILITIES: [&str; 13] = [
    "DAC_READ_SEARCH",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MKNOD",
    "NET_BROADCAST",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYS_RESOURCE",
    "SYS_TTY_CONFIG",
];

/// Whether the process is the init of a whole system. A caller that says so is refused what cannot be one.
pub(super) fn wanted(word: Boot, process: &Process, image: &ImageConfig) -> Result<bool, EngineError> {
    let root = process.user.as_deref().is_none_or(|user| matches!(user, "root" | "0" | "root:root" | "0:0"));
    match word {
        Boot::No => Ok(false),
        Boot::Auto => Ok(root && !process.init && (is_init(&process.command) || stops_as_systemd(image))),
        Boot::Yes if process.init => {
            Err(invalid("a whole system has an init of its own: leave out either 'Init' or 'Boot'"))
        }
        Boot::Yes if !root => Err(invalid("the init of a whole system runs as root: leave out the user")),
        Boot::Yes => Ok(true),
    }
}

/// Gives the process what an init needs; what the caller has dropped stays dropped.
pub(super) fn adapt(process: &mut Process, network: NetworkMode, no_new_privileges: Option<bool>) {
    // Otherwise nobody could log in: su, sudo and PAM gain privileges.
    process.no_new_privileges = no_new_privileges.unwrap_or(false);
    // A network of its own is its own to configure.
    let network = (network == NetworkMode::None).then_some("NET_ADMIN");
    let wanted = CAPABILITIES.into_iter().chain(network).map(str::to_owned);
    let capabilities = &mut process.capabilities;
    let dropped = |name: &String| capabilities.drop.iter().any(|drop| drop == name || drop == "ALL");
    let added: Vec<_> = wanted.filter(|name| !dropped(name) && !capabilities.add.contains(name)).collect();
    capabilities.add.extend(added);
}

fn is_init(command: &[String]) -> bool {
    let Some(program) = command.first() else { return false };
    let name = program.rsplit('/').next().unwrap_or_default();
    name == "systemd" || INITS.contains(&program.as_str()) || program == "init"
}

/// What images of systems say of themselves.
fn stops_as_systemd(image: &ImageConfig) -> bool {
    image.stop_signal == Some(Signal::HALT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Capabilities;

    fn process(program: &str) -> Process {
        Process {
            command: vec![program.to_owned()],
            environment: vec![],
            working_directory: None,
            user: None,
            terminal: false,
            init: false,
            capabilities: Capabilities::default(),
            no_new_privileges: true,
        }
    }

    fn looks_like_one(program: &str) -> bool {
        wanted(Boot::Auto, &process(program), &ImageConfig::default()).unwrap()
    }

    #[test]
    fn an_init_is_known_by_its_place() {
        for program in ["/sbin/init", "/usr/sbin/init", "init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"] {
            assert!(looks_like_one(program), "{program}");
        }
        for program in ["/init", "/usr/bin/systemd-run", "/sbin/tini", "sh", "/opt/init"] {
            assert!(!looks_like_one(program), "{program}");
        }
    }

    #[test]
    fn an_image_that_stops_as_systemd_does_is_a_system() {
        let image = ImageConfig { stop_signal: Some(Signal::HALT), ..ImageConfig::default() };
        assert!(wanted(Boot::Auto, &process("/entry"), &image).unwrap());
        assert!(!wanted(Boot::No, &process("/sbin/init"), &image).unwrap());
    }

    #[test]
    fn an_init_that_is_not_root_or_not_process_1_is_none() {
        let image = ImageConfig::default();
        let someone = Process { user: Some("1000".into()), ..process("/sbin/init") };
        let under_ours = Process { init: true, ..process("/sbin/init") };
        for process in [someone, under_ours] {
            assert!(!wanted(Boot::Auto, &process, &image).unwrap());
            assert!(matches!(wanted(Boot::Yes, &process, &image), Err(EngineError::InvalidConfig(_))));
        }
        assert!(wanted(Boot::Yes, &process("/entry"), &image).unwrap());
    }

    #[test]
    fn an_init_keeps_what_it_needs_and_nobody_dropped() {
        let mut init = process("/sbin/init");
        init.capabilities.drop = vec!["MKNOD".into()];
        init.capabilities.add = vec!["SYS_ADMIN".into()];
        adapt(&mut init, NetworkMode::None, None);
        let added = &init.capabilities.add;
        assert_eq!(added.iter().filter(|name| *name == "SYS_ADMIN").count(), 1);
        assert!(added.contains(&"SYS_BOOT".to_owned()) && added.contains(&"NET_ADMIN".to_owned()));
        assert!(!added.contains(&"MKNOD".to_owned()) && !added.iter().any(|name| name.starts_with("AUDIT")));
        assert!(!init.no_new_privileges);

        let mut bare = process("/sbin/init");
        bare.capabilities.drop = vec!["ALL".into()];
        adapt(&mut bare, NetworkMode::Host, Some(true));
        assert!(bare.capabilities.add.is_empty() && bare.no_new_privileges);
    }
}
