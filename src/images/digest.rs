//! SHA-256 digests as images write them: `sha256:` and 64 hexadecimal digits.

use std::fmt::Write as _;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// Digest and length of a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    /// `sha256:…`
    pub(super) digest: String,
    /// Bytes.
    pub(super) len: u64,
}

/// Computes a [`Sum`] piece by piece.
#[derive(Debug, Default)]
pub(super) struct Summer {
    hash: Sha256,
    len: u64,
}

impl Summer {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> Sum {
        Sum { digest: text(&self.hash.finalize()), len: self.len }
    }
}

/// Digest of `bytes`.
pub(super) fn digest(bytes: &[u8]) -> String {
    text(&Sha256::digest(bytes))
}

/// The chain id of a layer above `parent` (OCI image-spec, config.md "Layer ChainID").
pub(super) fn chain_id(parent: Option<&str>, diff_id: &str) -> String {
    match parent {
        None => diff_id.to_owned(),
        Some(parent) => digest(format!("{parent} {diff_id}").as_bytes()),
    }
}

/// Whether `text` is `sha256:` and 64 lower-case hexadecimal digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex64)
}

/// Whether `text` is 64 lower-case hexadecimal digits.
pub(super) fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("sha256:"), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// A reader that sums what passes, if asked to.
#[derive(Debug)]
pub(super) struct Summing<R> {
    inner: R,
    summer: Option<Summer>,
}

impl<R: Read> Summing<R> {
    /// Sums `head`, which was read already, and what will be read. Without `wanted` nothing is computed.
    pub(super) fn new(head: &[u8], inner: R, wanted: bool) -> Self {
        let mut summer = wanted.then(Summer::default);
        if let Some(summer) = &mut summer {
            summer.update(head);
        }
        Self { inner, summer }
    }

    /// The sum of what was read so far, if it was wanted.
    pub(super) fn finish(self) -> Option<Sum> {
        self.summer.map(Summer::finish)
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(summer) = &mut self.summer {
            summer.update(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_the_known_one() {
        assert_eq!(digest(b"abc"), ABC);
        assert!(is_digest(ABC));
        assert!(!is_digest(&ABC.to_uppercase()));
        assert!(!is_digest("sha256:ba78"));
    }

    #[test]
    fn the_lowest_chain_id_is_its_diff_id() {
        assert_eq!(chain_id(None, ABC), ABC);
        assert_eq!(chain_id(Some(ABC), ABC), digest(format!("{ABC} {ABC}").as_bytes()));
    }

    #[test]
    fn a_summing_reader_sees_every_byte() {
        let mut reader = Summing::new(b"a", &b"bc"[..], true);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish(), Some(Sum { digest: ABC.into(), len: 3 }));
    }
}
