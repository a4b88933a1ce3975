//! Equal checkpoints (design, trap 11): whoever is correct and has executed the same number of
//! batches has the same state, and so the same digest.
//!
//! Looks at the digests that stages announce. A replica whose memory was spoilt on purpose is
//! left out until its state is right again.

use std::collections::BTreeMap;

use base::{Digest, ReplicaId, Seq};

use super::Verdict;

/// Checkpoints that sound replicas took.
#[derive(Debug, Default)]
pub struct Checkpoints {
    taken: BTreeMap<Seq, (ReplicaId, Digest)>,
}

impl Checkpoints {
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

    #[test]
    fn a_different_digest_at_one_number_is_seen() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(checkpoints.takes(ReplicaId(0), Seq(8), Digest([1; 32])), Ok(()));
        assert_eq!(checkpoints.takes(ReplicaId(1), Seq(8), Digest([1; 32])), Ok(()));
        assert_eq!(checkpoints.takes(ReplicaId(0), Seq(16), Digest([2; 32])), Ok(()));
        assert!(checkpoints.takes(ReplicaId(2), Seq(8), Digest([2; 32])).is_err());
    }
}
