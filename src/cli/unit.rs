//! The unit that we run in.

use std::fs;

use rustix::process::geteuid;

/// The service that we are part of, if it is one of the system's own manager: whoever runs a container from a service has it
/// stopped at shutdown after that service. Only root's word on units is taken.
pub(crate) fn own() -> Option<String> {
    if !geteuid().is_root() {
        return None;
    }
    service(&fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// cgroups(7): the unified hierarchy is `0::/system.slice/web.service`, perhaps with delegated groups below. A manager of a
/// user's, `user@1000.service`, is a service too, but not what wants the container.
fn service(groups: &str) -> Option<String> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.split('/').find(|part| !part.is_empty() && !part.ends_with(".slice"))?;
    (unit.ends_with(".service") && !unit.starts_with("user@")).then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_the_first_group_below_the_slices() {
        let of = |path: &str| service(&format!("1:name=systemd:/x.service\n0::{path}\n"));
        assert_eq!(of("/system.slice/web.service").as_deref(), Some("web.service"));
        assert_eq!(of("/a.slice/a-b.slice/web@1.service/sub").as_deref(), Some("web@1.service"));
        for other in [
            "/",
            "/init.scope",
            "/user.slice/user-0.slice/user@0.service/app.slice/x.service",
            "/user.slice/session-1.scope",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
