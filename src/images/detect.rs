//! What an uncompressed tar stream is: an image archive (an OCI layout, or what `docker save` writes) or a root file
//! system. The first entries decide, because a root file system in a pipe is unpacked as it comes.

use std::io::{self, BufRead, Read};

use super::ImageError;
use super::digest::is_hex64;
use super::tar::{Entry, Reader, Stream};

/// What one entry speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Image,
    RootFs,
    /// Both begin with `./`.
    Neither,
}

/// What a stream is, and its first telling entry.
#[derive(Debug)]
pub(super) enum Kind {
    /// An image archive.
    Image(Entry),
    /// A root file system.
    RootFs,
    /// An archive without entries.
    Empty,
}

/// Reads entries until one tells.
pub(super) fn kind_of<S: Stream>(reader: &mut Reader<'_, S>) -> Result<Kind, ImageError> {
    let mut seen_any = false;
    while let Some(entry) = reader.next()? {
        match sign(&entry.path) {
            Sign::Image => return Ok(Kind::Image(entry)),
            Sign::RootFs => return Ok(Kind::RootFs),
            // A second one tells as much as anything else would.
            Sign::Neither if seen_any => return Ok(Kind::RootFs),
            Sign::Neither => seen_any = true,
        }
    }
    Ok(if seen_any { Kind::RootFs } else { Kind::Empty })
}

/// A path of the archive without `./`, leading and trailing slashes; `None` when it has `..`.
pub(super) fn normal(path: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    for part in std::str::from_utf8(path).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn sign(path: &[u8]) -> Sign {
    let Some(path) = normal(path) else { return Sign::RootFs };
    let first = path.split('/').next().unwrap_or_default();
    let whole = !path.contains('/');
    match first {
        "" => Sign::Neither,
        "oci-layout" | "index.json" | "manifest.json" | "repositories" if whole => Sign::Image,
        "blobs" => Sign::Image,
        _ if begins_with_digest(first) => Sign::Image,
        _ => Sign::RootFs,
    }
}

/// `<hex>`, `<hex>.json`, `<hex>.tar`, `sha256:<hex>`: how `docker save`, skopeo and their like name things.
fn begins_with_digest(name: &str) -> bool {
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    let hex = name.split('.').next().unwrap_or_default();
    is_hex64(hex)
}

/// Hands through what it reads and keeps a copy, for the one who then begins at the start again.
#[derive(Debug)]
pub(super) struct Recorder<'s, S> {
    stream: &'s mut S,
    /// `None` once nothing is kept any more.
    kept: Option<Vec<u8>>,
}

impl<'s, S: BufRead> Recorder<'s, S> {
    pub(super) fn new(stream: &'s mut S) -> Self {
        Self { stream, kept: Some(Vec::new()) }
    }

    /// Keeps nothing from now on.
    pub(super) fn stop(&mut self) {
        self.kept = None;
    }

    /// What was kept.
    pub(super) fn into_kept(self) -> Vec<u8> {
        self.kept.unwrap_or_default()
    }
}

impl<S: BufRead> BufRead for Recorder<'_, S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Some(kept) = &mut self.kept {
            // Consuming follows a successful fill_buf, which then gives the same bytes again.
            let bytes = self.stream.fill_buf().unwrap_or_default();
            kept.extend_from_slice(&bytes[..count.min(bytes.len())]);
        }
        self.stream.consume(count);
    }
}

impl<S: BufRead> Read for Recorder<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<S: BufRead> Stream for Recorder<'_, S> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_image_archives_are_known() {
        let hex = "0123456789abcdef".repeat(4);
        let named = |path: &str| sign(path.as_bytes());
        for path in ["oci-layout", "./index.json", "blobs/", "blobs/sha256/x", "manifest.json", "repositories"] {
            assert_eq!(named(path), Sign::Image, "{path}");
        }
        for path in [hex.clone(), format!("{hex}.json"), format!("{hex}/layer.tar"), format!("sha256:{hex}")] {
            assert_eq!(named(&path), Sign::Image, "{path}");
        }
        for path in ["bin/", "etc/manifest.json", "manifest.json/a", "abc.json", "../index.json"] {
            assert_eq!(named(path), Sign::RootFs, "{path}");
        }
        assert_eq!(named("./"), Sign::Neither);
    }

    #[test]
    fn a_recorder_keeps_what_was_read() {
        let mut input = &b"abcdef"[..];
        let mut recorder = Recorder::new(&mut input);
        recorder.read_exact(&mut [0; 2]).unwrap();
        recorder.pass(1).unwrap();
        assert_eq!(recorder.into_kept(), b"abc");
        assert_eq!(input, b"def");
    }
}
