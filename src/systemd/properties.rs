//! Which properties a container's scope gets, and why (systemd.scope(5), systemd.resource-control(5)).

use zbus::Variant;

use crate::model::{CpuSet, IoMax, Limits, Weight};

use super::ScopeRequest;

/// One property of a scope.
#[derive(Debug, PartialEq)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) value: Variant<'static>,
    pub(super) need: Need,
}

/// What has to be known of the unit that wants a scope.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// What that unit is started after and stopped before. Once it is dead itself, nothing but this keeps its container
    /// from being stopped side by side with what the container needs.
    pub(super) after: Vec<String>,
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
pub(super) fn of_scope(request: &ScopeRequest, order: &Order) -> Vec<Property> {
    let mut properties = vec![
        must("Description", request.description.clone()),
        must("Slice", request.slice.clone()),
        must("PIDs", vec![request.pid]),
        // Neither killed at the first instant of a shutdown, nor ordered: whoever wants an order says so below.
        must("DefaultDependencies", false),
        // What is below the scope is ours: `supervisor/`, `payload/`, `exec-N/`.
        must("Delegate", true),
        // A scope has no main process, so KillMode stays control-group and every process gets the stop signal. The monitor
        // alone heeds this one, and sends its leader, and nobody else, what the container wants to be stopped with.
        must("KillSignal", libc::SIGURG),
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
    properties.extend(of_order_at_shutdown(request.wanted_by.as_deref(), order));
    if request.survive_soft_reboot {
        properties.push(wish("SurviveFinalKillSignal", true));
    }
    properties.extend(of_new_limits(&request.limits));
    properties
}

/// The properties that set exactly these limits on a running scope, taking away what is not among them.
pub(super) fn of_limits(limits: &Limits) -> Vec<Property> {
    let mut properties = vec![
        must("MemoryMax", limits.memory.map_or(INFINITY, |bytes| bytes.0)),
        must("CPUQuotaPerSecUSec", limits.cpu_usec_per_sec.unwrap_or(INFINITY)),
        must("TasksMax", limits.pids.unwrap_or(INFINITY)),
        must("MemoryHigh", limits.memory_high.map_or(INFINITY, |bytes| bytes.0)),
        must("MemorySwapMax", limits.memory_swap.map_or(INFINITY, |bytes| bytes.0)),
        must("CPUWeight", limits.cpu_weight.map_or(INFINITY, Weight::number)),
        must("AllowedCPUs", limits.allowed_cpus.as_ref().map(CpuSet::to_mask).unwrap_or_default()),
        must("IOWeight", limits.io_weight.map_or(INFINITY, Weight::number)),
    ];
    let io = [
        ("IOReadBandwidthMax", &limits.io_read_bandwidth),
        ("IOWriteBandwidthMax", &limits.io_write_bandwidth),
        ("IOReadIOPSMax", &limits.io_read_iops),
        ("IOWriteIOPSMax", &limits.io_write_iops),
    ];
    properties.extend(io.into_iter().flat_map(|(name, list)| of_devices(name, list.as_deref().unwrap_or_default())));
    properties
}

/// A list that is set adds to what is there, and an empty one takes that away.
fn of_devices(name: &'static str, list: &[IoMax]) -> Vec<Property> {
    let devices: Vec<_> = list.iter().map(|max| (max.device.clone().unwrap_or_default(), max.per_sec)).collect();
    let none = must(name, Vec::<(String, u64)>::new());
    if devices.is_empty() { vec![none] } else { vec![none, must(name, devices)] }
}

/// A scope that a unit wants: stopped by systemd itself, after that unit, before what that unit needs, and before what
/// stops the containers of nobody and gives the storage back. Without such a unit systemd does not stop it, so an order
/// would only make its start wait for a daemon that is being restarted.
fn of_order_at_shutdown(wanted_by: Option<&str>, order: &Order) -> Vec<Property> {
    let Some(unit) = wanted_by else { return Vec::new() };
    let first = [unit.to_owned(), SHUTDOWN_TARGET.to_owned()];
    let kept = order.after.iter().filter(|after| !after.ends_with(".slice") && !first.contains(after));
    let after: Vec<_> = KEEPERS.into_iter().map(str::to_owned).chain(kept.cloned()).collect();
    vec![must("Conflicts", vec![SHUTDOWN_TARGET]), must("Before", first.to_vec()), must("After", after)]
}

/// The limits of a new scope. A new one has no limit on memory and CPU, but one on tasks: DefaultTasksMax=.
fn of_new_limits(limits: &Limits) -> Vec<Property> {
    let nothing = [Variant::U64(INFINITY), Vec::<u8>::new().into(), Vec::<(String, u64)>::new().into()];
    let unset = |property: &Property| nothing.contains(&property.value) && property.name != "TasksMax";
    of_limits(limits).into_iter().filter(|property| !unset(property)).collect()
}

fn must(name: &'static str, value: impl Into<Variant<'static>>) -> Property {
    Property { name, value: value.into(), need: Need::Must }
}

fn wish(name: &'static str, value: impl Into<Variant<'static>>) -> Property {
    Property { name, value: value.into(), need: Need::Wish }
}

/// Who stops the containers of nobody at shutdown: the daemon, and what does it in its stead.
const KEEPERS: [&str; 2] = ["holmd.service", "holm-shutdown.service"];

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
            wanted_by: None,
            log: Default::default(),
            survive_soft_reboot: false,
        }
    }

    fn value(properties: &[Property], name: &str) -> Option<String> {
        properties.iter().find(|property| property.name == name).map(|property| property.value.to_string())
    }

    #[test]
    fn a_plain_container_has_no_order_at_shutdown() {
        let properties = of_scope(&request(), &Order::default());
        assert_eq!(value(&properties, "DefaultDependencies").unwrap(), "false");
        for order in ["Conflicts", "Before", "After"] {
            assert_eq!(value(&properties, order), None, "{order}");
        }
        assert_eq!(value(&properties, "KillSignal").unwrap(), libc::SIGURG.to_string());
        assert_eq!(value(&properties, "PIDs").unwrap(), "[uint32 42]");
    }

    #[test]
    fn a_container_wanted_by_a_unit_is_stopped_after_that_unit() {
        let after = ["app.service", "system.slice", "basic.target"].map(str::to_owned).to_vec();
        let request = ScopeRequest { wanted_by: Some("web.service".into()), ..request() };
        let properties = of_scope(&request, &Order { after });
        assert_eq!(value(&properties, "Conflicts").unwrap(), r#"["shutdown.target"]"#);
        assert_eq!(value(&properties, "Before").unwrap(), r#"["web.service", "shutdown.target"]"#);
        let after = r#"["holmd.service", "holm-shutdown.service", "app.service", "basic.target"]"#;
        assert_eq!(value(&properties, "After").unwrap(), after);
    }

    #[test]
    fn a_new_scope_gets_only_limits_that_differ_from_none() {
        let properties = of_scope(&request(), &Order::default());
        assert_eq!(value(&properties, "MemoryMax"), None);
        assert_eq!(value(&properties, "CPUQuotaPerSecUSec"), None);
        assert_eq!(value(&properties, "TasksMax").unwrap(), "uint64 18446744073709551615", "systemd has a default");

        let limits = Limits {
            memory: Some(Bytes(1 << 20)),
            cpu_usec_per_sec: Some(1_500_000),
            pids: Some(7),
            ..Limits::default()
        };
        let properties = of_scope(&ScopeRequest { limits, ..request() }, &Order::default());
        assert_eq!(value(&properties, "MemoryMax").unwrap(), "uint64 1048576");
        assert_eq!(value(&properties, "CPUQuotaPerSecUSec").unwrap(), "uint64 1500000");
        assert_eq!(value(&properties, "TasksMax").unwrap(), "uint64 7");
    }

    #[test]
    fn a_changed_limit_can_be_taken_away() {
        let properties = of_limits(&Limits::default());
        assert_eq!(properties.len(), 12);
        let nothing = [Variant::U64(INFINITY), Vec::<u8>::new().into(), Vec::<(String, u64)>::new().into()];
        assert!(properties.iter().all(|property| nothing.contains(&property.value)), "{properties:?}");
    }

    #[test]
    fn shares_and_devices_are_in_systemds_words() {
        let limits = Limits {
            memory_high: Some(Bytes(5)),
            memory_swap: Some(Bytes(0)),
            cpu_weight: Some(Weight::IDLE),
            allowed_cpus: Some("0-1,9".parse().unwrap()),
            io_weight: Some(Weight::parse_io("7").unwrap()),
            io_read_bandwidth: Some(vec!["/dev/loop0 5M".parse().unwrap(), "/dev/sda 3".parse().unwrap()]),
            ..Limits::default()
        };
        let request = ScopeRequest { limits: limits.clone(), ..request() };
        let properties = of_scope(&request, &Order::default());
        let found: Vec<_> = properties[properties.len() - 7..]
            .iter()
            .map(|property| format!("{} {}", property.name, property.value))
            .collect();
        let expected = [
            "TasksMax uint64 18446744073709551615",
            "MemoryHigh uint64 5",
            "MemorySwapMax uint64 0",
            "CPUWeight uint64 0",
            "AllowedCPUs [byte 0x03, 0x02]",
            "IOWeight uint64 7",
            r#"IOReadBandwidthMax [("/dev/loop0", uint64 5000000), ("/dev/sda", 3)]"#,
        ];
        assert_eq!(found, expected);
        let changed: Vec<_> = of_limits(&limits).into_iter().map(|property| property.name).collect();
        assert_eq!(changed.iter().filter(|name| **name == "IOReadBandwidthMax").count(), 2, "the old ones go first");
    }
}
