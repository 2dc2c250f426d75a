//! How large an archive may be. What an image may hold is bounded by the pool as well; these bounds keep the
//! daemon's memory and time bounded.

/// Upper bounds; going over one is `ImageError::Limit`.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Headers in one tar stream.
    pub(super) entries: u64,
    /// Uncompressed bytes of one stream.
    pub(super) bytes: u64,
    /// Bytes of one extended header (PAX records, a GNU long name), which is held in memory.
    pub(super) extended_header: u64,
    /// Bytes of a path (PATH_MAX without the final NUL, so that the kernel takes it whole).
    pub(super) path: usize,
    /// Components of a path.
    pub(super) depth: usize,
    /// Bytes of all names in a layer, and of the paths of its directories, which are held in memory.
    pub(super) names: usize,
    /// Files in an image archive.
    pub(super) members: usize,
    /// Pieces of one sparse file.
    pub(super) extents: usize,
    /// Bytes of one JSON document (manifest, index, configuration).
    pub(super) document: u64,
    /// Bytes after the end of the archive. GNU tar pads to its record size, at most some MiB.
    pub(super) trailing: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            bytes: 1 << 40,
            extended_header: 1 << 20,
            path: 4095,
            depth: 1024,
            names: 256 << 20,
            members: 10_000,
            extents: 1 << 20,
            document: 4 << 20,
            trailing: 64 << 20,
        }
    }
}
