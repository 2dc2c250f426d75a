//! What `[Service]` may say: it is about holmctl, which runs the container, so some keys would do another thing than
//! whoever writes them means.

use super::super::problem::{Problem, shown};
use super::super::syntax::Assignment;
use super::super::unit::Text;
use super::super::value::boolean;

/// Keys that have no place there, and what to do instead.
const REFUSED: [(&str, &str); 9] = [
    ("ExecStart", "what runs is said by Image= and Exec= in [Container]"),
    ("ExecStop", "a stop is said by StopSignal= and StopTimeout= in [Container]; ExecStopPost= is possible"),
    ("ExecReload", "a reload is said by ReloadCmd= or ReloadSignal= in [Container]"),
    ("Delegate", "the container has a scope of its own, which is delegated: leave it out"),
    ("RootDirectory", "the container has a root of its own: leave it out"),
    ("RootImage", "the container has a root of its own: leave it out"),
    ("PIDFile", "the container is followed without one: leave it out"),
    ("GuessMainPID", "the container is followed without it: leave it out"),
    ("BusName", "not supported: use Notify= in [Container] for when it is ready"),
];

/// What counts of the section, and the rest as it is.
#[derive(Debug)]
pub(super) struct Service<'a> {
    section: Vec<&'a Assignment>,
    kind: &'static str,
}

impl<'a> Service<'a> {
    /// Reads it. Mistakes are added to `problems`.
    pub(super) fn of(section: &[&'a Assignment], problems: &mut Vec<Problem>) -> Self {
        let mut service = Self { section: Vec::new(), kind: "notify" };
        for assignment in section {
            let refused = REFUSED.iter().find(|(key, _)| *key == assignment.key).map(|(_, why)| (*why).to_owned());
            let wrong = refused.or_else(|| match (assignment.key.as_str(), assignment.value.as_str()) {
                ("Type", value) => service.take_kind(value).err(),
                ("KillMode", "mixed" | "control-group" | "") => None,
                ("KillMode", other) => Some(format!(
                    "'{}' would leave the container to itself: use 'mixed' or 'control-group'",
                    shown(other)
                )),
                _ => None,
            });
            problems.extend(wrong.map(|message| assignment.problem(message)));
            if assignment.key != "Type" {
                service.section.push(assignment);
            }
        }
        service
    }

    fn take_kind(&mut self, value: &str) -> Result<(), String> {
        self.kind = match value {
            "notify" | "" => "notify",
            "exec" | "simple" => "exec",
            "oneshot" => "oneshot",
            other => {
                return Err(format!(
                    "'{}' is not possible: use 'notify' (the default), 'exec', or 'oneshot' for a container that ends by itself",
                    shown(other)
                ));
            }
        };
        Ok(())
    }

    /// `Type=`
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether its standard input comes from somewhere.
    pub(super) fn reads_input(&self) -> bool {
        let last = self.section.iter().rfind(|assignment| assignment.key == "StandardInput");
        last.is_some_and(|assignment| !matches!(assignment.value.as_str(), "" | "null"))
    }

    /// Whether holmctl runs as somebody else than root.
    pub(super) fn has_user(&self) -> bool {
        let last = |key| self.section.iter().rfind(|assignment| assignment.key == key);
        let user = last("User").is_some_and(|user| !matches!(user.value.as_str(), "" | "root" | "0"));
        user || last("DynamicUser").is_some_and(|dynamic| boolean(&dynamic.value) == Ok(true))
    }

    /// Passes on what is left.
    pub(super) fn pass(&self, text: &mut Text) {
        for assignment in &self.section {
            text.line(&assignment.key, &assignment.value);
        }
    }
}
