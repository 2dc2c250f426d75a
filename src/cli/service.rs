//! The service that we are part of.

use std::io::{self, IsTerminal};

use crate::model::Service;
use crate::sys::proc;

/// The service of the system's manager on whose behalf we run, if there is one. Only root's word on units is taken.
///
/// Not that of a person's shell: where nothing makes sessions of logins (pam_systemd(8)), it belongs to the service of the
/// terminal or of the ssh daemon. A person has a terminal, and is not the process that a manager has started
/// (`SYSTEMD_EXEC_PID` of systemd.exec(5)).
pub(crate) fn own() -> Option<Service> {
    if !rustix::process::geteuid().is_root() || (io::stdin().is_terminal() && !is_its_process()) {
        return None;
    }
    proc::control_group(std::process::id()).ok()?.to_str().and_then(Service::of_control_group)
}

fn is_its_process() -> bool {
    std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()))
}
