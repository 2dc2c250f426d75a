//! What is on the bus at this moment: the views that the objects' properties and the listings are read from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::engine::{ContainerView, ImageView, JobId, JobView, ProcessId, ProcessView};
use crate::model::{ContainerName, ImageName};

/// The newest view of one object; shared by the object and the publisher, who alone sets it.
///
/// An own lock and not zbus' lock around the interface: a method holds that one until it has replied, and may be waiting
/// for the publisher.
#[derive(Debug)]
pub(super) struct Latest<V>(RwLock<Arc<V>>);

impl<V> Latest<V> {
    pub(super) fn new(view: V) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(view))))
    }

    pub(super) fn get(&self) -> Arc<V> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, view: V) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

/// One kind of object, by its key.
#[derive(Debug)]
pub(super) struct Rows<K, V>(Mutex<BTreeMap<K, Arc<Latest<V>>>>);

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone, V> Rows<K, V> {
    pub(super) fn insert(&self, key: K, view: V) -> Arc<Latest<V>> {
        let latest = Latest::new(view);
        self.lock().insert(key, Arc::clone(&latest));
        latest
    }

    pub(super) fn remove(&self, key: &K) -> bool {
        self.lock().remove(key).is_some()
    }

    pub(super) fn get(&self, key: &K) -> Option<Arc<Latest<V>>> {
        self.lock().get(key).cloned()
    }

    pub(super) fn keys(&self) -> Vec<K> {
        self.lock().keys().cloned().collect()
    }

    /// Every view, in order of key.
    pub(super) fn views(&self) -> Vec<Arc<V>> {
        self.lock().values().map(|latest| latest.get()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Arc<Latest<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that comes and goes.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) containers: Rows<ContainerName, ContainerView>,
    pub(super) images: Rows<ImageName, ImageView>,
    pub(super) jobs: Rows<JobId, JobView>,
    pub(super) processes: Rows<ProcessId, ProcessView>,
}
