//! Who uses which device, and what for: counts, by the id that the device had when it was mounted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::words::LeaseInfo;
use crate::model::DeviceId;

/// All of a set; cloned into whoever takes one.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Arc<Mutex<BTreeMap<(DeviceId, String), u32>>>);

/// One; given back by being dropped.
#[derive(Debug)]
pub(super) struct Taken {
    leases: Leases,
    key: (DeviceId, String),
}

impl Leases {
    /// Counts one more.
    pub(super) fn take(&self, id: &DeviceId, purpose: &str) -> Taken {
        let key = (id.clone(), purpose.to_owned());
        *self.table().entry(key.clone()).or_default() += 1;
        Taken { leases: self.clone(), key }
    }

    /// All, in order of id and purpose.
    pub(super) fn list(&self) -> Vec<LeaseInfo> {
        let info = |((id, purpose), count): (&(DeviceId, String), &u32)| LeaseInfo {
            id: id.clone(),
            purpose: purpose.clone(),
            count: *count,
        };
        self.table().iter().map(info).collect()
    }

    /// Those of one device, in words.
    pub(super) fn of(&self, id: &DeviceId) -> Vec<String> {
        let words = |lease: LeaseInfo| match lease.count {
            1 => format!("holmd ({})", lease.purpose),
            count => format!("holmd ({}, {count} times)", lease.purpose),
        };
        self.list().into_iter().filter(|lease| lease.id == *id).map(words).collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<(DeviceId, String), u32>> {
        // Every change under this lock is one assignment, so the table is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut table = self.leases.table();
        if let Some(count) = table.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_counted_by_purpose_and_given_back_by_being_dropped() {
        let leases = Leases::default();
        let id = DeviceId::parse("web").unwrap();
        let (first, second) = (leases.take(&id, "start"), leases.take(&id, "start"));
        let third = leases.take(&id, "commit");
        assert_eq!(leases.of(&id), ["holmd (commit)", "holmd (start, 2 times)"]);
        drop((first, third));
        assert_eq!(leases.list(), [LeaseInfo { id, purpose: "start".into(), count: 1 }]);
        drop(second);
        assert!(leases.list().is_empty());
    }
}
