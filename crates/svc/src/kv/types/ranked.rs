//! The members of a sorted set in the order of (score, member), found by rank or by bound.
//!
//! Chunks of up to 256 entries in one vector: insertion and search cost a binary search, a rank
//! costs the sum of the chunk lengths before it. Derived data: not encoded and in no digest, so
//! the boundaries of the chunks depend on the history, and no answer may depend on them.
//!
//! Invariants: no chunk is empty; entries ascend strictly over all chunks; no score is NaN; of two
//! neighbours where something was removed, not both are small.

use std::cmp::Ordering;
use std::sync::Arc;

/// Most entries of a chunk.
const CHUNK_MAX: usize = 256;

/// A score and its member.
pub type Ranking = (f64, Arc<[u8]>);

/// Entries in the order of (score, member).
#[derive(Clone, Debug, Default)]
pub struct Ranked {
    chunks: Vec<Vec<Ranking>>,
    len: usize,
}

/// The order of sorted sets: by score, equal scores by the bytes of the member.
#[must_use]
pub fn order(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    a.0.partial_cmp(&b.0).expect("no score is NaN").then_with(|| a.1.cmp(b.1))
}

impl Ranked {
    /// Nothing.
    #[must_use]
    pub fn new() -> Ranked {
        Ranked::default()
    }

    /// Builds from entries in any order.
    #[must_use]
    pub fn build(mut entries: Vec<Ranking>) -> Ranked {
        entries.sort_unstable_by(|a, b| order((a.0, &a.1), (b.0, &b.1)));
        let len = entries.len();
        let mut entries = entries.into_iter();
        let mut chunks = Vec::with_capacity(len.div_ceil(CHUNK_MAX / 2));
        while entries.len() > 0 {
            chunks.push(entries.by_ref().take(CHUNK_MAX / 2).collect());
        }
        Ranked { chunks, len }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry that is not there.
    pub fn insert(&mut self, score: f64, member: Arc<[u8]>) {
        self.len += 1;
        if self.chunks.is_empty() {
            return self.chunks.push(vec![(score, member)]);
        }
        let below = |entry: &Ranking| order((entry.0, &entry.1), (score, &member)).is_lt();
        let at = self.chunk(below).min(self.chunks.len() - 1);
        let chunk = &mut self.chunks[at];
        let inside = chunk.partition_point(below);
        let len = chunk.len();
        chunk.insert(inside, (score, member));
        if chunk.len() > CHUNK_MAX {
            // Ascending insertions, the usual case, leave full chunks behind.
            let right = chunk.split_off(if inside == len { len } else { len / 2 });
            self.chunks.insert(at + 1, right);
        }
    }

    /// Removes an entry; whether it was there.
    pub fn remove(&mut self, score: f64, member: &[u8]) -> bool {
        let below = |entry: &Ranking| order((entry.0, &entry.1), (score, member)).is_lt();
        let at = self.chunk(below);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let inside = chunk.partition_point(below);
        if chunk.get(inside).is_none_or(|entry| *entry.1 != *member || entry.0 != score) {
            return false;
        }
        chunk.remove(inside);
        self.len -= 1;
        self.tidy(at);
        true
    }

    /// Removes the entries with ranks `start..end` and returns them, ascending.
    pub fn remove_range(&mut self, start: usize, end: usize) -> Vec<Ranking> {
        let mut left = end.min(self.len).saturating_sub(start);
        let mut gone = Vec::with_capacity(left);
        let Some((first, mut inside)) = self.locate(start) else { return gone };
        let mut at = first;
        while left > 0 {
            let chunk = &mut self.chunks[at];
            let count = left.min(chunk.len() - inside);
            gone.extend(chunk.drain(inside..inside + count));
            (left, at, inside) = (left - count, at + 1, 0);
        }
        // What is empty now is in one piece.
        let from = first + usize::from(!self.chunks[first].is_empty());
        let to = at - usize::from(at > first && !self.chunks[at - 1].is_empty());
        if from < to {
            self.chunks.drain(from..to);
        }
        self.len -= gone.len();
        self.tidy(from);
        self.tidy(first);
        gone
    }

    /// Joins a chunk that has become smaller with one beside it, if both are small, so that there
    /// are not many more chunks than full ones would be.
    fn tidy(&mut self, at: usize) {
        for left in [Some(at), at.checked_sub(1)].into_iter().flatten() {
            let Some([one, other]) = self.chunks.get_mut(left..left + 2) else { continue };
            let (a, b) = (one.len(), other.len());
            if a == 0 || b == 0 || a + b <= CHUNK_MAX / 2 {
                one.append(other);
                self.chunks.remove(left + 1);
            }
        }
        if self.len == 0 {
            self.chunks.clear();
        }
    }

    /// Number of entries before the first for which `below` is false. `below` must be true for a
    /// prefix of the order, or the answer depends on the chunks.
    #[must_use]
    pub fn partition(&self, below: impl Fn(&Ranking) -> bool + Copy) -> usize {
        let at = self.chunk(below);
        let before: usize = self.chunks[..at].iter().map(Vec::len).sum();
        before + self.chunks.get(at).map_or(0, |chunk| chunk.partition_point(below))
    }

    /// Number of entries before the first whose name is not `below`, for a `below` that is true
    /// for a prefix of the order of names.
    ///
    /// Where scores differ, names are in no order, and there may be many such places. Which one
    /// is found follows from the entries alone: replicas with the same entries in other chunks
    /// find the same.
    #[must_use]
    pub fn partition_names(&self, below: impl Fn(&[u8]) -> bool + Copy) -> usize {
        let ends = self.nth(0).zip(self.chunks.last().and_then(|chunk| chunk.last()));
        if ends.is_none_or(|(first, last)| first.0 == last.0) {
            return self.partition(|entry| below(&entry.1));
        }
        // Where each chunk begins: a probe would count them all up else.
        let begins: Vec<usize> = self
            .chunks
            .iter()
            .scan(0, |begin, chunk| Some(std::mem::replace(begin, *begin + chunk.len())))
            .collect();
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            let chunk = begins.partition_point(|begin| *begin <= middle) - 1;
            let is_below = below(&self.chunks[chunk][middle - begins[chunk]].1);
            (low, high) = if is_below { (middle + 1, high) } else { (low, middle) };
        }
        low
    }

    /// The rank of an entry that may be there.
    #[must_use]
    pub fn rank(&self, score: f64, member: &[u8]) -> usize {
        self.partition(|entry| order((entry.0, &entry.1), (score, member)).is_lt())
    }

    /// The entry at `rank`.
    #[must_use]
    pub fn nth(&self, rank: usize) -> Option<&Ranking> {
        let (chunk, inside) = self.locate(rank)?;
        self.chunks[chunk].get(inside)
    }

    /// Entries with ranks `start..end`, ascending.
    pub fn range(&self, start: usize, end: usize) -> impl Iterator<Item = &Ranking> {
        let (chunk, inside) = self.locate(start).unwrap_or((self.chunks.len(), 0));
        let count = end.saturating_sub(start);
        self.chunks[chunk..].iter().flatten().skip(inside).take(count)
    }

    /// Entries with ranks `start..end`, descending.
    pub fn range_rev(&self, start: usize, end: usize) -> impl Iterator<Item = &Ranking> {
        let end = end.min(self.len);
        let count = end.saturating_sub(start);
        let last = end.checked_sub(1).and_then(|last| self.locate(last));
        let (chunks, skip) = match last {
            Some((chunk, inside)) => (chunk + 1, self.chunks[chunk].len() - 1 - inside),
            None => (0, 0),
        };
        self.chunks[..chunks].iter().rev().flat_map(|c| c.iter().rev()).skip(skip).take(count)
    }

    /// All entries, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Ranking> {
        self.chunks.iter().flatten()
    }

    /// The first chunk whose last entry is not below.
    fn chunk(&self, below: impl Fn(&Ranking) -> bool) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(&below))
    }

    fn locate(&self, rank: usize) -> Option<(usize, usize)> {
        let mut rest = rank;
        let at = self.chunks.iter().position(|chunk| {
            let inside = rest < chunk.len();
            rest -= if inside { 0 } else { chunk.len() };
            inside
        })?;
        Some((at, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: u32) -> Ranked {
        let mut ranked = Ranked::new();
        (0..len).for_each(|n| ranked.insert(f64::from(n), n.to_be_bytes().as_slice().into()));
        ranked
    }

    fn check(ranked: &Ranked, scores: impl Iterator<Item = u32>) {
        assert!(ranked.iter().map(|entry| entry.0).eq(scores.map(f64::from)));
        assert_eq!(ranked.len(), ranked.iter().count());
        assert!(ranked.chunks.iter().all(|chunk| !chunk.is_empty()));
        let most = ranked.len() / (CHUNK_MAX / 4) + 2;
        assert!(ranked.chunks.len() <= most, "{} for {}", ranked.chunks.len(), ranked.len());
    }

    #[test]
    fn what_is_left_of_many_chunks_is_joined() {
        let mut ranked = filled(100_000);
        for n in (0..100_000u32).filter(|n| n % 250 != 0) {
            assert!(ranked.remove(f64::from(n), &n.to_be_bytes()));
        }
        check(&ranked, (0..100_000).step_by(250));
    }

    #[test]
    fn ranges_are_removed_wherever_they_begin_and_end() {
        for start in [0, 1, 255, 256, 257, 300, 1000, 1999] {
            for len in [0, 1, 2, 255, 256, 257, 600, 1500, 3000] {
                let mut ranked = filled(2000);
                let end = (start + len).min(2000);
                let gone = ranked.remove_range(start as usize, (start + len) as usize);
                let gone = gone.into_iter().map(|entry| entry.0);
                assert!(gone.eq((start..end).map(f64::from)), "{start} {len}");
                check(&ranked, (0..start).chain(end..2000));
            }
        }
        assert!(filled(10).remove_range(10, 20).is_empty());
    }
}
