//! What a fetch still lacks and has asked nobody for: nodes and objects, each with the digest
//! that it is to have.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::Digest;
use base::transfer::{NODES_MAX, OBJECTS_PER_REQUEST_MAX, PIECE_BYTES_MAX, Part};

use super::large::Later;
use super::peer::Ask;
use crate::tree::{self, FAN_OUT, ObjectTree};

/// Objects on the list above which no more nodes are asked for: bounds the list.
const OBJECTS_ENOUGH: usize = 8192;
/// Bytes that one request for objects should bring, going by those that came before.
const REQUEST_BYTES: u64 = 512 << 10;

/// The list.
#[derive(Debug)]
pub(super) struct Wanted {
    /// By part, level and index, so that nodes near the leaves come first.
    nodes: BTreeMap<(Part, u8, u32), Digest>,
    objects: BTreeMap<(Part, u32), Digest>,
    pub(super) later: Later,
    /// Bytes of an object, as a moving average.
    object_bytes: u64,
}

impl Wanted {
    pub(super) fn new() -> Wanted {
        Wanted {
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            later: Later::default(),
            // Large until small ones have come: better too little asked for than too much.
            object_bytes: PIECE_BYTES_MAX as u64,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.objects.is_empty() && self.later.is_empty()
    }

    /// Objects on the list.
    pub(super) fn objects(&self) -> usize {
        self.objects.len() + self.later.len()
    }

    /// Puts a node on the list, or the object below it when it is a leaf; nothing when `own`
    /// has the same.
    pub(super) fn want(
        &mut self,
        part: Part,
        (level, index): (u8, u32),
        own: &ObjectTree,
        digest: Digest,
    ) {
        if own.digest(level, index) == digest {
            return;
        }
        if level == 0 {
            self.objects.insert((part, index), digest);
        } else {
            self.nodes.insert((part, level, index), digest);
        }
    }

    /// Puts everything below these nodes on the list that `own` has otherwise. False when the
    /// children are not those that `expected` covers; nothing is believed then.
    pub(super) fn descend(
        &mut self,
        (part, level, first): (Part, u8, u32),
        expected: &[Digest],
        children: &[Digest],
        own: &ObjectTree,
    ) -> bool {
        let begin = first as usize * FAN_OUT;
        let width = own.width(level - 1) as usize;
        let end = (begin + expected.len() * FAN_OUT).min(width);
        if children.len() != end - begin {
            return false;
        }
        let nodes = || children.chunks(FAN_OUT).zip(first..);
        let right = |((children, index), digest): ((&[Digest], u32), &Digest)| {
            tree::node(usize::from(level), index, children) == *digest
        };
        if !nodes().zip(expected).all(right) {
            return false;
        }
        for (index, digest) in ((first * FAN_OUT as u32)..).zip(children) {
            self.want(part, (level - 1, index), own, *digest);
        }
        true
    }

    /// Takes off the list what one request can ask for.
    pub(super) fn take(&mut self) -> Option<Ask> {
        if self.objects.len() < OBJECTS_ENOUGH
            && let Some(ask) = self.take_nodes()
        {
            return Some(ask);
        }
        let count = (REQUEST_BYTES / self.object_bytes.max(1)).max(1);
        let count = usize::try_from(count)
            .map_or(OBJECTS_PER_REQUEST_MAX, |count| count.min(OBJECTS_PER_REQUEST_MAX));
        let (part, _) = *self.objects.first_key_value()?.0;
        let mut left = BTreeMap::new();
        while left.len() < count
            && let Some(entry) = self.objects.first_entry()
            && entry.key().0 == part
        {
            let ((_, object), digest) = entry.remove_entry();
            left.insert(object, digest);
        }
        Some(Ask::Objects { part, left })
    }

    fn take_nodes(&mut self) -> Option<Ask> {
        let ((part, level, first), digest) = self.nodes.pop_first()?;
        let mut expected = Vec::from([digest]);
        while expected.len() < NODES_MAX as usize
            && let Some(next) = first.checked_add(expected.len() as u32)
            && let Some(digest) = self.nodes.remove(&(part, level, next))
        {
            expected.push(digest);
        }
        Some(Ask::Nodes { part, level, first, expected })
    }

    /// Puts back what was asked for in vain.
    pub(super) fn put_back(&mut self, ask: Ask) {
        match ask {
            Ask::Manifest => {}
            Ask::Nodes { part, level, first, expected } => {
                let nodes = (first..).zip(expected);
                self.nodes.extend(nodes.map(|(index, digest)| ((part, level, index), digest)));
            }
            Ask::Objects { part, left } => {
                for (object, digest) in left {
                    if !self.later.release((part, object)) {
                        self.objects.insert((part, object), digest);
                    }
                }
            }
            Ask::Pieces(large) => {
                if !self.later.release((large.part, large.object)) {
                    self.objects.insert((large.part, large.object), large.leaf);
                }
            }
        }
    }

    /// An object of this size came.
    pub(super) fn came(&mut self, bytes: u64) {
        self.object_bytes = (self.object_bytes * 7 + bytes) / 8;
    }

    /// Bytes that the answers to `ask` will have, as far as one can tell.
    pub(super) fn estimate(&self, ask: &Ask) -> u64 {
        match ask {
            Ask::Manifest => 128,
            Ask::Nodes { expected, .. } => expected.len() as u64 * 512,
            Ask::Objects { left, .. } => left.len() as u64 * self.object_bytes.max(64),
            Ask::Pieces(_) => PIECE_BYTES_MAX as u64,
        }
    }
}
