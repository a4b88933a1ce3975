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
/// The same at the end of the window, from where nobody gets on but by a checkpoint.
const REST_AT_END: Span = Span::millis(100);
/// Somebody waits who has asked within this time. Who does asks every two seconds (F2).
const WAITS: Span = Span::secs(5);
/// Who waits for so long while execution stands is served before those who read what is of no use
/// to him.
const IN_VAIN: Span = Span::secs(5);
/// While somebody waits, what else is kept may be free by then.
const LOOK: Span = Span::millis(250);

/// Who waits for a checkpoint, and since when execution stands where it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest {
    at: Seq,
    /// When it moved last, or the first of those began to wait who do now, whatever came later.
    since: Time,
    /// How far each of them has executed, and when it asked last.
    waiting: BTreeMap<ReplicaId, (Seq, Time)>,
    /// It is not looked at before.
    next_look: Time,
}

impl Rest {
    /// This replica has `executed` so far.
    fn moved(&mut self, now: Time, executed: Seq) {
        if self.at != executed {
            (self.at, self.since) = (executed, now);
        }
    }

    /// `from`, which has executed `have`, asks.
    pub(super) fn is_asked(&mut self, now: Time, from: ReplicaId, have: Seq) {
        self.expire(now);
        if self.waiting.is_empty() {
            self.since = now;
        }
        self.waiting.insert(from, (have, now));
    }

    fn expire(&mut self, now: Time) {
        self.waiting.retain(|_, (_, at)| now.since(*at) < WAITS);
    }

    /// When it is over, unless execution moves before that.
    fn ends(&self, pause: Span) -> Option<Time> {
        let end = self.since.after(pause);
        Some(end.max(self.next_look)).filter(|_| !self.waiting.is_empty())
    }

    /// Who waits for what is executed here, and has executed how far.
    fn who_lacks(&self, executed: Seq) -> Vec<(ReplicaId, Seq)> {
        let waiting = self.waiting.iter().map(|(who, (have, _))| (*who, *have));
        waiting.filter(|(_, have)| *have < executed).collect()
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
    /// This replica has executed something.
    pub(super) fn has_moved(&mut self, now: Time) {
        self.pins.rest.moved(now, self.executed);
    }

    /// When execution is to be looked at, if somebody waits.
    pub(super) fn rest_deadline(&self) -> Option<Time> {
        let end = self.stable.seq.0.saturating_add(self.cfg.window);
        let pause = if self.executed.0 >= end { REST_AT_END } else { REST };
        self.pins.rest.ends(pause)
    }

    /// F10: where execution rests although others wait, keeps the state that this replica is in,
    /// and tells all of them once it is readable. Returns whether it does so now.
    pub(super) fn look_at_rest(&mut self, now: Time, out: &mut Vec<Effect>) -> bool {
        self.has_moved(now);
        if self.rest_deadline().is_none_or(|at| at > now) {
            return false;
        }
        self.pins.rest.next_look = now.after(LOOK);
        self.pins.rest.expire(now);
        let (executed, certified) = (self.executed, self.certified.seq);
        let waiting = self.pins.rest.who_lacks(executed);
        let unserved = waiting.iter().any(|(_, have)| !self.pins.serves(*have, certified));
        let in_vain = unserved && now.since(self.pins.rest.since) >= IN_VAIN;
        let sound = executed >= certified && !self.pins.is_unsaved();
        let rests = sound && !waiting.is_empty() && self.pins.may_rest(now, executed, in_vain);
        if rests {
            self.pin_rest(now, waiting.iter().map(|(who, _)| *who), out);
        }
        rests
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
