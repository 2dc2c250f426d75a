//! Payloads that are a whole system: how one is recognised, and what it gets that others do not. Pure.

use super::create::invalid;
use super::error::EngineError;
use super::request::CreateRequest;
use crate::model::{Boot, ImageConfig, NetworkMode, Process, Signal, Usec};

/// How long the end of a system may take: what systemd gives each of its units (systemd-system.conf(5), DefaultTimeoutStopSec=).
pub(super) const STOP_TIMEOUT_USEC: Usec = 90_000_000;

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

/// What is said about a payload's being a whole system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    word: Boot,
    /// Whether the caller named the program, instead of leaving it to the image.
    named: bool,
}

impl Said {
    /// What a request says.
    pub(super) fn of(request: &CreateRequest, image: &ImageConfig) -> Self {
        let command = image.entrypoint.is_empty() && !request.command.is_empty();
        Self { word: request.boot, named: request.entrypoint.is_some() || command }
    }

    /// Whether the process is the init of a whole system. A caller that says so is refused what cannot be one. An image may
    /// make itself one, and so give itself privileges, only when the administrator says that `images_may`.
    pub(super) fn wants(self, process: &Process, image: &ImageConfig, images_may: bool) -> Result<bool, EngineError> {
        match self.word {
            Boot::No => Ok(false),
            Boot::Auto if self.named => Ok(could_be(process) && Boot::is_init(&process.command)),
            Boot::Auto => Ok(images_may && self.is_left_to(process, image)),
            Boot::Yes if process.init => {
                Err(invalid("a whole system has an init of its own: leave out either 'Init' or 'Boot'"))
            }
            Boot::Yes if !is_root(process) => {
                Err(invalid("the init of a whole system runs as root: leave out the user"))
            }
            Boot::Yes => Ok(true),
        }
    }

    /// Whether the image calls itself a system, and nobody else has said anything about it.
    pub(super) fn is_left_to(self, process: &Process, image: &ImageConfig) -> bool {
        self.word == Boot::Auto
            && !self.named
            && could_be(process)
            && (Boot::is_init(&process.command) || stops_as_systemd(image))
    }
}

/// Whether it is root and process 1.
fn could_be(process: &Process) -> bool {
    !process.init && is_root(process)
}

fn is_root(process: &Process) -> bool {
    process.user.as_deref().is_none_or(|user| matches!(user, "root" | "0" | "root:root" | "0:0"))
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

    const CALLER: Said = Said { word: Boot::Auto, named: true };
    const IMAGE: Said = Said { word: Boot::Auto, named: false };

    fn wants(said: Said, process: &Process, image: &ImageConfig, images_may: bool) -> bool {
        said.wants(process, image, images_may).unwrap()
    }

    #[test]
    fn an_init_that_the_caller_names_is_known_by_its_place() {
        let looks_like_one = |program| wants(CALLER, &process(program), &ImageConfig::default(), false);
        for program in ["/sbin/init", "/usr/sbin/init", "init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"] {
            assert!(looks_like_one(program), "{program}");
        }
        for program in ["/init", "/usr/bin/systemd-run", "/sbin/tini", "sh", "/opt/init"] {
            assert!(!looks_like_one(program), "{program}");
        }
    }

    #[test]
    fn an_image_makes_itself_a_system_only_where_images_may() {
        let by_signal = ImageConfig { stop_signal: Some(Signal::HALT), ..ImageConfig::default() };
        for (program, image) in [("/sbin/init", &ImageConfig::default()), ("/entry", &by_signal)] {
            let process = process(program);
            assert!(!wants(IMAGE, &process, image, false), "{program}");
            assert!(IMAGE.is_left_to(&process, image), "{program}");
            assert!(wants(IMAGE, &process, image, true), "{program}");
            assert!(!wants(Said { word: Boot::No, ..IMAGE }, &process, image, true), "{program}");
        }
        // Another program of the caller's is none, whatever the image is.
        assert!(!wants(CALLER, &process("sh"), &by_signal, true));
        assert!(!IMAGE.is_left_to(&process("sh"), &ImageConfig::default()));
    }

    #[test]
    fn who_named_the_program_is_known() {
        let words = |word: &str| vec![word.to_owned()];
        let image = |entrypoint: &[&str]| ImageConfig {
            entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
            command: words("/sbin/init"),
            ..ImageConfig::default()
        };
        let named = |request: &CreateRequest, image: &ImageConfig| Said::of(request, image).named;
        let nothing = CreateRequest::default();
        let command = CreateRequest { command: words("/sbin/init"), ..CreateRequest::default() };
        let entrypoint = CreateRequest { entrypoint: Some(words("/sbin/init")), ..CreateRequest::default() };
        assert!(!named(&nothing, &image(&[])));
        assert!(named(&command, &image(&[])));
        assert!(named(&entrypoint, &image(&["/sbin/init"])));
        // These are arguments of the image's program.
        assert!(!named(&command, &image(&["/sbin/init"])));
    }

    #[test]
    fn an_init_that_is_not_root_or_not_process_1_is_none() {
        let image = ImageConfig::default();
        let always = Said { word: Boot::Yes, named: false };
        let someone = Process { user: Some("1000".into()), ..process("/sbin/init") };
        let under_ours = Process { init: true, ..process("/sbin/init") };
        for process in [someone, under_ours] {
            assert!(!wants(CALLER, &process, &image, true));
            assert!(!wants(IMAGE, &process, &image, true) && !IMAGE.is_left_to(&process, &image));
            assert!(matches!(always.wants(&process, &image, true), Err(EngineError::InvalidConfig(_))));
        }
        assert!(wants(always, &process("/entry"), &image, false));
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
