//! What holmd can do nothing about and a user should know.

use super::output;
use crate::client::{ContainerProxy, Options};

/// Tells which limits of a container have no effect on this host. One that is gone by now has none.
pub(super) async fn tell(container: &ContainerProxy<'_>, name: &str) {
    for warning in container.warnings().await.unwrap_or_default() {
        output::tell(&format!("warning: {name}: {warning}"));
    }
}

/// Tells of one that was stopped and had to be killed.
pub(super) async fn tell_killed(container: &ContainerProxy<'_>, name: &str) {
    if container.result().await.is_ok_and(|result| result == "timeout") {
        let why = container.status_text().await.unwrap_or_default();
        let why = if why.is_empty() { "killed after its stop timeout" } else { &why };
        output::tell(&format!("warning: {name}: {why}"));
    }
}

/// Whether a request names a limit, so that there may be something to tell: each question takes time.
pub(super) fn possible(options: &Options) -> bool {
    LIMITS.iter().any(|limit| options.contains_key(limit))
}

const LIMITS: [&str; 12] = [
    "MemoryMax",
    "MemoryHigh",
    "MemorySwapMax",
    "TasksMax",
    "CPUQuotaPerSecUSec",
    "CPUWeight",
    "AllowedCPUs",
    "IOWeight",
    "IOReadBandwidthMax",
    "IOWriteBandwidthMax",
    "IOReadIOPSMax",
    "IOWriteIOPSMax",
];
