//! What a container may use of the host.

use serde::{Deserialize, Serialize};

use super::Bytes;

/// Limits of the whole container; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory (MemoryMax=).
    pub memory: Option<Bytes>,
    /// CPU time per second of wall-clock time, in µs (CPUQuotaPerSecUSec=): 1 500 000 is one and a half CPUs.
    pub cpu_usec_per_sec: Option<u64>,
    /// Tasks (TasksMax=).
    pub pids: Option<u64>,
}

impl Limits {
    /// What systemd calls infinity (`UINT64_MAX`) as what it is: no limit.
    pub fn without_infinity(self) -> Self {
        let finite = |value: &u64| *value != u64::MAX;
        Self {
            memory: self.memory.filter(|bytes| finite(&bytes.0)),
            cpu_usec_per_sec: self.cpu_usec_per_sec.filter(finite),
            pids: self.pids.filter(finite),
        }
    }
}
