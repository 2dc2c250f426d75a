//! Users of a device in this process: each keeps it from being deleted, wherever it is moved meanwhile.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Weak;

use super::failed;
use super::table::Shared;
use crate::storage::leases::Taken;
use crate::storage::{Lease, StorageError};

/// A user of a device.
#[derive(Debug)]
pub(super) struct User {
    shared: Weak<Shared>,
    /// Follows the device when it is renamed.
    directory: Option<File>,
}

impl User {
    /// The user that `shared` has counted already.
    pub(super) fn new(shared: Weak<Shared>, directory: File) -> Self {
        Self { shared, directory: Some(directory) }
    }

    /// The device's directory, for looking things up in it only.
    pub(super) fn directory(&self) -> &File {
        self.directory.as_ref().expect("a user has its directory until it is dropped")
    }

    /// Where the device is now.
    pub(super) fn path(&self) -> Result<PathBuf, StorageError> {
        let link = PathBuf::from(format!("/proc/self/fd/{}", self.directory().as_raw_fd()));
        fs::read_link(&link).map_err(|source| failed("follow", &link, source))
    }
}

/// A user that somebody mounted the device for.
#[derive(Debug)]
pub(super) struct CopyLease {
    pub(super) _user: User,
    pub(super) _taken: Taken,
}

impl Lease for CopyLease {}

impl Drop for User {
    fn drop(&mut self) {
        let path = self.path();
        self.directory.take();
        match (self.shared.upgrade(), path) {
            (Some(shared), Ok(path)) => shared.release(&path),
            (Some(_), Err(error)) => tracing::debug!(%error, "cannot find a device that is given back"),
            (None, _) => {}
        }
    }
}
