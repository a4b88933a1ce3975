//! What goes to whoever asks over a client's link how this replica is: its report as JSON.
//!
//! It fits a packet that every receiver takes, whatever others do: all but the proofs is bounded
//! by the largest group, and of the proofs it has the shortest, as many as fit.
//!
//! Not here: who asks (`intake`), what a report says (`report`).

use std::sync::Arc;

use base::packet::STATUS_BYTES_MAX;
use base::{Span, Time};

use crate::report::{ReplicaReport, Shared, ThreadSnapshot};

/// The least time between two snapshots.
pub(crate) const SNAPSHOT_EVERY: Span = Span::millis(100);

/// Makes the answers to questions for the status: at most as often as the snapshots that they are
/// made of.
pub(crate) struct StatusDesk {
    shared: Arc<Shared>,
    index: usize,
    last: Option<(Time, Vec<u8>)>,
}

impl StatusDesk {
    /// For the thread `index`.
    pub(crate) fn new(shared: &Arc<Shared>, index: usize) -> StatusDesk {
        StatusDesk { shared: Arc::clone(shared), index, last: None }
    }

    /// The replica's report as JSON. `mine` is this thread's part of it.
    pub(crate) fn json(&mut self, now: Time, mine: impl FnOnce() -> ThreadSnapshot) -> &[u8] {
        let fresh = matches!(&self.last, Some((at, _)) if now < at.after(SNAPSHOT_EVERY));
        if !fresh {
            self.shared.publish(self.index, mine());
            self.last = Some((now, fitting(self.shared.report())));
        }
        self.last.as_ref().map_or(&[], |(_, json)| json)
    }
}

/// The report as JSON, without its longest proofs if it does not fit a packet with them.
fn fitting(mut report: ReplicaReport) -> Vec<u8> {
    let write = |report: &_| serde_json::to_vec(report).expect("a report is plain data");
    let mut proofs: Vec<(usize, String)> = Vec::new();
    for (at, row) in report.evidence.iter_mut().enumerate() {
        proofs.push((at, std::mem::take(&mut row.proof)));
    }
    let bare = write(&report);
    if proofs.is_empty() {
        return bare;
    }
    // Digits are in JSON as they are.
    let mut room = STATUS_BYTES_MAX.saturating_sub(bare.len());
    proofs.sort_by_key(|(_, proof)| proof.len());
    for (at, proof) in proofs {
        let Some(left) = room.checked_sub(proof.len()) else { break };
        (room, report.evidence[at].proof) = (left, proof);
    }
    write(&report)
}

#[cfg(test)]
mod tests {
    use base::limits::{PILLARS_MAX, REPLICAS_MAX};
    use base::packet::PacketKind;
    use base::{
        AgreedTime, Digest, Incarnation, Malformed, ReplicaId, Seq, Signature, StableCheckpoint,
        View,
    };
    use exec::{Completion, Context, Service};
    use genesis::{InitOptions, LocalGroup};
    use proto::group::SuspicionKind;
    use proto::group::evidence::{Proof, ProofKind};
    use proto::group::link::{Grievance, SliceEntry};
    use proto::group::msg::ViewChange;
    use proto::group::roster::Roster;
    use serde_json::{Value, json};

    use super::*;
    use crate::bans::{ClientRow, ROWS_SHOWN_MAX};
    use crate::clock::Clock;
    use crate::coordinator_host::CoordinatorSnapshot;
    use crate::evidence::{Evidence, EvidenceRow, SHOWN_BYTES_MAX};
    use crate::options::ReplicaOptions;
    use crate::report::PillarRow;

    struct Idle;

    impl Service for Idle {
        fn execute(&mut self, _: &[u8], _: &mut Context<'_>, _: &mut Vec<u8>) -> Completion {
            Completion::Done
        }

        fn get(&self, _: u32, _: &mut Vec<u8>) {}

        fn put(&mut self, _: u32, _: &[u8]) -> Result<(), Malformed> {
            Ok(())
        }
    }

    fn shared() -> Arc<Shared> {
        let local = LocalGroup::generate(&InitOptions::default()).expect("legal options");
        let secret = local.replicas[0].clone();
        let options = ReplicaOptions::new(local.group, ReplicaId(0), secret, Box::new(Idle));
        Arc::new(Shared::new(&options, Incarnation(1), 1, Clock::start()))
    }

    /// A VIEW-CHANGE of `replica` that says something of so many numbers.
    fn proof(replica: u16, entries: u64) -> Proof {
        let digest = Digest([9; 32]);
        let entry = |seq| SliceEntry {
            seq: Seq(seq),
            prepared: Some((View(0), digest)),
            pre_prepared: vec![],
        };
        Proof::BadViewChange(Arc::new(ViewChange {
            replica: ReplicaId(replica),
            incarnation: Incarnation(1),
            view: View(1),
            stable: StableCheckpoint { seq: Seq(0), digest, proof: Arc::default() },
            entries: (1..=entries).map(entry).collect(),
            roster: Roster::default(),
            signature: Signature([7; 64]),
        }))
    }

    /// What somebody who asks makes of the answer of a replica that knows of `proofs`.
    fn told(proofs: &[Proof]) -> ReplicaReport {
        let mut evidence = Evidence::default();
        for proof in proofs {
            evidence.proved(proof.accused(4), proof);
        }
        let rows = evidence.rows();
        assert!(rows.proofs.iter().all(|row| !row.proof.is_empty()), "each is short enough");
        let coordinator = CoordinatorSnapshot { evidence: rows, ..CoordinatorSnapshot::default() };
        let mine = ThreadSnapshot { coordinator: Some(coordinator), ..ThreadSnapshot::default() };
        let mut payload = PacketKind::Status.alone().to_vec();
        payload.extend_from_slice(StatusDesk::new(&shared(), 0).json(Time(0), || mine));
        let (kind, body) = PacketKind::split(&payload).expect("a packet that anybody takes");
        assert_eq!(kind, PacketKind::Status);
        serde_json::from_slice(body).expect("a report")
    }

    #[test]
    fn a_long_proof_does_not_keep_a_replica_from_being_asked() {
        let report = told(&[proof(3, 700)]);
        let lengths: Vec<_> = report.evidence.iter().map(|row| row.proof.len()).collect();
        assert!(lengths.len() == 1 && lengths[0] > 64 << 10, "{lengths:?}");
    }

    #[test]
    fn the_longest_proofs_are_left_out_when_they_do_not_fit_together() {
        let report = told(&[proof(0, 10), proof(1, 1200), proof(2, 1100), proof(3, 1150)]);
        let shown: Vec<_> = report.evidence.iter().map(|row| !row.proof.is_empty()).collect();
        assert_eq!(shown, [true, false, true, true]);
        assert!(report.evidence.iter().all(|row| row.kind == ProofKind::BadViewChange.name()));
    }

    /// Every suspicion that there is, of everybody.
    fn suspicions() -> Evidence {
        let leader = [
            Grievance::Stalled,
            Grievance::Starved,
            Grievance::Slow,
            Grievance::Equivocates,
            Grievance::Forges,
        ];
        let others = [SuspicionKind::NoNewView, SuspicionKind::Garbage, SuspicionKind::LyingSource];
        let kinds = leader.into_iter().map(SuspicionKind::Leader).chain(others);
        let mut evidence = Evidence::default();
        for kind in kinds {
            for accused in 0..REPLICAS_MAX as u16 {
                evidence.suspected(ReplicaId(accused), kind, AgreedTime(1));
            }
        }
        evidence
    }

    /// Every number as long as a number can be.
    fn swell(value: &mut Value) {
        match value {
            Value::Number(_) | Value::Null => *value = json!(u64::MAX),
            Value::Array(values) => values.iter_mut().for_each(swell),
            Value::Object(fields) => fields.values_mut().for_each(swell),
            Value::Bool(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn all_that_the_largest_group_says_fits_with_any_one_proof() {
        let mut report = shared().report();
        let replicas = 0..REPLICAS_MAX as u16;
        let pillar = PillarRow {
            pillar: 0,
            view: 0,
            stable: 0,
            delivered: 0,
            pending_frames: 0,
            in_flight: 0,
            peers_up: 0,
            clients: 0,
            connections: 0,
        };
        report.pillars = vec![pillar; PILLARS_MAX];
        report.misbehaviour = vec![0; REPLICAS_MAX];
        report.group.leaders = replicas.clone().collect();
        report.suspicions.clone_from(&suspicions().rows().suspicions);
        assert_eq!(report.suspicions.len(), 8 * REPLICAS_MAX);
        let proved = |accused| {
            ProofKind::ALL.map(|kind| EvidenceRow {
                accused,
                kind: kind.name().to_owned(),
                proof: String::new(),
            })
        };
        report.evidence = replicas.flat_map(proved).collect();
        let client = ClientRow { last: "x".repeat(64), ..ClientRow::default() };
        report.process.clients = vec![client; ROWS_SHOWN_MAX];
        report.checkpoint.stable_digest = "0".repeat(64);
        let mut report = serde_json::to_value(&report).expect("plain data");
        swell(&mut report);
        let bytes = report.to_string().len();
        assert!(bytes > 64 << 10, "all of it is there: {bytes}");
        assert!(bytes + 2 * SHOWN_BYTES_MAX <= STATUS_BYTES_MAX, "{bytes}");
    }
}
