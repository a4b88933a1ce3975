//! A list: a tree of chunks, quick at both ends and by index, with a digest that follows writes.
//!
//! ```text
//! leaf   up to 128 elements
//! inner  up to 64 nodes of the same height
//! ```
//!
//! A full node splits off its end when the write is there, and in the middle otherwise; a node
//! that becomes empty goes; nodes are not merged.
//!
//! Invariants:
//! 1. All leaves are at the same depth, no node but the root is empty, an inner root has two
//!    children at least.
//! 2. A node's digest is present only if nothing below it was written since it was computed.
//! 3. The digest depends on the shape, and the shape on the history. The same operations give the
//!    same shape, and the encoding carries it: a decoded list has the digest of the encoded one
//!    and will take the same shape under the same further operations.

use std::collections::VecDeque;

use base::digest::{Domain, Hasher};
use base::{Digest, Malformed, Reader, codec};

use super::{Blob, Result, TAG_LEAF, digest_of_children};

/// Most elements of a leaf.
const LEAF_MAX: usize = 128;

/// Most children of an inner node.
const FAN_OUT: usize = 64;

/// What a node takes in the encoding besides what is in it.
const HEAD: usize = 4;

/// Greatest height that is decoded: more than any list that fits into memory can have.
const HEIGHT_MAX: u8 = 12;

/// A sequence of byte strings with an incremental digest.
#[derive(Clone, Debug)]
pub struct List {
    root: Node,
}

#[derive(Clone, Debug)]
struct Node {
    digest: Option<Digest>,
    /// Bytes of it and of everything below as they are encoded.
    bytes: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Leaf(VecDeque<Blob>),
    Inner { count: usize, children: VecDeque<Node> },
}

impl Default for List {
    fn default() -> List {
        List::new()
    }
}

impl List {
    /// An empty list.
    #[must_use]
    pub fn new() -> List {
        List { root: Node::leaf(VecDeque::new()) }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.root.count()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Blob> {
        let (mut node, mut rest) = (&self.root, index);
        loop {
            match &node.kind {
                Kind::Leaf(items) => return items.get(rest),
                Kind::Inner { children, .. } => {
                    let at = find(children, &mut rest)?;
                    node = &children[at];
                }
            }
        }
    }

    /// Appends at the tail.
    pub fn push_back(&mut self, item: Blob) {
        self.insert(self.len(), item);
    }

    /// Puts in front of the head.
    pub fn push_front(&mut self, item: Blob) {
        self.insert(0, item);
    }

    /// Removes the head.
    pub fn pop_front(&mut self) -> Option<Blob> {
        (!self.is_empty()).then(|| self.remove(0))
    }

    /// Removes the tail.
    pub fn pop_back(&mut self) -> Option<Blob> {
        let last = self.len().checked_sub(1)?;
        Some(self.remove(last))
    }

    /// Inserts before `index`, or at the tail when `index` is the length.
    ///
    /// # Panics
    /// When `index` is above the length.
    pub fn insert(&mut self, index: usize, item: Blob) {
        assert!(index <= self.len(), "insert at {index} of {}", self.len());
        if let Some(right) = self.root.insert(index, item) {
            let left = std::mem::replace(&mut self.root, right);
            let right = std::mem::replace(&mut self.root, Node::leaf(VecDeque::new()));
            self.root = Node::inner(VecDeque::from([left, right]));
        }
    }

    /// Replaces the element at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn set(&mut self, index: usize, item: Blob) {
        assert!(index < self.len(), "set at {index} of {}", self.len());
        let gone = self.get(index).map_or(0, Blob::encoded_len);
        let (mut node, mut rest) = (&mut self.root, index);
        loop {
            node.digest = None;
            node.bytes = node.bytes + item.encoded_len() - gone;
            match &mut node.kind {
                Kind::Leaf(items) => {
                    items[rest] = item;
                    return;
                }
                Kind::Inner { children, .. } => {
                    let at = find(children, &mut rest).expect("index is below the count");
                    node = &mut children[at];
                }
            }
        }
    }

    /// Removes the element at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&mut self, index: usize) -> Blob {
        assert!(index < self.len(), "remove at {index} of {}", self.len());
        let item = self.root.remove(index);
        self.lower();
        item
    }

    /// Keeps `len` elements from `start` and drops the others.
    ///
    /// # Panics
    /// When the range leaves the list.
    pub fn keep(&mut self, start: usize, len: usize) {
        let end = start.checked_add(len).filter(|end| *end <= self.len()).expect("inside the list");
        let behind = self.len() - end;
        self.root.cut(behind, End::Back);
        self.root.cut(start, End::Front);
        self.lower();
    }

    /// The elements from `start` on, head to tail.
    pub fn iter_from(&self, start: usize) -> Iter<'_> {
        let mut iter = Iter { nodes: Vec::new(), items: None };
        let (mut node, mut rest) = (&self.root, start);
        loop {
            match &node.kind {
                Kind::Leaf(items) => {
                    iter.items = Some(items.range(rest.min(items.len())..));
                    return iter;
                }
                Kind::Inner { children, .. } => {
                    let Some(at) = find(children, &mut rest) else { return iter };
                    iter.nodes.push(children.range(at + 1..));
                    node = &children[at];
                }
            }
        }
    }

    /// All elements, head to tail.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// The digest of the content and the shape.
    pub fn digest(&mut self) -> Digest {
        self.root.digest()
    }

    /// Bytes that [`List::encode`] appends, without a walk.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        1 + self.root.bytes
    }

    /// Appends the shape and the elements.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mut height, mut node) = (0u8, &self.root);
        while let Kind::Inner { children, .. } = &node.kind {
            height += 1;
            node = &children[0];
        }
        codec::Writer::new(out).u8(height);
        self.root.encode(out);
    }

    /// Reads what [`List::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are cut short or no such tree.
    pub fn decode(r: &mut Reader<'_>) -> Result<List> {
        let height = r.u8("height of list")?;
        if height > HEIGHT_MAX {
            return Err(Malformed("height of list"));
        }
        let root = Node::decode(r, height)?;
        let lowest = match &root.kind {
            Kind::Leaf(_) => true,
            Kind::Inner { children, .. } => children.len() > 1,
        };
        if lowest { Ok(List { root }) } else { Err(Malformed("root of list")) }
    }

    /// Takes away roots with one child or none.
    fn lower(&mut self) {
        while let Kind::Inner { children, .. } = &mut self.root.kind {
            if children.len() > 1 {
                return;
            }
            let only = children.pop_back();
            self.root = only.unwrap_or_else(|| Node::leaf(VecDeque::new()));
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl Node {
    fn leaf(items: VecDeque<Blob>) -> Node {
        let bytes = HEAD + items.iter().map(Blob::encoded_len).sum::<usize>();
        Node { digest: None, bytes, kind: Kind::Leaf(items) }
    }

    fn inner(children: VecDeque<Node>) -> Node {
        let count = children.iter().map(Node::count).sum();
        let bytes = HEAD + children.iter().map(|child| child.bytes).sum::<usize>();
        Node { digest: None, bytes, kind: Kind::Inner { count, children } }
    }

    fn count(&self) -> usize {
        match &self.kind {
            Kind::Leaf(items) => items.len(),
            Kind::Inner { count, .. } => *count,
        }
    }

    /// Inserts, and returns the right part if this node had to be split.
    fn insert(&mut self, index: usize, item: Blob) -> Option<Node> {
        self.digest = None;
        let right = match &mut self.kind {
            Kind::Leaf(items) => {
                self.bytes += item.encoded_len();
                items.insert(index, item);
                let at = split_at(items.len(), LEAF_MAX, index)?;
                Node::leaf(items.split_off(at))
            }
            Kind::Inner { count, children } => {
                *count += 1;
                let mut rest = index;
                let at = find(children, &mut rest).unwrap_or_else(|| {
                    // Behind the last element: the last child appends.
                    let last = children.len() - 1;
                    rest = children[last].count();
                    last
                });
                self.bytes -= children[at].bytes;
                let right = children[at].insert(rest, item);
                self.bytes += children[at].bytes;
                let right = right?;
                self.bytes += right.bytes;
                children.insert(at + 1, right);
                let cut = split_at(children.len(), FAN_OUT, if at == 0 { 0 } else { at + 1 })?;
                let right = Node::inner(children.split_off(cut));
                *count -= right.count();
                right
            }
        };
        self.bytes -= right.bytes - HEAD;
        Some(right)
    }

    fn remove(&mut self, index: usize) -> Blob {
        self.digest = None;
        match &mut self.kind {
            Kind::Leaf(items) => {
                let item = items.remove(index).expect("index is below the count");
                self.bytes -= item.encoded_len();
                item
            }
            Kind::Inner { count, children } => {
                *count -= 1;
                let mut rest = index;
                let at = find(children, &mut rest).expect("index is below the count");
                self.bytes -= children[at].bytes;
                let item = children[at].remove(rest);
                if children[at].count() == 0 {
                    children.remove(at);
                } else {
                    self.bytes += children[at].bytes;
                }
                item
            }
        }
    }

    /// Drops `n` elements at one end.
    fn cut(&mut self, n: usize, end: End) {
        if n == 0 {
            return;
        }
        self.digest = None;
        match &mut self.kind {
            Kind::Leaf(items) => {
                let gone = match end {
                    End::Front => 0..n,
                    End::Back => items.len() - n..items.len(),
                };
                self.bytes -= items.drain(gone).map(|item| item.encoded_len()).sum::<usize>();
            }
            Kind::Inner { count, children } => {
                *count -= n;
                let mut rest = n;
                while rest > 0 {
                    let at = match end {
                        End::Front => 0,
                        End::Back => children.len() - 1,
                    };
                    let child = &mut children[at];
                    self.bytes -= child.bytes;
                    if child.count() > rest {
                        child.cut(rest, end);
                        self.bytes += child.bytes;
                        return;
                    }
                    rest -= child.count();
                    children.remove(at);
                }
            }
        }
    }

    fn digest(&mut self) -> Digest {
        if let Some(digest) = self.digest {
            return digest;
        }
        let digest = match &mut self.kind {
            Kind::Leaf(items) => {
                let mut hasher = Hasher::new(Domain::Service);
                hasher.update(&[TAG_LEAF]).update_u64(items.len() as u64);
                items.iter_mut().for_each(|item| item.fold(&mut hasher));
                hasher.finish()
            }
            Kind::Inner { children, .. } => {
                digest_of_children(children.iter_mut().map(Node::digest))
            }
        };
        self.digest = Some(digest);
        digest
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match &self.kind {
            Kind::Leaf(items) => {
                codec::Writer::new(out).count(items.len());
                items.iter().for_each(|item| item.encode(out));
            }
            Kind::Inner { children, .. } => {
                codec::Writer::new(out).count(children.len());
                children.iter().for_each(|child| child.encode(out));
            }
        }
    }

    fn decode(r: &mut Reader<'_>, height: u8) -> Result<Node> {
        if height == 0 {
            let count = r.count(LEAF_MAX, 4, "leaf of list")?;
            let items: Result<_> = (0..count).map(|_| Blob::decode(r)).collect();
            return Ok(Node::leaf(items?));
        }
        let count = r.count(FAN_OUT, 4, "node of list")?;
        let children: Result<VecDeque<Node>> =
            (0..count).map(|_| Node::decode(r, height - 1)).collect();
        let children = children?;
        if children.is_empty() || children.iter().any(|child| child.count() == 0) {
            return Err(Malformed("empty node of list"));
        }
        Ok(Node::inner(children))
    }
}

/// The child that holds element `rest`, which becomes the position inside it.
fn find(children: &VecDeque<Node>, rest: &mut usize) -> Option<usize> {
    children.iter().position(|child| {
        let inside = *rest < child.count();
        *rest -= if inside { 0 } else { child.count() };
        inside
    })
}

/// Where a node of `len` parts is split, if it is above `max`: at the end that was written, so
/// that a list that only grows at its ends has full nodes.
fn split_at(len: usize, max: usize, written: usize) -> Option<usize> {
    (len > max).then_some(match written {
        0 => 1,
        w if w == len - 1 => len - 1,
        _ => len / 2,
    })
}

/// Iterates over a list, head to tail.
#[derive(Debug)]
pub struct Iter<'a> {
    nodes: Vec<std::collections::vec_deque::Iter<'a, Node>>,
    items: Option<std::collections::vec_deque::Iter<'a, Blob>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Blob;

    fn next(&mut self) -> Option<&'a Blob> {
        loop {
            if let Some(item) = self.items.as_mut().and_then(Iterator::next) {
                return Some(item);
            }
            match self.nodes.last_mut()?.next() {
                None => {
                    self.nodes.pop();
                }
                Some(node) => match &node.kind {
                    Kind::Leaf(items) => self.items = Some(items.iter()),
                    Kind::Inner { children, .. } => self.nodes.push(children.iter()),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    fn rebuilt(list: &List) -> List {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        let mut r = Reader::new(&bytes);
        let decoded = List::decode(&mut r).expect("own encoding");
        r.finish("list").expect("nothing left");
        assert_eq!([list.encoded_len(), decoded.encoded_len()], [bytes.len(); 2]);
        decoded
    }

    fn check(list: &mut List, twin: &VecDeque<u64>, rng: &mut Rng) {
        assert_eq!(list.len(), twin.len());
        let number = |item: &Blob| u64::from_le_bytes(item.to_vec().try_into().expect("8 bytes"));
        assert!(list.iter().map(number).eq(twin.iter().copied()));
        let start = rng.below(twin.len() as u64 + 2) as usize;
        assert!(list.iter_from(start).map(number).eq(twin.iter().skip(start).copied()));
        assert_eq!(list.get(start).map(number), twin.get(start).copied());
        assert_eq!(list.digest(), rebuilt(list).digest());
    }

    fn step(list: &mut List, twin: &mut VecDeque<u64>, rng: &mut Rng, growing: bool) {
        let n = rng.next();
        let item = Blob::new(&n.to_le_bytes());
        let at = rng.below(twin.len() as u64 + 1) as usize;
        match (rng.below(6), growing) {
            (0, _) => {
                list.insert(at, item);
                twin.insert(at, n);
            }
            (1, _) if at < twin.len() => {
                list.set(at, item);
                twin[at] = n;
            }
            (2 | 3, true) => {
                list.push_back(item);
                twin.push_back(n);
            }
            (_, true) => {
                list.push_front(item);
                twin.push_front(n);
            }
            (2, false) => assert_eq!(list.pop_back().is_some(), twin.pop_back().is_some()),
            (3, false) => assert_eq!(list.pop_front().is_some(), twin.pop_front().is_some()),
            (_, false) if at < twin.len() => {
                list.remove(at);
                twin.remove(at);
            }
            _ => {}
        }
    }

    #[test]
    fn behaves_as_a_sequence_and_its_digest_follows() {
        let mut rng = Rng(3);
        let (mut list, mut twin) = (List::new(), VecDeque::new());
        for round in 0..120_000u64 {
            step(&mut list, &mut twin, &mut rng, round % 40_000 < 24_000);
            if rng.below(2000) == 0 {
                check(&mut list, &twin, &mut rng);
            }
            if rng.below(9000) == 0 {
                let start = rng.below(twin.len() as u64 / 8 + 1) as usize;
                let len = rng.below((twin.len() - start) as u64 + 1) as usize;
                list.keep(start, len);
                twin = twin.iter().skip(start).take(len).copied().collect();
                check(&mut list, &twin, &mut rng);
            }
        }
        while let Some(item) = list.pop_front() {
            assert_eq!(*item, twin.pop_front().expect("as long").to_le_bytes());
        }
        assert_eq!(list.digest(), List::new().digest());
    }

    /// A replica that took over the state goes on like those that computed it.
    #[test]
    fn a_decoded_list_goes_on_like_the_original() {
        let mut rng = Rng(4);
        let (mut list, mut twin) = (List::new(), VecDeque::new());
        for round in 0..20u64 {
            let mut copy = rebuilt(&list);
            let mut twin_of_copy = twin.clone();
            let mut same = Rng(rng.next());
            let mut again = Rng(same.0);
            (0..1000).for_each(|_| step(&mut list, &mut twin, &mut same, round % 5 < 3));
            (0..1000).for_each(|_| step(&mut copy, &mut twin_of_copy, &mut again, round % 5 < 3));
            assert_eq!(list.digest(), copy.digest());
        }
    }

    #[test]
    fn lists_that_grow_at_their_ends_have_full_leaves() {
        for front in [false, true] {
            let mut list = List::new();
            for _ in 0..LEAF_MAX * FAN_OUT * 3 {
                let item = Blob::new(b"x");
                if front { list.push_front(item) } else { list.push_back(item) }
            }
            let mut bytes = Vec::new();
            list.encode(&mut bytes);
            let overhead = bytes.len() - list.len() * 5;
            assert!(overhead < 4 * (3 * FAN_OUT + 10), "{overhead} bytes of nodes");
        }
    }

    #[test]
    fn no_broken_tree_is_decoded() {
        for bytes in [&[13u8][..], &[1, 1, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 1, 0, 0]] {
            assert!(List::decode(&mut Reader::new(bytes)).is_err(), "{bytes:?}");
        }
    }
}
