//! How a single value is learnt and changed: what [`super::fields`] does to every leaf.

use std::sync::Arc;

use base::{BatchEntry, Digest, Frame, Signature, StableCheckpoint};
use proto::group::link::SliceEntry;
use proto::group::msg::{Recover, ViewChange};

use crate::prng::Prng;

/// Values of one kind that are remembered.
const POOL_MAX: usize = 24;

/// Values that were heard, to be used elsewhere.
#[derive(Debug)]
pub(super) struct Pool<T>(Vec<T>);

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool(Vec::new())
    }
}

impl<T: Clone + PartialEq> Pool<T> {
    pub(super) fn learn(&mut self, value: &T, prng: &mut Prng) {
        if self.0.contains(value) {
            return;
        }
        if self.0.len() == POOL_MAX {
            self.0.swap_remove(prng.below(POOL_MAX as u64) as usize);
        }
        self.0.push(value.clone());
    }

    pub(super) fn pick(&self, prng: &mut Prng) -> Option<T> {
        self.0.get(prng.below(self.0.len() as u64) as usize).cloned()
    }
}

/// What a number counts: values of one sort stand in for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    View,
    Seq,
    Time,
    Client,
    Session,
    Stream,
    FrameId,
    Incarnation,
    Replica,
    Pillar,
    Place,
}

const SORTS: usize = 11;

/// Everything that was heard, by sort.
#[derive(Debug, Default)]
pub(super) struct Pools {
    numbers: [Pool<u64>; SORTS],
    pub(super) digests: Pool<Digest>,
    pub(super) signatures: Pool<Signature>,
    pub(super) entries: Pool<BatchEntry>,
    pub(super) slices: Pool<SliceEntry>,
    pub(super) changes: Pool<Arc<ViewChange>>,
    pub(super) certificates: Pool<StableCheckpoint>,
    pub(super) recovers: Pool<Recover>,
    pub(super) frames: Pool<Arc<Frame>>,
}

impl Pools {
    pub(super) fn number(&self, sort: Sort, prng: &mut Prng) -> Option<u64> {
        self.numbers[sort as usize].pick(prng)
    }
}

/// What stands in lists.
pub(super) trait Listed: Clone {
    /// As many as a list may hold, or as make it long.
    const MOST: usize;

    /// One that was heard elsewhere.
    fn old(pools: &Pools, prng: &mut Prng) -> Option<Self>;

    /// Walks over its fields.
    fn touch(&mut self, touch: &mut Touch<'_>);
}

/// What a walk over a message's fields is for.
pub(super) enum Aim {
    /// Their names.
    List(Vec<&'static str>),
    /// Their values.
    Learn,
    /// One of them changes: after so many others; none any more.
    Change(Option<usize>),
}

/// A walk over the fields of a message.
pub(super) struct Touch<'a> {
    pub(super) aim: Aim,
    /// Which elements of lists are looked at: the same in all walks of one change.
    pub(super) salt: u64,
    /// What was changed cannot even be written down.
    pub(super) broken: bool,
    pub(super) pools: &'a mut Pools,
    pub(super) prng: &'a mut Prng,
}

impl Touch<'_> {
    /// Whether the field of this name is the one to change.
    pub(super) fn turn(&mut self, name: &'static str) -> bool {
        match &mut self.aim {
            Aim::List(names) => {
                names.push(name);
                false
            }
            Aim::Learn => false,
            Aim::Change(left) => {
                let now = *left == Some(0);
                *left = left.and_then(|left| left.checked_sub(1));
                now
            }
        }
    }

    pub(super) fn learns(&self) -> bool {
        matches!(self.aim, Aim::Learn)
    }

    /// A number of at most `max`: one more or less, nothing, the most, or one heard elsewhere.
    pub(super) fn number(&mut self, name: &'static str, sort: Sort, value: &mut u64, max: u64) {
        if self.learns() {
            self.pools.numbers[sort as usize].learn(value, self.prng);
        }
        if !self.turn(name) {
            return;
        }
        let new = match self.prng.below(8) {
            0 | 1 => value.wrapping_add(1),
            2 => value.wrapping_sub(1),
            3 => 0,
            4 => max - self.prng.below(2),
            5 => value.wrapping_add(self.prng.between(2, 16)),
            _ => self.pools.number(sort, self.prng).unwrap_or(0),
        };
        *value = if new == *value { value.wrapping_add(1) } else { new }.min(max);
    }

    pub(super) fn small(&mut self, name: &'static str, sort: Sort, value: &mut u32) {
        let mut wide = u64::from(*value);
        self.number(name, sort, &mut wide, u64::from(u32::MAX));
        *value = wide as u32;
    }

    pub(super) fn tiny(&mut self, name: &'static str, sort: Sort, value: &mut u16) {
        let mut wide = u64::from(*value);
        self.number(name, sort, &mut wide, u64::from(u16::MAX));
        *value = wide as u16;
    }

    pub(super) fn flag(&mut self, name: &'static str, value: &mut bool) {
        if self.turn(name) {
            *value = !*value;
        }
    }

    /// A bit turned, nothing, everything, or one heard elsewhere.
    pub(super) fn digest(&mut self, name: &'static str, value: &mut Digest) {
        if self.learns() {
            self.pools.digests.learn(value, self.prng);
        }
        if !self.turn(name) {
            return;
        }
        let before = *value;
        match self.prng.below(5) {
            0 => value.0[self.prng.below(32) as usize] ^= 1 << self.prng.below(8),
            1 => *value = Digest::ZERO,
            2 => *value = Digest([0xff; 32]),
            _ => *value = self.pools.digests.pick(self.prng).unwrap_or(Digest([1; 32])),
        }
        if *value == before {
            value.0[0] ^= 1;
        }
    }

    pub(super) fn signature(&mut self, name: &'static str, value: &mut Signature) {
        if self.learns() {
            self.pools.signatures.learn(value, self.prng);
        }
        if !self.turn(name) {
            return;
        }
        let before = *value;
        match self.prng.below(5) {
            0 => value.0[self.prng.below(64) as usize] ^= 1 << self.prng.below(8),
            1 => *value = Signature([0; 64]),
            2 => *value = Signature([0xff; 64]),
            _ => *value = self.pools.signatures.pick(self.prng).unwrap_or(Signature([1; 64])),
        }
        if *value == before {
            value.0[0] ^= 1;
        }
    }

    /// Bytes: none, fewer, more, others.
    pub(super) fn bytes(&mut self, name: &'static str, value: &mut Vec<u8>, max: usize) {
        if !self.turn(name) {
            return;
        }
        let at = self.prng.below(value.len() as u64) as usize;
        match self.prng.below(5) {
            0 if !value.is_empty() => value.clear(),
            1 if !value.is_empty() => value.truncate(at),
            2 if !value.is_empty() => value[at] ^= 1 << self.prng.below(8),
            3 => value.resize(max, 0xaa),
            _ => value.push(0),
        }
    }

    /// A list: none, fewer, one twice, another order, one heard elsewhere, too many. Then one of
    /// its elements.
    pub(super) fn list<T: Listed>(&mut self, name: &'static str, list: &mut Vec<T>) {
        if self.turn(name) {
            let at = self.prng.below(list.len() as u64) as usize;
            match self.prng.below(7) {
                0 => list.clear(),
                1 => list.truncate(at),
                2 if !list.is_empty() => list.insert(at, list[at].clone()),
                3 if list.len() > 1 => list.rotate_left(1),
                4 if !list.is_empty() => {
                    let one = list[at].clone();
                    list.resize(T::MOST + self.prng.below(2) as usize, one);
                }
                5 if !list.is_empty() => drop(list.remove(at)),
                _ => {
                    let one = T::old(self.pools, self.prng).or_else(|| list.first().cloned());
                    list.extend(one);
                }
            }
            return;
        }
        let count = list.len();
        if count > 0 {
            let at = (self.salt % count as u64) as usize;
            list[at].touch(self);
        }
    }
}
