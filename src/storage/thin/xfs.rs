//! The file system xfs on a device. Snapshots carry their origin's UUID, so it is mounted with `nouuid`.

use std::path::Path;

use super::ext4::{failed, run};
use crate::storage::StorageError;

const PROGRAM: &str = "mkfs.xfs";

/// Makes an empty one on all of `device`; mkfs.xfs(8) wants 300 MiB for it.
pub(super) fn format(device: &Path) -> Result<(), StorageError> {
    // No discard: nothing is mapped. No alignment: a pool block is a large unit, and a log of that unit is large too. A
    // small log, because every device comes to map all of its own; older programs want a larger one.
    let plain: &[&str] = &["-q", "-f", "-K", "-L", "holm", "-d", "noalign"];
    let small = [plain, &["-l", "size=16m"]].concat();
    let made = run(PROGRAM, "xfsprogs", &small, device, &[])?;
    if made.status.success() {
        return Ok(());
    }
    let made = run(PROGRAM, "xfsprogs", plain, device, &[])?;
    if made.status.success() { Ok(()) } else { Err(failed(PROGRAM, &made)) }
}

/// How every one begins.
pub(super) const MAGIC: &[u8] = b"XFSB";

/// statfs(2).
pub(super) const SUPER_MAGIC: u64 = 0x5846_5342;
