//! The collection types of the key-value service: hash, list, set, sorted set.
//!
//! Each type keeps digests of its parts and drops them on the path of a write, so that the digest
//! of a collection of millions of elements costs in proportion to what was written since the last
//! one. Each has `new`, `len`, `digest`, `encode` and `decode`, and decoding what was encoded
//! gives the same digest again, whichever replica wrote it.
//!
//! Not here: keys, expiry, commands and replies. Depends on `base` alone.

use base::{Digest, Malformed};

pub mod blob;
pub mod list;
pub mod ranked;
pub mod trie;
pub mod zset;

pub use blob::Blob;
pub use list::List;
pub use ranked::Ranked;
pub use trie::Trie;
pub use zset::Zset;

/// A hash: fields and their values.
pub type Hash = Trie<Blob>;

/// A set: members.
pub type Set = Trie<()>;

/// What a digest function returns everywhere in this module.
type Result<T> = core::result::Result<T, Malformed>;

/// Longest element that is decoded, in bytes. Redis refuses longer ones at the door.
pub const ELEMENT_BYTES_MAX: usize = 512 << 20;

/// Most elements of one collection that are decoded.
pub const ELEMENTS_MAX: usize = u32::MAX as usize;

/// First byte of the digest of a node that holds elements.
const TAG_LEAF: u8 = 0;

/// First byte of the digest of a node that holds nodes.
const TAG_INNER: u8 = 1;

/// The digest of an inner node over its children's digests.
fn digest_of_children(children: impl Iterator<Item = Digest>) -> Digest {
    let mut hasher = base::digest::Hasher::new(base::digest::Domain::Service);
    hasher.update(&[TAG_INNER]);
    children.for_each(|child| {
        hasher.update(&child.0);
    });
    hasher.finish()
}

#[cfg(test)]
mod testing {
    /// A small generator for tests, the same sequence for the same seed.
    pub struct Rng(pub u64);

    impl Rng {
        pub fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        pub fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        pub fn shuffle<T>(&mut self, items: &mut [T]) {
            for i in (1..items.len()).rev() {
                items.swap(i, self.below(i as u64 + 1) as usize);
            }
        }
    }
}
