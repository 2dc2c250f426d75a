//! `*.container`: a service that runs `holmctl run` in the foreground.
//!
//! | file | what |
//! |---|---|
//! | this one | what is gathered, and the units that it becomes |
//! | `keys.rs` | the keys of `[Container]` that are used |
//! | `refused.rs` | those of Quadlet that are not, and what to do instead |
//! | `mounts.rs` | `Volume=` and `Mount=` |
//! | `service.rs` | what `[Service]` may say |

mod keys;
mod mounts;
mod refused;
mod service;

use super::index::Index;
use super::install::{Install, Socket};
use super::key::{self, Key};
use super::name::FileName;
use super::problem::{Place, Problem};
use super::sections::Sections;
use super::unit::{Text, Unit};
use super::value::seconds;
use super::words::{literal, quoted};
use crate::model::{ContainerName, Signal, Usec};
use service::Service;

pub(super) use keys::KEYS;
pub(super) use refused::REFUSED;

/// What a container's stop may take beyond its own timeout: for the daemon to kill it, and to give its device back.
const STOP_MARGIN: Usec = 15_000_000;

/// What `[Container]` says, key by key.
#[derive(Debug, Default)]
pub(super) struct Container {
    /// Words of the command line before the image.
    options: Vec<String>,
    image: Option<String>,
    command: Vec<String>,
    name: Option<String>,
    user: Option<String>,
    group: Option<(Place, String)>,
    /// Units that have to be there before, and that it ends with.
    requires: Vec<String>,
    /// Directories of the host that have to be mounted before.
    mounts: Vec<String>,
    stop_timeout: Option<Usec>,
    stop_signal: Option<Signal>,
    health: Vec<(Place, &'static str)>,
    has_health_command: bool,
    reload: Option<Reload>,
    /// Assignments of the socket unit.
    listen: Vec<(&'static str, String)>,
    keep: bool,
}

/// What a reload does.
#[derive(Debug)]
enum Reload {
    Command(Vec<String>),
    Signal(Signal),
}

impl Container {
    fn option(&mut self, flag: &str, value: &str) {
        self.options.push(format!("{flag}={value}"));
    }

    fn flag(&mut self, flag: &str) {
        self.options.push(flag.to_owned());
    }

    fn require(&mut self, unit: String) {
        if !self.requires.contains(&unit) {
            self.requires.push(unit);
        }
    }

    /// What no key alone can tell.
    fn check(&mut self, whole: &Place, problems: &mut Vec<Problem>) {
        if self.image.is_none() {
            problems.push(whole.problem_of("Image", "is missing in [Container]: name an image, or a .image file"));
        }
        match (&self.user, self.group.take()) {
            (Some(user), Some((_, group))) => self.option("--user", &format!("{user}:{group}")),
            (Some(user), None) => self.option("--user", &user.clone()),
            (None, Some((place, _))) => {
                problems.push(place.problem_of("Group", "needs User= beside it"));
            }
            (None, None) => {}
        }
        if !self.has_health_command {
            let alone = self.health.iter().map(|(place, key)| place.problem_of(key, "needs HealthCmd= beside it"));
            problems.extend(alone);
        }
    }

    /// The container's name, as the command line takes it.
    fn name_of(&self, file: &FileName) -> Result<String, String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = match file.instance() {
            // The instance is what systemd fills in; what is written out here is the file's own name.
            Some("") => return Ok(format!("{}-%i", file.prefix())),
            Some(instance) => format!("{}-{instance}", file.prefix()),
            None => file.stem().to_owned(),
        };
        ContainerName::parse(&name).map(|_| literal(&name)).map_err(|error| error.to_string())
    }
}

/// Every key of `[Container]`, the used ones first.
pub(super) fn keys() -> Vec<&'static Key<Container>> {
    KEYS.iter().chain(REFUSED).collect()
}

/// The units of a file.
pub(super) fn units(name: &FileName, sections: &Sections<'_>, index: &Index, problems: &mut Vec<Problem>) -> Vec<Unit> {
    let mut container = Container::default();
    key::apply(&keys(), &sections.of("Container"), &mut container, index, problems);
    let whole = Place::whole(sections.path());
    container.check(&whole, problems);
    let service = Service::of(&sections.of("Service"), problems);
    if service.reads_input() {
        container.flag("--interactive");
    }
    let install = Install::of(name, &sections.of("Install"), problems);
    let own = container.name_of(name).unwrap_or_else(|message| {
        problems.push(whole.problem_of("ContainerName", format!("is needed in [Container]: {message}")));
        String::new()
    });
    let unit = super::index::service_of(name, sections.last("Container", "ServiceName"));
    let has_socket = !container.listen.is_empty();
    let mut units = Vec::new();
    let text = service_text(name, &container, &own, &service, sections, index, problems);
    let socket = if has_socket { Socket::Beside } else { Socket::None };
    units.push(Unit { links: install.links(&unit, socket, index, problems), name: unit.clone(), text: Some(text) });
    if has_socket {
        let name_of_socket = unit.replace(".service", ".socket");
        let text = socket_text(name, &container, sections);
        let links = install.links(&name_of_socket, Socket::Own, index, problems);
        units.push(Unit { name: name_of_socket, text: Some(text), links });
    } else {
        let alone = sections.of("Socket").into_iter().take(1);
        problems.extend(alone.map(|assignment| assignment.problem("[Socket] needs ListenStream= in [Container]")));
    }
    units
}

#[allow(clippy::too_many_arguments)] // Each is one part of the unit.
fn service_text(
    name: &FileName,
    container: &Container,
    own: &str,
    service: &Service<'_>,
    sections: &Sections<'_>,
    index: &Index,
    problems: &mut Vec<Problem>,
) -> String {
    let mut text = Text::of(sections.path(), &name.to_string());
    text.line("Description", &format!("Container {own}"));
    sections.pass_unit(&mut text, index, problems);
    // Wanted and not required: a restart of the daemon must not restart what runs.
    text.line("Wants", "holmd.service");
    text.line("After", "holmd.service");
    for unit in &container.requires {
        text.line("Requires", unit);
        text.line("After", unit);
    }
    if !container.listen.is_empty() {
        text.line("Requires", "%N.socket");
        text.line("After", "%N.socket");
    }
    for path in &container.mounts {
        text.line("RequiresMountsFor", &quoted(path));
    }

    text.section("Service");
    text.line("Type", service.kind());
    if service.kind() == "notify" {
        text.line("NotifyAccess", "main");
    }
    text.line("KillMode", "mixed");
    text.line("SyslogIdentifier", own);
    // As systemd itself has it for a service whose process was ended by one of these signals.
    text.line("SuccessExitStatus", &clean_ends(container.stop_signal));
    if let Some(timeout) = container.stop_timeout {
        text.line("TimeoutStopSec", &seconds(timeout.saturating_add(STOP_MARGIN)));
    }
    service.pass(&mut text);
    run_line(&mut text, container, own);
    match &container.reload {
        Some(Reload::Command(words)) => {
            text.holmctl("ExecReload", ["exec", own].into_iter().chain(words.iter().map(String::as_str)));
        }
        Some(Reload::Signal(signal)) => {
            text.holmctl("ExecReload", ["kill", "--who=leader", &format!("--signal={signal}"), own]);
        }
        None => {}
    }
    // Root's holmctl stops what it runs when it is asked to end, and the container's monitor does when it is killed. Of
    // another user's the daemon does not take it.
    if service.has_user() {
        text.holmctl("ExecStop", ["stop", "--ignore", own]);
        let clean: &[&str] = if container.keep { &["stop", "--ignore"] } else { &["rm", "--force", "--ignore"] };
        text.holmctl("ExecStopPost", clean.iter().copied().chain([own]));
    }
    text.into_text()
}

fn run_line(text: &mut Text, container: &Container, own: &str) {
    let name = format!("--name={own}");
    let mut first = vec!["run", &name, "--replace"];
    first.extend((!container.keep).then_some("--rm"));
    let mut payload = vec![container.image.as_deref().unwrap_or_default()];
    payload.extend(container.command.iter().map(String::as_str));
    let options = container.options.iter().map(|option| vec![option.as_str()]);
    text.folded("ExecStart", first, options.chain([payload]));
}

/// Exit statuses of a payload that ended because it was asked to.
fn clean_ends(stop: Option<Signal>) -> String {
    let mut signals = vec![libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGTERM];
    signals.extend(stop.map(Signal::number).filter(|number| *number != libc::SIGKILL));
    signals.sort_unstable();
    signals.dedup();
    let statuses: Vec<_> = signals.into_iter().map(|number| (128 + number).to_string()).collect();
    statuses.join(" ")
}

fn socket_text(name: &FileName, container: &Container, sections: &Sections<'_>) -> String {
    let mut text = Text::of(sections.path(), &name.to_string());
    text.line("Description", &format!("Sockets of {name}"));
    text.section("Socket");
    for (key, value) in &container.listen {
        text.line(key, value);
    }
    sections.pass("Socket", &mut text);
    text.into_text()
}
