//! Compression, found by its first bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Bytes that [`Compression::of`] wants to see.
pub(super) const HEAD: usize = 512;

/// Memory an xz stream may ask for: ten times what `xz -9` needs.
const XZ_MEMORY: u64 = 1 << 30;

/// Bytes read from the compressed side at once.
const BUFFER: usize = 64 << 10;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Compression {
    /// By the magic numbers at the start: RFC 1952 2.3.1, RFC 8878 3.1.1 (and 3.1.2, a skippable frame first), the xz
    /// file format 2.1.1.1.
    pub(super) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// What `head` looks like, for the message about a format that we do not read.
pub(super) fn known_by_name(head: &[u8]) -> &'static str {
    match head {
        [] => "it is empty",
        [b'B', b'Z', b'h', ..] => "it looks like bzip2; decompress it first",
        [0x5d, 0, 0, ..] => "it looks like lzma; decompress it first",
        [4, 0x22, 0x4d, 0x18, ..] => "it looks like lz4; decompress it first",
        [b'P', b'K', ..] => "it looks like a zip archive",
        [b'h', b's', b'q', b's', ..] => "it looks like a squashfs file system",
        [b'0', b'7', b'0', b'7', b'0', ..] => "it looks like a cpio archive",
        [0x7f, b'E', b'L', b'F', ..] => "it looks like a program",
        [b'{', ..] => "it looks like JSON; pack the whole directory as one tar",
        _ => "its first block is no tar header",
    }
}

/// Reads up to [`HEAD`] bytes.
pub(super) fn read_head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    input.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The uncompressed stream of `head` followed by `rest`. Every member or frame is read; the end of the input inside
/// one, a wrong checksum and garbage behind the last are errors.
pub(super) fn decoder<'a>(head: Vec<u8>, rest: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let compression = Compression::of(&head);
    let input = Cursor::new(head).chain(rest);
    if compression == Compression::None {
        return Ok(Box::new(input));
    }
    let input = BufReader::with_capacity(BUFFER, input);
    Ok(match compression {
        Compression::None => unreachable!("returned above"),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(Xz::new(liblzma::bufread::XzDecoder::new_stream(input, stream)))
        }
    })
}

/// An xz decoder that is not asked again after its end: liblzma answers that with an error.
struct Xz<R: BufRead> {
    inner: Option<liblzma::bufread::XzDecoder<R>>,
}

impl<R: BufRead> Xz<R> {
    fn new(inner: liblzma::bufread::XzDecoder<R>) -> Self {
        Self { inner: Some(inner) }
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let count = inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.inner = None;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PLAIN: &[u8] = b"what is packed and what is not, and what is packed again";

    fn packed(compression: Compression) -> Vec<u8> {
        match compression {
            Compression::None => PLAIN.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(PLAIN).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(PLAIN).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
                encoder.write_all(PLAIN).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn unpacked(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let head = read_head(&mut bytes)?;
        let mut out = Vec::new();
        decoder(head, bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    const PACKED: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Xz];

    #[test]
    fn every_kind_is_found_and_read() {
        for kind in PACKED.into_iter().chain([Compression::None]) {
            let bytes = packed(kind);
            assert_eq!(Compression::of(&bytes), kind);
            assert_eq!(unpacked(&bytes).unwrap(), PLAIN, "{kind:?}");
        }
    }

    #[test]
    fn several_members_are_read_as_one() {
        for kind in PACKED {
            let twice = [packed(kind), packed(kind)].concat();
            assert_eq!(unpacked(&twice).unwrap(), [PLAIN, PLAIN].concat(), "{kind:?}");
        }
    }

    #[test]
    fn every_prefix_of_a_compressed_stream_is_an_error_or_no_compressed_stream() {
        for kind in PACKED {
            let bytes = packed(kind);
            for end in 0..bytes.len() {
                let prefix = &bytes[..end];
                assert!(Compression::of(prefix) == Compression::None || unpacked(prefix).is_err(), "{kind:?} {end}");
            }
        }
    }

    #[test]
    fn garbage_behind_the_end_is_an_error() {
        for kind in PACKED {
            assert!(unpacked(&[&packed(kind)[..], b"garbage"].concat()).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn flipped_bits_in_the_checksum_are_noticed() {
        for kind in [Compression::Gzip, Compression::Zstd] {
            let mut bytes = packed(kind);
            let at = bytes.len() - if kind == Compression::Gzip { 6 } else { 2 };
            bytes[at] ^= 1;
            assert!(unpacked(&bytes).is_err(), "{kind:?}");
        }
    }
}
