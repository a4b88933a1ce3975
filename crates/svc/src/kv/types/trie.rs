//! A burst trie: the map behind hashes, sets and sorted sets, with a digest that follows writes.
//!
//! ```text
//! leaf   at most 256 elements, sorted by (place, key)
//! inner  16 children, one for each value of the next four bits of the place
//! ```
//!
//! The *place* of an element is the first 64 bits, big-endian, of the BLAKE3 digest of its key, so
//! that nobody can choose keys that fall into one leaf.
//!
//! Invariants:
//! 1. A node is a leaf exactly if it holds at most 256 elements (or the 64 bits are used up). The
//!    shape, and with it the digest, is a function of the content, not of its history.
//! 2. A node's digest is present only if nothing below it was written since it was computed.
//! 3. Iteration is in ascending (place, key). This is the order of all "unordered" replies, and a
//!    scan cursor is the place to go on from: an element that is present during a whole scan is
//!    returned, whatever is added and removed meanwhile.

use std::sync::Arc;

use base::digest::{Domain, Hasher};
use base::{Digest, Reader, codec};

use super::{Blob, ELEMENTS_MAX, Result, TAG_LEAF, digest_of_children};
use base::Malformed;

/// Most elements of a leaf.
const LEAF_MAX: usize = 256;

/// Children of an inner node.
const FAN_OUT: usize = 16;

/// Depth at which all bits of the place are used up: nodes there are leaves whatever they hold.
const DEPTH_MAX: u32 = 16;

/// What a trie maps its keys to.
pub trait Value: Clone {
    /// Adds the value to the digest of its leaf, in a form that tells it from every other value.
    fn fold(&mut self, hasher: &mut Hasher);

    /// Bytes that [`Value::encode`] appends.
    fn encoded_len(&self) -> usize;

    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`Value::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no value.
    fn decode(r: &mut Reader<'_>) -> Result<Self>;
}

impl Value for () {
    fn fold(&mut self, _hasher: &mut Hasher) {}

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _out: &mut Vec<u8>) {}

    fn decode(_r: &mut Reader<'_>) -> Result<()> {
        Ok(())
    }
}

impl Value for Blob {
    fn fold(&mut self, hasher: &mut Hasher) {
        Blob::fold(self, hasher);
    }

    fn encoded_len(&self) -> usize {
        Blob::encoded_len(self)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        Blob::encode(self, out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Blob> {
        Blob::decode(r)
    }
}

/// A map from byte strings to values with an incremental, canonical digest.
#[derive(Clone, Debug)]
pub struct Trie<V> {
    root: Node<V>,
    /// Bytes of all elements as they are encoded.
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    place: u64,
    key: Blob,
    value: V,
}

#[derive(Clone, Debug)]
struct Node<V> {
    digest: Option<Digest>,
    kind: Kind<V>,
}

#[derive(Clone, Debug)]
enum Kind<V> {
    Leaf(Vec<Entry<V>>),
    Inner { count: usize, children: Box<[Node<V>; FAN_OUT]> },
}

impl<V: Value> Default for Trie<V> {
    fn default() -> Trie<V> {
        Trie::new()
    }
}

impl<V: Value> Trie<V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Trie<V> {
        Trie { root: Node::leaf(Vec::new()), bytes: 0 }
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

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        let place = place(key);
        let (mut node, mut depth) = (&self.root, 0);
        loop {
            match &node.kind {
                Kind::Leaf(entries) => {
                    let at = position(entries, place, key).ok()?;
                    return Some(&entries[at].value);
                }
                Kind::Inner { children, .. } => {
                    node = &children[nibble(place, depth)];
                    depth += 1;
                }
            }
        }
    }

    /// Whether `key` is there.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of `key` and returns the one before.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        self.set(key, &mut || Blob::new(key), value)
    }

    /// As [`Trie::insert`], for a key that is shared rather than copied if it is new.
    pub fn insert_shared(&mut self, key: &Arc<[u8]>, value: V) -> Option<V> {
        self.set(key, &mut || Blob::from(Arc::clone(key)), value)
    }

    fn set(&mut self, key: &[u8], own: &mut dyn FnMut() -> Blob, value: V) -> Option<V> {
        self.bytes += 4 + key.len() + value.encoded_len();
        let old = self.root.insert(place(key), key, own, value, 0);
        self.bytes -= old.as_ref().map_or(0, |old| 4 + key.len() + old.encoded_len());
        old
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        if !self.contains(key) {
            // A miss must not drop the digests on its way.
            return None;
        }
        let value = self.root.remove(place(key), key, 0);
        self.bytes -= 4 + key.len() + value.encoded_len();
        Some(value)
    }

    /// The element at `index` in iteration order.
    #[must_use]
    pub fn nth(&self, index: usize) -> Option<(&Blob, &V)> {
        let (mut node, mut rest) = (&self.root, index);
        loop {
            match &node.kind {
                Kind::Leaf(entries) => return entries.get(rest).map(|e| (&e.key, &e.value)),
                Kind::Inner { children, .. } => {
                    node = children.iter().find(|child| {
                        let inside = rest < child.count();
                        rest -= if inside { 0 } else { child.count() };
                        inside
                    })?;
                }
            }
        }
    }

    /// All elements in ascending (place, key).
    pub fn iter(&self) -> Iter<'_, V> {
        self.iter_from(0)
    }

    /// Hands elements to `each`, starting at `cursor`, until `count` were handed out. Returns the
    /// cursor to go on from, 0 at the end.
    pub fn scan<'t>(
        &'t self,
        cursor: u64,
        count: usize,
        mut each: impl FnMut(&'t Blob, &'t V),
    ) -> u64 {
        let mut iter = self.iter_from(cursor);
        let (mut seen, mut last) = (0, None);
        while let Some(entry) = iter.next_entry() {
            if seen >= count && last != Some(entry.place) {
                return entry.place;
            }
            seen += 1;
            last = Some(entry.place);
            each(&entry.key, &entry.value);
        }
        0
    }

    /// The digest of the content.
    pub fn digest(&mut self) -> Digest {
        self.root.digest()
    }

    /// Bytes that [`Trie::encode`] appends, without a walk.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        4 + self.bytes
    }

    /// Appends all elements in iteration order.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::Writer::new(out).count(self.len());
        let mut iter = self.iter();
        while let Some(entry) = iter.next_entry() {
            entry.key.encode(out);
            entry.value.encode(out);
        }
    }

    /// Reads what [`Trie::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are cut short, or the elements are not in iteration order.
    pub fn decode(r: &mut Reader<'_>) -> Result<Trie<V>> {
        let count = r.count(ELEMENTS_MAX, 4, "trie")?;
        let mut entries: Vec<Entry<V>> = Vec::with_capacity(count);
        for _ in 0..count {
            let key = Blob::decode(r)?;
            let entry = Entry { place: place(&key), key, value: V::decode(r)? };
            if entries.last().is_some_and(|last| last.rank(entry.place, &entry.key).is_ge()) {
                return Err(Malformed("order of trie"));
            }
            entries.push(entry);
        }
        let bytes = entries.iter().map(|e| e.key.encoded_len() + e.value.encoded_len()).sum();
        Ok(Trie { root: Node::build(entries, 0), bytes })
    }

    fn iter_from(&self, place: u64) -> Iter<'_, V> {
        let mut iter = Iter { nodes: Vec::new(), entries: [].iter() };
        let (mut node, mut depth) = (&self.root, 0);
        loop {
            match &node.kind {
                Kind::Leaf(entries) => {
                    let start = entries.partition_point(|entry| entry.place < place);
                    iter.entries = entries[start..].iter();
                    return iter;
                }
                Kind::Inner { children, .. } => {
                    let child = nibble(place, depth);
                    iter.nodes.push(children[child + 1..].iter());
                    node = &children[child];
                    depth += 1;
                }
            }
        }
    }
}

impl<V: Value> Node<V> {
    fn leaf(entries: Vec<Entry<V>>) -> Node<V> {
        Node { digest: None, kind: Kind::Leaf(entries) }
    }

    /// The canonical node over sorted `entries`.
    fn build(entries: Vec<Entry<V>>, depth: u32) -> Node<V> {
        if entries.len() <= LEAF_MAX || depth == DEPTH_MAX {
            return Node::leaf(entries);
        }
        let count = entries.len();
        let mut parts: [Vec<Entry<V>>; FAN_OUT] = std::array::from_fn(|_| Vec::new());
        for entry in entries {
            parts[nibble(entry.place, depth)].push(entry);
        }
        let children = Box::new(parts.map(|part| Node::build(part, depth + 1)));
        Node { digest: None, kind: Kind::Inner { count, children } }
    }

    fn count(&self) -> usize {
        match &self.kind {
            Kind::Leaf(entries) => entries.len(),
            Kind::Inner { count, .. } => *count,
        }
    }

    fn insert(
        &mut self,
        place: u64,
        key: &[u8],
        own: &mut dyn FnMut() -> Blob,
        value: V,
        depth: u32,
    ) -> Option<V> {
        self.digest = None;
        let entries = match &mut self.kind {
            Kind::Inner { count, children } => {
                let child = &mut children[nibble(place, depth)];
                let old = child.insert(place, key, own, value, depth + 1);
                *count += usize::from(old.is_none());
                return old;
            }
            Kind::Leaf(entries) => entries,
        };
        match position(entries, place, key) {
            Ok(at) => Some(std::mem::replace(&mut entries[at].value, value)),
            Err(at) => {
                entries.insert(at, Entry { place, key: own(), value });
                if entries.len() > LEAF_MAX && depth < DEPTH_MAX {
                    *self = Node::build(std::mem::take(entries), depth);
                }
                None
            }
        }
    }

    /// Removes a key that is there.
    fn remove(&mut self, place: u64, key: &[u8], depth: u32) -> V {
        self.digest = None;
        match &mut self.kind {
            Kind::Leaf(entries) => {
                let at = position(entries, place, key).expect("the caller saw the key");
                let value = entries.remove(at).value;
                if entries.len() * 4 < entries.capacity() {
                    entries.shrink_to(entries.len() * 2);
                }
                value
            }
            Kind::Inner { count, children } => {
                let value = children[nibble(place, depth)].remove(place, key, depth + 1);
                *count -= 1;
                if *count <= LEAF_MAX {
                    let mut entries = Vec::with_capacity(*count);
                    children.iter_mut().for_each(|child| child.drain_into(&mut entries));
                    *self = Node::leaf(entries);
                }
                value
            }
        }
    }

    fn drain_into(&mut self, out: &mut Vec<Entry<V>>) {
        match &mut self.kind {
            Kind::Leaf(entries) => out.append(entries),
            Kind::Inner { children, .. } => {
                children.iter_mut().for_each(|child| child.drain_into(out));
            }
        }
    }

    fn digest(&mut self) -> Digest {
        if let Some(digest) = self.digest {
            return digest;
        }
        let digest = match &mut self.kind {
            Kind::Leaf(entries) => {
                let mut hasher = Hasher::new(Domain::Service);
                hasher.update(&[TAG_LEAF]).update_u64(entries.len() as u64);
                for entry in entries {
                    entry.key.fold(&mut hasher);
                    entry.value.fold(&mut hasher);
                }
                hasher.finish()
            }
            Kind::Inner { children, .. } => {
                digest_of_children(children.iter_mut().map(Node::digest))
            }
        };
        self.digest = Some(digest);
        digest
    }
}

impl<V> Entry<V> {
    fn rank(&self, place: u64, key: &[u8]) -> std::cmp::Ordering {
        self.place.cmp(&place).then_with(|| self.key.as_bytes().cmp(key))
    }
}

/// Iterates over a trie in ascending (place, key).
#[derive(Debug)]
pub struct Iter<'a, V> {
    nodes: Vec<std::slice::Iter<'a, Node<V>>>,
    entries: std::slice::Iter<'a, Entry<V>>,
}

impl<'a, V> Iter<'a, V> {
    fn next_entry(&mut self) -> Option<&'a Entry<V>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            match self.nodes.last_mut()?.next() {
                None => {
                    self.nodes.pop();
                }
                Some(node) => match &node.kind {
                    Kind::Leaf(entries) => self.entries = entries.iter(),
                    Kind::Inner { children, .. } => self.nodes.push(children.iter()),
                },
            }
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Blob, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().map(|entry| (&entry.key, &entry.value))
    }
}

/// Where a key belongs: 64 bits that nobody can steer.
fn place(key: &[u8]) -> u64 {
    let digest = Digest::of(Domain::Service, key).0;
    u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

fn nibble(place: u64, depth: u32) -> usize {
    (place >> (60 - 4 * depth)) as usize & (FAN_OUT - 1)
}

fn position<V>(entries: &[Entry<V>], place: u64, key: &[u8]) -> std::result::Result<usize, usize> {
    entries.binary_search_by(|entry| entry.rank(place, key))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;
    use std::collections::BTreeMap;

    fn key(n: u64) -> Vec<u8> {
        format!("key:{n}").into_bytes()
    }

    fn rebuilt(trie: &Trie<Blob>) -> Trie<Blob> {
        let mut bytes = Vec::new();
        trie.encode(&mut bytes);
        let mut r = Reader::new(&bytes);
        let decoded = Trie::decode(&mut r).expect("own encoding");
        r.finish("trie").expect("nothing left");
        assert_eq!([trie.encoded_len(), decoded.encoded_len()], [bytes.len(); 2]);
        decoded
    }

    fn check(trie: &mut Trie<Blob>, twin: &BTreeMap<Vec<u8>, Vec<u8>>) {
        assert_eq!(trie.len(), twin.len());
        let all: BTreeMap<Vec<u8>, Vec<u8>> =
            trie.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        assert_eq!(&all, twin);
        for (index, (k, _)) in trie.iter().enumerate().step_by(37) {
            assert_eq!(trie.nth(index).expect("in range").0, k);
        }
        assert!(trie.nth(trie.len()).is_none());
        assert_eq!(trie.digest(), rebuilt(trie).digest());
    }

    /// Grows and shrinks across the limits of a leaf, next to a map of the standard library.
    #[test]
    fn behaves_as_a_map_and_its_digest_follows() {
        let (mut trie, mut twin) = (Trie::<Blob>::new(), BTreeMap::new());
        let mut rng = Rng(1);
        for round in 0..40_000u64 {
            let space = if (round / 4000).is_multiple_of(2) { 6000 } else { 300 };
            let k = key(rng.below(space));
            if (round / 4000) % 4 < 2 && rng.below(4) > 0 {
                let value = vec![b'x'; rng.below(600) as usize];
                let old = trie.insert(&k, Blob::new(&value));
                assert_eq!(old.map(|b| b.to_vec()), twin.insert(k, value));
            } else {
                let k = twin.range(k.clone()..).next().map_or(k, |(k, _)| k.clone());
                assert_eq!(trie.get(&k).map(|b| b.to_vec()), twin.get(&k).cloned());
                assert_eq!(trie.remove(&k).map(|b| b.to_vec()), twin.remove(&k));
            }
            if rng.below(500) == 0 {
                check(&mut trie, &twin);
            }
        }
        check(&mut trie, &twin);
        while let Some(k) = trie.nth(0).map(|(k, _)| k.to_vec()) {
            assert!(trie.remove(&k).is_some());
        }
        assert_eq!(trie.digest(), Trie::<Blob>::new().digest());
    }

    #[test]
    fn the_digest_does_not_know_the_order_of_insertion() {
        let mut rng = Rng(2);
        for size in [1u64, 255, 256, 257, 258, 5000] {
            let mut keys: Vec<u64> = (0..size).collect();
            let mut digests = Vec::new();
            for extra in 0..4u64 {
                rng.shuffle(&mut keys);
                let mut trie = Trie::<()>::new();
                for k in &keys {
                    trie.insert(&key(*k), ());
                }
                for k in 0..extra * 200 {
                    trie.insert(&key(size + k), ());
                }
                trie.digest();
                for k in 0..extra * 200 {
                    trie.remove(&key(size + k));
                }
                digests.push(trie.digest());
            }
            assert!(digests.iter().all(|d| *d == digests[0]), "size {size}");
        }
    }

    #[test]
    fn every_change_changes_the_digest() {
        let mut trie = Trie::<Blob>::new();
        let mut seen = vec![trie.digest()];
        for n in 0..600 {
            trie.insert(&key(n), Blob::new(&vec![1; n as usize]));
            seen.push(trie.digest());
        }
        for n in 0..600 {
            trie.insert(&key(n), Blob::new(&vec![2; n as usize + 1]));
            seen.push(trie.digest());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1201);
    }

    #[test]
    fn a_scan_returns_what_is_there_all_the_time() {
        let mut trie = Trie::<()>::new();
        for n in 0..3000 {
            trie.insert(&key(n), ());
        }
        let (mut seen, mut cursor, mut n) = (std::collections::BTreeSet::new(), 0, 0);
        loop {
            cursor = trie.scan(cursor, 10, |k, ()| {
                seen.insert(k.to_vec());
            });
            trie.insert(&key(10_000 + n), ());
            trie.remove(&key(n));
            n += 1;
            if cursor == 0 {
                break;
            }
        }
        (n..3000).for_each(|n| assert!(seen.contains(&key(n)), "{n}"));
    }

    #[test]
    fn only_the_canonical_order_is_decoded() {
        let mut trie = Trie::<()>::new();
        trie.insert(b"a", ());
        trie.insert(b"b", ());
        let mut bytes = Vec::new();
        trie.encode(&mut bytes);
        assert!(Trie::<()>::decode(&mut Reader::new(&bytes)).is_ok());
        bytes.swap(8, 13);
        assert!(Trie::<()>::decode(&mut Reader::new(&bytes)).is_err());
        assert!(Trie::<()>::decode(&mut Reader::new(&bytes[..9])).is_err());
    }
}
