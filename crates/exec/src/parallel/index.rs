//! Where the queue of a class is: a table of hashes.
//!
//! With many operations pending, what a lookup costs is lines of memory that no cache holds, and
//! with few, branches that nobody foresees. So the table is cut into buckets of one line each,
//! with seven places; in a bucket all places are compared at once, and nothing else is looked at
//! unless hashes are equal. A class costs about one line when it is entered and one when it is
//! left, and those of one operation are asked for together ([`Index::touch`]).
//!
//! Whatever finds its bucket full goes on to the next one, and the buckets that it went through
//! count it, so that a lookup ends where nobody went on.
//!
//! Not here: what a queue is; equal hashes are told apart by the owner.
//!
//! Invariants:
//! 1. a bucket counts the entries that went through it;
//! 2. of the places, half are empty at least.

use alloc::vec;
use alloc::vec::Vec;

/// Places of a bucket: with the count, they fill a line of 64 bytes.
const PLACES: usize = 7;
/// Buckets at first.
const BUCKETS_MIN: usize = 32;

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// A power of two of them.
    buckets: Vec<Bucket>,
    live: usize,
    /// Secret to clients where it is chosen at random, so that nobody fills buckets.
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// 0 where nothing is.
    hashes: [u32; PLACES],
    /// How many went on to the next bucket.
    passed: u32,
    queues: [u32; PLACES],
}

const EMPTY: Bucket = Bucket { hashes: [0; PLACES], passed: 0, queues: [0; PLACES] };

impl Bucket {
    /// The places with that hash, as bits; those where nothing is for 0.
    fn places(&self, hash: u32) -> u32 {
        let mut bits = 0;
        for (at, own) in self.hashes.iter().enumerate() {
            bits |= u32::from(*own == hash) << at;
        }
        bits
    }
}

impl Index {
    pub(super) fn new(seed: u64) -> Index {
        Index { buckets: vec![EMPTY; BUCKETS_MIN], live: 0, seed }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// What a class is looked up by: never 0.
    pub(super) fn hash(&self, class: u64) -> u32 {
        let mut mixed = (class ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32) as u32 | 1 << 31
    }

    /// Loads what a lookup begins with, without waiting for it: the result is for
    /// [`core::hint::black_box`].
    pub(super) fn touch(&self, hash: u32) -> u32 {
        self.buckets[self.home(hash)].passed
    }

    /// The queue with that hash for which `is` holds.
    pub(super) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let bucket = &self.buckets[at];
            let mut places = bucket.places(hash);
            while places != 0 {
                let queue = bucket.queues[places.trailing_zeros() as usize];
                if is(queue) {
                    return Some(queue);
                }
                places &= places - 1;
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
    }

    /// Enters a queue, which is not there.
    pub(super) fn insert(&mut self, hash: u32, queue: u32) {
        if (self.live + 1) * 2 > self.buckets.len() * PLACES {
            self.grow();
        }
        self.live += 1;
        self.place(hash, queue);
    }

    /// Takes out a queue, which is there.
    pub(super) fn remove(&mut self, hash: u32, queue: u32) {
        self.live -= 1;
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let mut places = bucket.places(hash);
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                if bucket.queues[place] == queue {
                    bucket.hashes[place] = 0;
                    return;
                }
                places &= places - 1;
            }
            bucket.passed -= 1;
            at = self.after(at);
        }
    }

    /// All queues, with their hashes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.buckets.iter().flat_map(|bucket| bucket.hashes.iter().zip(&bucket.queues));
        all.filter(|(hash, _)| **hash != 0).map(|(hash, queue)| (*hash, *queue))
    }

    fn grow(&mut self) {
        let twice = Index { buckets: vec![EMPTY; self.buckets.len() * 2], ..*self };
        let old = core::mem::replace(self, twice);
        old.iter().for_each(|(hash, queue)| self.place(hash, queue));
    }

    fn place(&mut self, hash: u32, queue: u32) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let free = bucket.places(0);
            if free != 0 {
                let place = free.trailing_zeros() as usize;
                (bucket.hashes[place], bucket.queues[place]) = (hash, queue);
                return;
            }
            bucket.passed += 1;
            at = self.after(at);
        }
    }

    fn home(&self, hash: u32) -> usize {
        // A power of two, so the mask keeps evenly spread bits.
        hash as usize & (self.buckets.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    /// Checks the invariants. O(places).
    pub(super) fn check(&self) {
        let mut passed = vec![0; self.buckets.len()];
        for (at, bucket) in self.buckets.iter().enumerate() {
            for hash in bucket.hashes.iter().filter(|hash| **hash != 0) {
                let mut before = self.home(*hash);
                while before != at {
                    passed[before] += 1;
                    before = self.after(before);
                }
            }
        }
        assert!(passed.iter().eq(self.buckets.iter().map(|bucket| &bucket.passed)), "miscounted");
        assert_eq!(self.iter().count(), self.live, "entries are miscounted");
        assert!(self.live * 2 <= self.buckets.len() * PLACES, "too full");
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_entered_is_found_until_it_is_taken_out() {
        let (mut index, mut model) = (Index::new(3), BTreeMap::new());
        let mut dice = 1u64;
        let mut below = |n: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (dice >> 33) % n
        };
        for step in 0..20_000u32 {
            // Few hashes, at the end and the beginning of the table, so that buckets are full.
            let hash = 1 << 31 | (28 + below(8)) as u32 | (below(3) as u32) << 20;
            let queue = below(if step < 10_000 { 500 } else { 20 }) as u32;
            let known = model.get(&queue).copied();
            match known {
                Some(own) => {
                    assert_eq!(index.find(own, |found| found == queue), Some(queue));
                    index.remove(own, queue);
                    model.remove(&queue);
                }
                None => {
                    index.insert(hash, queue);
                    model.insert(queue, hash);
                }
            }
            assert_eq!(index.find(hash, |_| false), None);
            if step % 100 == 0 {
                index.check();
                let mut all: Vec<_> = index.iter().map(|(hash, queue)| (queue, hash)).collect();
                all.sort_unstable();
                assert!(all.into_iter().eq(model.clone()));
            }
        }
    }
}
