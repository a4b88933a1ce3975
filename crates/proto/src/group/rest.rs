//! The state at rest, for replicas without which the others do not get on
//! (`docs/protocol/recovery.md`, F9 and F10).
//!
//! A checkpoint to fetch is one that is still to be executed. Where the replicas that are up to
//! date are no quorum by themselves, nothing is executed any more until others have fetched. So
//! whoever is asked and does not move offers the state that it is in, wherever that is, under its
//! signature. A weak quorum's signatures over one state prove that it is right: one of them is
//! correct. They are no certificate: such a state moves no low mark, and nobody passes it on.
//!
//! Not here: certified checkpoints, which are always preferred (`fetch`, `pins`).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Digest, ReplicaId, Seq, Signature, Span, StableCheckpoint, Time};

use super::msg::GroupMessage;
use super::{Coordinator, Effect};
use crate::pbft::Reject;
use crate::pbft::msg::Checkpoint;

/// Execution rests when it has not moved for so long although somebody waits for a checkpoint.
const REST: Span = Span::secs(1);

/// Since when execution stands where it is, seen whenever somebody asks for a checkpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest {
    at: Seq,
    since: Option<Time>,
}

impl Rest {
    /// Somebody asks. Whether nothing was executed since others began to ask, for long enough.
    fn is_over(&mut self, now: Time, executed: Seq) -> bool {
        if self.at != executed {
            (self.at, self.since) = (executed, None);
        }
        now.since(*self.since.get_or_insert(now)) >= REST
    }
}

/// What others offer, the last of each, verified.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    offers: BTreeMap<ReplicaId, (Seq, Digest, Signature)>,
}

impl Offers {
    pub(super) fn clear(&mut self) {
        self.offers.clear();
    }

    pub(super) fn remove(&mut self, from: ReplicaId) {
        self.offers.remove(&from);
    }

    /// `from` does not hold the state at `seq` any more.
    pub(super) fn lost(&mut self, from: ReplicaId, seq: Seq) {
        self.offers.retain(|who, offer| *who != from || offer.0 != seq);
    }

    /// Who offers this state.
    pub(super) fn sources(&self, seq: Seq, digest: Digest) -> Vec<ReplicaId> {
        let same = self.offers.iter().filter(|(_, offer)| (offer.0, offer.1) == (seq, digest));
        same.map(|(from, _)| *from).collect()
    }

    /// The highest state at or above `floor` that `weak` replicas offer, with the signatures of
    /// as many.
    pub(super) fn best(&self, weak: usize, floor: Seq) -> Option<StableCheckpoint> {
        let offers = self.offers.values().filter(|(seq, ..)| *seq >= floor);
        let enough = |(seq, digest, _): &&(Seq, Digest, Signature)| {
            self.sources(*seq, *digest).len() >= weak
        };
        let (seq, digest, _) = *offers.filter(enough).max_by_key(|(seq, ..)| *seq)?;
        let signers = self.sources(seq, digest).into_iter().take(weak);
        let proof = signers.map(|from| (from, self.offers[&from].2)).collect();
        Some(StableCheckpoint { seq, digest, proof: Arc::new(proof) })
    }
}

impl Coordinator {
    /// F9: whether this replica is to offer the state that it is in to who has executed `have`,
    /// and asks.
    pub(super) fn rests(&mut self, now: Time, have: Seq) -> bool {
        let executed = self.executed;
        let rests = self.pins.rest.is_over(now, executed);
        rests && executed > have && executed >= self.certified.seq && !self.pins.is_unsaved()
    }

    /// F10: what this replica says of a state that it holds readable. By now its certificates may
    /// all be above it; then it goes with the beginning's.
    pub(super) fn offer(&self, seq: Seq, digest: Digest) -> GroupMessage {
        let (group, epoch) = (self.cfg.group, self.cfg.epoch);
        let signature = self.keys.sign(&Checkpoint::signed_bytes(group, epoch, seq, digest));
        let known = [&self.certified, &self.stable].into_iter().find(|stable| stable.seq <= seq);
        let stable = known.cloned().unwrap_or_default();
        GroupMessage::HaveState { seq, digest, signature, stable }
    }

    /// F10: a peer holds the state that it is in.
    pub(super) fn on_have_state(
        &mut self,
        now: Time,
        from: ReplicaId,
        said: Checkpoint,
        stable: &StableCheckpoint,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let Checkpoint { seq, digest, signature } = said;
        self.may_offer(now, from, seq)?;
        if stable.seq > seq {
            return Err(Reject::Misbehaviour("state below its own checkpoint"));
        }
        let known = self.fetcher.offers.offers.get(&from);
        if known.is_none_or(|known| *known != (seq, digest, signature)) {
            if !self.judge().checkpoint(from, &said) {
                return Err(Reject::Misbehaviour("signature of an offered state"));
            }
            self.fetcher.offers.offers.insert(from, (seq, digest, signature));
        }
        self.on_certificate(stable, out)?;
        self.fetch_best(now, out);
        Ok(())
    }
}
