//! The blocks of a disk image: EBS snapshots are written in blocks of 512 KiB, each with its sha256.
//!
//! A block that holds zeroes only needs no bytes in a snapshot without parent, because a fresh snapshot reads as zeroes
//! there. In a child snapshot it does when the parent had something else.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::units::Bytes;

/// Bytes of a block, as EBS direct has them.
pub const BLOCK_SIZE: usize = 512 * 1024;

/// The sha256 of a block, padded with zeroes to its full size.
pub type BlockHash = [u8; 32];

/// The blocks of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    /// The image's logical size.
    pub size: Bytes,
    /// One entry per block, `None` for a block of zeroes.
    pub hashes: Vec<Option<BlockHash>>,
}

/// Some of an image's blocks, by index, as sorted ranges without overlap: `0-511,600`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockSet(Vec<(u32, u32)>);

impl BlockMap {
    /// How many blocks an image of this size has.
    #[must_use]
    pub const fn count_for(size: Bytes) -> u64 {
        size.0.div_ceil(BLOCK_SIZE as u64)
    }

    /// The blocks that a snapshot of this image must be sent: all that hold data, or, on top of a parent, all that differ
    /// from it. Blocks of the parent beyond the image's end are sent as zeroes.
    #[must_use]
    pub fn to_send(&self, parent: Option<&Self>) -> BlockSet {
        let Some(parent) = parent else {
            return self
                .hashes
                .iter()
                .enumerate()
                .filter(|(_, hash)| hash.is_some())
                .map(|(at, _)| index(at))
                .collect();
        };
        let length = self.hashes.len().max(parent.hashes.len());
        (0..length).filter(|at| self.hash(*at) != parent.hash(*at)).map(index).collect()
    }

    fn hash(&self, at: usize) -> Option<&BlockHash> {
        self.hashes.get(at)?.as_ref()
    }

    /// The checksum over a set of sent blocks in the order of their indices: the sha256 of their sha256s, EBS's `LINEAR`
    /// aggregation.
    #[must_use]
    pub fn linear_checksum(&self, sent: &BlockSet) -> [u8; 32] {
        let zero = zero_hash();
        let mut hash = Sha256::new();
        for at in sent.iter() {
            hash.update(self.hash(at as usize).unwrap_or(&zero));
        }
        hash.finalize().into()
    }
}

/// An index fits: the largest volume, 64 TiB, has 2^27 blocks.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The sha256 of a block of zeroes.
#[must_use]
pub fn zero_hash() -> BlockHash {
    Sha256::digest([0; BLOCK_SIZE]).into()
}

/// The sha256 of a block; `None` when it holds zeroes only. A short last block is padded.
#[must_use]
pub fn hash_block(block: &[u8]) -> Option<BlockHash> {
    if is_zero(block) {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update(block);
    if block.len() < BLOCK_SIZE {
        hash.update(vec![0; BLOCK_SIZE - block.len()]);
    }
    Some(hash.finalize().into())
}

/// Whether all bytes are zero. Looks at whole chunks, which the compiler turns into wide comparisons; data is found out in
/// its first chunk.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

impl BlockSet {
    /// How many blocks are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What sending them takes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes(self.len() * BLOCK_SIZE as u64)
    }

    /// The indices in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Whether a block is in it.
    #[must_use]
    pub fn contains(&self, at: u32) -> bool {
        self.0
            .binary_search_by(|(first, last)| {
                if at < *first {
                    std::cmp::Ordering::Greater
                } else if at > *last {
                    std::cmp::Ordering::Less
                } else {
                    std::cmp::Ordering::Equal
                }
            })
            .is_ok()
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.iter().filter(|at| !other.contains(*at)).collect()
    }

    /// Those of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<u32> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().collect()
    }
}

impl FromIterator<u32> for BlockSet {
    /// Collects indices, which may come in any order and more than once.
    fn from_iter<T: IntoIterator<Item = u32>>(indices: T) -> Self {
        let mut indices: Vec<u32> = indices.into_iter().collect();
        indices.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for at in indices {
            match ranges.last_mut() {
                Some((_, last)) if at <= last.saturating_add(1) => *last = at,
                _ => ranges.push((at, at)),
            }
        }
        Self(ranges)
    }
}

impl fmt::Display for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// A text that is no set of blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of blocks like `0-511,600`")]
pub struct NotBlocks(String);

impl FromStr for BlockSet {
    type Err = NotBlocks;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotBlocks(text.to_owned());
        let mut set = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) =
                (first.parse().map_err(|_| refuse())?, last.parse().map_err(|_| refuse())?);
            if first > last || set.0.last().is_some_and(|(_, before)| *before >= first) {
                return Err(refuse());
            }
            set.0.push((first, last));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(blocks: &[u8]) -> BlockMap {
        let hash = |kind: &u8| (*kind != 0).then_some([*kind; 32]);
        BlockMap {
            size: Bytes((blocks.len() * BLOCK_SIZE) as u64),
            hashes: blocks.iter().map(hash).collect(),
        }
    }

    #[test]
    fn what_is_sent_is_data_or_what_differs_from_the_parent() {
        let image = map(&[1, 0, 2, 2, 0]);
        assert_eq!(image.to_send(None).to_string(), "0,2-3");
        assert_eq!(image.to_send(Some(&image)).to_string(), "");
        // A block that became zero is sent, and so is what the parent had beyond the image's end.
        assert_eq!(image.to_send(Some(&map(&[1, 7, 2, 3, 0, 9, 0]))).to_string(), "1,3,5");
        assert_eq!(image.to_send(Some(&map(&[1]))).to_string(), "2-3");
    }

    #[test]
    fn sets_read_back_and_compute() {
        let set: BlockSet = [5, 1, 2, 3, 9, 2].into_iter().collect();
        assert_eq!(set.to_string(), "1-3,5,9");
        assert_eq!("1-3,5,9".parse(), Ok(set.clone()));
        assert_eq!((set.len(), set.bytes()), (5, Bytes(5 * 512 * 1024)));
        assert!(set.contains(3) && set.contains(9) && !set.contains(4) && !set.contains(10));
        let other: BlockSet = "2,9-11".parse().unwrap();
        assert_eq!(set.without(&other).to_string(), "1,3,5");
        assert_eq!(set.union(&other).to_string(), "1-3,5,9-11");
        for bad in ["3-1", "x", "5,4", "1-", "-1", "1-2,2"] {
            assert!(bad.parse::<BlockSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_short_last_block_is_padded_with_zeroes() {
        let mut full = vec![0; BLOCK_SIZE];
        full[..3].copy_from_slice(b"abc");
        assert_eq!(hash_block(b"abc"), hash_block(&full));
        assert_eq!(hash_block(&full), Some(Sha256::digest(&full).into()));
        assert_eq!(hash_block(&[0; 1000]), None);
        full[BLOCK_SIZE - 1] = 1;
        assert!(!is_zero(&full[3..]));
    }

    #[test]
    fn the_linear_checksum_is_the_hash_of_the_hashes_in_order() {
        let image = map(&[1, 0, 2]);
        let expected: [u8; 32] = Sha256::digest([[1; 32], zero_hash(), [2; 32]].concat()).into();
        assert_eq!(image.linear_checksum(&"0-2".parse().unwrap()), expected);
        let without: [u8; 32] = Sha256::digest([[1; 32], [2; 32]].concat()).into();
        assert_eq!(image.linear_checksum(&image.to_send(None)), without);
    }
}
