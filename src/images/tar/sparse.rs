//! Sparse files: the old GNU format, and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").

use tar::{GnuExtSparseHeader, Header};

use super::number::{decimal, field};
use super::pax::Records;

/// Offset and length of each piece of data.
pub(in super::super) type Pieces = Vec<(u64, u64)>;

/// Where the data of a sparse file lies; between the pieces there are holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Sparse {
    /// Offset and length of each piece, in order, without overlap.
    pub(in super::super) pieces: Pieces,
    /// Size of the file, bytes.
    pub(in super::super) size: u64,
}

impl Sparse {
    /// Checks that the pieces are in order, inside the file, and hold just `stored` bytes.
    pub(super) fn checked(pieces: Pieces, size: u64, stored: u64) -> Option<Self> {
        let mut end = 0;
        let mut sum = 0_u64;
        for (offset, length) in &pieces {
            if *offset < end {
                return None;
            }
            end = offset.checked_add(*length)?;
            sum = sum.checked_add(*length)?;
        }
        (end <= size && sum == stored).then_some(Self { pieces, size })
    }
}

/// What PAX records say about a sparse file.
#[derive(Debug)]
pub(super) enum Announced {
    /// Formats 0.0 and 0.1: here is the map.
    Map(Pieces, u64),
    /// Format 1.0: the map stands before the data.
    MapInData(u64),
}

/// `Ok(None)` when the file is not sparse, `Err` when the records make no sense.
pub(super) fn announced(records: &Records) -> Result<Option<Announced>, ()> {
    let number = |key| records.get(key).map(|text| decimal(text).ok_or(())).transpose();
    if records.get("GNU.sparse.major") == Some(b"1") {
        return Ok(Some(Announced::MapInData(number("GNU.sparse.realsize")?.ok_or(())?)));
    }
    let Some(size) = number("GNU.sparse.size")? else { return Ok(None) };
    let numbers: Vec<u64> = match records.get("GNU.sparse.map") {
        Some(map) => map.split(|b| *b == b',').map(decimal).collect::<Option<_>>().ok_or(())?,
        None => records.sparse_pairs.iter().map(|text| decimal(text)).collect::<Option<_>>().ok_or(())?,
    };
    Ok(Some(Announced::Map(pairs(&numbers).ok_or(())?, size)))
}

pub(super) fn pairs(numbers: &[u64]) -> Option<Pieces> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[offset, length]| (*offset, *length)).collect())
}

/// The map of format 1.0 as it is read: a number to a line, first how many pieces there are.
#[derive(Debug, Default)]
pub(super) struct MapInData {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl MapInData {
    /// Takes one block. `Some(pieces)` once the map is complete; `Err` when it makes no sense.
    pub(super) fn take(&mut self, block: &[u8], most: usize) -> Result<Option<Pieces>, ()> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            self.numbers.push(decimal(&self.line).ok_or(())?);
            self.line.clear();
            let wanted = usize::try_from(self.numbers[0]).ok().filter(|count| *count <= most).ok_or(())?;
            if self.numbers.len() == 1 + 2 * wanted {
                return Ok(pairs(&self.numbers[1..]));
            }
        }
        Ok(None)
    }
}

/// The pieces named in an old GNU header, its real size, and whether further blocks follow.
pub(super) fn gnu_header(header: &Header) -> Option<(Pieces, u64, bool)> {
    let gnu = header.as_gnu()?;
    let size = u64::try_from(field(&gnu.realsize)?).ok()?;
    let fields = gnu.sparse.iter().map(|s| (&s.offset, &s.numbytes));
    Some((gnu_pieces(fields)?, size, gnu.isextended[0] == 1))
}

/// The pieces named in a block that follows such a header, and whether another follows.
pub(super) fn gnu_extension(block: &GnuExtSparseHeader) -> Option<(Pieces, bool)> {
    let fields = block.sparse.iter().map(|s| (&s.offset, &s.numbytes));
    Some((gnu_pieces(fields)?, block.isextended[0] == 1))
}

/// Slots that are all zero were not used.
fn gnu_pieces<'a>(fields: impl Iterator<Item = (&'a [u8; 12], &'a [u8; 12])>) -> Option<Pieces> {
    fields
        .filter(|(offset, length)| offset[0] != 0 && length[0] != 0)
        .map(|(offset, length)| Some((u64::try_from(field(offset)?).ok()?, u64::try_from(field(length)?).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_must_be_in_order_and_hold_what_is_stored() {
        assert!(Sparse::checked(vec![(0, 10), (20, 5)], 25, 15).is_some());
        assert!(Sparse::checked(vec![(0, 10), (20, 5)], 24, 15).is_none());
        assert!(Sparse::checked(vec![(0, 10), (9, 5)], 25, 15).is_none());
        assert!(Sparse::checked(vec![(0, 10)], 25, 11).is_none());
        assert!(Sparse::checked(vec![(u64::MAX, 1)], u64::MAX, 1).is_none());
    }

    #[test]
    fn a_map_in_the_data_may_span_blocks() {
        let mut map = MapInData::default();
        assert_eq!(map.take(b"2\n0\n1", 10), Ok(None));
        assert_eq!(map.take(b"0\n20\n5\n\0\0", 10), Ok(Some(vec![(0, 10), (20, 5)])));
        assert_eq!(MapInData::default().take(b"11\n", 10), Err(()));
        assert_eq!(MapInData::default().take(b"x\n", 10), Err(()));
        assert_eq!(MapInData::default().take(b"0\n", 10), Ok(Some(vec![])));
    }
}
