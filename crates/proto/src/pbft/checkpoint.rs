//! Checkpoints: agreed by the pillar in charge, in round-robin, and made known to all
//! (COP §4.2.2; design, trap 11).
//!
//! Signatures are verified once a quorum says the same, not before. A checkpoint that is stable
//! elsewhere moves this replica's low mark only once it has executed that far itself and found
//! the same digest.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Digest, Now, PillarId, ReplicaId, Seq, Sibling, Signature, StableCheckpoint, ToStage};

use super::msg::{Checkpoint, Message};
use super::{Lane, LaneConfig, Reject};
use crate::outbox::{Fact, Outbox, Target};

/// Checkpoint messages of this replica that are kept for those who lag.
const OWN_KEPT: usize = 16;
/// Bytes of executed frames that all pillars together keep below the low mark.
const RETAINED_BYTES: usize = 128 << 20;

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
    /// Votes above the low mark, by number, then by sender: the first of each stays.
    votes: BTreeMap<Seq, Vec<Said>>,
    /// This replica's own digests, above the low mark.
    own: BTreeMap<Seq, Digest>,
    /// This replica's own messages, for those who lag.
    sent: BTreeMap<Seq, Checkpoint>,
    /// The highest that is proven stable by others, while this replica is not there yet.
    ahead: Option<StableCheckpoint>,
}

impl Checkpoints {
    pub(super) fn stable(&self) -> Seq {
        self.stable.as_ref().map_or(Seq(0), |s| s.seq)
    }

    pub(super) fn stable_digest(&self) -> Digest {
        self.stable.as_ref().map_or(Digest::ZERO, |s| s.digest)
    }

    /// This replica's messages above `seq`, ascending.
    pub(super) fn sent_above(&self, seq: Seq) -> impl Iterator<Item = &Checkpoint> {
        self.sent.range(seq.next()..).map(|(_, checkpoint)| checkpoint)
    }

    pub(super) fn check(&self, cfg: &LaneConfig) {
        assert!(self.sent.len() <= OWN_KEPT);
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
    /// Execution has taken the checkpoint at `seq`, and this pillar is in charge of it.
    pub(super) fn on_own_checkpoint(
        &mut self,
        now: Now,
        seq: Seq,
        digest: Digest,
        out: &mut Outbox,
    ) {
        debug_assert_eq!(in_charge(&self.cfg, seq), Some(self.cfg.pillar));
        let bytes = Checkpoint::signed_bytes(self.cfg.group, self.cfg.epoch, seq, digest);
        let signature = self.keys.sign(&bytes);
        let checkpoint = Checkpoint { seq, digest, signature };
        self.checkpoints.sent.insert(seq, checkpoint);
        while self.checkpoints.sent.len() > OWN_KEPT {
            self.checkpoints.sent.pop_first();
        }
        out.promise(Target::All, Message::Checkpoint(checkpoint));
        // A later one may have become stable meanwhile, through another pillar.
        if seq <= self.low() {
            return;
        }
        self.checkpoints.own.insert(seq, digest);
        let said = Said { from: self.cfg.me, digest, signature, genuine: true };
        self.checkpoints.votes.entry(seq).or_default().push(said);
        self.try_stable(now, seq, out);
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
        if seq <= self.low() {
            return Err(Reject::Stale("checkpoint is stable already"));
        }
        // A replica may honestly be a window ahead of this one's window.
        if seq.0 > self.high().0 + self.cfg.window {
            self.catchup.peers.mentions(from, seq, self.cfg.quorums.weak());
            return Err(Reject::Stale("checkpoint beyond the window"));
        }
        let votes = self.checkpoints.votes.entry(seq).or_default();
        if let Some(said) = votes.iter().find(|said| said.from == from) {
            return Err(match said.digest == digest {
                true => Reject::Stale("checkpoint again"),
                false => Reject::Misbehaviour("two checkpoints for one number"),
            });
        }
        votes.push(Said { from, digest, signature, genuine: false });
        self.try_stable(now, seq, out);
        Ok(())
    }

    /// Looks for a quorum of genuine signatures over one digest.
    fn try_stable(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let quorum = self.cfg.quorums.quorum();
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
            said.genuine = self.keys.verify(said.from, &bytes, &said.signature);
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
        match self.checkpoints.own.get(&seq) {
            Some(mine) if *mine == digest => {
                out.stage(ToStage::Stable(certified.clone()));
                out.siblings(Sibling::Stable(certified.clone()));
                self.on_stable(now, &certified, out);
            }
            Some(mine) => out.fact(Fact::Diverged { seq, mine: *mine, theirs: digest }),
            None => {
                if self.checkpoints.ahead.as_ref().is_none_or(|a| a.seq < seq) {
                    self.catchup.peers.proven(seq);
                    self.checkpoints.ahead = Some(certified);
                }
            }
        }
    }

    /// The checkpoint is stable and executed here: the low mark moves, the log is cut.
    pub(super) fn on_stable(&mut self, now: Now, stable: &StableCheckpoint, out: &mut Outbox) {
        if stable.seq <= self.low() {
            return;
        }
        if self.checkpoints.ahead.as_ref().is_some_and(|a| a.seq <= stable.seq) {
            self.checkpoints.ahead = None;
        }
        self.checkpoints.votes.retain(|seq, _| *seq > stable.seq);
        self.checkpoints.own.retain(|seq, _| *seq > stable.seq);
        self.checkpoints.stable = Some(stable.clone());
        // A sibling's word may come before the stage's: whatever is stable here is executed.
        self.on_executed(now, stable.seq, out);
        // One window is kept below the mark for those who lag, within bounds: they catch up
        // from it.
        let window = Seq(stable.seq.0.saturating_sub(self.cfg.window));
        let bytes = RETAINED_BYTES / usize::from(self.cfg.stripe.pillars());
        let cut = self.log.cut_for_weight(stable.seq, bytes).max(window);
        self.log.cut(cut.min(self.delivered));
        self.catchup.progressed(now.mono);
        out.fact(Fact::Stable { seq: stable.seq, digest: stable.digest });
    }
}
