//! One import at work: its limits, how far it is, and whether it is to end.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::limits::Limits;
use super::{ImageError, Progress};

/// What every step of an import shares.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) progress: &'a Arc<Progress>,
    pub(super) limits: Limits,
    /// Where members of an archive that cannot be read twice are kept.
    pub(super) scratch: &'a Path,
    /// Set after a failure, so that a thread that waits for a pipe gives up.
    pub(super) failed: AtomicBool,
}

impl<'a> Job<'a> {
    pub(super) fn new(progress: &'a Arc<Progress>, scratch: &'a Path, limits: Limits) -> Self {
        Self { progress, limits, scratch, failed: AtomicBool::new(false) }
    }

    /// An error once the import is to end.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.progress.canceled.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
            return Err(ImageError::Canceled);
        }
        Ok(())
    }

    /// Notes that `count` more bytes of the archive were read.
    pub(super) fn advance(&self, count: usize) {
        self.progress.read.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Carries an `ImageError` through `std::io::Read`.
pub(super) fn into_io(error: ImageError) -> io::Error {
    io::Error::other(error)
}

/// Takes an `ImageError` out again; whatever else a reader or decoder reports means that the archive is damaged.
pub(super) fn from_io(error: io::Error) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(error) => error,
        Err(error) => ImageError::Damaged(error.to_string()),
    }
}
