//! One block device as a pool: which parts of it are metadata and which are data.
//!
//! ```text
//! 0        a line for people
//! 4 KiB    slot 0   a checksum, the layout as JSON, zeros
//! 8 KiB    slot 1   the same; the slots are written in turn, the higher number counts
//! 1 MiB    the first segment of the metadata
//!          the first segment of the data, and further ones of either as they grow
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::backend::Part;
use super::space::MAX_METADATA;
use crate::model::Bytes;
use crate::storage::crc32c;

/// Where what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// Version of this format.
    version: u32,
    /// Higher is newer.
    number: u64,
    /// The pool's UUID.
    pub(super) uuid: String,
    metadata: Vec<Segment>,
    data: Vec<Segment>,
}

/// A part of the device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) length: u64,
}

impl Layout {
    /// For a device of `size` bytes. Without wishes the metadata has a 256th of it, and as much is left at the end for it
    /// to grow. None when the device is too small.
    pub(super) fn new(uuid: &str, size: u64, data: Option<Bytes>, metadata: Option<Bytes>) -> Option<Self> {
        let metadata = metadata.map_or((size / 256).clamp(16 * Bytes::MIB, MAX_METADATA), |wish| wish.0);
        let metadata = metadata.min(MAX_METADATA) / Bytes::MIB * Bytes::MIB;
        let first = Segment { start: HEAD, length: metadata };
        let room = size.checked_sub(first.end())?;
        let data = data.map_or(room.saturating_sub(metadata), |wish| wish.0) / Bytes::MIB * Bytes::MIB;
        let second = Segment { start: first.end(), length: data };
        let fits = metadata >= 2 * Bytes::MIB && data >= SMALLEST_DATA && data <= room;
        let layout =
            Self { version: VERSION, number: 1, uuid: uuid.to_owned(), metadata: vec![first], data: vec![second] };
        fits.then_some(layout)
    }

    /// The layout on `device`; None when it has none of ours.
    pub(super) fn read(device: &File) -> io::Result<Option<Self>> {
        let mut newest: Option<Self> = None;
        for slot in SLOTS {
            let mut block = super::metadata::Block::zeroed();
            device.read_exact_at(block.bytes_mut(), slot)?;
            let found = Self::parse(block.bytes());
            if found.as_ref().is_some_and(|found| newest.as_ref().is_none_or(|newest| found.number > newest.number)) {
                newest = found;
            }
        }
        Ok(newest)
    }

    /// Writes it, onto the disk.
    pub(super) fn write(&self, device: &File) -> io::Result<()> {
        let mut block = super::metadata::Block::zeroed();
        block.bytes_mut()[..FOR_PEOPLE.len()].copy_from_slice(FOR_PEOPLE);
        device.write_all_at(block.bytes(), 0)?;
        let mut block = super::metadata::Block::zeroed();
        let text = self.text();
        let place = block.bytes_mut().get_mut(..text.len()).ok_or(io::ErrorKind::StorageFull)?;
        place.copy_from_slice(&text);
        device.write_all_at(block.bytes(), SLOTS[usize::from(self.number.is_multiple_of(2))])?;
        device.sync_all()
    }

    fn text(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("a layout is plain data");
        format!("{:08x} {json}", crc32c::checksum(json.as_bytes())).into_bytes()
    }

    fn parse(block: &[u8]) -> Option<Self> {
        let text = str::from_utf8(block.split(|byte| *byte == 0).next()?).ok()?;
        let (checksum, json) = text.split_once(' ')?;
        let right = u32::from_str_radix(checksum, 16).ok()? == crc32c::checksum(json.as_bytes());
        let layout: Self = serde_json::from_str(json).ok().filter(|_| right)?;
        (layout.version == VERSION).then_some(layout)
    }

    /// The segments of a part, in order.
    pub(super) fn segments(&self, part: Part) -> &[Segment] {
        match part {
            Part::Data => &self.data,
            Part::Metadata => &self.metadata,
        }
    }

    /// Bytes of a part.
    pub(super) fn total(&self, part: Part) -> u64 {
        self.segments(part).iter().map(|segment| segment.length).sum()
    }

    /// By how much a part can grow on a device of `size` bytes. The data leaves as much as the metadata has for that.
    pub(super) fn room(&self, part: Part, size: u64) -> u64 {
        let free = size.saturating_sub(self.end());
        match part {
            Part::Data => free.saturating_sub(self.total(Part::Metadata)),
            Part::Metadata => free,
        }
    }

    /// The layout in which a part has `total` bytes on a device of `size`; None when there is no room.
    pub(super) fn grown(&self, part: Part, total: u64, size: u64) -> Option<Self> {
        let mut grown = Self { number: self.number + 1, ..self.clone() };
        let end = self.end();
        let length = total.checked_sub(self.total(part))?.next_multiple_of(Bytes::MIB);
        if length > size.saturating_sub(end) {
            return None;
        }
        let segments = match part {
            Part::Data => &mut grown.data,
            Part::Metadata => &mut grown.metadata,
        };
        match segments.last_mut() {
            Some(last) if last.end() == end => last.length += length,
            _ => segments.push(Segment { start: end, length }),
        }
        Some(grown)
    }

    /// Behind everything.
    fn end(&self) -> u64 {
        self.data.iter().chain(&self.metadata).map(Segment::end).max().unwrap_or(HEAD)
    }
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// A smaller pool is of no use.
pub(super) const SMALLEST_DATA: u64 = 64 * Bytes::MIB;
const FOR_PEOPLE: &[u8] = b"A pool of Holm. See holm.toml(5).\n";
const VERSION: u32 = 1;
const HEAD: u64 = Bytes::MIB;
const SLOTS: [u64; 2] = [4096, 8192];

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new("u", 10 * Bytes::GIB, None, None).unwrap()
    }

    #[test]
    fn a_device_is_split_with_room_for_more_metadata() {
        let layout = layout();
        assert_eq!(layout.total(Part::Metadata), 40 * Bytes::MIB);
        assert_eq!(layout.room(Part::Data, 10 * Bytes::GIB), 0);
        assert_eq!(layout.room(Part::Metadata, 10 * Bytes::GIB), 40 * Bytes::MIB);
        assert!(Layout::new("u", 80 * Bytes::MIB, None, None).is_none());
        assert!(Layout::new("u", Bytes::GIB, Some(Bytes(2 * Bytes::GIB)), None).is_none());
    }

    #[test]
    fn parts_grow_in_turn_and_never_meet() {
        let size = 12 * Bytes::GIB;
        let mut layout = layout();
        for (part, more) in [(Part::Data, 100), (Part::Metadata, 16), (Part::Metadata, 8), (Part::Data, 3)] {
            let total = layout.total(part) + more * Bytes::MIB;
            layout = layout.grown(part, total, size).unwrap();
            assert_eq!(layout.total(part), total);
        }
        assert_eq!((layout.data.len(), layout.metadata.len()), (2, 2));
        let mut all: Vec<_> = layout.data.iter().chain(&layout.metadata).collect();
        all.sort_by_key(|segment| segment.start);
        assert!(all.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        assert_eq!(layout.grown(Part::Data, 20 * Bytes::GIB, size), None);
    }

    #[test]
    fn the_newer_of_two_whole_slots_counts() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(Bytes::MIB).unwrap();
        assert_eq!(Layout::read(&file).unwrap(), None);
        let first = layout();
        first.write(&file).unwrap();
        let second = first.grown(Part::Data, first.total(Part::Data) + Bytes::MIB, 11 * Bytes::GIB).unwrap();
        second.write(&file).unwrap();
        assert_eq!(Layout::read(&file).unwrap(), Some(second));
        file.write_all_at(b"torn", SLOTS[1] + 20).unwrap();
        assert_eq!(Layout::read(&file).unwrap(), Some(first), "the other one is whole");
    }
}
