//! Quorum arithmetic and sets of voters. Quorums count distinct senders, never messages.

use crate::id::ReplicaId;

/// The sizes that follow from n replicas of which at most f may be faulty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorums {
    n: u16,
    f: u16,
}

impl Quorums {
    /// Sizes for a `pbft` group.
    ///
    /// # Errors
    /// Returns `None` unless 3f + 1 <= n <= [`crate::limits::REPLICAS_MAX`].
    #[must_use]
    pub fn pbft(n: u16, f: u16) -> Option<Quorums> {
        let needed = u32::from(f) * 3 + 1;
        let fits = usize::from(n) <= crate::limits::REPLICAS_MAX;
        (u32::from(n) >= needed && fits).then_some(Quorums { n, f })
    }

    /// Replicas in the group.
    #[must_use]
    pub fn n(self) -> u16 {
        self.n
    }

    /// Replicas that may be faulty.
    #[must_use]
    pub fn f(self) -> u16 {
        self.f
    }

    /// A quorum: any two share a correct replica. 2f + 1 when n = 3f + 1, in general
    /// ceil((n + f + 1) / 2).
    #[must_use]
    pub fn quorum(self) -> usize {
        (usize::from(self.n) + usize::from(self.f) + 2) / 2
    }

    /// A weak quorum, f + 1: at least one correct replica is among them.
    #[must_use]
    pub fn weak(self) -> usize {
        usize::from(self.f) + 1
    }

    /// All replicas in ascending order.
    pub fn replicas(self) -> impl Iterator<Item = ReplicaId> {
        (0..self.n).map(ReplicaId)
    }
}

/// A set of replicas, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct VoteSet(u64);

impl VoteSet {
    /// No replicas.
    pub const EMPTY: VoteSet = VoteSet(0);

    /// Adds `replica`; false when it was there already.
    ///
    /// # Panics
    /// When the id is not below [`crate::limits::REPLICAS_MAX`]: ids are checked against the
    /// membership where they enter.
    pub fn insert(&mut self, replica: ReplicaId) -> bool {
        assert!(usize::from(replica.0) < crate::limits::REPLICAS_MAX);
        let bit = 1u64 << replica.0;
        let fresh = self.0 & bit == 0;
        self.0 |= bit;
        fresh
    }

    /// Whether `replica` is in the set.
    #[must_use]
    pub fn contains(self, replica: ReplicaId) -> bool {
        usize::from(replica.0) < crate::limits::REPLICAS_MAX && self.0 >> replica.0 & 1 == 1
    }

    /// Number of replicas in the set.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Who is in one of the two.
    #[must_use]
    pub fn union(self, other: VoteSet) -> VoteSet {
        VoteSet(self.0 | other.0)
    }

    /// The set as bits, replica 0 the lowest.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set that has these bits.
    #[must_use]
    pub fn from_bits(bits: u64) -> VoteSet {
        VoteSet(bits)
    }

    /// Members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ReplicaId> {
        (0..u16::try_from(u64::BITS).expect("64 fits"))
            .map(ReplicaId)
            .filter(move |r| self.contains(*r))
    }
}

impl FromIterator<ReplicaId> for VoteSet {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(replicas: I) -> VoteSet {
        let mut set = VoteSet::EMPTY;
        for replica in replicas {
            set.insert(replica);
        }
        set
    }
}

const _: () = assert!(crate::limits::REPLICAS_MAX <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    /// The dumb twin: in every group, two quorums share a correct replica, and a quorum exists
    /// without the f faulty ones.
    #[test]
    fn quorums_intersect_in_a_correct_replica_and_are_reachable() {
        for f in 0..=21u16 {
            for n in (3 * f + 1)..=64 {
                let q = Quorums::pbft(n, f).expect("3f+1 <= n");
                let overlap = 2 * q.quorum() as i64 - i64::from(n);
                assert!(overlap > i64::from(f), "n={n} f={f}");
                assert!(q.quorum() <= usize::from(n - f), "n={n} f={f}");
                if n == 3 * f + 1 {
                    assert_eq!(q.quorum(), 2 * usize::from(f) + 1);
                }
            }
        }
        assert!(Quorums::pbft(3, 1).is_none());
        assert!(Quorums::pbft(65, 1).is_none());
    }

    #[test]
    fn votes_count_senders_not_messages() {
        let mut votes = VoteSet::EMPTY;
        assert!(votes.insert(ReplicaId(3)));
        assert!(!votes.insert(ReplicaId(3)));
        assert_eq!(votes.len(), 1);
        assert!(votes.insert(ReplicaId(63)));
        assert_eq!(votes.iter().collect::<std::vec::Vec<_>>(), [ReplicaId(3), ReplicaId(63)]);
    }
}
