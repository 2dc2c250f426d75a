//! Reads the metadata of a thin pool: which devices there are, with which stamp, and how much each maps.
//!
//! The format is that of Linux `drivers/md/dm-thin-metadata.c` and `persistent-data/dm-btree`: blocks of 4 KiB, little
//! endian, each with a CRC-32C in its first four bytes. The superblock is block 0; the tree of device details maps a
//! device's id to (mapped blocks, transaction id when it was made, times).
//!
//! ```text
//! superblock  csum flags blocknr uuid[16] magic version time trans_id held_root … mapping_root(320) details_root(328) block_size(336)
//! tree node   csum flags blocknr entries max_entries value_size padding | keys[max_entries] | values[max_entries]
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::storage::crc32c;

/// Bytes in a metadata block.
pub(super) const BLOCK: usize = 4096;

/// Where blocks come from.
pub(super) trait Blocks {
    /// Block `number`.
    fn read(&self, number: u64) -> io::Result<[u8; BLOCK]>;
}

impl Blocks for File {
    fn read(&self, number: u64) -> io::Result<[u8; BLOCK]> {
        let mut block = Block::zeroed();
        let offset = number.checked_mul(BLOCK as u64).ok_or(io::ErrorKind::InvalidData)?;
        self.read_exact_at(block.bytes_mut(), offset)?;
        Ok(block.0)
    }
}

/// A block at an address that open(2) wants for `O_DIRECT`.
#[repr(align(4096))]
pub(super) struct Block([u8; BLOCK]);

impl Block {
    /// All zeros.
    pub(super) fn zeroed() -> Self {
        Self([0; BLOCK])
    }

    /// What is in it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// To be written to.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// What the pool says of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Details {
    /// The pool's transaction id when the device was made.
    pub(super) stamp: u64,
    /// Pool blocks it maps, shared ones included.
    pub(super) mapped_blocks: u64,
}

/// All devices by id.
pub(super) type Listing = BTreeMap<u32, Details>;

/// Why metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetadataError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A block is not what it should be.
    #[error("block {block} {fault}")]
    Block {
        /// Which.
        block: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// It was written to meanwhile, again and again.
    #[error("changes too fast to be read")]
    Unstable,
}

/// The parts of the superblock that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// The pool's transaction id.
    pub(super) transaction_id: u64,
    /// Where the reserved snapshot of the metadata is; 0 for none.
    pub(super) held_root: u64,
    /// Sectors in a data block.
    pub(super) data_block_sectors: u32,
    /// Whether the kernel met damage and wants it checked.
    pub(super) needs_check: bool,
    details_root: u64,
    /// Where it is.
    number: u64,
    /// The tree of trees of mappings.
    pub(super) mapping_root: u64,
}

impl Superblock {
    /// The superblock at `number`: 0, or the root of a reserved snapshot.
    pub(super) fn read(blocks: &impl Blocks, number: u64) -> Result<Self, MetadataError> {
        let block = checked(blocks, number, SUPERBLOCK_SALT)?;
        if u64_at(&block, 32) != MAGIC {
            return Err(MetadataError::Block { block: number, fault: "is no superblock of a thin pool" });
        }
        if !(1..=2).contains(&u32_at(&block, 40)) {
            return Err(MetadataError::Block { block: number, fault: "has a version that is not known" });
        }
        Ok(Self {
            transaction_id: u64_at(&block, 48),
            held_root: u64_at(&block, 56),
            needs_check: u32_at(&block, 4) & NEEDS_CHECK != 0,
            mapping_root: u64_at(&block, 320),
            details_root: u64_at(&block, 328),
            number,
            data_block_sectors: u32_at(&block, 336),
        })
    }

    /// Whether this is a snapshot that the kernel holds, and not what it writes to.
    pub(super) fn is_held(&self) -> bool {
        self.number != 0
    }

    /// The devices below this superblock.
    pub(super) fn devices(&self, blocks: &impl Blocks) -> Result<Listing, MetadataError> {
        let mut listing = Listing::new();
        walk(blocks, self.details_root, MAX_DEPTH, &mut listing)?;
        Ok(listing)
    }
}

/// Whether the pool was never used: the kernel formats metadata whose first block is zero.
pub(super) fn is_blank(blocks: &impl Blocks) -> io::Result<bool> {
    Ok(blocks.read(0)?.iter().all(|byte| *byte == 0))
}

/// The devices as of the last commit, read without any help of the kernel, so that it never blocks.
///
/// The kernel never overwrites a block that the last commit refers to, so a walk is consistent when the superblock is
/// the same afterwards. Numbers may be a commit (a second) old.
pub(super) fn committed(blocks: &impl Blocks) -> Result<Listing, MetadataError> {
    let mut last = MetadataError::Unstable;
    for _ in 0..8 {
        let before = blocks.read(0)?;
        let listing = Superblock::read(blocks, 0).and_then(|superblock| superblock.devices(blocks));
        let steady = blocks.read(0)? == before;
        match listing {
            Ok(listing) if steady => return Ok(listing),
            Ok(_) => last = MetadataError::Unstable,
            // A block in the middle of being written or reused fails its checksum.
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn walk(blocks: &impl Blocks, number: u64, depth: u32, listing: &mut Listing) -> Result<(), MetadataError> {
    let fault = |fault| MetadataError::Block { block: number, fault };
    let depth = depth.checked_sub(1).ok_or(fault("is deeper than a tree can be"))?;
    let node = Node::read(blocks, number, DETAILS)?;
    for (key, value) in node.entries() {
        if node.leaf {
            let id = u32::try_from(key).map_err(|_| fault("has a device id too large"))?;
            let details = Details { mapped_blocks: u64_at(value, 0), stamp: u64_at(value, 8) };
            listing.insert(id, details);
        } else {
            walk(blocks, u64_at(value, 0), depth, listing)?;
        }
    }
    Ok(())
}

/// A node of a tree, checked.
pub(super) struct Node {
    block: [u8; BLOCK],
    /// Whether its values are what the tree is for, and not further nodes.
    pub(super) leaf: bool,
    entries: usize,
    max: usize,
    value_size: usize,
}

impl Node {
    /// The node at `number` of a tree whose leaves have values of `leaf_value` bytes.
    pub(super) fn read(blocks: &impl Blocks, number: u64, leaf_value: usize) -> Result<Self, MetadataError> {
        let fault = |fault| MetadataError::Block { block: number, fault };
        let block = checked(blocks, number, NODE_SALT)?;
        let (flags, entries, max) = (u32_at(&block, 4), u32_at(&block, 16) as usize, u32_at(&block, 20) as usize);
        let leaf = flags & LEAF != 0;
        let value_size = u32_at(&block, 24) as usize;
        if value_size != if leaf { leaf_value } else { 8 } {
            return Err(fault("has values of the wrong size"));
        }
        if entries > max || max.checked_mul(8 + value_size).is_none_or(|bytes| bytes > BLOCK - HEADER) {
            return Err(fault("has more entries than fit"));
        }
        Ok(Self { block, leaf, entries, max, value_size })
    }

    /// Keys and the bytes of their values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (0..self.entries).map(|index| {
            let value = HEADER + self.max * 8 + index * self.value_size;
            (u64_at(&self.block, HEADER + index * 8), &self.block[value..value + self.value_size])
        })
    }
}

/// A block whose checksum and number are right.
fn checked(blocks: &impl Blocks, number: u64, salt: u32) -> Result<[u8; BLOCK], MetadataError> {
    let block = blocks.read(number)?;
    if seal(&block, salt) != u32_at(&block, 0) {
        return Err(MetadataError::Block { block: number, fault: "has a wrong checksum" });
    }
    if u64_at(&block, 8) != number {
        return Err(MetadataError::Block { block: number, fault: "belongs elsewhere" });
    }
    Ok(block)
}

/// `dm_bm_checksum`: the CRC of all but the checksum itself, with a salt for the kind of block.
fn seal(block: &[u8; BLOCK], salt: u32) -> u32 {
    crc32c::update(!0, &block[4..]) ^ salt
}

fn u32_at(block: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(block[offset..offset + 4].try_into().expect("four bytes are four bytes"))
}

pub(super) fn u64_at(block: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(block[offset..offset + 8].try_into().expect("eight bytes are eight bytes"))
}

const MAGIC: u64 = 27_022_010;
const SUPERBLOCK_SALT: u32 = 160_774;
const NODE_SALT: u32 = 121_107;
const HEADER: usize = 32;
const LEAF: u32 = 2;
const NEEDS_CHECK: u32 = 1;
const DETAILS: usize = 24;
/// 2^24 devices at 42 entries or more a node need five levels.
pub(super) const MAX_DEPTH: u32 = 8;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Default)]
    pub(in crate::storage::thin) struct Image(pub(in crate::storage::thin) BTreeMap<u64, [u8; BLOCK]>);

    impl Blocks for Image {
        fn read(&self, number: u64) -> io::Result<[u8; BLOCK]> {
            self.0.get(&number).copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Where the tree of mappings begins.
    pub(in crate::storage::thin) const MAPPINGS: u64 = 20;

    fn put(block: &mut [u8; BLOCK], offset: usize, bytes: &[u8]) {
        block[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    impl Image {
        fn insert(&mut self, number: u64, mut block: [u8; BLOCK], salt: u32) {
            put(&mut block, 8, &number.to_le_bytes());
            let csum = seal(&block, salt);
            put(&mut block, 0, &csum.to_le_bytes());
            self.0.insert(number, block);
        }

        pub(in crate::storage::thin) fn superblock(&mut self, transaction_id: u64, details_root: u64) {
            let mut block = [0; BLOCK];
            put(&mut block, 32, &MAGIC.to_le_bytes());
            put(&mut block, 40, &2u32.to_le_bytes());
            put(&mut block, 48, &transaction_id.to_le_bytes());
            put(&mut block, 320, &MAPPINGS.to_le_bytes());
            put(&mut block, 328, &details_root.to_le_bytes());
            put(&mut block, 336, &128u32.to_le_bytes());
            self.insert(0, block, SUPERBLOCK_SALT);
        }

        pub(in crate::storage::thin) fn node(
            &mut self,
            number: u64,
            flags: u32,
            value_size: usize,
            entries: &[(u64, Vec<u8>)],
        ) {
            let max = (BLOCK - HEADER) / (8 + value_size);
            let mut block = [0; BLOCK];
            put(&mut block, 4, &flags.to_le_bytes());
            put(&mut block, 16, &u32::try_from(entries.len()).unwrap().to_le_bytes());
            put(&mut block, 20, &u32::try_from(max).unwrap().to_le_bytes());
            put(&mut block, 24, &u32::try_from(value_size).unwrap().to_le_bytes());
            for (index, (key, value)) in entries.iter().enumerate() {
                put(&mut block, HEADER + index * 8, &key.to_le_bytes());
                put(&mut block, HEADER + max * 8 + index * value_size, value);
            }
            self.insert(number, block, NODE_SALT);
        }
    }

    fn details(mapped: u64, stamp: u64) -> Vec<u8> {
        [mapped.to_le_bytes(), stamp.to_le_bytes(), [0; 8]].concat()
    }

    fn pool_of_two_leaves() -> Image {
        let mut image = Image::default();
        image.superblock(7, 3);
        image.node(3, 1, 8, &[(0, 4u64.to_le_bytes().to_vec()), (9, 5u64.to_le_bytes().to_vec())]);
        image.node(4, LEAF, DETAILS, &[(0, details(100, 1)), (2, details(3, 5))]);
        image.node(5, LEAF, DETAILS, &[(9, details(0, 7))]);
        image
    }

    #[test]
    fn every_device_of_a_tree_is_listed_with_its_stamp() {
        let image = pool_of_two_leaves();
        let superblock = Superblock::read(&image, 0).unwrap();
        assert_eq!((superblock.transaction_id, superblock.data_block_sectors), (7, 128));
        let listing = committed(&image).unwrap();
        assert_eq!(listing.keys().copied().collect::<Vec<_>>(), [0, 2, 9]);
        assert_eq!(listing[&2], Details { stamp: 5, mapped_blocks: 3 });
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        for number in [0, 3, 4, 5] {
            let mut image = pool_of_two_leaves();
            image.0.get_mut(&number).unwrap()[1000] ^= 1;
            assert!(matches!(committed(&image), Err(MetadataError::Block { block, .. }) if block == number));
        }
    }

    #[test]
    fn a_node_of_another_place_is_refused() {
        let mut image = pool_of_two_leaves();
        let stray = image.0[&5];
        image.0.insert(4, stray);
        assert!(matches!(committed(&image), Err(MetadataError::Block { fault: "belongs elsewhere", .. })));
    }

    #[test]
    fn impossible_trees_are_refused() {
        let mut circle = Image::default();
        circle.superblock(1, 3);
        circle.node(3, 1, 8, &[(0, 3u64.to_le_bytes().to_vec())]);
        assert!(committed(&circle).is_err());

        let mut crowded = Image::default();
        crowded.superblock(1, 3);
        let mut block = [0; BLOCK];
        put(&mut block, 4, &LEAF.to_le_bytes());
        put(&mut block, 16, &5000u32.to_le_bytes());
        put(&mut block, 20, &5000u32.to_le_bytes());
        put(&mut block, 24, &24u32.to_le_bytes());
        crowded.insert(3, block, NODE_SALT);
        assert!(committed(&crowded).is_err());
    }

    #[test]
    fn only_zeros_are_blank() {
        let mut image = Image::default();
        image.0.insert(0, [0; BLOCK]);
        assert!(is_blank(&image).unwrap());
        assert!(!is_blank(&pool_of_two_leaves()).unwrap());
    }
}
