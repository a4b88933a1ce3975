//! What replicas say against one another, and how much of it is to be believed.
//!
//! | standing | when |
//! |---|---|
//! | proved | somebody shows what the accused signed, and it was verified here |
//! | reported | f + 1 replicas say the same, so one of them is correct |
//! | suspected | fewer say so: it may be a lie, or a bad link |
//!
//! What it is not: where proofs and suspicions come from (`proto::group`). Each report is the
//! word of one replica, which may be the faulty one.
//!
//! Invariants:
//! 1. nothing is called proved unless the proof was verified with the group's public keys;
//! 2. a replica's word counts once, and not about itself;
//! 3. words of replicas that are shown are short and plain.

use std::collections::{BTreeMap, BTreeSet};

use auth::Directory;
use base::{Authenticator, ClientId, Digest, Keyring, Reader, ReplicaId, Signature};
use genesis::Group;
use proto::group::evidence::Proof;
use proto::group::rules::Rules;
use rt::{EvidenceRow, ReplicaReport};
use serde::Serialize;

use crate::probe::Answer;

/// How much of an accusation is to be believed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Verified here.
    Proved,
    /// A correct replica says so.
    Reported,
    /// Perhaps.
    Suspected,
}

/// What is said against one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Accusation {
    /// How much of it is to be believed.
    pub standing: Standing,
    /// Who is accused.
    pub accused: u16,
    /// Of what.
    pub kind: String,
    /// Who says so.
    pub reporters: BTreeSet<u16>,
    /// How often it was seen, as the reporter says that saw it most.
    pub count: u64,
}

/// Accusations of one replica that are looked at, at most: there are fewer kinds than that.
const ROWS_MAX: usize = 32 * base::limits::REPLICAS_MAX;
/// Messages that no correct replica sends.
const MISBEHAVIOUR: &str = "misbehaviour";
/// The longest word that is shown.
const WORD_BYTES_MAX: usize = 40;

/// What the answers say against whom: the best founded first.
#[must_use]
pub fn accusations(group: &Group, answers: &[Answer]) -> Vec<Accusation> {
    let mut said: BTreeMap<(u16, String), Accusation> = BTreeMap::new();
    for (reporter, report) in (0u16..).zip(answers) {
        let Ok(report) = report else { continue };
        for (accused, kind, count, proved) in rows(group, report) {
            let known = accused < group.quorums().n() && is_word(kind);
            if !known || (accused == reporter && !proved) {
                continue;
            }
            let blank = || Accusation {
                standing: Standing::Suspected,
                accused,
                kind: kind.to_owned(),
                reporters: BTreeSet::new(),
                count: 0,
            };
            let one = said.entry((accused, kind.to_owned())).or_insert_with(blank);
            one.reporters.insert(reporter);
            one.count = one.count.max(count);
            if proved {
                one.standing = Standing::Proved;
            }
        }
    }
    let weak = group.quorums().weak();
    let mut all: Vec<Accusation> = said.into_values().collect();
    for one in all.iter_mut().filter(|one| one.standing == Standing::Suspected) {
        if one.reporters.len() >= weak {
            one.standing = Standing::Reported;
        }
    }
    all.sort_by_key(|one| (one.standing, one.accused));
    all
}

/// What one replica says: the accused, of what, how often, and whether it is proved.
fn rows<'a>(
    group: &'a Group,
    report: &'a ReplicaReport,
) -> impl Iterator<Item = (u16, &'a str, u64, bool)> {
    let proofs = report.evidence.iter().take(ROWS_MAX);
    let proofs = proofs.map(|row| (row.accused, row.kind.as_str(), 1, holds(group, row)));
    let suspicions = report.suspicions.iter().take(ROWS_MAX);
    let suspicions = suspicions.map(|row| (row.accused, row.kind.as_str(), row.count, false));
    let counts = (0u16..).zip(&report.misbehaviour).filter(|(_, count)| **count > 0);
    let misbehaviour = counts.map(|(accused, count)| (accused, MISBEHAVIOUR, *count, false));
    proofs.chain(suspicions).chain(misbehaviour)
}

/// Whether a proof is there, and convinces.
fn holds(group: &Group, row: &EvidenceRow) -> bool {
    let Some(bytes) = unhex(&row.proof) else { return false };
    let mut reader = Reader::new(&bytes);
    let Ok(proof) = Proof::decode(&mut reader) else { return false };
    let (quorums, settings) = (group.quorums(), group.settings());
    let rules = Rules {
        group: group.id(),
        epoch: group.epoch(),
        quorums,
        window: settings.window,
        checkpoint_interval: settings.checkpoint_interval,
    };
    reader.is_empty()
        && proof.accused(quorums.n()) == ReplicaId(row.accused)
        && proof.kind().name() == row.kind
        && proof.verify(&rules, &PublicKeys(group.directory()))
}

/// A word of this program, as far as can be told: nothing that confuses a terminal.
fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= WORD_BYTES_MAX && text.bytes().all(plain)
}

/// Bytes of hexadecimal digits; `None` when they are none.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    (!text.is_empty()).then(|| text.as_bytes().chunks(2).map(pair).collect())?
}

/// Checks signatures with public keys; signs nothing.
struct PublicKeys<'a>(&'a Directory);

impl Keyring for PublicKeys<'_> {
    fn sign(&self, _message: &[u8]) -> Signature {
        // Whoever only checks has nothing to sign with: nobody accepts this one.
        Signature([0; 64])
    }

    fn verify(&self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool {
        self.0.verify(signer, message, signature)
    }

    fn check(&self, _client: ClientId, _digest: Digest, _authenticator: &Authenticator) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use auth::{Peer, ReplicaKeys};
    use base::{Seq, StableCheckpoint};
    use genesis::{InitOptions, LocalGroup};
    use proto::pbft::msg::Checkpoint;
    use rt::SuspicionRow;

    use super::*;
    use crate::health::tests::report;

    fn local() -> LocalGroup {
        LocalGroup::generate(&InitOptions::default()).expect("legal options")
    }

    fn suspicion(accused: u16, kind: &str, count: u64) -> SuspicionRow {
        SuspicionRow { accused, kind: kind.to_owned(), count, since: 0 }
    }

    /// A proof against replica 3: it signed another digest than the quorum.
    fn proof(local: &LocalGroup) -> EvidenceRow {
        let sign = |id: u16, digest| {
            let secret = local.secret(Peer::Replica(ReplicaId(id))).expect("a member");
            let keys = ReplicaKeys::new(secret, ReplicaId(id), local.group.directory());
            let (group, epoch) = (local.group.id(), local.group.epoch());
            let bytes = Checkpoint::signed_bytes(group, epoch, Seq(128), digest);
            keys.expect("its own secret").sign(&bytes)
        };
        let (right, wrong) = (Digest([1; 32]), Digest([2; 32]));
        let signers = (0..3).map(|id| (ReplicaId(id), sign(id, right)));
        let proof = Arc::new(signers.collect());
        let certified = StableCheckpoint { seq: Seq(128), digest: right, proof };
        let said = Checkpoint { seq: Seq(128), digest: wrong, signature: sign(3, wrong) };
        let proof = Proof::WrongCheckpoint { signer: ReplicaId(3), said, certified };
        let mut bytes = Vec::new();
        proof.encode(&mut bytes);
        let proof = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        EvidenceRow { accused: 3, kind: "wrong-checkpoint".to_owned(), proof }
    }

    #[test]
    fn what_one_says_is_a_suspicion_and_what_a_weak_quorum_says_is_reported() {
        let local = local();
        let mut answers: Vec<Answer> = (0..4).map(|id| Ok(report(id))).collect();
        let mut say = |reporter: usize, row| {
            if let Ok(report) = &mut answers[reporter] {
                report.suspicions.push(row);
            }
        };
        say(0, suspicion(3, "garbage", 5));
        say(1, suspicion(3, "garbage", 7));
        say(3, suspicion(1, "slow-leader", 9));
        say(3, suspicion(3, "garbage", 9));
        say(3, suspicion(2, "\u{1b}[31m", 9));
        say(3, suspicion(9, "garbage", 9));
        if let Ok(report) = &mut answers[1] {
            report.misbehaviour = vec![0, 0, 0, 4, 4];
        }
        let found = accusations(&local.group, &answers);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!((found[2].accused, found[2].kind.as_str()), (3, MISBEHAVIOUR));
        assert_eq!((found[0].accused, found[0].standing), (3, Standing::Reported));
        assert_eq!((found[0].count, &found[0].reporters), (7, &BTreeSet::from([0, 1])));
        assert_eq!((found[1].accused, found[1].standing), (1, Standing::Suspected));
    }

    #[test]
    fn proofs_are_verified_before_anybody_is_named() {
        let local = local();
        let row = proof(&local);
        let with = |row: EvidenceRow| {
            let mut one = report(0);
            one.evidence = vec![row];
            accusations(&local.group, &[Ok(one)])
        };
        assert_eq!(with(row.clone())[0].standing, Standing::Proved);
        let broken = [
            EvidenceRow { accused: 2, ..row.clone() },
            EvidenceRow { kind: "bad-new-view".to_owned(), ..row.clone() },
            EvidenceRow { proof: String::new(), ..row.clone() },
            EvidenceRow { proof: format!("{}00", row.proof), ..row.clone() },
            EvidenceRow { proof: row.proof.replacen("02", "03", 1), ..row.clone() },
            EvidenceRow { proof: "zz".to_owned(), ..row.clone() },
            proof(&self::local()),
        ];
        for row in broken {
            assert_eq!(with(row)[0].standing, Standing::Suspected);
        }
    }
}
