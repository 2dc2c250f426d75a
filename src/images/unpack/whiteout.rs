//! Whiteouts: entries that remove what lower layers have (OCI image-spec, layer.md "Whiteouts").

use super::Fault;
use crate::images::tar::{Entry, Kind};

/// How the name of a whiteout begins.
pub(super) const PREFIX: &[u8] = b".wh.";

/// The name that hides everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What lower layers lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whiteout<'a> {
    /// A name in the whiteout's directory.
    Name(&'a [u8]),
    /// All that is in the whiteout's directory.
    Contents,
}

impl<'a> Whiteout<'a> {
    /// `None` for an ordinary entry. The prefix is reserved: what has it and is no whiteout is refused, so that nothing
    /// is unpacked that could not be packed again.
    pub(super) fn parse(name: &'a [u8], entry: &Entry) -> Result<Option<Self>, Fault> {
        let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok(None) };
        if entry.kind != Kind::File {
            return Err(Fault::refused("a whiteout that is not a regular file"));
        }
        match hidden {
            _ if name == OPAQUE => Ok(Some(Self::Contents)),
            b"" | b"." | b".." => Err(Fault::refused("a whiteout of nothing, or of a directory by '.' or '..'")),
            _ if hidden.starts_with(PREFIX) => Err(Fault::refused("an unknown kind of whiteout")),
            _ => Ok(Some(Self::Name(hidden))),
        }
    }
}
