//! A sorted set: the trie from members to scores, and the members in order.
//!
//! Only the trie is state: it alone is digested and encoded. The order is derived from it and
//! shares the bytes of the members.
//!
//! Scores are `f64` as in Redis. What is done with them is comparison, addition and
//! multiplication, which IEEE 754 defines to the bit, so that replicas agree whatever they run
//! on. A score is never NaN.
//!
//! A sorted set is *compact* until it has more than 128 members or a member of more than 64
//! bytes, and never again, as Redis keeps it in one piece until then. It shows in two places: a
//! compact one keeps minus nought as nought, and ZSCAN shows all digits of its integers.

use std::sync::Arc;

use base::digest::{Domain, Hasher};
use base::{Digest, Malformed, Reader, codec};

use super::ranked::Ranking;
use super::trie::Value;
use super::{Blob, Ranked, Result, Trie};

/// The score of a member, with its bytes shared with the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score(pub f64);

impl Value for Score {
    fn fold(&mut self, hasher: &mut Hasher) {
        hasher.update_u64(self.0.to_bits());
    }

    fn encoded_len(&self) -> usize {
        8
    }

    fn encode(&self, out: &mut Vec<u8>) {
        codec::Writer::new(out).u64(self.0.to_bits());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Score> {
        let score = f64::from_bits(r.u64("score")?);
        if score.is_nan() { Err(Malformed("score")) } else { Ok(Score(score)) }
    }
}

/// Members with scores, by member and in the order of (score, member).
#[derive(Clone, Debug)]
pub struct Zset {
    compact: bool,
    scores: Trie<Score>,
    order: Ranked,
}

/// Most members of a compact sorted set.
const COMPACT_LEN_MAX: usize = 128;

/// Longest member of a compact sorted set, in bytes.
const COMPACT_MEMBER_MAX: usize = 64;

impl Default for Zset {
    fn default() -> Zset {
        Zset::new()
    }
}

impl Zset {
    /// An empty sorted set.
    #[must_use]
    pub fn new() -> Zset {
        Zset { compact: true, scores: Trie::new(), order: Ranked::new() }
    }

    /// An empty sorted set for these members: compact if it will be with all of them.
    #[must_use]
    pub fn for_members<'m>(len: usize, mut members: impl Iterator<Item = &'m [u8]>) -> Zset {
        let compact = len <= COMPACT_LEN_MAX && members.all(|m| m.len() <= COMPACT_MEMBER_MAX);
        Zset { compact, ..Zset::new() }
    }

    /// Whether it has always been small.
    #[must_use]
    pub fn is_compact(&self) -> bool {
        self.compact
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The score of `member`.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).map(|score| score.0)
    }

    /// Sets the score of `member` and returns the one before. A compact one takes minus nought
    /// as nought.
    ///
    /// # Panics
    /// When the score is NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        assert!(!score.is_nan(), "a score is never NaN");
        let old = self.score(member);
        let fits = member.len() <= COMPACT_MEMBER_MAX && self.len() < COMPACT_LEN_MAX;
        self.compact &= old.is_some() || fits;
        // Adding nought makes nought of minus nought.
        let score = if self.compact { score + 0.0 } else { score };
        let shared: Arc<[u8]> = member.into();
        self.scores.insert_shared(&shared, Score(score));
        if let Some(old) = old {
            self.order.remove(old, member);
        }
        self.order.insert(score, shared);
        old
    }

    /// Removes `member` and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?.0;
        let there = self.order.remove(score, member);
        debug_assert!(there, "trie and order hold the same members");
        Some(score)
    }

    /// Removes the members with the ranks `start..end` and returns them with their scores,
    /// ascending.
    pub fn remove_range(&mut self, start: usize, end: usize) -> Vec<Ranking> {
        let gone = self.order.remove_range(start, end);
        for (_, member) in &gone {
            let score = self.scores.remove(member);
            debug_assert!(score.is_some(), "trie and order hold the same members");
        }
        gone
    }

    /// The rank of `member`, counted from the lowest score.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        Some(self.order.rank(self.score(member)?, member))
    }

    /// The members in order.
    #[must_use]
    pub fn order(&self) -> &Ranked {
        &self.order
    }

    /// The members in the order of the trie, as random choice and scan see them.
    #[must_use]
    pub fn scores(&self) -> &Trie<Score> {
        &self.scores
    }

    /// The digest of members and scores, and of whether it is compact.
    pub fn digest(&mut self) -> Digest {
        let mut hasher = Hasher::new(Domain::Service);
        hasher.update(&[u8::from(self.compact)]).update(&self.scores.digest().0);
        hasher.finish()
    }

    /// Bytes that [`Zset::encode`] appends, without a walk.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        1 + self.scores.encoded_len()
    }

    /// Appends whether it is compact, members and scores.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::Writer::new(out).u8(u8::from(self.compact));
        self.scores.encode(out);
    }

    /// Reads what [`Zset::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are cut short, not in the order of the trie, or hold a NaN.
    pub fn decode(r: &mut Reader<'_>) -> Result<Zset> {
        let compact = match r.u8("compactness")? {
            flag @ 0..=1 => flag == 1,
            _ => return Err(Malformed("compactness")),
        };
        let scores: Trie<Score> = Trie::decode(r)?;
        let order = scores.iter().map(|(member, score)| (score.0, Blob::share(member))).collect();
        Ok(Zset { compact, order: Ranked::build(order), scores })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ranked;
    use super::super::testing::Rng;
    use super::*;
    use std::collections::BTreeMap;

    fn check(zset: &mut Zset, twin: &BTreeMap<Vec<u8>, f64>) {
        let mut sorted: Vec<(f64, Vec<u8>)> = twin.iter().map(|(m, s)| (*s, m.clone())).collect();
        sorted.sort_by(|a, b| ranked::order((a.0, &a.1), (b.0, &b.1)));
        let own = |entry: &ranked::Ranking| (entry.0, entry.1.to_vec());
        assert!(zset.order().iter().map(own).eq(sorted.iter().cloned()));
        let len = sorted.len();
        for (start, end) in [(0, len), (len / 3, len / 2), (len / 2, len + 5), (len, len + 1)] {
            let expected = &sorted[start..end.min(len)];
            assert!(zset.order().range(start, end).map(own).eq(expected.iter().cloned()));
            assert!(zset.order().range_rev(start, end).map(own).eq(expected.iter().rev().cloned()));
        }
        for (rank, (score, member)) in sorted.iter().enumerate().step_by(61) {
            assert_eq!(zset.rank(member), Some(rank));
            assert_eq!(zset.order().nth(rank).map(own), Some((*score, member.clone())));
            let not_above = zset.order().partition(|entry| entry.0 <= *score);
            assert_eq!(not_above, sorted.partition_point(|entry| entry.0 <= *score));
        }
        let mut bytes = Vec::new();
        zset.encode(&mut bytes);
        assert_eq!(zset.encoded_len(), bytes.len());
        let mut decoded = Zset::decode(&mut Reader::new(&bytes)).expect("own encoding");
        assert_eq!(decoded.digest(), zset.digest());
        assert!(decoded.order().iter().eq(zset.order().iter()));
        for name in [&b"m1"[..], b"m15", b"m2222", b"m9"] {
            let found = |zset: &Zset| zset.order().partition_names(|other| other < name);
            assert_eq!(found(&decoded), found(zset), "other chunks, another answer");
        }
    }

    #[test]
    fn behaves_as_a_sorted_vector_and_its_digest_follows() {
        let mut rng = Rng(5);
        let (mut zset, mut twin) = (Zset::new(), BTreeMap::new());
        for round in 0..40_000u64 {
            let member = format!("m{}", rng.below(3000)).into_bytes();
            let score = [-0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1.5]
                .get(rng.below(40) as usize)
                .copied()
                .unwrap_or(rng.below(500) as f64 / 4.0);
            if round % 16_000 < 8000 && rng.below(3) > 0 {
                assert_eq!(zset.insert(&member, score), twin.insert(member, score));
            } else {
                assert_eq!(zset.remove(&member), twin.remove(&member));
            }
            if rng.below(400) == 0 {
                let (start, len) = (rng.below(1000) as usize, rng.below(300) as usize);
                for (score, member) in zset.remove_range(start, start + len) {
                    assert_eq!(twin.remove(&*member), Some(score));
                }
                assert_eq!(zset.len(), twin.len());
            }
            if rng.below(1000) == 0 {
                check(&mut zset, &twin);
            }
        }
        check(&mut zset, &twin);
    }

    #[test]
    fn what_was_large_once_stays_large() {
        let bits = |zset: &Zset| zset.score(b"0").map(f64::to_bits);
        let mut zset = Zset::new();
        zset.insert(b"0", -0.0);
        assert!(zset.is_compact() && bits(&zset) == Some(0));
        for n in 0..COMPACT_LEN_MAX + 1 {
            zset.insert(n.to_string().as_bytes(), 1.0);
        }
        assert!(!zset.is_compact());
        for n in 1..COMPACT_LEN_MAX + 1 {
            zset.remove(n.to_string().as_bytes());
        }
        zset.insert(b"0", -0.0);
        assert!(!zset.is_compact() && bits(&zset) == Some((-0.0f64).to_bits()));
        let mut fresh = Zset::new();
        fresh.insert(b"0", -0.0);
        assert_ne!(zset.digest(), fresh.digest());
        fresh.insert(&[b'x'; COMPACT_MEMBER_MAX + 1], 1.0);
        assert!(!fresh.is_compact());
    }

    #[test]
    fn no_nan_is_decoded() {
        let mut trie = Trie::<Score>::new();
        trie.insert(b"a", Score(1.0));
        let mut bytes = vec![1];
        trie.encode(&mut bytes);
        assert!(Zset::decode(&mut Reader::new(&bytes)).is_ok());
        let at = bytes.len() - 8;
        bytes[at..].copy_from_slice(&f64::NAN.to_bits().to_le_bytes());
        assert!(Zset::decode(&mut Reader::new(&bytes)).is_err());
    }
}
