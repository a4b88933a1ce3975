//! Proofs that a replica is faulty: what it signed itself, and what no correct replica signs.
//!
//! A proof convinces whoever has the group's public keys, without trust in who shows it. Honest
//! amnesia, lateness and lost messages never make one: all rules here are about signed content
//! alone. Suspicions, which are local, are [`super::GroupFact::Suspicion`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Keyring, Malformed, Reader, ReplicaId, Seq, Signature, StableCheckpoint, Writer};

use super::msg::{NewView, ViewChange};
use super::rules::{Fault, Genuine, Judge, Rules};
use super::wire;
use crate::pbft::msg::Checkpoint;

/// A transferable proof that a replica is faulty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It signed a CHECKPOINT that contradicts a certificate.
    WrongCheckpoint {
        /// The faulty replica.
        signer: ReplicaId,
        /// What it signed.
        said: Checkpoint,
        /// What a quorum signed.
        certified: StableCheckpoint,
    },
    /// It signed two different VIEW-CHANGEs for one view in one life; ascending by digest.
    TwoViewChanges(Arc<ViewChange>, Arc<ViewChange>),
    /// It signed a VIEW-CHANGE that breaks the rules by itself.
    BadViewChange(Arc<ViewChange>),
    /// As leader it signed a NEW-VIEW that no correct leader signs.
    BadNewView(Arc<NewView>),
}

/// What kind of proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProofKind {
    /// [`Proof::WrongCheckpoint`].
    WrongCheckpoint,
    /// [`Proof::TwoViewChanges`].
    TwoViewChanges,
    /// [`Proof::BadViewChange`].
    BadViewChange,
    /// [`Proof::BadNewView`].
    BadNewView,
}

impl ProofKind {
    /// Every kind.
    pub const ALL: [ProofKind; 4] = [
        ProofKind::WrongCheckpoint,
        ProofKind::TwoViewChanges,
        ProofKind::BadViewChange,
        ProofKind::BadNewView,
    ];

    /// The name by which people know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProofKind::WrongCheckpoint => "wrong-checkpoint",
            ProofKind::TwoViewChanges => "two-view-changes",
            ProofKind::BadViewChange => "bad-view-change",
            ProofKind::BadNewView => "bad-new-view",
        }
    }
}

impl Proof {
    /// What kind of proof.
    #[must_use]
    pub fn kind(&self) -> ProofKind {
        match self {
            Proof::WrongCheckpoint { .. } => ProofKind::WrongCheckpoint,
            Proof::TwoViewChanges(..) => ProofKind::TwoViewChanges,
            Proof::BadViewChange(_) => ProofKind::BadViewChange,
            Proof::BadNewView(_) => ProofKind::BadNewView,
        }
    }

    /// Who is accused in a group of `n` replicas.
    ///
    /// # Panics
    /// When `n` is zero.
    #[must_use]
    pub fn accused(&self, n: u16) -> ReplicaId {
        match self {
            Proof::WrongCheckpoint { signer, .. } => *signer,
            Proof::TwoViewChanges(change, _) | Proof::BadViewChange(change) => change.replica,
            Proof::BadNewView(nv) => nv.view.leader(n),
        }
    }

    /// Whether the proof holds: for anybody who knows the group's rules and public keys.
    #[must_use]
    pub fn verify(&self, rules: &Rules, keys: &dyn Keyring) -> bool {
        let genuine = &mut Genuine::default();
        self.holds(&mut Judge { rules, keys, genuine })
    }

    pub(super) fn holds(&self, judge: &mut Judge<'_>) -> bool {
        match self {
            Proof::WrongCheckpoint { signer, said, certified } => {
                said.seq == certified.seq
                    && said.digest != certified.digest
                    && certified.seq > Seq(0)
                    && judge.checkpoint(*signer, said)
                    && judge.certified(certified)
            }
            Proof::TwoViewChanges(one, other) => {
                one.replica == other.replica
                    && one.view == other.view
                    && one.incarnation == other.incarnation
                    && judge.rules.change_digest(one) < judge.rules.change_digest(other)
                    && !matches!(judge.change(one), Err(Fault::Forged(_)))
                    && !matches!(judge.change(other), Err(Fault::Forged(_)))
            }
            Proof::BadViewChange(change) => matches!(judge.change(change), Err(Fault::Bad(_))),
            Proof::BadNewView(nv) => matches!(judge.new_view(nv), Err(Fault::Bad(_))),
        }
    }

    /// Appends the proof: a type byte, then what was signed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Proof::WrongCheckpoint { signer, said, certified } => {
                let mut w = Writer::new(out);
                w.u8(1).u16(signer.0).u64(said.seq.0).digest(said.digest);
                w.bytes(&said.signature.0);
                wire::encode_stable(certified, out);
            }
            Proof::TwoViewChanges(one, other) => {
                Writer::new(out).u8(2);
                wire::encode_change(one, out);
                wire::encode_change(other, out);
            }
            Proof::BadViewChange(change) => {
                Writer::new(out).u8(3);
                wire::encode_change(change, out);
            }
            Proof::BadNewView(nv) => {
                Writer::new(out).u8(4);
                wire::encode_new_view(nv, out);
            }
        }
    }

    /// Reads a proof, which proves nothing before it is verified.
    ///
    /// # Errors
    /// When the bytes are none within the limits.
    pub fn decode(r: &mut Reader<'_>) -> Result<Proof, Malformed> {
        Ok(match r.u8("proof type")? {
            1 => Proof::WrongCheckpoint {
                signer: ReplicaId(r.u16("proof signer")?),
                said: Checkpoint {
                    seq: Seq(r.u64("proof number")?),
                    digest: r.digest("proof digest")?,
                    signature: Signature(r.array("proof signature")?),
                },
                certified: wire::decode_stable(r)?,
            },
            2 => {
                let one = Arc::new(wire::decode_change(r)?);
                Proof::TwoViewChanges(one, Arc::new(wire::decode_change(r)?))
            }
            3 => Proof::BadViewChange(Arc::new(wire::decode_change(r)?)),
            4 => Proof::BadNewView(Arc::new(wire::decode_new_view(r)?)),
            _ => return Err(Malformed("proof type")),
        })
    }

    /// Bytes of [`Proof::encode`].
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Proof::WrongCheckpoint { certified, .. } => 106 + wire::stable_len(certified),
            Proof::TwoViewChanges(one, other) => wire::change_len(one) + wire::change_len(other),
            Proof::BadViewChange(change) => wire::change_len(change),
            Proof::BadNewView(nv) => wire::new_view_len(nv),
        }
    }
}

/// Most bytes of proofs that a replica keeps.
const STORE_BYTES_MAX: usize = 64 << 20;

/// The proofs that this replica has: one per accused and kind, within bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    proofs: Vec<Arc<Proof>>,
    known: Vec<(ReplicaId, ProofKind)>,
    bytes: usize,
}

impl Store {
    /// Whether there is one of this kind against `accused`: a second one says nothing new.
    pub(super) fn has(&self, accused: ReplicaId, kind: ProofKind) -> bool {
        self.known.contains(&(accused, kind))
    }

    /// Notes a proof that holds against `accused`; false when there is one like it. Beyond the
    /// store's bytes the accusation is kept, and the signed messages are not.
    pub(super) fn add(&mut self, accused: ReplicaId, proof: &Arc<Proof>) -> bool {
        if self.has(accused, proof.kind()) {
            return false;
        }
        self.known.push((accused, proof.kind()));
        let bytes = proof.encoded_len();
        if self.bytes + bytes <= STORE_BYTES_MAX {
            self.bytes += bytes;
            self.proofs.push(proof.clone());
        }
        true
    }

    /// What is kept.
    pub(super) fn proofs(&self) -> &[Arc<Proof>] {
        &self.proofs
    }
}
