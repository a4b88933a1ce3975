//! Equal checkpoints (design, trap 11): whoever is correct and has executed the same number of
//! batches has the same state, and so the same digest.
//!
//! Looks at the digests that stages announce, and apart from them at the bytes of the session
//! table, so that a digest which leaves something out is seen. A replica whose memory was spoilt
//! on purpose is left out until its state is right again. The service's objects: `reference`.

use std::collections::BTreeMap;

use base::{Digest, ReplicaId, Seq};
use exec::session::{BUCKETS, Sessions};

use super::Verdict;
use crate::observe::mark;

/// Checkpoints that sound replicas took.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// Principals below this one, and the next, may have sessions.
    clients: u32,
    sessions: BTreeMap<Seq, (ReplicaId, u64)>,
    taken: BTreeMap<Seq, (ReplicaId, Digest)>,
}

impl Checkpoints {
    /// None is taken yet, in a group with principals up to `clients`.
    #[must_use]
    pub fn new(clients: u32) -> Checkpoints {
        Checkpoints { clients, ..Checkpoints::default() }
    }

    /// `replica` has these sessions after `seq`.
    ///
    /// # Errors
    /// When another replica has others.
    pub fn sessions(&mut self, replica: ReplicaId, seq: Seq, sessions: &Sessions) -> Verdict {
        let mut bytes = Vec::new();
        for client in 0..=self.clients {
            sessions.get(client % BUCKETS, &mut bytes);
        }
        let now = mark(&bytes);
        let (first, known) = *self.sessions.entry(seq).or_insert((replica, now));
        if known != now {
            return Err(format!("{first:?} and {replica:?} have other sessions at {seq:?}"));
        }
        Ok(())
    }

    /// `replica` took a checkpoint.
    ///
    /// # Errors
    /// When another replica's differs.
    pub fn takes(&mut self, replica: ReplicaId, seq: Seq, digest: Digest) -> Verdict {
        let (first, known) = *self.taken.entry(seq).or_insert((replica, digest));
        if known != digest {
            return Err(format!("at {seq:?} {first:?} has {known:?}, {replica:?} {digest:?}"));
        }
        Ok(())
    }

    /// The digest at `seq`, if a sound replica took it.
    #[must_use]
    pub fn digest(&self, seq: Seq) -> Option<Digest> {
        self.taken.get(&seq).map(|(_, digest)| *digest)
    }

    /// Numbers at which at least one replica took a checkpoint.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether nobody took any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::open;

    #[test]
    fn a_different_digest_at_one_number_is_seen() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(checkpoints.takes(ReplicaId(0), Seq(8), Digest([1; 32])), Ok(()));
        assert_eq!(checkpoints.takes(ReplicaId(1), Seq(8), Digest([1; 32])), Ok(()));
        assert_eq!(checkpoints.takes(ReplicaId(0), Seq(16), Digest([2; 32])), Ok(()));
        assert!(checkpoints.takes(ReplicaId(2), Seq(8), Digest([2; 32])).is_err());
    }

    #[test]
    fn other_sessions_at_one_number_are_seen() {
        let mut checkpoints = Checkpoints::new(2);
        let (none, mut some) = (Sessions::new(), Sessions::new());
        some.decide(Seq(1), &open(1));
        assert_eq!(checkpoints.sessions(ReplicaId(0), Seq(8), &none), Ok(()));
        assert_eq!(checkpoints.sessions(ReplicaId(1), Seq(8), &none), Ok(()));
        assert_eq!(checkpoints.sessions(ReplicaId(1), Seq(16), &some), Ok(()));
        assert!(checkpoints.sessions(ReplicaId(0), Seq(16), &none).is_err());
    }
}
