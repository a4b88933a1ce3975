//! The digest tree over a service's numbered objects: a checkpoint costs in proportion to what
//! was written since the last one, never to the size of the state.
//!
//! A tree of fan-out 16 whose leaves are the objects' digests. A write marks its leaf; a
//! checkpoint recomputes marked leaves and the nodes above them, at once or in pieces (`frozen`).
//! Leaves and nodes have different digest domains and carry their position, so that no node
//! passes for a leaf or for another.

use alloc::vec;
use alloc::vec::Vec;

use base::digest::{Domain, Hasher};
use base::{Digest, Seq, limits};

use crate::before::Before;
use crate::frozen::Frozen;
use crate::pins::Pins;

/// Children of an inner node.
pub const FAN_OUT: usize = 16;

/// Digests over objects `0..objects`, and which of them changed.
#[derive(Clone, Debug)]
pub struct ObjectTree {
    /// `levels[0]` are the leaves; the last level is the root alone.
    levels: Vec<Vec<Digest>>,
    /// One bit per leaf: marked since the last refresh began.
    pub(crate) marks: Vec<u64>,
    /// The marked leaves, in order of marking.
    pub(crate) marked: Vec<u32>,
    pins: Pins,
    before: Before,
    pub(crate) frozen: Frozen,
}

impl ObjectTree {
    /// A tree over `objects` objects, all of them marked.
    ///
    /// # Panics
    /// Unless `1 <= objects <= OBJECTS_MAX`.
    #[must_use]
    pub fn new(objects: u32) -> ObjectTree {
        assert!(
            (1..=limits::OBJECTS_MAX).contains(&objects),
            "1..={} objects",
            limits::OBJECTS_MAX
        );
        let mut levels = vec![vec![Digest::ZERO; objects as usize]];
        while levels.last().expect("has leaves").len() > 1 {
            let below = levels.last().expect("has leaves").len();
            levels.push(vec![Digest::ZERO; below.div_ceil(FAN_OUT)]);
        }
        let marks = vec![0; (objects as usize).div_ceil(64)];
        let mut tree = ObjectTree {
            levels,
            marks,
            marked: vec![],
            pins: Pins::default(),
            before: Before::default(),
            frozen: Frozen::default(),
        };
        (0..objects).for_each(|object| {
            tree.mark(object);
        });
        tree
    }

    /// Number of objects.
    #[must_use]
    pub fn objects(&self) -> u32 {
        u32::try_from(self.levels[0].len()).expect("checked in new")
    }

    /// Marks `object` as changed. True when it was not marked before: the first write since the
    /// last refresh.
    ///
    /// # Panics
    /// When there is no such object.
    #[inline]
    pub fn mark(&mut self, object: u32) -> bool {
        assert!(object < self.objects(), "object {object} of {}", self.objects());
        let (word, bit) = (object as usize / 64, 1u64 << (object % 64));
        let fresh = self.marks[word] & bit == 0;
        if fresh {
            self.marks[word] |= bit;
            self.marked.push(object);
        }
        fresh
    }

    /// Marks `object`, which is about to be written. `save` appends its bytes as they are now,
    /// and is called only when a checkpoint would otherwise lose them, or the write may have to
    /// be taken back.
    ///
    /// # Panics
    /// When there is no such object.
    #[inline]
    pub fn modify(&mut self, object: u32, save: impl FnOnce(&mut Vec<u8>)) {
        // Nothing is marked when a pin is made: what is marked already was saved then.
        let fresh = self.mark(object);
        let pinned = fresh && !self.pins.is_empty() && !base::mutant!(PinnedObjectsChange);
        if fresh && self.wants_digest(object) {
            let bytes = self.frozen.keep(object, save);
            if self.before.wants(object) {
                self.before.keep(object, |out| out.extend_from_slice(bytes));
            }
            if pinned {
                self.pins.save(object, |out| out.extend_from_slice(bytes));
            }
        } else if self.before.wants(object) {
            let bytes = self.before.keep(object, save);
            if pinned {
                self.pins.save(object, |out| out.extend_from_slice(bytes));
            }
        } else if pinned {
            self.pins.save(object, save);
        }
    }

    /// What objects are before they are written, from when it is begun.
    pub(crate) fn before(&mut self) -> &mut Before {
        &mut self.before
    }

    /// Bytes of copies of objects, for pins, for what may be taken back, and for digests.
    pub(crate) fn saved_bytes(&self) -> usize {
        self.pins.bytes() + self.before.bytes() + self.frozen.bytes()
    }

    /// Begins to keep what objects are before they are written.
    pub(crate) fn begin(&mut self) {
        let objects = self.objects();
        self.before.begin(objects);
    }

    /// Number of marked objects: what the next refresh costs.
    #[must_use]
    pub fn marked(&self) -> usize {
        self.marked.len()
    }

    /// Recomputes what is marked and returns the root. `digest_of` gives an object's digest.
    ///
    /// # Panics
    /// When a refresh in pieces is under way.
    pub fn refresh(&mut self, mut digest_of: impl FnMut(u32) -> Digest) -> Digest {
        self.freeze();
        // Nothing is written meanwhile, so nobody keeps bytes.
        let mut budget = usize::MAX;
        self.proceed(&mut budget, |object, _| digest_of(object));
        self.root()
    }

    /// The root as of the last refresh.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels.last().expect("has a root")[0]
    }

    /// The level of the root; the leaves are level 0.
    #[must_use]
    pub fn top(&self) -> u8 {
        u8::try_from(self.levels.len() - 1).expect("trees have few levels")
    }

    /// Number of nodes on a level; none above the root.
    #[must_use]
    pub fn width(&self, level: u8) -> u32 {
        let level = self.levels.get(usize::from(level));
        level.map_or(0, |level| u32::try_from(level.len()).expect("checked in new"))
    }

    /// The digest of a node as of the last refresh.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn digest(&self, level: u8, index: u32) -> Digest {
        self.levels[usize::from(level)][index as usize]
    }

    /// Keeps the state as it is now readable under this number, until [`ObjectTree::unpin`].
    /// Costs nothing but a bit per object; every later write of an object saves it once.
    ///
    /// # Panics
    /// When something is marked, or too many others are pinned.
    pub(crate) fn pin(&mut self, at: Seq) {
        assert!(self.marked.is_empty(), "only a tree without marks can be pinned");
        // Its nodes are those of the refresh that is under way, if there is one.
        self.pins.pin(at, self.objects(), !self.frozen.is_on());
    }

    pub(crate) fn unpin(&mut self, at: Seq) {
        self.pins.unpin(at);
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The digest that a node had when this number was pinned.
    pub(crate) fn pinned_digest(&self, at: Seq, level: u8, index: u32) -> Digest {
        self.pins.node(at, level, index).unwrap_or_else(|| self.digest(level, index))
    }

    /// The refresh is over that pins which were made during it have their nodes from.
    pub(crate) fn settle_pins(&mut self) {
        self.pins.settle();
    }

    /// Number of levels.
    pub(crate) fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Number of nodes on a level that is.
    pub(crate) fn wide(&self, level: usize) -> usize {
        self.levels[level].len()
    }

    /// The digests of the children of an inner node.
    pub(crate) fn children(&self, level: usize, index: u32) -> &[Digest] {
        let (start, below) = (index as usize * FAN_OUT, &self.levels[level - 1]);
        &below[start..below.len().min(start + FAN_OUT)]
    }

    pub(crate) fn set(&mut self, level: usize, index: u32, digest: Digest) {
        let place = &mut self.levels[level][index as usize];
        let old = core::mem::replace(place, digest);
        if old != digest && !self.pins.is_empty() {
            self.pins.save_node(level, index, old);
        }
    }
}

/// The digest in the tree of an object whose own digest is `digest`.
#[must_use]
pub fn leaf(object: u32, digest: Digest) -> Digest {
    let mut hasher = Hasher::new(Domain::Object);
    hasher.update(&object.to_le_bytes()).update(&digest.0);
    hasher.finish()
}

/// The digest of inner node `index` of a level, from 1, over the digests of its children.
#[must_use]
pub fn node(level: usize, index: u32, children: &[Digest]) -> Digest {
    let mut bytes = Vec::with_capacity(16 + FAN_OUT * 32);
    bytes.extend_from_slice(&(level as u64).to_le_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
    children.iter().for_each(|child| bytes.extend_from_slice(&child.0));
    Digest::of(Domain::Node, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(value: u64) -> Digest {
        Digest::of(Domain::Service, &value.to_le_bytes())
    }

    /// The dumb twin rebuilds the whole tree from the values.
    #[test]
    fn incremental_roots_equal_rebuilt_roots() {
        for objects in [1u32, 2, 15, 16, 17, 256, 257, 1000] {
            let mut values: Vec<u64> = (0..u64::from(objects)).collect();
            let mut tree = ObjectTree::new(objects);
            tree.refresh(|o| digest(values[o as usize]));
            let mut x = 7u64;
            for round in 0..50 {
                for _ in 0..(round % 7) {
                    x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let object = u32::try_from(x >> 33).expect("31 bits") % objects;
                    values[object as usize] = x;
                    tree.mark(object);
                }
                let root = tree.refresh(|o| digest(values[o as usize]));
                let rebuilt = ObjectTree::new(objects).refresh(|o| digest(values[o as usize]));
                assert_eq!(root, rebuilt, "{objects} objects, round {round}");
            }
        }
    }

    #[test]
    fn a_refresh_asks_only_for_what_is_marked() {
        let mut tree = ObjectTree::new(1000);
        tree.refresh(|o| digest(u64::from(o)));
        assert!(tree.mark(5));
        assert!(!tree.mark(5));
        let mut asked = vec![];
        tree.refresh(|o| {
            asked.push(o);
            digest(1)
        });
        assert_eq!(asked, [5]);
    }
}
