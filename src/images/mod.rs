//! Images: reading archives, and unpacking their layers safely.
//!
//! This module knows archives and trees, not devices: the engine opens a device for each layer and hands its tree in.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::model::{ErrorCode, ImageConfig};

mod archive;
mod codec;
mod config;
mod detect;
mod digest;
mod docker;
mod health;
mod job;
mod layers;
mod limits;
mod members;
mod oci;
mod pipeline;
mod source;
mod tar;
#[cfg(test)]
mod tests;
mod unpack;

use job::Job;
use limits::Limits;
use source::Source;

/// How far an import has come; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the archive read.
    pub read: AtomicU64,
    /// Bytes of the archive there are; 0 when unknown (a pipe).
    pub total: AtomicU64,
    /// Set by whoever wants the import to end early.
    pub canceled: AtomicBool,
}

/// Where layers go: made by the engine, one device per layer.
///
/// A layer may hold device nodes, as its archive had them: wherever a tree is mounted, it is mounted `nodev`.
pub trait LayerStore {
    /// What keeps a layer's tree open while it is filled.
    type Tree: LayerTree;

    /// Whether the layer with this chain id (OCI image-spec, config.md "Layer ChainID"; `sha256:…`) is there already.
    fn contains(&self, chain_id: &str) -> Result<bool, ImageError>;

    /// Opens a new tree above the layer with the chain id `parent` (`None`: an empty tree). Its own chain id is not
    /// known yet: that of a plain tree in a pipe is known when the pipe has been read.
    fn begin(&self, parent: Option<&str>) -> Result<Self::Tree, ImageError>;
}

/// A layer's tree being filled. Dropped without [`finish`](Self::finish), it is thrown away.
pub trait LayerTree {
    /// The root directory of the tree. An `O_PATH` descriptor will do; nothing else may change the tree meanwhile.
    fn root(&self) -> BorrowedFd<'_>;

    /// Keeps it as the layer `chain_id`: complete and on the disk when this returns.
    fn finish(self, chain_id: &str) -> Result<(), ImageError>;
}

/// What an import found.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The name in the archive, if it has one.
    pub name: Option<String>,
    /// `sha256:…` of the configuration; for a plain tree, of a configuration made for it.
    pub digest: String,
    /// `sha256:…` of each layer's uncompressed tar stream, lowest first.
    pub diff_ids: Vec<String>,
    /// The chain id of the topmost layer.
    pub chain_id: String,
    /// Uncompressed bytes of the layers.
    pub size: u64,
    /// How to run it.
    pub config: ImageConfig,
}

/// Reads an archive from `source` (a file, from where it stands, or a pipe), finds its kind by content, verifies it and
/// unpacks its layers into `store`. `scratch`: a directory for what must be kept while a pipe or a compressed file is
/// read; nothing of it is left there.
///
/// Reads with one further thread, and does not return before that has ended. Cancelling takes effect within 64 KiB read,
/// or a quarter of a second when a pipe is silent.
///
/// After an error every layer that was finished stays in the store; the one being filled is thrown away.
pub fn import<S: LayerStore>(
    source: OwnedFd,
    scratch: &Path,
    store: &S,
    progress: &Arc<Progress>,
) -> Result<Imported, ImageError> {
    let job = Job::new(progress, scratch, Limits::default());
    archive::import(Source::open(source, &job)?, store, &job)
}

/// What can go wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not an archive that we know.
    #[error("this is neither a tar archive nor a compressed one (gzip, zstd, xz): {0}")]
    UnknownFormat(String),
    /// Ends too early, or cannot be decompressed.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// Contents and digest differ.
    #[error("the digest of {what} is {found}, but the archive says {expected}: it is damaged or was tampered with")]
    DigestMismatch {
        /// Which part.
        what: String,
        /// What was computed.
        found: String,
        /// What the archive says.
        expected: String,
    },
    /// Something the archive must have is not there, or makes no sense.
    #[error("the archive is not a valid image: {0}")]
    Invalid(String),
    /// An entry that would write outside the root, or cannot be represented.
    #[error("refused entry '{path}' in layer {layer}: {reason}")]
    RefusedEntry {
        /// The entry's path as the archive has it.
        path: String,
        /// Which layer.
        layer: String,
        /// Why.
        reason: String,
    },
    /// Larger or longer than allowed.
    #[error("the archive is over a limit: {0}")]
    Limit(String),
    /// The import was cancelled.
    #[error("the import was cancelled")]
    Canceled,
    /// A file operation failed.
    #[error("cannot {op} {path}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The layer store failed.
    #[error("{message}")]
    Store {
        /// What a caller can do about it.
        code: ErrorCode,
        /// What happened.
        message: String,
    },
}

impl ImageError {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Canceled => ErrorCode::Canceled,
            Self::Io { .. } => ErrorCode::StorageFailed,
            Self::Store { code, .. } => *code,
            _ => ErrorCode::InvalidImage,
        }
    }
}
