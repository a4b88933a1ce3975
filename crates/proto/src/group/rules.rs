//! What a correct replica signs: the rules by which VIEW-CHANGE, NEW-VIEW, RECOVER and
//! certificates are checked, and the bytes that are signed.
//!
//! Whether something is genuine (its signer signed it) and whether it keeps the rules are two
//! questions: what is genuine and breaks the rules is a proof against its signer. Every rule
//! here is about signed content alone, so that everybody comes to the same answer.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::digest::Domain;
use base::{
    Digest, Epoch, GroupId, Incarnation, Keyring, Quorums, ReplicaId, Seq, Signature,
    StableCheckpoint, View, Writer,
};

use super::decide::{Decision, decide};
use super::link::{PRE_PREPARED_MAX, Plan, SliceEntry};
use super::msg::{NewView, Recover, ViewChange};
use super::wire;
use crate::pbft::msg::Checkpoint;

/// What a group's signed messages are judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// The group.
    pub group: GroupId,
    /// The membership epoch.
    pub epoch: Epoch,
    /// Quorum sizes.
    pub quorums: Quorums,
    /// L.
    pub window: u64,
    /// K.
    pub checkpoint_interval: u64,
}

/// Why something signed is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The signer that it names did not sign it: proves nothing about anybody.
    Forged(&'static str),
    /// Its signer signed it and breaks the rules: a proof.
    Bad(&'static str),
}

impl Rules {
    fn signed(&self, domain: &[u8], len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(domain.len() + 36 + len);
        Writer::new(&mut out).bytes(domain).bytes(&self.group.0).u32(self.epoch.0);
        out
    }

    /// The digest by which a VIEW-CHANGE is signed and named: of everything but the signature.
    #[must_use]
    pub fn change_digest(&self, change: &ViewChange) -> Digest {
        let mut body = Vec::with_capacity(wire::change_len(change));
        wire::encode_change_body(change, &mut body);
        Digest::of(Domain::ViewChange, &body)
    }

    /// What the signature of a VIEW-CHANGE is over.
    #[must_use]
    pub fn change_signed(&self, digest: Digest) -> Vec<u8> {
        let mut out = self.signed(b"stylite view-change\0", 32);
        Writer::new(&mut out).digest(digest);
        out
    }

    /// What the signature of a NEW-VIEW is over; `digests` of its VIEW-CHANGEs, in order, with
    /// their signatures.
    #[must_use]
    pub fn new_view_signed(&self, view: View, digests: &[(Digest, Signature)]) -> Vec<u8> {
        let mut out = self.signed(b"stylite new-view\0", 12 + digests.len() * 96);
        Writer::new(&mut out).u64(view.0).count(digests.len());
        for (digest, signature) in digests {
            Writer::new(&mut out).digest(*digest).bytes(&signature.0);
        }
        out
    }

    /// What the signature of a RECOVER is over.
    #[must_use]
    pub fn recover_signed(
        &self,
        replica: ReplicaId,
        incarnation: Incarnation,
        view: View,
    ) -> Vec<u8> {
        let mut out = self.signed(b"stylite recover\0", 18);
        Writer::new(&mut out).u16(replica.0).u64(incarnation.0).u64(view.0);
        out
    }

    /// Whether a quorum has signed the checkpoint, and nothing else stands in its certificate:
    /// what is passed on must hold everywhere. Verifies every signature, each time.
    #[must_use]
    pub fn certified(&self, keys: &dyn Keyring, stable: &StableCheckpoint) -> bool {
        let StableCheckpoint { seq, digest, proof } = stable;
        let bytes = Checkpoint::signed_bytes(self.group, self.epoch, *seq, *digest);
        let genuine =
            |(signer, signature): &(ReplicaId, Signature)| keys.verify(*signer, &bytes, signature);
        self.has_shape(stable) && proof.iter().all(genuine)
    }

    /// Whether a weak quorum, but no quorum, has signed the state, and nothing else stands beside
    /// that: it is right, and moves no low mark. Verifies every signature.
    #[must_use]
    pub fn vouched(&self, keys: &dyn Keyring, state: &StableCheckpoint) -> bool {
        let StableCheckpoint { seq, digest, proof } = state;
        let bytes = Checkpoint::signed_bytes(self.group, self.epoch, *seq, *digest);
        let genuine = |(signer, signature): &(ReplicaId, Signature)| {
            self.is_member(*signer) && keys.verify(*signer, &bytes, signature)
        };
        *seq > Seq(0)
            && (self.quorums.weak()..self.quorums.quorum()).contains(&proof.len())
            && proof.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && proof.iter().all(genuine)
    }

    /// Everything about a certificate but its signatures: members, a quorum of them, each once.
    fn has_shape(&self, stable: &StableCheckpoint) -> bool {
        let proof = &stable.proof;
        let few = usize::from(self.quorums.f()).max(1);
        let quorum = if base::mutant!(CertificateOfFew) { few } else { self.quorums.quorum() };
        stable.seq > Seq(0)
            && stable.seq.0.is_multiple_of(self.checkpoint_interval)
            && (quorum..=usize::from(self.quorums.n())).contains(&proof.len())
            && proof.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && proof.iter().all(|(signer, _)| self.is_member(*signer))
    }

    pub(super) fn is_member(&self, replica: ReplicaId) -> bool {
        replica.0 < self.quorums.n()
    }

    /// `seq`, or the next checkpoint above it.
    pub(super) fn checkpoint_at_least(&self, seq: u64) -> Seq {
        Seq(seq.div_ceil(self.checkpoint_interval).saturating_mul(self.checkpoint_interval))
    }

    /// The shape of a VIEW-CHANGE: everything that needs no signature to be judged.
    fn change_shape(&self, change: &ViewChange) -> Result<(), &'static str> {
        if change.view == View(0) {
            return Err("view-change for the first view");
        }
        let low = change.stable.seq.0;
        let mut last = low;
        for entry in &change.entries {
            if entry.seq.0 <= last || entry.seq.0 > low.saturating_add(self.window) {
                return Err("numbers of a view-change");
            }
            last = entry.seq.0;
            self.entry_shape(change.view, entry)?;
        }
        if !change.roster.has_shape(self) {
            return Err("roster of a view-change");
        }
        Ok(())
    }

    fn entry_shape(&self, view: View, entry: &SliceEntry) -> Result<(), &'static str> {
        let pairs = entry.prepared.iter().chain(&entry.pre_prepared);
        if pairs.clone().count() == 0 || entry.pre_prepared.len() > PRE_PREPARED_MAX {
            return Err("promises of a view-change");
        }
        if pairs.clone().any(|(v, _)| *v >= view) {
            return Err("views of a view-change");
        }
        if entry.pre_prepared.windows(2).any(|pair| pair[0].1 >= pair[1].1) {
            return Err("digests of a view-change");
        }
        Ok(())
    }
}

/// Signatures that were found genuine, so that none is verified twice: every VIEW-CHANGE comes
/// once by itself and once in a NEW-VIEW, and many of them carry the same certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct Genuine {
    checkpoints: BTreeMap<(Seq, Digest), Vec<(ReplicaId, Signature)>>,
    changes: BTreeMap<ReplicaId, (Digest, Signature)>,
    /// Signatures verified since the owner last asked.
    pub(super) spent: u64,
}

/// Checkpoints whose signatures are remembered.
const CHECKPOINTS_REMEMBERED: usize = 16;

impl Genuine {
    /// The certificate was verified elsewhere in this replica.
    pub(super) fn remember(&mut self, stable: &StableCheckpoint) {
        let known = self.checkpoints.entry((stable.seq, stable.digest)).or_default();
        for pair in stable.proof.iter() {
            if !known.contains(pair) && known.iter().all(|(who, _)| *who != pair.0) {
                known.push(*pair);
            }
        }
        while self.checkpoints.len() > CHECKPOINTS_REMEMBERED {
            self.checkpoints.pop_first();
        }
    }
}

/// Judges what others signed.
pub(super) struct Judge<'a> {
    pub(super) rules: &'a Rules,
    pub(super) keys: &'a dyn Keyring,
    pub(super) genuine: &'a mut Genuine,
}

impl Judge<'_> {
    fn verify(&mut self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool {
        self.genuine.spent += 1;
        self.rules.is_member(signer) && self.keys.verify(signer, message, signature)
    }

    /// Whether a quorum of distinct members signed the checkpoint. Number 0 needs no proof, and
    /// has none.
    pub(super) fn certified(&mut self, stable: &StableCheckpoint) -> bool {
        if stable.seq == Seq(0) {
            return *stable == StableCheckpoint::default();
        }
        let proof = &stable.proof;
        if !self.rules.has_shape(stable) {
            return false;
        }
        let Rules { group, epoch, .. } = *self.rules;
        let bytes = Checkpoint::signed_bytes(group, epoch, stable.seq, stable.digest);
        let key = (stable.seq, stable.digest);
        let known = self.genuine.checkpoints.get(&key).cloned().unwrap_or_default();
        let all = proof.iter().filter(|pair| !known.contains(pair)).all(|(signer, signature)| {
            self.verify(*signer, &bytes, signature) || base::mutant!(CertificateUnverified)
        });
        if all {
            self.genuine.remember(stable);
        }
        all
    }

    /// Judges a VIEW-CHANGE; its digest.
    pub(super) fn change(&mut self, change: &ViewChange) -> Result<Digest, Fault> {
        if !self.rules.is_member(change.replica) {
            return Err(Fault::Forged("view-change of a stranger"));
        }
        let digest = self.rules.change_digest(change);
        if self.genuine.changes.get(&change.replica) == Some(&(digest, change.signature)) {
            return Ok(digest);
        }
        let bytes = self.rules.change_signed(digest);
        if !self.verify(change.replica, &bytes, &change.signature) {
            return Err(Fault::Forged("signature of a view-change"));
        }
        self.rules.change_shape(change).map_err(Fault::Bad)?;
        if !self.certified(&change.stable) {
            return Err(Fault::Bad("certificate of a view-change"));
        }
        self.genuine.changes.insert(change.replica, (digest, change.signature));
        Ok(digest)
    }

    /// Judges a NEW-VIEW; what it comes to.
    pub(super) fn new_view(&mut self, nv: &NewView) -> Result<Plan, Fault> {
        let quorums = self.rules.quorums;
        // No more is hashed and verified than a group has replicas, whoever sends it.
        if nv.changes.len() > usize::from(quorums.n()) {
            return Err(Fault::Forged("size of a new-view"));
        }
        let named = |change: &Arc<ViewChange>| (self.rules.change_digest(change), change.signature);
        let digests: Vec<(Digest, Signature)> = nv.changes.iter().map(named).collect();
        let bytes = self.rules.new_view_signed(nv.view, &digests);
        let by_leader = self.verify(nv.view.leader(quorums.n()), &bytes, &nv.signature);
        if !by_leader && !base::mutant!(NewViewUnsigned) {
            return Err(Fault::Forged("signature of a new-view"));
        }
        if nv.view == View(0) {
            return Err(Fault::Bad("new-view for the first view"));
        }
        let short = usize::from(base::mutant!(ViewChangeQuorumShort));
        if nv.changes.len() < quorums.quorum() - short {
            return Err(Fault::Bad("new-view without a quorum"));
        }
        let distinct = nv.changes.windows(2).all(|pair| pair[0].replica < pair[1].replica);
        if !distinct && !base::mutant!(SendersInNewViewRepeat) {
            return Err(Fault::Bad("senders in a new-view"));
        }
        let same = nv.changes.iter().all(|change| change.view == nv.view);
        if !same && !base::mutant!(NewViewMixesViews) {
            return Err(Fault::Bad("view-change for another view in a new-view"));
        }
        for change in &nv.changes {
            let judged = self.change(change);
            if !base::mutant!(ChangesInNewViewUnverified) {
                judged.map_err(|_| Fault::Bad("view-change in a new-view"))?;
            }
        }
        match decide(quorums, nv.view, &nv.changes) {
            Decision::Decided(plan) => Ok(plan),
            Decision::Undecided(_) => Err(Fault::Bad("undecided new-view")),
        }
    }

    /// Whether a RECOVER is genuine.
    pub(super) fn recover(&mut self, recover: &Recover) -> bool {
        let bytes = self.rules.recover_signed(recover.replica, recover.incarnation, recover.view);
        self.verify(recover.replica, &bytes, &recover.signature)
    }

    /// Whether a CHECKPOINT is genuine.
    pub(super) fn checkpoint(&mut self, signer: ReplicaId, said: &Checkpoint) -> bool {
        let Rules { group, epoch, .. } = *self.rules;
        let bytes = Checkpoint::signed_bytes(group, epoch, said.seq, said.digest);
        self.verify(signer, &bytes, &said.signature)
    }
}
