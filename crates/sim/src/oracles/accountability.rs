//! Accountability (design §3.11): a proof convinces everybody and never names a correct replica.
//!
//! Looks at every proof that a correct replica tells of: it is encoded, read back from its bytes
//! and verified with the public rules and keys alone, as a third party would. Suspicions are
//! local and may be wrong about who is slow or cut off; they are counted, and those
//! that nothing but a lie explains are never about a correct replica. Nor is what a core refuses as
//! misbehaviour, which operators are told of.
//! Does not see a fault that leaves no proof behind: a table in the documentation says which do.

use std::collections::{BTreeMap, BTreeSet};

use base::crypto::PlainKeys;
use base::{Reader, ReplicaId};
use proto::group::SuspicionKind;
use proto::group::evidence::{Proof, ProofKind};
use proto::group::link::Grievance;
use proto::group::rules::Rules;
use proto::pbft::Leaders;

use super::Verdict;

/// The sin that a correct replica commits when its clock is wrong, or the teller's.
const CLOCK: &str = "proposed time is out of bounds";

/// What replicas hold against each other.
#[derive(Debug)]
pub struct Accountability {
    rules: Rules,
    leaders: Leaders,
    /// Replicas whose state was ever spoilt: to others that is a fault.
    spoilt: BTreeSet<ReplicaId>,
    proofs: BTreeMap<(ReplicaId, ProofKind), u64>,
    suspicions: BTreeMap<SuspicionKind, u64>,
}

impl Accountability {
    /// Nobody is accused yet.
    #[must_use]
    pub fn new(rules: Rules, leaders: Leaders) -> Accountability {
        Accountability {
            rules,
            leaders,
            spoilt: BTreeSet::new(),
            proofs: BTreeMap::new(),
            suspicions: BTreeMap::new(),
        }
    }

    /// The state of `replica` was spoilt: what it signs may prove that.
    pub fn spoils(&mut self, replica: ReplicaId) {
        self.spoilt.insert(replica);
    }

    /// Correct `teller` has a proof against `accused`; `faulty` are those that are.
    ///
    /// # Errors
    /// When the accused is correct, or the proof does not convince a third party.
    pub fn proves(
        &mut self,
        teller: ReplicaId,
        accused: ReplicaId,
        proof: &Proof,
        faulty: &BTreeSet<ReplicaId>,
    ) -> Verdict {
        if !faulty.contains(&accused) && !self.spoilt.contains(&accused) {
            return Err(format!("{teller:?} has a proof against {accused:?}: {proof:?}"));
        }
        let mut bytes = Vec::new();
        proof.encode(&mut bytes);
        if bytes.len() != proof.encoded_len() {
            return Err(format!("{} bytes, not {}: {proof:?}", bytes.len(), proof.encoded_len()));
        }
        let mut reader = Reader::new(&bytes);
        let read = match Proof::decode(&mut reader) {
            Ok(read) if reader.is_empty() => read,
            other => return Err(format!("{proof:?} is read back as {other:?}")),
        };
        let n = self.rules.quorums.n();
        // Whose key is in the ring does not matter: it signs nothing.
        let public = PlainKeys { me: accused, n };
        if read.accused(n) != accused || !read.verify(&self.rules, &public) {
            return Err(format!("nobody else believes {teller:?} about {accused:?}: {proof:?}"));
        }
        *self.proofs.entry((accused, proof.kind())).or_default() += 1;
        Ok(())
    }

    /// Correct `teller` suspects `whom`.
    ///
    /// # Errors
    /// When the suspicion is of a lie, and `whom` is correct.
    pub fn suspects(
        &mut self,
        teller: ReplicaId,
        whom: ReplicaId,
        kind: SuspicionKind,
        faulty: &BTreeSet<ReplicaId>,
    ) -> Verdict {
        *self.suspicions.entry(kind).or_default() += 1;
        let lie = match kind {
            SuspicionKind::Garbage | SuspicionKind::LyingSource => true,
            // By the rosters of two NEW-VIEWs for one view two replicas may lead one number.
            SuspicionKind::Leader(Grievance::Equivocates) => self.leaders == Leaders::Fixed,
            SuspicionKind::Leader(Grievance::Forges) => true,
            _ => false,
        };
        if lie && !faulty.contains(&whom) && !self.spoilt.contains(&whom) {
            return Err(format!("{teller:?} suspects {whom:?} of {kind:?}"));
        }
        Ok(())
    }

    /// Correct `teller` refuses what `from` sends, for no correct replica would send it; `what` is
    /// the sin.
    ///
    /// # Errors
    /// When `from` is correct.
    pub fn refuses(
        &self,
        teller: ReplicaId,
        (from, what): (ReplicaId, &str),
        faulty: &BTreeSet<ReplicaId>,
    ) -> Verdict {
        let excused = what == CLOCK || self.spoilt.contains(&teller);
        if !excused && !faulty.contains(&from) && !self.spoilt.contains(&from) {
            return Err(format!("{teller:?} takes {from:?} for a liar: {what}"));
        }
        Ok(())
    }

    /// How often each kind of suspicion was told.
    #[must_use]
    pub fn suspicions(&self) -> &BTreeMap<SuspicionKind, u64> {
        &self.suspicions
    }

    /// How many replicas told of a proof of each kind against each accused.
    #[must_use]
    pub fn proofs(&self) -> &BTreeMap<(ReplicaId, ProofKind), u64> {
        &self.proofs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::rules;
    use base::{Digest, Keyring, Seq, StableCheckpoint};
    use proto::pbft::msg::Checkpoint;
    use std::sync::Arc;

    /// Replica 3 has signed another digest than the others.
    fn proof(rules: &Rules) -> Proof {
        let sign = |signer: u16, digest: Digest| {
            let bytes = Checkpoint::signed_bytes(rules.group, rules.epoch, Seq(8), digest);
            PlainKeys { me: ReplicaId(signer), n: 4 }.sign(&bytes)
        };
        let (right, wrong) = (Digest([1; 32]), Digest([2; 32]));
        let proof = (0..3).map(|signer| (ReplicaId(signer), sign(signer, right))).collect();
        Proof::WrongCheckpoint {
            signer: ReplicaId(3),
            said: Checkpoint { seq: Seq(8), digest: wrong, signature: sign(3, wrong) },
            certified: StableCheckpoint { seq: Seq(8), digest: right, proof: Arc::new(proof) },
        }
    }

    #[test]
    fn proofs_must_hold_for_everybody_and_name_the_faulty() {
        let rules = rules();
        let faulty = BTreeSet::from([ReplicaId(3)]);
        let mut oracle = Accountability::new(rules, Leaders::Fixed);
        let good = proof(&rules);
        assert_eq!(oracle.proves(ReplicaId(0), ReplicaId(3), &good, &faulty), Ok(()));
        let nobody = BTreeSet::new();
        assert!(oracle.proves(ReplicaId(0), ReplicaId(3), &good, &nobody).is_err());
        let both = BTreeSet::from([ReplicaId(2), ReplicaId(3)]);
        assert!(oracle.proves(ReplicaId(0), ReplicaId(2), &good, &both).is_err(), "not he");
        let mut bad = good;
        if let Proof::WrongCheckpoint { said, .. } = &mut bad {
            said.signature.0[0] ^= 1;
        }
        assert!(oracle.proves(ReplicaId(0), ReplicaId(3), &bad, &faulty).is_err(), "forged");
    }

    #[test]
    fn a_correct_replica_may_seem_slow_but_no_liar() {
        let mut oracle = Accountability::new(rules(), Leaders::Fixed);
        let nobody = BTreeSet::new();
        let mut says = |kind| oracle.suspects(ReplicaId(0), ReplicaId(1), kind, &nobody);
        assert_eq!(says(SuspicionKind::NoNewView), Ok(()));
        assert!(says(SuspicionKind::Garbage).is_err());
        assert!(says(SuspicionKind::LyingSource).is_err());
        assert_eq!(says(SuspicionKind::Leader(Grievance::Slow)), Ok(()));
        assert!(says(SuspicionKind::Leader(Grievance::Equivocates)).is_err());
        assert_eq!(oracle.suspicions().len(), 5);
        let refuses = |from, what, faulty| oracle.refuses(ReplicaId(0), (from, what), faulty);
        assert_eq!(refuses(ReplicaId(1), CLOCK, &nobody), Ok(()));
        assert!(refuses(ReplicaId(1), "two prepares", &nobody).is_err());
        assert_eq!(refuses(ReplicaId(1), "two prepares", &[ReplicaId(1)].into()), Ok(()));
    }
}
