//! Reading tar streams: ustar, GNU and PAX (POSIX pax(1), "pax Interchange Format"; GNU tar manual, "Tar Internals").
//!
//! Only the parsing of one header block is left to the `tar` crate. Its iterator is not used, because it splits PAX
//! records at newlines (which breaks binary attributes such as `security.capability`), holds extended headers of any
//! size in memory, ignores global headers and sparse files in PAX, and cannot tell a missing end from an end.

mod number;
mod pax;
mod reader;
mod sparse;

pub(super) use reader::{Entry, Kind, Mtime, Reader, Stream, Trailer};
