//! Reads the mappings of a thin pool: which blocks one device alone maps.
//!
//! The tree of mappings is a tree of trees: a device's id leads to the root of its own, which leads from each of its
//! blocks to a block of the pool (value: `block << 24 | time`). A snapshot begins with its origin's tree, so devices share
//! nodes as well as blocks. Each node is read twice at most: for the first device that has it, and for the second, after
//! which all below it is known to be shared.

use std::collections::{BTreeMap, HashMap};

use super::metadata::{Blocks, MAX_DEPTH, MetadataError, Node, Superblock, u64_at};

/// Blocks that one device alone maps, by device, in a pool of `data_blocks`.
pub(super) fn exclusive(
    blocks: &impl Blocks,
    superblock: &Superblock,
    data_blocks: u64,
) -> Result<BTreeMap<u32, u64>, MetadataError> {
    let fault = |fault| MetadataError::Block { block: superblock.mapping_root, fault };
    let length = usize::try_from(data_blocks).map_err(|_| fault("is of a pool too large"))?;
    let mut census = Census { blocks, nodes: HashMap::new(), data: vec![NOBODY; length] };
    let mut roots = Vec::new();
    census.roots(superblock.mapping_root, MAX_DEPTH, &mut roots)?;
    for (thin, root) in roots {
        census.count(root, thin, MAX_DEPTH)?;
    }
    let mut counts = BTreeMap::new();
    for owner in census.data.into_iter().filter(|owner| !matches!(*owner, NOBODY | SHARED)) {
        *counts.entry(owner).or_default() += 1;
    }
    Ok(counts)
}

struct Census<'a, B> {
    blocks: &'a B,
    /// Whose each node is.
    nodes: HashMap<u64, u32>,
    /// Whose each block of the pool is.
    data: Vec<u32>,
}

impl<B: Blocks> Census<'_, B> {
    fn roots(&self, number: u64, depth: u32, found: &mut Vec<(u32, u64)>) -> Result<(), MetadataError> {
        let fault = |fault| MetadataError::Block { block: number, fault };
        let depth = depth.checked_sub(1).ok_or(fault("is deeper than a tree can be"))?;
        let node = Node::read(self.blocks, number, 8)?;
        for (key, value) in node.entries() {
            if node.leaf {
                let thin = u32::try_from(key).ok().filter(|thin| *thin < 1 << 24);
                found.push((thin.ok_or(fault("has a device id too large"))?, u64_at(value, 0)));
            } else {
                self.roots(u64_at(value, 0), depth, found)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, number: u64, owner: u32, depth: u32) -> Result<(), MetadataError> {
        let fault = |fault| MetadataError::Block { block: number, fault };
        let depth = depth.checked_sub(1).ok_or(fault("is deeper than a tree can be"))?;
        let former = self.nodes.get(&number).copied().unwrap_or(NOBODY);
        let owner = joined(former, owner);
        if former == owner {
            return Ok(());
        }
        self.nodes.insert(number, owner);
        let node = Node::read(self.blocks, number, 8)?;
        for (_, value) in node.entries() {
            let value = u64_at(value, 0);
            if node.leaf {
                let block = usize::try_from(value >> TIME_BITS).ok().and_then(|block| self.data.get_mut(block));
                let block = block.ok_or(fault("maps a block that the pool does not have"))?;
                *block = joined(*block, owner);
            } else {
                self.count(value, owner, depth)?;
            }
        }
        Ok(())
    }
}

/// Whose something is that was `former`'s and is `owner`'s too.
fn joined(former: u32, owner: u32) -> u32 {
    if former == NOBODY || former == owner { owner } else { SHARED }
}

const TIME_BITS: u32 = 24;
/// No device has these numbers: they have 24 bits.
const NOBODY: u32 = u32::MAX;
const SHARED: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use super::super::metadata::tests::{Image, MAPPINGS};
    use super::*;

    fn leaf(image: &mut Image, number: u64, data: &[u64]) {
        let entry = |(index, block): (usize, &u64)| (index as u64, (block << 24 | 3).to_le_bytes().to_vec());
        image.node(number, 2, 8, &data.iter().enumerate().map(entry).collect::<Vec<_>>());
    }

    fn inner(image: &mut Image, number: u64, children: &[u64]) {
        let entry = |(index, child): (usize, &u64)| (index as u64 * 100, child.to_le_bytes().to_vec());
        image.node(number, 1, 8, &children.iter().enumerate().map(entry).collect::<Vec<_>>());
    }

    /// 1 has three nodes; 2 is its snapshot, of which one leaf was written to; 3 has its own; 4 nothing.
    fn pool() -> Image {
        let mut image = Image::default();
        image.superblock(7, 3);
        let roots = [(1u64, 30u64), (2, 31), (3, 40), (4, 41)];
        image.node(MAPPINGS, 2, 8, &roots.map(|(thin, root)| (thin, root.to_le_bytes().to_vec())));
        inner(&mut image, 30, &[32, 33]);
        inner(&mut image, 31, &[32, 34]);
        leaf(&mut image, 32, &[0, 1, 2]);
        leaf(&mut image, 33, &[3, 4, 5]);
        leaf(&mut image, 34, &[3, 6, 7]);
        leaf(&mut image, 40, &[8]);
        leaf(&mut image, 41, &[]);
        image
    }

    #[test]
    fn what_one_device_alone_maps_is_its_own() {
        let image = pool();
        let superblock = Superblock::read(&image, 0).unwrap();
        let counts = exclusive(&image, &superblock, 10).unwrap();
        assert_eq!(counts, BTreeMap::from([(1, 2), (2, 2), (3, 1)]));
    }

    #[test]
    fn a_snapshot_that_nobody_wrote_to_leaves_neither_anything_of_its_own() {
        let mut image = pool();
        let roots = [(1u64, 30u64), (2, 30), (3, 30)];
        image.node(MAPPINGS, 2, 8, &roots.map(|(thin, root)| (thin, root.to_le_bytes().to_vec())));
        let superblock = Superblock::read(&image, 0).unwrap();
        assert_eq!(exclusive(&image, &superblock, 10).unwrap(), BTreeMap::new());
    }

    #[test]
    fn impossible_mappings_are_refused() {
        let mut image = pool();
        let superblock = Superblock::read(&image, 0).unwrap();
        assert!(exclusive(&image, &superblock, 8).is_err(), "a block behind the end");
        inner(&mut image, 31, &[31]);
        assert!(exclusive(&image, &superblock, 10).is_ok(), "a circle adds nothing");
        image.0.get_mut(&34).unwrap()[100] ^= 1;
        inner(&mut image, 31, &[32, 34]);
        assert!(exclusive(&image, &superblock, 10).is_err());
    }
}
