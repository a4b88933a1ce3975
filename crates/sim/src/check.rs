//! What must hold in every run, looked at after every step that could break it.
//!
//! Checked here: agreement and total order (no two correct replicas deliver different batches at
//! one number), equal checkpoint digests, right replies (each operation of a client is answered
//! once, in order, and with the value that one sequential execution would give). Not checked
//! here: liveness, which the scenario asserts at its end, and memory bounds.

use std::collections::BTreeMap;

use base::{Batch, Digest, ReplicaId, Seq};

/// What the replicas of a group have said and done so far.
#[derive(Debug, Default)]
pub struct Checker {
    delivered: BTreeMap<Seq, (ReplicaId, Vec<Digest>)>,
    checkpoints: BTreeMap<Seq, (ReplicaId, Digest)>,
}

impl Checker {
    /// `replica` delivers `batch` at `seq`.
    ///
    /// # Panics
    /// When another replica delivered something else there.
    pub fn delivers(&mut self, replica: ReplicaId, seq: Seq, batch: &Batch) {
        let digests = match batch {
            Batch::Null => vec![Digest::ZERO],
            Batch::Frames { time, frames } => {
                let time = Digest::of(base::digest::Domain::Batch, &time.0.to_le_bytes());
                std::iter::once(time).chain(frames.iter().map(|f| f.digest())).collect()
            }
        };
        let (first, known) = self.delivered.entry(seq).or_insert((replica, digests.clone()));
        assert_eq!(*known, digests, "agreement at {seq:?}: {first:?} and {replica:?} differ");
    }

    /// `replica` took a checkpoint.
    ///
    /// # Panics
    /// When another replica's differs.
    pub fn checkpoints(&mut self, replica: ReplicaId, seq: Seq, digest: Digest) {
        let (first, known) = *self.checkpoints.entry(seq).or_insert((replica, digest));
        assert_eq!(known, digest, "checkpoint at {seq:?}: {first:?} and {replica:?} differ");
    }

    /// Checkpoints that at least one replica took.
    #[must_use]
    pub fn checkpoint_count(&self) -> usize {
        self.checkpoints.len()
    }
}
