//! The refresh of a digest tree in pieces, while what the tree is about is written on.
//!
//! [`ObjectTree::freeze`] takes what is marked at that moment: the next root is that of the state
//! as it is then. [`ObjectTree::proceed`] makes the digests piece by piece, first of the objects,
//! then of the nodes above them, level by level. An object whose digest is still to be made must
//! not be lost by a write: whoever writes it gives its digest first, or its bytes are kept until
//! the next piece. So each digest is made once, and the root is the one that a refresh at the
//! moment of freezing would have given, whatever the pace.
//!
//! Not here: when a checkpoint is taken and how it is paced (`stage::digests`).
//!
//! Invariants, while a refresh is under way:
//! 1. an object whose digest is still to be made was not written since it was frozen, or its
//!    bytes from then are kept;
//! 2. every object and node that is to be made is in the list of its level, in ascending order.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Digest;

use crate::tree::{FAN_OUT, ObjectTree, leaf, node};

/// A refresh under way, if there is one, and memory for the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frozen {
    on: bool,
    /// The level whose digests are being made; the list of those to be made there, and how many
    /// of them are done.
    level: usize,
    dirty: Vec<u32>,
    done: usize,
    /// One bit per object: whether its digest is still to be made, out of its present state.
    left: Vec<u64>,
    /// Objects that were written before anybody made their digests, with their bytes from then.
    saved: Vec<(u32, Vec<u8>)>,
    saved_bytes: usize,
    /// `left` as it was not long ago, for those who write apart from the stage.
    shared: Option<Arc<Vec<u64>>>,
}

impl Frozen {
    /// Whether a refresh is under way.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Whether the digest of `object` is still to be made out of its present state.
    #[inline]
    pub(crate) fn wants(&self, object: u32) -> bool {
        self.on && has(&self.left, object)
    }

    /// The digest of `object` need not be made out of its state any more.
    pub(crate) fn settle(&mut self, object: u32) {
        self.left[object as usize / 64] &= !(1 << (object % 64));
    }

    /// Keeps what `save` appends until a digest is made of it.
    pub(crate) fn keep(&mut self, object: u32, save: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.settle(object);
        let mut bytes = Vec::new();
        save(&mut bytes);
        self.saved_bytes += bytes.len();
        self.saved.push((object, bytes));
        &self.saved[self.saved.len() - 1].1
    }

    /// Bytes of objects that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.saved_bytes
    }

    fn take_saved(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.saved_bytes = 0;
        core::mem::take(&mut self.saved)
    }

    fn end(&mut self) {
        self.on = false;
        self.dirty.clear();
        self.shared = None;
    }
}

/// Whether the bit of `object` is set.
#[inline]
pub(crate) fn has(bits: &[u64], object: u32) -> bool {
    bits[object as usize / 64] & (1 << (object % 64)) != 0
}

impl ObjectTree {
    /// Begins a refresh: the next root is that of the state as it is now, whatever is written
    /// from now on. Costs little. Returns how many objects' digests have to be made.
    ///
    /// # Panics
    /// When one is under way.
    pub(crate) fn freeze(&mut self) -> usize {
        assert!(!self.frozen.on, "a refresh is under way");
        let words = self.marks.len();
        let frozen = &mut self.frozen;
        frozen.left.resize(words, 0);
        frozen.dirty.clear();
        if self.marked.len() >= words / 8 {
            // A pass over the bits sorts many faster than comparisons do.
            core::mem::swap(&mut self.marks, &mut frozen.left);
            self.marked.clear();
            for (word, bits) in (0..).zip(&frozen.left) {
                let mut bits = *bits;
                while bits != 0 {
                    frozen.dirty.push(word * 64 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        } else {
            core::mem::swap(&mut self.marked, &mut frozen.dirty);
            frozen.dirty.sort_unstable();
            for object in &frozen.dirty {
                let (word, bit) = (*object as usize / 64, 1 << (object % 64));
                self.marks[word] &= !bit;
                frozen.left[word] |= bit;
            }
        }
        (frozen.on, frozen.level, frozen.done) = (true, 0, 0);
        frozen.dirty.len()
    }

    /// Goes on with a refresh, by about `budget` digests, which are taken off it. `digest_of`
    /// gives the digest of an object, as it is or as it is in the bytes. True when there is none
    /// under way (any more): the root is made.
    pub(crate) fn proceed(
        &mut self,
        budget: &mut usize,
        mut digest_of: impl FnMut(u32, Option<&[u8]>) -> Digest,
    ) -> bool {
        for (object, bytes) in self.frozen.take_saved() {
            let digest = digest_of(object, Some(&bytes));
            self.set(0, object, leaf(object, digest));
            *budget = budget.saturating_sub(1);
        }
        while self.frozen.on {
            while self.frozen.done < self.frozen.dirty.len() {
                if *budget == 0 {
                    return false;
                }
                *budget -= 1;
                let index = self.frozen.dirty[self.frozen.done];
                self.frozen.done += 1;
                if self.frozen.level > 0 {
                    self.make_node(self.frozen.level, index);
                } else if self.frozen.wants(index) {
                    let digest = digest_of(index, None);
                    self.has_digest(index, digest);
                }
            }
            self.next_level();
        }
        true
    }

    /// Whether the digest of `object`, which is about to be written, is still to be made.
    #[inline]
    pub(crate) fn wants_digest(&self, object: u32) -> bool {
        self.frozen.wants(object) && !base::mutant!(FrozenObjectsChange)
    }

    /// The digest that `object` had when it was frozen, if it is still wanted.
    #[inline]
    pub(crate) fn has_digest(&mut self, object: u32, digest: Digest) {
        if self.frozen.wants(object) {
            self.frozen.settle(object);
            self.set(0, object, leaf(object, digest));
        }
    }

    /// Gives up a refresh that is under way: what it was about is marked again, or done. The pins
    /// that were made when it began must be gone.
    pub(crate) fn thaw(&mut self) {
        if self.frozen.on && self.frozen.level > 0 {
            // All objects are done, and the rest needs nobody's help.
            while self.frozen.on {
                while self.frozen.done < self.frozen.dirty.len() {
                    self.make_node(self.frozen.level, self.frozen.dirty[self.frozen.done]);
                    self.frozen.done += 1;
                }
                self.next_level();
            }
        } else if self.frozen.on {
            self.frozen.take_saved();
            for object in core::mem::take(&mut self.frozen.dirty) {
                self.frozen.settle(object);
                self.mark(object);
            }
            self.frozen.end();
        }
    }

    /// At least as many digests as are still to be made.
    pub(crate) fn left(&self) -> usize {
        let Frozen { on, level, dirty, done, .. } = &self.frozen;
        let above = (level + 1..self.levels()).map(|level| dirty.len().min(self.wide(level)));
        if *on { dirty.len() - done + above.sum::<usize>() } else { 0 }
    }

    /// Which objects' digests are wanted before they are written, for those who write apart from
    /// here. It may name some that are not wanted any more, never too few.
    pub(crate) fn share_frozen(&mut self) -> Option<Arc<Vec<u64>>> {
        let Frozen { on, level, left, shared, .. } = &mut self.frozen;
        let wanted = *on && *level == 0 && !base::mutant!(FrozenObjectsChange);
        wanted.then(|| Arc::clone(shared.get_or_insert_with(|| left.clone().into())))
    }

    /// Lets go what was shared: nobody apart from here has it any more, and much has been done.
    pub(crate) fn unshare(&mut self) {
        self.frozen.shared = None;
    }

    /// For tests of services: from now on the first write of each object is asked for its digest.
    pub(crate) fn watch_digests(&mut self) {
        self.freeze();
        self.frozen.left.fill(u64::MAX);
    }

    /// Ends [`ObjectTree::watch_digests`]; digests that were given are in the leaves.
    pub(crate) fn end_watch(&mut self) {
        self.frozen.left.fill(0);
        self.frozen.take_saved();
        self.frozen.end();
    }

    fn make_node(&mut self, level: usize, index: u32) {
        let digest = node(level, index, self.children(level, index));
        self.set(level, index, digest);
    }

    /// All digests of a level are made.
    fn next_level(&mut self) {
        let top = self.levels() - 1;
        let frozen = &mut self.frozen;
        if frozen.level == top {
            frozen.end();
            self.settle_pins();
            return;
        }
        (frozen.level, frozen.done) = (frozen.level + 1, 0);
        frozen.dirty.iter_mut().for_each(|index| *index /= FAN_OUT as u32);
        frozen.dirty.dedup();
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use base::Seq;
    use base::digest::Domain;

    use super::*;

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % end
        }
    }

    fn digest(value: u64) -> Digest {
        Digest::of(Domain::Service, &value.to_le_bytes())
    }

    fn whole(values: &[u64]) -> ObjectTree {
        let mut tree = ObjectTree::new(u32::try_from(values.len()).expect("few"));
        tree.refresh(|object| digest(values[object as usize]));
        tree
    }

    /// Values that are written in any way while a refresh goes on.
    struct Written {
        values: Vec<u64>,
        tree: ObjectTree,
    }

    impl Written {
        fn write(&mut self, object: usize, value: u64, gives: bool) {
            let number = u32::try_from(object).expect("few");
            let old = self.values[object];
            if gives && self.tree.wants_digest(number) {
                self.tree.has_digest(number, digest(old));
            }
            self.tree.modify(number, |out| out.extend_from_slice(&old.to_le_bytes()));
            self.values[object] = value;
        }

        fn proceed(&mut self, mut budget: usize) -> bool {
            let Written { values, tree } = self;
            tree.proceed(&mut budget, |object, bytes| match bytes {
                None => digest(values[object as usize]),
                Some(bytes) => Digest::of(Domain::Service, bytes),
            })
        }
    }

    /// The dumb twin rebuilds the whole tree from the values at the freeze.
    #[test]
    fn a_root_is_that_of_the_freeze_and_pins_show_their_own_nodes() {
        for (seed, objects) in (1..).zip([1usize, 17, 256, 700, 5_000].repeat(4)) {
            let mut dice = Dice(seed);
            let values = (0..objects as u64).collect();
            let mut all = Written { values, tree: ObjectTree::new(objects as u32) };
            let mut pinned: Option<(Seq, ObjectTree)> = None;
            for round in 0..12 {
                // Few, so that they are sorted, or many, so that they are read off the bits.
                for _ in 0..dice.below([4, objects][round % 2] + 1) {
                    all.write(dice.below(objects), dice.0, false);
                }
                let frozen = whole(&all.values);
                all.tree.freeze();
                if let Some((at, _)) = pinned.take_if(|_| round % 3 == 0) {
                    all.tree.unpin(at);
                }
                if pinned.is_none() {
                    let at = Seq(round as u64);
                    all.tree.pin(at);
                    pinned = Some((at, frozen.clone()));
                }
                let (at, then) = pinned.as_ref().expect("just made");
                while !all.proceed(1 + dice.below(objects / 4 + 1)) {
                    let (value, gives) = (dice.0, dice.below(2) == 0);
                    all.write(dice.below(objects), value, gives);
                    if *at < Seq(round as u64) {
                        check_pin(&all.tree, *at, then);
                    }
                }
                assert_eq!(all.tree.root(), frozen.root(), "seed {seed}, round {round}");
                assert_eq!((all.tree.left(), all.tree.frozen.bytes()), (0, 0));
                check_pin(&all.tree, *at, then);
            }
        }
    }

    fn check_pin(tree: &ObjectTree, at: Seq, then: &ObjectTree) {
        for level in 0..=tree.top() {
            for index in 0..tree.width(level) {
                let shown = tree.pinned_digest(at, level, index);
                assert_eq!(shown, then.digest(level, index), "level {level}, {index}");
            }
        }
    }

    #[test]
    fn a_refresh_that_is_given_up_is_made_up_for_by_the_next() {
        for seed in 0..60 {
            let (mut dice, objects) = (Dice(seed), 900);
            let mut all = Written { values: vec![1; objects], tree: whole(&vec![1; objects]) };
            for _ in 0..6 {
                for _ in 0..dice.below(objects) {
                    all.write(dice.below(objects), dice.0, false);
                }
                all.tree.freeze();
                for _ in 0..dice.below(8) {
                    all.proceed(dice.below(300));
                    all.write(dice.below(objects), dice.0, dice.0 % 2 == 0);
                }
                all.tree.thaw();
                assert_eq!((all.tree.left(), all.tree.frozen.bytes()), (0, 0));
            }
            let Written { values, tree } = &mut all;
            let root = tree.refresh(|object| digest(values[object as usize]));
            assert_eq!(root, whole(values).root(), "seed {seed}");
        }
    }
}
