//! What a digest tree keeps so that an old checkpoint stays readable while execution goes on.
//!
//! Copy on write: a pin begins with nothing. The first write of an object after it leaves the
//! object's bytes here, the first change of a node leaves the node's digest; whatever is not
//! here is still as it was. Two pins share the bytes that both need.
//!
//! Not here: who needs which checkpoint (`snapshots`).
//!
//! Invariants:
//! 1. a pin holds the bytes of exactly those objects that were announced since it was made;
//! 2. there are at most [`PINS_MAX`] pins.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Digest, Seq};

/// Most pins at a time: one for each reader.
pub(crate) const PINS_MAX: usize = 2;

/// Memory for objects on their way that is used again; what is beyond it is given back.
const SCRATCH_MAX: usize = 1 << 20;

/// The checkpoints of one tree that are kept readable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    pins: Vec<Pin>,
    bytes: usize,
    /// Where objects are written before it is known how long they are: what is kept of each has
    /// no room to spare, and there may be as many as there are objects.
    scratch: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Pin {
    at: Seq,
    /// One bit per object: whether its bytes are in `objects`.
    saved: Vec<u64>,
    /// Whether the tree's nodes are, or were, this checkpoint's: not so while they are made.
    settled: bool,
    objects: BTreeMap<u32, Arc<Vec<u8>>>,
    /// Digests of nodes that have changed, by level and index.
    nodes: BTreeMap<(u8, u32), Digest>,
}

impl Pins {
    /// Makes the state as it is now readable as the one `at` this number; its nodes are there, or
    /// come ([`Pins::settle`]). O(objects / 64).
    pub(crate) fn pin(&mut self, at: Seq, objects: u32, settled: bool) {
        if self.pins.iter().any(|pin| pin.at == at) {
            return;
        }
        assert!(self.pins.len() < PINS_MAX, "each reader has one pin");
        let saved = vec![0; (objects as usize).div_ceil(64)];
        let (objects, nodes) = (BTreeMap::new(), BTreeMap::new());
        self.pins.push(Pin { at, saved, settled, objects, nodes });
    }

    /// The nodes of all checkpoints are made: changes from now on are changes of them.
    pub(crate) fn settle(&mut self) {
        self.pins.iter_mut().for_each(|pin| pin.settled = true);
    }

    /// Forgets the pin of this number, if there is one.
    pub(crate) fn unpin(&mut self, at: Seq) {
        let Some(index) = self.pins.iter().position(|pin| pin.at == at) else { return };
        let gone = self.pins.swap_remove(index);
        for (object, bytes) in &gone.objects {
            let shares = |pin: &Pin| pin.objects.get(object).is_some_and(|b| Arc::ptr_eq(b, bytes));
            if !self.pins.iter().any(shares) {
                self.bytes -= bytes.len();
            }
        }
    }

    /// Keeps an object that is about to be written for every pin that still shows it.
    pub(crate) fn save(&mut self, object: u32, save: impl FnOnce(&mut Vec<u8>)) {
        let (word, bit) = (object as usize / 64, 1u64 << (object % 64));
        if self.pins.iter().all(|pin| pin.saved[word] & bit != 0) {
            return;
        }
        save(&mut self.scratch);
        let bytes = Arc::new(self.scratch.as_slice().to_vec());
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_MAX);
        self.bytes += bytes.len();
        for pin in self.pins.iter_mut().filter(|pin| pin.saved[word] & bit == 0) {
            pin.saved[word] |= bit;
            pin.objects.insert(object, Arc::clone(&bytes));
        }
    }

    /// Keeps the digest of a node that is about to change.
    pub(crate) fn save_node(&mut self, level: usize, index: u32, digest: Digest) {
        let level = u8::try_from(level).expect("trees have few levels");
        for pin in self.pins.iter_mut().filter(|pin| pin.settled) {
            pin.nodes.entry((level, index)).or_insert(digest);
        }
    }

    /// Whether there is a pin of this number.
    pub(crate) fn holds(&self, at: Seq) -> bool {
        self.pins.iter().any(|pin| pin.at == at)
    }

    /// The bytes that `object` had, if it was written since.
    pub(crate) fn object(&self, at: Seq, object: u32) -> Option<&Arc<Vec<u8>>> {
        self.pins.iter().find(|pin| pin.at == at)?.objects.get(&object)
    }

    /// All objects that were written since, with the bytes that they had.
    pub(crate) fn objects(&self, at: Seq) -> impl Iterator<Item = (u32, &[u8])> {
        let pin = self.pins.iter().find(|pin| pin.at == at);
        let objects = pin.into_iter().flat_map(|pin| &pin.objects);
        objects.map(|(object, bytes)| (*object, bytes.as_slice()))
    }

    /// The digest that a node had, if it has changed since.
    pub(crate) fn node(&self, at: Seq, level: u8, index: u32) -> Option<Digest> {
        self.pins.iter().find(|pin| pin.at == at)?.nodes.get(&(level, index)).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    /// Bytes of saved objects; what two pins share counts once.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
