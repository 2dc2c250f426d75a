//! The entries of a tar stream, one after the other.

use std::io::{self, BufRead, BufReader, Read, Seek};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::number::{decimal, field};
use super::pax::{self, Records};
use super::sparse::{self, Announced, MapInData, Pieces, Sparse};
use crate::images::ImageError;
use crate::images::codec::known_by_name;
use crate::images::job::from_io;
use crate::images::limits::Limits;
use crate::images::pipeline::ended_early;

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
    /// A type that no reader need know; the byte is its flag.
    Unknown(u8),
}

/// A time of modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Mtime {
    /// Seconds since the epoch.
    pub(in super::super) seconds: i64,
    /// Nanoseconds, below 10⁹.
    pub(in super::super) nanos: u32,
}

/// An entry without its data.
#[derive(Debug, Clone)]
pub(in super::super) struct Entry {
    /// As the archive has it.
    pub(in super::super) path: Vec<u8>,
    pub(in super::super) kind: Kind,
    /// Target of a link.
    pub(in super::super) link: Vec<u8>,
    /// Permission bits.
    pub(in super::super) mode: u32,
    pub(in super::super) uid: u64,
    pub(in super::super) gid: u64,
    pub(in super::super) mtime: Mtime,
    /// Bytes of data in the archive.
    pub(in super::super) size: u64,
    /// How they lie in the file, if it has holes.
    pub(in super::super) sparse: Option<Sparse>,
    /// Extended attributes.
    pub(in super::super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number.
    pub(in super::super) device: (u32, u32),
}

/// Whether a stream must have the two zero blocks that end an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Trailer {
    /// It must: nothing else would show that the stream was cut between two entries.
    Required,
    /// It need not: a checksum or digest covers the whole stream, and some writers leave the blocks out.
    Optional,
}

/// Where a tar stream is read from.
pub(in super::super) trait Stream: BufRead {
    /// Passes `count` bytes; fewer left is `UnexpectedEof`.
    fn pass(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let have = self.fill_buf()?.len();
            if have == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = have.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.consume(step);
            count -= step as u64;
        }
        Ok(())
    }
}

impl<R: Read + Seek> Stream for BufReader<R> {
    fn pass(&mut self, count: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(count).map_err(|_| io::ErrorKind::UnexpectedEof)?)
    }
}

/// Reads entries.
#[derive(Debug)]
pub(in super::super) struct Reader<'l, S> {
    stream: S,
    limits: &'l Limits,
    trailer: Trailer,
    /// Bytes read so far.
    position: u64,
    /// Bytes of the current entry's data that are left, and what pads them.
    left: u64,
    padding: u64,
    /// For messages.
    current: String,
    headers: u64,
    global: Records,
}

/// Extended headers that came before an entry.
#[derive(Debug, Default)]
struct Extended {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'l, S: Stream> Reader<'l, S> {
    pub(in super::super) fn new(stream: S, trailer: Trailer, limits: &'l Limits) -> Self {
        let current = String::from("a header");
        Self {
            stream,
            limits,
            trailer,
            position: 0,
            left: 0,
            padding: 0,
            current,
            headers: 0,
            global: Records::default(),
        }
    }

    /// What is read from.
    pub(in super::super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes of the stream in front of the data that [`data`](Self::data) gives next.
    pub(in super::super) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, passing what is left of the current one; `None` behind the last.
    pub(in super::super) fn next(&mut self) -> Result<Option<Entry>, ImageError> {
        self.pass(self.left.saturating_add(self.padding))?;
        (self.left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                return extended.nothing_pending().map(|()| None);
            };
            let size = number(&header.as_old().size, "size").and_then(|s| u64::try_from(s).map_err(|_| bad("size")))?;
            match header.as_old().linkflag[0] {
                b'x' => extended.set_records(self.records(size)?)?,
                b'g' => self.merge_global(size)?,
                b'L' => once(&mut extended.long_name, self.long(size)?)?,
                b'K' => once(&mut extended.long_link, self.long(size)?)?,
                // A GNU volume label: the name of the archive, not of a file.
                b'V' => self.pass(padded(size)?)?,
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
    }

    /// The next piece of the current entry's data; empty at its end.
    pub(in super::super) fn data(&mut self) -> Result<&[u8], ImageError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let current = &self.current;
        let bytes = self.stream.fill_buf().map_err(from_io)?;
        if bytes.is_empty() {
            return Err(from_io(ended_early(current)));
        }
        Ok(&bytes[..bytes.len().min(most)])
    }

    /// Marks `count` bytes of that piece as read.
    pub(in super::super) fn consume(&mut self, count: usize) {
        self.stream.consume(count);
        self.left -= count as u64;
        self.position += count as u64;
    }

    /// A header that is neither zero nor damaged; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, ImageError> {
        self.headers += 1;
        if self.headers > self.limits.entries {
            return Err(ImageError::Limit(format!("more than {} entries", self.limits.entries)));
        }
        let first = self.headers == 1;
        let Some(block) = self.block(first)? else { return self.without_trailer() };
        if block == [0; BLOCK] {
            return self.trailer();
        }
        if !checksum_is_right(&block) {
            return Err(match first {
                true => ImageError::UnknownFormat(known_by_name(&block).into()),
                false => ImageError::Damaged(format!("no header follows {}", self.current)),
            });
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
    }

    /// One zero block was read; a second must follow.
    fn trailer(&mut self) -> Result<Option<Header>, ImageError> {
        match self.block(false)? {
            None => self.without_trailer(),
            Some(block) if block == [0; BLOCK] => Ok(None),
            Some(_) => Err(ImageError::Damaged(format!("no header follows {}", self.current))),
        }
    }

    fn without_trailer(&mut self) -> Result<Option<Header>, ImageError> {
        match self.trailer {
            Trailer::Optional => Ok(None),
            Trailer::Required => Err(ImageError::Damaged("its end is missing".into())),
        }
    }

    /// One block; `None` when nothing is left.
    fn block(&mut self, first: bool) -> Result<Option<[u8; BLOCK]>, ImageError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let bytes = self.stream.fill_buf().map_err(from_io)?;
            let step = bytes.len().min(BLOCK - have);
            if step == 0 {
                break;
            }
            block[have..have + step].copy_from_slice(&bytes[..step]);
            self.stream.consume(step);
            have += step;
        }
        self.position += have as u64;
        match have {
            BLOCK => Ok(Some(block)),
            0 if !first => Ok(None),
            _ if first => Err(ImageError::UnknownFormat(match have {
                0 => known_by_name(&[]).into(),
                _ => format!("it has only {have} bytes; {}", known_by_name(&block[..have])),
            })),
            _ => Err(from_io(ended_early("a header"))),
        }
    }

    fn pass(&mut self, count: u64) -> Result<(), ImageError> {
        self.stream.pass(count).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => from_io(ended_early(&self.current)),
            _ => from_io(error),
        })?;
        self.position += count;
        Ok(())
    }

    /// All data of an extended header.
    fn small(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        let most = self.limits.extended_header;
        if size > most {
            return Err(ImageError::Limit(format!("an extended header of {size} bytes, more than {most}")));
        }
        self.left = size;
        let mut bytes = Vec::new();
        while self.left > 0 {
            let step = self.data()?;
            bytes.extend_from_slice(step);
            let count = step.len();
            self.consume(count);
        }
        self.pass(padded(size)? - size)?;
        Ok(bytes)
    }

    fn records(&mut self, size: u64) -> Result<Records, ImageError> {
        let bytes = self.small(size)?;
        Records::parse(&bytes).ok_or_else(|| ImageError::Damaged("malformed PAX records".into()))
    }

    fn merge_global(&mut self, size: u64) -> Result<(), ImageError> {
        let newer = self.records(size)?;
        self.global.extend(newer);
        if self.global.size() > self.limits.extended_header {
            return Err(ImageError::Limit("too many global PAX records".into()));
        }
        Ok(())
    }

    /// A GNU long name, which ends with a NUL.
    fn long(&mut self, size: u64) -> Result<Vec<u8>, ImageError> {
        let mut name = self.small(size)?;
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
        Ok(name)
    }

    fn entry(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Entry, ImageError> {
        let records = extended.records.unwrap_or_default().over(&self.global);
        let mut entry = basics(header, &records)?;
        let (path, link) = (extended.long_name, extended.long_link);
        entry.path = path.unwrap_or(entry.path);
        entry.link = link.unwrap_or(entry.link);
        self.current = format!("'{}'", entry.path.escape_ascii());
        // Only these have data, whatever size the header says (so does Go's archive/tar, by which most images are made).
        if matches!(entry.kind, Kind::File | Kind::Unknown(_)) {
            entry.size = records.get("size").map_or(Ok(size), |text| decimal(text).ok_or_else(|| bad("size")))?;
        }
        self.left = entry.size;
        self.padding = padded(entry.size)? - entry.size;
        if entry.kind == Kind::File {
            self.find_holes(header, &records, &mut entry)?;
        }
        if entry.kind == Kind::File && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        Ok(entry)
    }

    fn find_holes(&mut self, header: &Header, records: &Records, entry: &mut Entry) -> Result<(), ImageError> {
        let (pieces, size) = if header.entry_type() == EntryType::GNUSparse {
            self.gnu_map(header)?
        } else {
            match sparse::announced(records).map_err(|()| bad("sparse map"))? {
                None => return Ok(()),
                Some(Announced::Map(pieces, size)) => (pieces, size),
                Some(Announced::MapInData(size)) => (self.map_in_data()?, size),
            }
        };
        if let Some(name) = records.get("GNU.sparse.name") {
            entry.path = name.to_vec();
        }
        entry.size = self.left;
        entry.sparse = Some(Sparse::checked(pieces, size, self.left).ok_or_else(|| bad("sparse map"))?);
        Ok(())
    }

    fn gnu_map(&mut self, header: &Header) -> Result<(Pieces, u64), ImageError> {
        let (mut pieces, size, mut more) = sparse::gnu_header(header).ok_or_else(|| bad("sparse map"))?;
        while more {
            let mut block = GnuExtSparseHeader::new();
            *block.as_mut_bytes() = self.block(false)?.ok_or_else(|| from_io(ended_early(&self.current)))?;
            let (further, again) = sparse::gnu_extension(&block).ok_or_else(|| bad("sparse map"))?;
            pieces.extend(further);
            more = again;
            if pieces.len() > self.limits.extents {
                return Err(ImageError::Limit(format!("a file in more than {} pieces", self.limits.extents)));
            }
        }
        Ok((pieces, size))
    }

    fn map_in_data(&mut self) -> Result<Pieces, ImageError> {
        let mut map = MapInData::default();
        loop {
            let left = self.left.checked_sub(BLOCK as u64).ok_or_else(|| bad("sparse map"))?;
            let block = self.block(false)?.ok_or_else(|| from_io(ended_early(&self.current)))?;
            self.left = left;
            if let Some(pieces) = map.take(&block, self.limits.extents).map_err(|()| bad("sparse map"))? {
                return Ok(pieces);
            }
        }
    }
}

impl Extended {
    fn set_records(&mut self, records: Records) -> Result<(), ImageError> {
        once(&mut self.records, records)
    }

    fn nothing_pending(self) -> Result<(), ImageError> {
        match self {
            Self { records: None, long_name: None, long_link: None } => Ok(()),
            _ => Err(ImageError::Damaged("an extended header at its end describes no entry".into())),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ImageError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ImageError::Damaged("two extended headers of one kind for the same entry".into())),
    }
}

/// What stands in the header and in PAX records.
fn basics(header: &Header, records: &Records) -> Result<Entry, ImageError> {
    let old = header.as_old();
    let text = |key: &str, plain: &dyn Fn() -> Vec<u8>| records.get(key).map_or_else(plain, <[u8]>::to_vec);
    let id = |key: &str, bytes: &[u8]| match records.get(key) {
        Some(text) => decimal(text).ok_or_else(|| bad(key)),
        None => number(bytes, key).and_then(|value| u64::try_from(value).map_err(|_| bad(key))),
    };
    let mtime = match records.get("mtime") {
        Some(text) => pax::time(text).ok_or_else(|| bad("mtime"))?,
        None => Mtime { seconds: number(&old.mtime, "mtime")?, nanos: 0 },
    };
    let mode = number(&old.mode, "mode")? & 0o7777;
    let kind = kind(header);
    Ok(Entry {
        path: text("path", &|| header.path_bytes().into_owned()),
        kind,
        link: text("linkpath", &|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default()),
        mode: u32::try_from(mode).map_err(|_| bad("mode"))?,
        uid: id("uid", &old.uid)?,
        gid: id("gid", &old.gid)?,
        mtime,
        size: 0,
        sparse: None,
        xattrs: records.xattrs(),
        device: if matches!(kind, Kind::CharDevice | Kind::BlockDevice) { device(header)? } else { (0, 0) },
    })
}

fn kind(header: &Header) -> Kind {
    match header.as_old().linkflag[0] {
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Unknown(other),
    }
}

fn device(header: &Header) -> Result<(u32, u32), ImageError> {
    let block = header.as_bytes();
    let part = |range: std::ops::Range<usize>| {
        number(&block[range], "device number").and_then(|value| u32::try_from(value).map_err(|_| bad("device number")))
    };
    // POSIX ustar: devmajor at 329, devminor at 337; GNU has them there as well.
    Ok((part(329..337)?, part(337..345)?))
}

fn number(bytes: &[u8], what: &str) -> Result<i64, ImageError> {
    field(bytes).ok_or_else(|| bad(what))
}

fn bad(what: &str) -> ImageError {
    ImageError::Damaged(format!("a header has a bad {what}"))
}

fn padded(size: u64) -> Result<u64, ImageError> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| bad("size"))
}

/// The sum of all bytes, the field itself taken as spaces (POSIX ustar: "chksum"). Some old writers summed signed bytes.
fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Some(wanted) = field(&block[148..156]) else { return false };
    let bytes = || block[..148].iter().chain(&block[156..]);
    let unsigned: i64 = bytes().map(|b| i64::from(*b)).sum();
    let signed: i64 = bytes().map(|b| i64::from(i8::from_ne_bytes([*b]))).sum();
    let spaces = 8 * i64::from(b' ');
    wanted == unsigned + spaces || wanted == signed + spaces
}
