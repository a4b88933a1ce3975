//! Checkpoints: agreed by the pillar in charge, in round-robin, and made known to all
//! (COP §4.2.2; design, trap 11).
//!
//! Signatures are verified once a quorum says the same, not before. A checkpoint that is stable
//! elsewhere moves this replica's low mark only once it has executed that far itself and found
//! the same digest.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{
    Digest, Now, PillarId, Progress, ReplicaId, Seq, Sibling, Signature, StableCheckpoint, ToStage,
    VoteSet,
};

use super::msg::{Checkpoint, Message};
use super::{Lane, LaneConfig, Reject};
use crate::group::link::ToCoordinator;
use crate::group::record::GroupRecord;
use crate::outbox::{Fact, Outbox, Record, Target};

/// Checkpoint messages of this replica that are kept for those who lag.
const OWN_KEPT: usize = 16;
/// Certificates that are kept to hold late signatures against.
const CERTIFICATES_KEPT: usize = 4;
/// Bytes of executed frames that all pillars together keep below the low mark.
const RETAINED_BYTES: usize = 128 << 20;

/// What a signature that may be forged costs the share of who sent it.
const FORGED_COST_BYTES: usize = 1 << 20;

/// What one replica says about one checkpoint.
#[derive(Clone, Debug)]
struct Said {
    from: ReplicaId,
    /// Zero once its signature was found forged: that counts for nothing, and stays.
    digest: Digest,
    signature: Signature,
    /// Whether the signature is known to be genuine. Each is verified once.
    genuine: bool,
}

/// What is known about checkpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Checkpoints {
    /// The last one that is stable and executed here.
    stable: Option<StableCheckpoint>,
    /// Votes above the low mark, by number, then by sender: the last of each, until its signature
    /// is looked at.
    votes: BTreeMap<Seq, Vec<Said>>,
    /// This replica's own digests, above the low mark.
    own: BTreeMap<Seq, Digest>,
    /// This replica's own messages, for those who lag.
    sent: BTreeMap<Seq, Checkpoint>,
    /// The highest that is proven stable by others, while this replica is not there yet.
    ahead: Option<StableCheckpoint>,
    /// The state at this number was fetched on the word of a weak quorum: there is no own digest
    /// of what is certified at or below it, and none is needed.
    vouched: Seq,
    /// The state at this number was fetched, and neither it nor a later one is on disk: nothing is
    /// said of states. 0 without any.
    unsaved: Seq,
    /// The last state that is known to be on disk.
    saved: Seq,
    /// The frames of what is decided up to here were let go, while a state is waited for.
    let_go: Seq,
    /// A certified checkpoint whose state this replica lacks, and has to fetch: it votes above
    /// it all the same, for others may not get on without its votes.
    floor: Seq,
    /// The last certificates that were seen here, to hold late signatures against them.
    certificates: VecDeque<StableCheckpoint>,
    /// Whose wrong signature was told: once each.
    told_wrong: VoteSet,
}

impl Checkpoints {
    pub(super) fn held(&self) -> usize {
        self.votes.len().max(self.own.len()).max(self.sent.len())
    }

    pub(super) fn stable(&self) -> Seq {
        self.stable.as_ref().map_or(Seq(0), |s| s.seq)
    }

    /// A state is waited for, the one at `floor`: numbers above it are voted on.
    pub(super) fn float_above(&mut self, floor: Seq) {
        self.floor = floor;
        // A quorum has certified a later one; while it floats, no mark moves past these.
        self.votes.retain(|seq, _| *seq > floor);
    }

    /// The last state that was waited for; 0 without any.
    pub(super) fn awaited(&self) -> Seq {
        self.floor
    }

    /// The frames of the number behind those that were let go are let go, too: `seq`.
    pub(super) fn let_go(&mut self, seq: Seq) {
        self.let_go = seq;
    }

    /// Up to here it is decided and was let go.
    pub(super) fn let_go_upto(&self) -> Seq {
        self.let_go.max(self.floor)
    }

    /// Nothing at or below it is voted on.
    pub(super) fn floor(&self) -> Seq {
        self.floor.max(self.stable())
    }

    pub(super) fn stable_digest(&self) -> Digest {
        self.stable.as_ref().map_or(Digest::ZERO, |s| s.digest)
    }

    /// The highest checkpoint that is certified, as far as this pillar knows.
    pub(super) fn certified(&self) -> StableCheckpoint {
        self.ahead.clone().or_else(|| self.stable.clone()).unwrap_or_default()
    }

    /// The highest that others are proven to have reached, while this replica has not.
    pub(super) fn ahead(&self) -> Seq {
        self.ahead.as_ref().map_or(Seq(0), |ahead| ahead.seq)
    }

    /// The low mark of a lane that begins with this state, which is on disk. One that only a weak
    /// quorum has signed moves no mark, and may be this replica's to sign (F11).
    pub(super) fn begin(&mut self, state: StableCheckpoint, cfg: &LaneConfig) {
        self.saved = state.seq;
        match state.is_weak(cfg.quorums.quorum()) {
            true => {
                self.vouched = state.seq;
                if in_charge(cfg, state.seq) == Some(cfg.pillar) {
                    self.own.insert(state.seq, state.digest);
                }
            }
            false => self.stable = (state.seq > Seq(0)).then_some(state),
        }
    }

    /// Whether this replica's word for a state would be worth nothing once it had ended: what it
    /// has fetched is not on disk.
    fn is_unsaved(&self) -> bool {
        self.unsaved > self.saved && !base::mutant!(CertifiesUnsaved)
    }

    /// Whether this is what it has signed for that number. Before its memory was mended it may have
    /// signed something else.
    fn has_said(&self, seq: Seq, digest: Digest) -> bool {
        self.sent.get(&seq).is_some_and(|said| said.digest == digest)
    }

    fn remember(&mut self, certified: &StableCheckpoint) {
        if self.certificates.iter().all(|known| known.seq != certified.seq) {
            self.certificates.push_back(certified.clone());
            if self.certificates.len() > CERTIFICATES_KEPT {
                self.certificates.pop_front();
            }
        }
    }

    /// This replica's messages above `seq`, ascending.
    pub(super) fn sent_above(&self, seq: Seq) -> impl Iterator<Item = &Checkpoint> {
        self.sent.range(seq.next()..).map(|(_, checkpoint)| checkpoint)
    }

    pub(super) fn check(&self, cfg: &LaneConfig) {
        assert!(self.sent.len() <= OWN_KEPT && self.certificates.len() <= CERTIFICATES_KEPT);
        assert!(self.ahead.is_none() || self.ahead() > self.stable());
        for (seq, votes) in &self.votes {
            assert!(*seq > self.stable() && seq.0.is_multiple_of(cfg.checkpoint_interval));
            assert!(votes.len() <= usize::from(cfg.quorums.n()));
        }
    }
}

/// The pillar in charge of the checkpoint at `seq`; `None` when there is none.
fn in_charge(cfg: &LaneConfig, seq: Seq) -> Option<PillarId> {
    let k = seq.0 / cfg.checkpoint_interval;
    let is_one = seq.0.is_multiple_of(cfg.checkpoint_interval);
    is_one.then(|| cfg.stripe.checkpoint_pillar(k))
}

impl Lane {
    fn sign_checkpoint(&mut self, seq: Seq, digest: Digest) -> Checkpoint {
        let bytes = Checkpoint::signed_bytes(self.cfg.group, self.cfg.epoch, seq, digest);
        let checkpoint = Checkpoint { seq, digest, signature: self.keys.sign(&bytes) };
        self.checkpoints.sent.insert(seq, checkpoint);
        while self.checkpoints.sent.len() > OWN_KEPT {
            self.checkpoints.sent.pop_first();
        }
        checkpoint
    }

    /// Signs the low mark where it was fetched or read from disk: else a peer that lacks its
    /// certificate could find nobody left who says so.
    pub(super) fn sign_low_mark(&mut self) {
        let (seq, digest) = (self.checkpoints.stable(), self.checkpoints.stable_digest());
        let mine = in_charge(&self.cfg, seq) == Some(self.cfg.pillar);
        let new = !self.checkpoints.has_said(seq, digest) && !self.checkpoints.is_unsaved();
        if mine && seq > Seq(0) && new {
            self.sign_checkpoint(seq, digest);
        }
    }

    /// Execution has taken the checkpoint at `seq`, and this pillar is in charge of it.
    pub(super) fn on_own_checkpoint(
        &mut self,
        now: Now,
        seq: Seq,
        digest: Digest,
        out: &mut Outbox,
    ) {
        debug_assert_eq!(in_charge(&self.cfg, seq), Some(self.cfg.pillar));
        if !self.checkpoints.is_unsaved() {
            self.vote_for(seq, digest, out);
        }
        // A later one may have become stable meanwhile, through another pillar. One that this
        // pillar floats above is not stable here for that: siblings that had executed it before
        // they were told to float do not, and their marks wait for this one's word (F9).
        if seq <= self.checkpoints.stable() {
            return;
        }
        self.checkpoints.own.insert(seq, digest);
        if let Some(ahead) = self.checkpoints.ahead.clone().filter(|ahead| ahead.seq == seq) {
            self.compare(now, &ahead, digest, out);
            return;
        }
        self.try_stable(now, seq, out);
    }

    /// Signs this replica's own checkpoint, and counts that.
    fn vote_for(&mut self, seq: Seq, digest: Digest, out: &mut Outbox) {
        let checkpoint = self.sign_checkpoint(seq, digest);
        let signature = checkpoint.signature;
        // Behind what it speaks of: a certificate says that a weak quorum of correct replicas can
        // be asked for it, also after all of them have ended at one moment. So it comes behind
        // the log, and a state that the log does not lead to is on disk (F12).
        out.settled(Target::All, seq, Message::Checkpoint(checkpoint));
        if seq > self.low() {
            // Execution may have begun anew, from a state that was fetched.
            let votes = self.checkpoints.votes.entry(seq).or_default();
            votes.retain(|said| said.from != self.cfg.me);
            votes.push(Said { from: self.cfg.me, digest, signature, genuine: true });
        }
    }

    /// F11: signs the state that this life began with on a weak quorum's word. An earlier life may
    /// have signed it, and those who are at the end of their window need that word again if the
    /// outage was everybody's. Not before a certificate within a window of it is known: a signer is
    /// relied on to know one (R6), and what the earlier life knew may not be on disk.
    pub(super) fn sign_vouched(&mut self, now: Now, out: &mut Outbox) {
        let (seq, known) = (self.checkpoints.vouched, &self.checkpoints);
        let Some(digest) = known.own.get(&seq).copied() else { return };
        let new = seq > self.low() && !known.has_said(seq, digest);
        if new && seq <= self.high() && !known.is_unsaved() {
            self.vote_for(seq, digest, out);
            self.try_stable(now, seq, out);
        }
    }

    /// The state at `seq` is on disk: F12.
    pub(super) fn on_saved(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        self.checkpoints.saved = self.checkpoints.saved.max(seq);
        if self.checkpoints.is_unsaved() {
            return;
        }
        self.checkpoints.unsaved = Seq(0);
        let own: Vec<(Seq, Digest)> = self.checkpoints.own.iter().map(|(s, d)| (*s, *d)).collect();
        for (seq, digest) in own {
            if seq > self.low() && !self.checkpoints.has_said(seq, digest) {
                self.vote_for(seq, digest, out);
                self.try_stable(now, seq, out);
            }
        }
    }

    pub(super) fn on_checkpoint(
        &mut self,
        now: Now,
        from: ReplicaId,
        checkpoint: Checkpoint,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let Checkpoint { seq, digest, signature } = checkpoint;
        if in_charge(&self.cfg, seq) != Some(self.cfg.pillar) {
            return Err(Reject::Misbehaviour("checkpoint of another pillar"));
        }
        if seq <= self.low() || seq <= self.checkpoints.ahead() {
            // Nothing of it is kept, so it may come without end.
            let peers = &mut self.catchup.peers;
            if peers.may_serve(from, now.mono) && self.look_for_wrong_one(from, checkpoint, out) {
                self.catchup.peers.served(from, now.mono, FORGED_COST_BYTES);
            }
            return Err(Reject::Stale("checkpoint is stable already"));
        }
        // A replica may honestly be a window ahead of this one's window, or of what this one has
        // executed, which after a restart may be far above its low mark.
        if seq.0 > self.high().max(self.progress.executed).0 + self.cfg.window {
            self.catchup.peers.mentions(from, seq, self.cfg.quorums.weak());
            return Err(Reject::Stale("checkpoint beyond the window"));
        }
        // What is executed may be far above the low mark. Those who have executed it have known a
        // certificate within a window of it (R6), so none of those far below is needed.
        let useful = self.progress.executed.0.saturating_sub(2 * self.cfg.window);
        if seq.0 < useful {
            return Err(Reject::Stale("checkpoint far below what is executed"));
        }
        while self.checkpoints.votes.first_key_value().is_some_and(|(seq, _)| seq.0 < useful) {
            self.checkpoints.votes.pop_first();
        }
        let votes = self.checkpoints.votes.entry(seq).or_default();
        let said = Said { from, digest, signature, genuine: false };
        match votes.iter().position(|said| said.from == from) {
            Some(at) => self.correct(now, at, (seq, said))?,
            None => votes.push(said),
        }
        self.try_stable(now, seq, out);
        Ok(())
    }

    /// A peer says something of `seq` again, whose word is the one at `at`. If it is something
    /// else, its memory was spoilt and it has executed anew: the rest may need its word.
    fn correct(&mut self, now: Now, at: usize, (seq, said): (Seq, Said)) -> Result<(), Reject> {
        let Some(votes) = self.checkpoints.votes.get_mut(&seq) else { return Ok(()) };
        let before = &mut votes[at];
        if before.digest == said.digest {
            return Err(Reject::Stale("checkpoint again"));
        }
        if before.genuine || before.digest == Digest::ZERO {
            return Err(Reject::Misbehaviour("two checkpoints for one number"));
        }
        // Each may have something verified, and a liar has as many as it likes.
        let peers = &mut self.catchup.peers;
        if !peers.may_serve(said.from, now.mono) {
            return Err(Reject::Stale("checkpoint corrected too often"));
        }
        peers.served(said.from, now.mono, FORGED_COST_BYTES);
        self.misbehaviour += 1;
        *before = said;
        Ok(())
    }

    /// Looks for a quorum of genuine signatures over one digest.
    fn try_stable(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let quorum = self.cfg.quorums.quorum() - usize::from(base::mutant!(CheckpointQuorumShort));
        let Some(votes) = self.checkpoints.votes.get_mut(&seq) else { return };
        let Some(digest) = votes
            .iter()
            .map(|said| said.digest)
            .find(|digest| votes.iter().filter(|said| said.digest == *digest).count() >= quorum)
            .filter(|digest| *digest != Digest::ZERO)
        else {
            return;
        };
        let bytes = Checkpoint::signed_bytes(self.cfg.group, self.cfg.epoch, seq, digest);
        for said in votes.iter_mut().filter(|said| said.digest == digest && !said.genuine) {
            said.genuine = self.keys.verify(said.from, &bytes, &said.signature)
                || base::mutant!(CheckpointSignatureUnverified);
            if !said.genuine {
                said.digest = Digest::ZERO;
                self.misbehaviour += 1;
            }
        }
        let mut proof: Vec<(ReplicaId, Signature)> = votes
            .iter()
            .filter(|said| said.digest == digest)
            .map(|said| (said.from, said.signature))
            .collect();
        if proof.len() < quorum {
            return;
        }
        proof.sort_unstable_by_key(|(from, _)| *from);
        let certified = StableCheckpoint { seq, digest, proof: Arc::new(proof) };
        let others = self.checkpoints.votes.get(&seq).cloned().unwrap_or_default();
        self.checkpoints.remember(&certified);
        for said in others.iter().filter(|said| said.digest != digest) {
            let Said { digest, signature, .. } = *said;
            self.look_for_wrong_one(said.from, Checkpoint { seq, digest, signature }, out);
        }
        self.hold_against_own(now, &certified, out);
    }

    /// What a certificate that is new here means for this replica.
    fn hold_against_own(&mut self, now: Now, certified: &StableCheckpoint, out: &mut Outbox) {
        match self.checkpoints.own.get(&certified.seq).copied() {
            Some(mine) => self.compare(now, certified, mine, out),
            None if certified.seq <= self.checkpoints.vouched => self.settle(now, certified, out),
            None if base::mutant!(MarkMovesUnexecuted) => self.settle(now, certified, out),
            None => self.get_ahead(certified, out),
        }
    }

    /// This replica has executed up to a certified checkpoint.
    fn compare(&mut self, now: Now, certified: &StableCheckpoint, mine: Digest, out: &mut Outbox) {
        if mine == certified.digest || base::mutant!(DivergenceUnnoticed) {
            self.settle(now, certified, out);
        } else {
            out.fact(Fact::Diverged { seq: certified.seq, mine, theirs: certified.digest });
            out.coordinator(ToCoordinator::Diverged(certified.clone()));
            // It finds the same, and stands still: what it is told to fetch it would else take for
            // its own where that has the number that it is at, or trust what it remembers of it.
            out.stage(ToStage::Stable(certified.clone()));
        }
    }

    /// This replica's state is that of `certified`, or one that came from it.
    fn settle(&mut self, now: Now, certified: &StableCheckpoint, out: &mut Outbox) {
        self.tell_stable(certified, out);
        self.on_stable(now, certified, out);
    }

    /// What is certified, and part of this replica's state, is stable for all of it. Siblings may
    /// hear that before they hear of a state that was fetched: what that skips they must not take
    /// for executed.
    fn tell_stable(&self, certified: &StableCheckpoint, out: &mut Outbox) {
        let fetched = certified.seq <= self.checkpoints.vouched;
        out.stage(ToStage::Stable(certified.clone()));
        out.siblings(match fetched {
            true => Sibling::Certified(certified.clone()),
            false => Sibling::Stable(certified.clone()),
        });
        out.coordinator(ToCoordinator::Stable(certified.clone()));
    }

    /// The others are proven to be at `certified`; this replica is not.
    fn get_ahead(&mut self, certified: &StableCheckpoint, out: &mut Outbox) {
        if certified.seq > self.low() && certified.seq > self.checkpoints.ahead() {
            self.catchup.peers.proven(certified.seq);
            self.checkpoints.ahead = Some(certified.clone());
            self.checkpoints.remember(certified);
            out.coordinator(ToCoordinator::Ahead(certified.clone()));
            self.try_slice(out);
        }
    }

    /// The coordinator has verified this certificate.
    pub(super) fn on_certified(
        &mut self,
        now: Now,
        certified: &StableCheckpoint,
        out: &mut Outbox,
    ) {
        if certified.seq > self.low() {
            self.hold_against_own(now, certified, out);
        }
    }

    /// A CHECKPOINT that contradicts a certificate is a proof against its signer, if it is
    /// genuine: the link proves to this replica alone who said it. Returns whether it is forged.
    fn look_for_wrong_one(&mut self, from: ReplicaId, said: Checkpoint, out: &mut Outbox) -> bool {
        let kept = &self.checkpoints.certificates;
        let Some(certified) = kept.iter().find(|known| known.seq == said.seq).cloned() else {
            return false;
        };
        let fine = said.digest == certified.digest || said.digest == Digest::ZERO;
        if fine || from == self.cfg.me || self.checkpoints.told_wrong.contains(from) {
            return false;
        }
        let Checkpoint { seq, digest, signature } = said;
        let bytes = Checkpoint::signed_bytes(self.cfg.group, self.cfg.epoch, seq, digest);
        let genuine = self.keys.verify(from, &bytes, &signature);
        if genuine {
            self.checkpoints.told_wrong.insert(from);
            out.coordinator(ToCoordinator::WrongCheckpoint { signer: from, said, certified });
        }
        !genuine
    }

    /// The checkpoint is stable and executed here: the low mark moves, the log is cut.
    pub(super) fn on_stable(&mut self, now: Now, stable: &StableCheckpoint, out: &mut Outbox) {
        if stable.seq <= self.checkpoints.stable() {
            return;
        }
        // A sibling's word may come before the stage's: whatever is stable here is executed, or is
        // part of a state that was fetched, and then nothing up to it is waited for any more.
        let last = self.cfg.stripe.last_of(self.cfg.pillar, stable.seq).unwrap_or_default();
        let fetched = last > self.delivered;
        if self.floats() {
            // Who waits for a state executes nothing.
            self.skip(now, stable.seq, out);
        } else if fetched {
            self.void_upto(now, last);
        }
        self.move_mark(stable, out);
        if fetched {
            self.count_as_delivered(now, last);
        }
        self.on_executed(now, stable.seq, out);
        // One window is kept below the mark for those who lag, within bounds: they catch up
        // from it.
        let window = Seq(stable.seq.0.saturating_sub(self.cfg.window));
        self.log.cut(window.min(self.delivered));
        self.log.cut_to_weight(RETAINED_BYTES / usize::from(self.cfg.stripe.pillars()));
        self.after_mark(now, stable, out);
    }

    /// The window moves with the mark. What is promised there goes to the disk behind the
    /// certificate that allows it: a slice could not be shown without one (V6), and those who had
    /// heard of it may all be gone. The coordinator's own record may come later than that.
    fn move_mark(&mut self, stable: &StableCheckpoint, out: &mut Outbox) {
        out.persist(Record::Group(GroupRecord::Stable(stable.clone())));
        if self.checkpoints.ahead() <= stable.seq {
            self.checkpoints.ahead = None;
        }
        self.checkpoints.votes.retain(|seq, _| *seq > stable.seq);
        self.checkpoints.own.retain(|seq, _| *seq > stable.seq);
        self.log.settle(self.low(), stable.seq);
        self.checkpoints.remember(stable);
        self.checkpoints.stable = Some(stable.clone());
    }

    fn after_mark(&mut self, now: Now, stable: &StableCheckpoint, out: &mut Outbox) {
        self.catchup.progressed(now.mono);
        out.fact(Fact::Stable { seq: stable.seq, digest: stable.digest });
        self.sign_vouched(now, out);
        self.carry_out_plan(now, out);
        self.try_slice(out);
    }

    /// The state is now that of a fetched checkpoint, whatever was executed before. Everything
    /// up to it counts as delivered and executed, and what is delivered above it is handed to
    /// execution once more, which began anew.
    ///
    /// Where a weak quorum vouches for it, the low mark moves only as far as a quorum has
    /// certified: what was promised above that binds, and is handed over when a view is left.
    pub(super) fn on_fetched(
        &mut self,
        now: Now,
        (fetched, progress, replaced): (&StableCheckpoint, Progress, bool),
        out: &mut Outbox,
    ) {
        if replaced {
            self.checkpoints.unsaved = fetched.seq.max(self.checkpoints.unsaved);
            // They are of what was executed before, and what is above comes anew.
            self.checkpoints.own.clear();
        }
        self.grievances.forget_frames();
        self.grievances.endorsements.skips(fetched.seq);
        self.pool.fetched_at = Some(now.mono);
        self.hear_anew(now);
        if fetched.seq < self.checkpoints.stable() {
            return;
        }
        let weak = fetched.is_weak(self.cfg.quorums.quorum());
        self.checkpoints.vouched = if weak { fetched.seq } else { Seq(0) };
        self.skip(now, fetched.seq, out);
        self.progress = progress;
        self.refused.retain(|(seq, _)| *seq > progress.executed);
        let mark = if weak { self.checkpoints.ahead.clone() } else { Some(fetched.clone()) };
        let mark =
            mark.filter(|mark| mark.seq > self.checkpoints.stable() && mark.seq <= fetched.seq);
        if let Some(mark) = &mark {
            self.move_mark(mark, out);
            self.log.cut(mark.seq);
        }
        self.count_as_delivered(now, fetched.seq);
        if self.floats() {
            // It is not enough.
            let floor = self.checkpoints.floor;
            out.coordinator(ToCoordinator::LeftBehind { missing: floor, stable: floor });
        }
        if let Some(mark) = &mark {
            if weak {
                // Nobody but this pillar may know that it is certified.
                self.tell_stable(mark, out);
            }
            self.after_mark(now, mark, out);
        }
        for (seq, slot) in self.log.iter().filter(|(seq, _)| *seq > progress.executed) {
            if let Some(batch) = slot.batch.clone().filter(|_| slot.delivered) {
                out.stage(ToStage::Deliver { seq, batch });
            }
        }
        self.deliver_more(now, out);
        if weak && in_charge(&self.cfg, fetched.seq) == Some(self.cfg.pillar) {
            // Others may not get on without this replica's word.
            self.on_own_checkpoint(now, fetched.seq, fetched.digest, out);
        }
    }
}
