//! Which service a process belongs to, by its control group.

/// A service of the system's manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its unit.
    pub unit: String,
    /// The slice that it is in.
    pub slice: String,
    /// Its control group, below the mount of cgroup2.
    pub control_group: String,
}

impl Service {
    /// The service whose control group this is, or is above. `path` is the line of cgroup2 in proc(5), without `0::`.
    ///
    /// `None` for what a person runs: a session is a scope, and a user's manager, `user@1000.service`, has services of its own
    /// that the system's manager does not know. `None` too for the inside of any other scope, such as a container's.
    pub fn of_control_group(path: &str) -> Option<Self> {
        let mut slice = ROOT_SLICE;
        let mut control_group = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            control_group.extend(["/", part]);
            // A name that could be that of a control file has a letter before it.
            let name = part.strip_prefix('_').unwrap_or(part);
            if name.ends_with(".slice") {
                slice = name;
                continue;
            }
            let service = name.ends_with(".service") && !name.starts_with("user@");
            return service.then(|| Self { unit: name.to_owned(), slice: slice.to_owned(), control_group });
        }
        None
    }
}

const ROOT_SLICE: &str = "-.slice";

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(String, String)> {
        Service::of_control_group(path).map(|service| (service.unit, service.slice))
    }

    #[test]
    fn a_service_is_known_by_its_control_group_and_by_those_below() {
        let web = Some(("web.service".to_owned(), "system.slice".to_owned()));
        assert_eq!(found("/system.slice/web.service"), web);
        assert_eq!(found("/system.slice/web.service/worker/1.scope"), web);
        let instance = Some(("db@1.service".to_owned(), "system-db.slice".to_owned()));
        assert_eq!(found("/system.slice/system-db.slice/db@1.service"), instance);
        assert_eq!(found("/web.service"), Some(("web.service".to_owned(), "-.slice".to_owned())));
        let worker = Service::of_control_group("/system.slice/_cpu.service/worker/1.scope").unwrap();
        assert_eq!(worker.control_group, "/system.slice/_cpu.service");
        assert_eq!(found("/_cpu.slice/_cpu.service"), Some(("cpu.service".to_owned(), "cpu.slice".to_owned())));
    }

    #[test]
    fn what_a_person_runs_is_no_service() {
        for path in [
            "/user.slice/user-0.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            "/holm.slice/holm-web.scope/payload/system.slice/web.service",
            "/system.slice",
            "/init.scope",
            "/",
            "",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
