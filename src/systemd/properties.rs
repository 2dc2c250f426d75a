//! Which properties a container's scope gets, and why (systemd.scope(5), systemd.resource-control(5)).

use zbus::Variant;

use crate::model::Limits;

use super::ScopeRequest;

/// One property of a scope.
#[derive(Debug, PartialEq)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) value: Variant<'static>,
    pub(super) need: Need,
}

/// What is done when a systemd does not know the property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Without it the scope would not be what was asked for: the start fails.
    Must,
    /// It is left out: an older systemd lacks it and the container is as good.
    Wish,
}

/// The properties of a new scope.
pub(super) fn of_scope(request: &ScopeRequest) -> Vec<Property> {
    let mut properties = vec![
        must("Description", request.description.clone()),
        must("Slice", request.slice.clone()),
        must("PIDs", vec![request.pid]),
        // Neither killed at the first instant of a shutdown, nor ordered: whoever wants an order says so below.
        must("DefaultDependencies", false),
        // Stopped, where systemd stops it, before the daemon, which keeps its storage.
        must("After", vec!["holmd.service"]),
        // What is below the scope is ours: `supervisor/`, `payload/`, `exec-N/`.
        must("Delegate", true),
        // KillMode stays control-group: a scope has no main process, so no other mode would spare the payload. The monitor
        // takes either signal for a polite stop of the container. Of SIGTERM every process hears; SIGURG is ignored by all
        // that do not ask for it.
        must("KillSignal", if request.stop_by_monitor { libc::SIGURG } else { libc::SIGTERM }),
        must("TimeoutStopUSec", request.timeout_stop_usec),
        // A failed scope that stays loaded blocks its name.
        wish("CollectMode", "inactive-or-failed"),
        // One process killed for lack of memory is the payload's affair; systemd must not stop the rest for it.
        wish("OOMPolicy", "continue"),
        wish("CPUAccounting", true),
        wish("MemoryAccounting", true),
        wish("IOAccounting", true),
        wish("TasksAccounting", true),
    ];
    properties.extend(of_order_at_shutdown(request.wanted_by.as_deref()));
    properties.extend(of_new_limits(&request.limits));
    properties
}

/// The properties that set exactly these limits on a running scope, taking away what is not among them.
pub(super) fn of_limits(limits: &Limits) -> Vec<Property> {
    vec![
        must("MemoryMax", limits.memory.map_or(INFINITY, |bytes| bytes.0)),
        must("CPUQuotaPerSecUSec", limits.cpu_usec_per_sec.unwrap_or(INFINITY)),
        must("TasksMax", limits.pids.unwrap_or(INFINITY)),
    ]
}

/// A scope that a unit wants: stopped by systemd itself, after that unit and before the daemon.
fn of_order_at_shutdown(wanted_by: Option<&str>) -> Vec<Property> {
    let Some(unit) = wanted_by else { return Vec::new() };
    vec![must("Conflicts", vec![SHUTDOWN_TARGET]), must("Before", vec![SHUTDOWN_TARGET.to_owned(), unit.to_owned()])]
}

/// The limits of a new scope. A new one has no limit on memory and CPU, but one on tasks: DefaultTasksMax=.
fn of_new_limits(limits: &Limits) -> Vec<Property> {
    let unset = |property: &Property| property.value == Variant::U64(INFINITY) && property.name != "TasksMax";
    of_limits(limits).into_iter().filter(|property| !unset(property)).collect()
}

fn must(name: &'static str, value: impl Into<Variant<'static>>) -> Property {
    Property { name, value: value.into(), need: Need::Must }
}

fn wish(name: &'static str, value: impl Into<Variant<'static>>) -> Property {
    Property { name, value: value.into(), need: Need::Wish }
}

pub(super) const SHUTDOWN_TARGET: &str = "shutdown.target";

/// How the manager's interface writes "no limit".
const INFINITY: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    fn request() -> ScopeRequest {
        ScopeRequest {
            unit: "holm-web.scope".into(),
            description: "Container web".into(),
            pid: 42,
            slice: "holm.slice".into(),
            limits: Limits::default(),
            timeout_stop_usec: 15_000_000,
            stop_by_monitor: false,
            wanted_by: None,
            log: Default::default(),
        }
    }

    fn value(properties: &[Property], name: &str) -> Option<String> {
        properties.iter().find(|property| property.name == name).map(|property| property.value.to_string())
    }

    #[test]
    fn a_plain_container_has_no_order_at_shutdown() {
        let properties = of_scope(&request());
        assert_eq!(value(&properties, "DefaultDependencies").unwrap(), "false");
        assert_eq!(value(&properties, "Conflicts"), None);
        assert_eq!(value(&properties, "Before"), None);
        assert_eq!(value(&properties, "After").unwrap(), r#"["holmd.service"]"#);
        assert_eq!(value(&properties, "PIDs").unwrap(), "[uint32 42]");
    }

    #[test]
    fn a_system_is_asked_by_its_monitor_alone() {
        let properties = of_scope(&ScopeRequest { stop_by_monitor: true, ..request() });
        assert_eq!(value(&properties, "KillSignal").unwrap(), libc::SIGURG.to_string());
        assert_eq!(value(&of_scope(&request()), "KillSignal").unwrap(), libc::SIGTERM.to_string());
    }

    #[test]
    fn a_container_wanted_by_a_unit_is_stopped_after_that_unit() {
        let properties = of_scope(&ScopeRequest { wanted_by: Some("web.service".into()), ..request() });
        assert_eq!(value(&properties, "Conflicts").unwrap(), r#"["shutdown.target"]"#);
        assert_eq!(value(&properties, "Before").unwrap(), r#"["shutdown.target", "web.service"]"#);
    }

    #[test]
    fn a_new_scope_gets_only_limits_that_differ_from_none() {
        let properties = of_scope(&request());
        assert_eq!(value(&properties, "MemoryMax"), None);
        assert_eq!(value(&properties, "CPUQuotaPerSecUSec"), None);
        assert_eq!(value(&properties, "TasksMax").unwrap(), "uint64 18446744073709551615", "systemd has a default");

        let limits = Limits { memory: Some(Bytes(1 << 20)), cpu_usec_per_sec: Some(1_500_000), pids: Some(7) };
        let properties = of_scope(&ScopeRequest { limits, ..request() });
        assert_eq!(value(&properties, "MemoryMax").unwrap(), "uint64 1048576");
        assert_eq!(value(&properties, "CPUQuotaPerSecUSec").unwrap(), "uint64 1500000");
        assert_eq!(value(&properties, "TasksMax").unwrap(), "uint64 7");
    }

    #[test]
    fn a_changed_limit_can_be_taken_away() {
        let properties = of_limits(&Limits::default());
        assert_eq!(properties.len(), 3);
        assert!(properties.iter().all(|property| property.value == Variant::U64(INFINITY)));
    }
}
