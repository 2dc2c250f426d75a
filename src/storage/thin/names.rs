//! Every device-mapper name and UUID is built here.
//!
//! | what | name | UUID |
//! |---|---|---|
//! | pool | `<prefix>-pool` | `HOLM-<pool uuid>-pool` |
//! | parts of a split block device | `<prefix>-data`, `<prefix>-metadata` | `HOLM-<pool uuid>-data`, `…-metadata` |
//! | device | `<prefix>-<hash of the device id>-<thin id>` | `HOLM-<pool uuid>-<thin id>-<stamp>` |
//! | device on no record | `<prefix>-foreign-<thin id>` | the same |
//!
//! The kernel would let one thin id be active twice, under two names: two page caches over one file system. It refuses
//! a second node with the same UUID, so the UUID holds exactly what must be active only once. The name holds the thin
//! id too because a removed device may still be in use when its id is given to a new one.

use sha2::{Digest, Sha256};

use crate::model::DeviceId;
use crate::storage::StorageError;

/// What a node is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role<'a> {
    /// The pool.
    Pool,
    /// A device: its id, its number in the pool, and the pool's transaction id when it was made.
    Device(&'a DeviceId, u32, u64),
    /// The data of a pool on one block device.
    Data,
    /// Its metadata.
    Metadata,
    /// A device on no record: its number and stamp.
    Foreign(u32, u64),
}

/// Builds names for one pool.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    pool: String,
}

impl Names {
    /// `prefix` is 1 to 32 of a-z, 0-9 and `_`; `pool` the pool's UUID.
    pub(super) fn new(prefix: &str, pool: &str) -> Result<Self, StorageError> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(valid) {
            let advice = format!("'{prefix}' cannot be used: use 1 to {MAX_PREFIX} of a-z, 0-9 and '_'");
            return Err(StorageError::NotSupported { what: "the prefix of device names", advice });
        }
        Ok(Self { prefix: prefix.to_owned(), pool: pool.to_owned() })
    }

    /// The device-mapper name.
    pub(super) fn name(&self, role: Role<'_>) -> String {
        match role {
            Role::Pool => format!("{}-pool", self.prefix),
            Role::Data => format!("{}-data", self.prefix),
            Role::Metadata => format!("{}-metadata", self.prefix),
            Role::Device(id, thin, _) => format!("{}-{}-{thin}", self.prefix, short_hash(id)),
            Role::Foreign(thin, _) => format!("{}-foreign-{thin}", self.prefix),
        }
    }

    /// The device-mapper UUID.
    pub(super) fn uuid(&self, role: Role<'_>) -> String {
        match role {
            Role::Pool => format!("{MARK}-{}-pool", self.pool),
            Role::Data => format!("{MARK}-{}-data", self.pool),
            Role::Metadata => format!("{MARK}-{}-metadata", self.pool),
            Role::Device(_, thin, stamp) | Role::Foreign(thin, stamp) => format!("{MARK}-{}-{thin}-{stamp}", self.pool),
        }
    }

    /// The UUID of a pool, from that of its node.
    pub(super) fn pool_of(node: &str) -> Option<String> {
        node.strip_prefix(MARK)?.strip_prefix('-')?.strip_suffix("-pool").map(str::to_owned)
    }

    /// Whether a node with this UUID is a device of this pool.
    pub(super) fn owns(&self, uuid: &str) -> bool {
        uuid.strip_prefix(MARK)
            .and_then(|rest| rest.strip_prefix('-')?.strip_prefix(self.pool.as_str())?.strip_prefix('-'))
            .is_some_and(|rest| !matches!(rest, "pool" | "data" | "metadata"))
    }

    /// What every name of this pool starts with.
    pub(super) fn name_prefix(&self) -> String {
        format!("{}-", self.prefix)
    }
}

/// Whether any node of any pool of Holm's is active.
pub fn is_any_active() -> bool {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let uuids = disks.filter_map(|disk| std::fs::read_to_string(disk.path().join("dm/uuid")).ok());
    uuids.filter_map(|uuid| Some(uuid.strip_prefix(MARK)?.starts_with('-'))).any(|ours| ours)
}

/// 40 bits: enough to tell devices apart at a glance; the thin id makes the name unique.
fn short_hash(id: &DeviceId) -> String {
    Sha256::digest(id.as_str()).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

const MARK: &str = "HOLM";
const MAX_PREFIX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "01234567-89ab-cdef-0123-456789abcdef";

    #[test]
    fn the_longest_names_fit_the_kernel() {
        let names = Names::new(&"p".repeat(MAX_PREFIX), POOL).unwrap();
        let id = DeviceId::parse(&"x".repeat(128)).unwrap();
        for role in [Role::Pool, Role::Device(&id, (1 << 24) - 1, u64::MAX)] {
            // DM_NAME_LEN is 128 and DM_UUID_LEN 129, both with a final zero.
            assert!(names.name(role).len() < 128);
            assert!(names.uuid(role).len() < 129);
        }
    }

    #[test]
    fn a_name_never_meets_another() {
        let names = Names::new("holm", POOL).unwrap();
        let id = DeviceId::parse("layer:abc").unwrap();
        assert_ne!(names.name(Role::Device(&id, 1, 5)), names.name(Role::Device(&id, 2, 5)));
        assert_ne!(names.uuid(Role::Device(&id, 1, 5)), names.uuid(Role::Device(&id, 1, 6)));
        assert_eq!(names.name(Role::Pool), "holm-pool");
        assert_eq!(Names::pool_of(&names.uuid(Role::Pool)).as_deref(), Some(POOL));
        // One device cannot be active as both.
        assert_eq!(names.uuid(Role::Foreign(1, 5)), names.uuid(Role::Device(&id, 1, 5)));
    }

    #[test]
    fn only_devices_of_this_pool_are_owned() {
        let names = Names::new("holm", POOL).unwrap();
        let id = DeviceId::parse("base").unwrap();
        assert!(names.owns(&names.uuid(Role::Device(&id, 0, 1))));
        for role in [Role::Pool, Role::Data, Role::Metadata] {
            assert!(!names.owns(&names.uuid(role)));
        }
        let other = Names::new("holm", "other").unwrap();
        assert!(!names.owns(&other.uuid(Role::Device(&id, 0, 1))));
        assert!(!names.owns("LVM-abc"));
    }

    #[test]
    fn a_prefix_that_could_be_mistaken_is_refused() {
        for bad in ["", "a-b", "A", "a/b", &"p".repeat(33)] {
            assert!(Names::new(bad, POOL).is_err(), "{bad}");
        }
    }
}
