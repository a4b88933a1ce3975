//! Agreement (PBFT's safety; COP §4.2.1: one total order over all pillars): at one number all
//! correct replicas deliver the same batch, and each delivers it to its execution once.
//!
//! Looks at what lanes hand to the execution stage, over all lives of all correct replicas: a
//! batch that was delivered before a crash binds whoever comes after. Does not see what becomes
//! of a batch in execution (`exactly_once`), nor that something is never delivered (liveness).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Batch, ReplicaId, Seq};

use super::Verdict;

/// What was delivered where.
#[derive(Debug, Default)]
pub struct Agreement {
    delivered: BTreeMap<Seq, (ReplicaId, Arc<Batch>)>,
    /// How often each replica delivered a number in this life.
    seen: BTreeMap<ReplicaId, BTreeMap<Seq, usize>>,
    /// Checkpoints that each replica fetched in this life.
    fetches: BTreeMap<ReplicaId, Vec<Seq>>,
}

impl Agreement {
    /// `replica` delivers `batch` at `seq`.
    ///
    /// # Errors
    /// When another replica delivered something else there, or this one did already.
    pub fn delivers(&mut self, replica: ReplicaId, seq: Seq, batch: &Arc<Batch>) -> Verdict {
        let times = self.seen.entry(replica).or_default().entry(seq).or_default();
        *times += 1;
        // What a stage had beyond a checkpoint that it fetched is delivered to it again.
        let fetches = self.fetches.get(&replica).into_iter().flatten();
        let again = fetches.filter(|fetched| **fetched < seq).count();
        if *times > 1 + again {
            return Err(format!("{replica:?} delivers {seq:?} twice"));
        }
        let (first, known) =
            self.delivered.entry(seq).or_insert_with(|| (replica, Arc::clone(batch)));
        if !same(known, batch) {
            return Err(format!("at {seq:?} {first:?} delivers {known:?}, {replica:?} {batch:?}"));
        }
        Ok(())
    }

    /// What was delivered at `seq`.
    #[must_use]
    pub fn batch(&self, seq: Seq) -> Option<&Arc<Batch>> {
        self.delivered.get(&seq).map(|(_, batch)| batch)
    }

    /// `replica` fetched the checkpoint at `seq`.
    pub fn fetched(&mut self, replica: ReplicaId, seq: Seq) {
        self.fetches.entry(replica).or_default().push(seq);
    }

    /// `replica` begins a new life.
    pub fn reborn(&mut self, replica: ReplicaId) {
        self.seen.remove(&replica);
        self.fetches.remove(&replica);
    }
}

/// Whether two batches order the same frames at the same time. How a frame was authenticated is
/// no part of what was agreed on.
fn same(one: &Batch, other: &Batch) -> bool {
    match (one, other) {
        (Batch::Null, Batch::Null) => true,
        (Batch::Frames { time: a, frames: one }, Batch::Frames { time: b, frames: other }) => {
            let names = one.iter().zip(other);
            a == b
                && one.len() == other.len()
                && names.into_iter().all(|(a, b)| (a.id(), a.digest()) == (b.id(), b.digest()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::{batch, frame};

    #[test]
    fn a_different_batch_is_seen_and_a_repetition_too() {
        let (one, other) = (batch(&[frame(0, 1, &[b"a"])]), batch(&[frame(0, 1, &[b"b"])]));
        for wrong in [&other, &Arc::new(Batch::Null), &batch(&[])] {
            let mut agreement = Agreement::default();
            assert_eq!(agreement.delivers(ReplicaId(0), Seq(3), &one), Ok(()));
            assert_eq!(agreement.delivers(ReplicaId(1), Seq(3), &one), Ok(()));
            assert!(agreement.delivers(ReplicaId(2), Seq(3), wrong).is_err());
        }
        let mut agreement = Agreement::default();
        assert_eq!(agreement.delivers(ReplicaId(0), Seq(3), &one), Ok(()));
        assert!(agreement.delivers(ReplicaId(0), Seq(3), &one).is_err(), "twice in one life");
    }

    #[test]
    fn a_restart_and_a_fetch_excuse_a_repetition_but_no_other_batch() {
        let (one, other) = (batch(&[frame(0, 1, &[b"a"])]), Arc::new(Batch::Null));
        let mut agreement = Agreement::default();
        assert_eq!(agreement.delivers(ReplicaId(0), Seq(3), &one), Ok(()));
        agreement.fetched(ReplicaId(0), Seq(2));
        assert_eq!(agreement.delivers(ReplicaId(0), Seq(3), &one), Ok(()));
        assert!(agreement.delivers(ReplicaId(0), Seq(3), &one).is_err(), "once more per fetch");
        agreement.reborn(ReplicaId(0));
        assert_eq!(agreement.delivers(ReplicaId(0), Seq(3), &one), Ok(()));
        agreement.reborn(ReplicaId(0));
        assert!(agreement.delivers(ReplicaId(0), Seq(3), &other).is_err(), "it was another");
    }
}
