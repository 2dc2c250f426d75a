//! Removed trees: each stays until nobody uses it any more, also over a restart of the daemon, and is deleted then.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::table::{Shared, sync_directory};
use super::{failed, lock, remove_tree, users};
use crate::storage::StorageError;

/// How often a removed tree is looked at that somebody outside this process uses: the kernel has no event for the end of
/// a mount in another namespace, or of a descriptor.
const AGAIN: Duration = Duration::from_secs(2);

/// The thread that deletes; dropping it ends it.
#[derive(Debug)]
pub(super) struct Sweeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts it.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, StorageError> {
        let worker = Arc::clone(shared);
        let thread = thread::Builder::new().name("copy-sweeper".to_owned()).spawn(move || worker.keep_sweeping());
        let thread = thread.map_err(|source| failed("start a thread for", shared.directory(), source))?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.shared.table().closing = true;
        self.shared.bell.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::debug!("the thread that deletes removed trees had ended before");
        }
    }
}

impl Shared {
    /// A name in the trash.
    pub(super) fn new_trash(&self) -> PathBuf {
        let mut table = self.table();
        table.serial += 1;
        self.directory().join("trash").join(table.serial.to_string())
    }

    /// Has what is in the trash under this name deleted. It has no user in this process.
    pub(super) fn throw_away(&self, path: PathBuf) {
        let mut table = self.table();
        table.trash.insert(path, 0);
        table.fresh = true;
        drop(table);
        self.bell.notify_all();
    }

    /// At the start: what was removed or never completed. Nothing of it is deleted here, since somebody may use it.
    pub(super) fn collect_trash(&self) -> Result<(), StorageError> {
        let trash = self.directory().join("trash");
        for path in entries(&trash)? {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let mut table = self.table();
            table.serial = table.serial.max(number.unwrap_or(0));
            table.trash.insert(path, 0);
        }
        let pending = self.directory().join("pending");
        for path in entries(&pending)? {
            let to = self.new_trash();
            fs::rename(&path, &to).map_err(|source| failed("rename", &path, source))?;
            self.table().trash.insert(to, 0);
        }
        self.table().fresh = true;
        sync_directory(&trash)?;
        sync_directory(&pending)
    }

    fn keep_sweeping(&self) {
        let mut table = self.table();
        while !table.closing {
            if std::mem::take(&mut table.fresh) {
                drop(table);
                self.sweep();
                table = self.table();
            } else if table.idle_trash().is_empty() {
                table = self.bell.wait(table).unwrap_or_else(PoisonError::into_inner);
            } else {
                let (woken, timeout) = self.bell.wait_timeout(table, AGAIN).unwrap_or_else(PoisonError::into_inner);
                table = woken;
                table.fresh |= timeout.timed_out();
            }
        }
    }

    /// Deletes what is removed and that nobody uses.
    pub(super) fn sweep(&self) {
        let _alone = lock(&self.sweeping);
        let idle = self.table().idle_trash();
        if idle.is_empty() {
            return;
        }
        let users = match users::of_trees_in(self.directory()) {
            Ok(users) => users,
            Err(error) => {
                tracing::warn!("cannot see who uses removed trees, so none is deleted: {error}");
                return;
            }
        };
        let unused = |path: &PathBuf| path.strip_prefix(self.directory()).is_ok_and(|tree| !users.contains_key(tree));
        for path in idle.into_iter().filter(unused) {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!("{error}: the next start of holmd tries again");
            }
            self.table().trash.remove(&path);
        }
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let failed = |source| failed("list", directory, source);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}
