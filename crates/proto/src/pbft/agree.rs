//! The three phases of the normal case: PRE-PREPARE, PREPARE, COMMIT (design §4).
//!
//! In-order verification (COP §3.2, §4.1): a proposal's digest is computed, and its frames'
//! authenticity is looked at, only when the proposal can still be accepted; a vote is compared
//! only when its slot still needs it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, Frame, Now, ReplicaId, Seq, Span, ToStage, View, VoteSet};

use super::log::{Counted, Phase, Slot};
use super::msg::{Message, Proposal, Vote};
use super::pool::Want;
use super::{Lane, Reject, pool};
use crate::outbox::{Outbox, Record, Target};

impl Lane {
    /// Whether a vote or a proposal for `seq` in `view` is for here and now.
    fn in_scope(&mut self, from: ReplicaId, view: View, seq: Seq) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("number of another pillar"));
        }
        if view != self.view {
            return Err(Reject::Stale("another view"));
        }
        if seq <= self.delivered {
            return Err(Reject::Stale("already delivered"));
        }
        if seq <= self.low() || seq > self.high() {
            self.catchup.peers.mentions(from, seq, self.cfg.quorums.weak());
            return Err(Reject::Stale("outside the watermarks"));
        }
        Ok(())
    }

    pub(super) fn on_pre_prepare(
        &mut self,
        now: Now,
        from: ReplicaId,
        view: View,
        (seq, proposal): (Seq, Proposal),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.in_scope(from, view, seq)?;
        if from != self.leader() {
            return Err(Reject::Misbehaviour("pre-prepare from a replica that does not lead"));
        }
        let slot = self.log.slot(seq).ok_or(Reject::Stale("cut off"))?;
        if let Some(known) = &slot.proposal {
            return Err(match *known == proposal {
                true => Reject::Stale("pre-prepare again"),
                false => Reject::Misbehaviour("second proposal for one number"),
            });
        }
        self.in_time(now, seq, &proposal)?;
        self.install(now, seq, proposal, false);
        self.advance(now, seq, out);
        Ok(())
    }

    /// Whether the proposed time is within bounds. Only a fresh proposal is held against this
    /// replica's clock: one that could not be decided in its time must be decidable later, or
    /// its number, and with it the group, would stand still for good. A proposal is not fresh
    /// when a weak quorum supports it (one of them is correct and has looked), or when it is a
    /// number that may have been proposed while nothing was heard of the leader.
    fn in_time(&mut self, now: Now, seq: Seq, proposal: &Proposal) -> Result<(), Reject> {
        let Proposal::Frames { time, .. } = proposal else { return Ok(()) };
        let early = Span(time.0.saturating_sub(now.wall.0));
        let late = Span(now.wall.0.saturating_sub(time.0));
        let bound = self.cfg.clock_skew_max;
        let patience = Span(bound.0.saturating_add(self.silence_before(seq).0));
        if early <= bound && late <= patience {
            return Ok(());
        }
        let digest = proposal.digest(self.cfg.group, seq);
        let backers = |slot: &Slot| {
            let mut who = VoteSet::EMPTY;
            who.insert(self.leader());
            slot.prepares.senders(digest).chain(slot.commits.senders(digest)).for_each(|r| {
                who.insert(r);
            });
            who.len()
        };
        if self.log.get(seq).map_or(0, backers) >= self.cfg.quorums.weak().max(2) {
            return Ok(());
        }
        Err(match early > bound {
            true => Reject::Misbehaviour("proposed time is out of bounds"),
            false => Reject::Stale("proposed too long ago"),
        })
    }

    /// Puts a proposal into its empty slot and notes which frames it waits for.
    pub(super) fn install(&mut self, now: Now, seq: Seq, proposal: Proposal, decided: bool) {
        let weak = self.cfg.quorums.weak();
        // The slot holds on to the bodies itself: the pool lets go of a frame as soon as *some*
        // number with it is executed, and a faulty leader may propose a frame twice.
        let mut bodies = Vec::with_capacity(proposal.entries().len());
        // The leader's proposal says that it has checked the frames itself.
        let voucher = (!decided).then_some(self.leader());
        for (place, entry) in proposal.entries().iter().enumerate() {
            let want = Want { seq, place, needs_trust: !decided };
            bodies.push(self.pool.want(now.mono, pool::key_of(entry), want, voucher, weak));
        }
        let missing = bodies.iter().filter(|body| body.is_none()).count();
        let digest = proposal.digest(self.cfg.group, seq);
        let view = self.view;
        let slot = self.log.slot(seq).expect("the caller found the slot");
        slot.view = view;
        slot.digest = digest;
        slot.proposal = Some(proposal);
        slot.decided = decided;
        slot.missing = missing;
        slot.bodies = bodies;
        // Momentary when nothing is missing: `advance` moves on at once.
        slot.phase = Phase::Waiting;
        if missing > 0 {
            self.catchup.waits_for_bodies(now.mono);
        }
    }

    /// The frame `key` got a body or more trust: whoever waited for it may go on.
    pub(super) fn frame_changed(&mut self, now: Now, key: &pool::Key, out: &mut Outbox) {
        let satisfied = self.pool.satisfied(key, self.cfg.quorums.weak());
        if let Some((frame, wanted)) = satisfied {
            self.fill_places(now, &frame, &wanted, out);
        }
    }

    /// `wanted` have waited for `frame`, which is here and trusted.
    pub(super) fn fill_places(
        &mut self,
        now: Now,
        frame: &Arc<Frame>,
        wanted: &[Want],
        out: &mut Outbox,
    ) {
        for Want { seq, place, .. } in wanted {
            // 0: the leader waited for a body that it has not proposed yet.
            if *seq == Seq(0) {
                let key = (frame.id(), frame.digest());
                self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
            } else if let Some(slot) = self.log.get_mut(*seq) {
                slot.fill(*place, frame);
                self.advance(now, *seq, out);
            }
        }
    }

    pub(super) fn on_prepare(
        &mut self,
        now: Now,
        from: ReplicaId,
        vote: Vote,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.in_scope(from, vote.view, vote.seq)?;
        if from == self.leader() {
            return Err(Reject::Misbehaviour("prepare from the leader"));
        }
        let slot = self.log.slot(vote.seq).ok_or(Reject::Stale("cut off"))?;
        counted(slot.prepares.add(from, vote.digest), "two prepares for one number")?;
        self.advance(now, vote.seq, out);
        Ok(())
    }

    pub(super) fn on_commit(
        &mut self,
        now: Now,
        from: ReplicaId,
        vote: Vote,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.in_scope(from, vote.view, vote.seq)?;
        let slot = self.log.slot(vote.seq).ok_or(Reject::Stale("cut off"))?;
        counted(slot.commits.add(from, vote.digest), "two commits for one number")?;
        self.advance(now, vote.seq, out);
        Ok(())
    }

    /// Moves the slot of `seq` on as far as it goes.
    pub(super) fn advance(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        self.try_accept(seq, out);
        self.try_prepare(seq, out);
        self.try_commit(now, seq, out);
    }

    /// Every frame is here and trusted: Q(n, d, v), and a backup's PREPARE.
    fn try_accept(&mut self, seq: Seq, out: &mut Outbox) {
        let (leads, me) = (self.leads(), self.cfg.me);
        let Some(slot) = self.log.get_mut(seq) else { return };
        if slot.phase != Phase::Waiting || slot.missing > 0 {
            return;
        }
        let proposal = slot.proposal.clone().expect("a waiting slot has a proposal");
        let batch = match &proposal {
            Proposal::Null => Batch::Null,
            Proposal::Frames { time, .. } => {
                Batch::Frames { time: *time, frames: slot.bodies.drain(..).flatten().collect() }
            }
        };
        slot.weight = match &batch {
            Batch::Null => 0,
            Batch::Frames { frames, .. } => frames.iter().map(|frame| frame.weight()).sum(),
        };
        slot.batch = Some(Arc::new(batch));
        slot.phase = Phase::Accepted;
        let vote = Vote { view: slot.view, seq, digest: slot.digest };
        for entry in proposal.entries() {
            self.pool.mark_ordered(&pool::key_of(entry));
        }
        // What is decided elsewhere needs no vote of this replica any more.
        if slot.decided {
            return;
        }
        let view = slot.view;
        if !leads {
            slot.prepares.add(me, vote.digest);
        }
        out.persist(Record::PrePrepared { view, seq, proposal });
        if !leads {
            out.promise(Target::All, Message::Prepare(vote));
        }
    }

    /// The accepted proposal and 2f matching PREPAREs of backups: P(n, d, v), and COMMIT.
    fn try_prepare(&mut self, seq: Seq, out: &mut Outbox) {
        let needed = self.cfg.quorums.quorum() - 1;
        let me = self.cfg.me;
        let Some(slot) = self.log.get_mut(seq) else { return };
        let ready = slot.phase == Phase::Accepted && !slot.decided;
        if !ready || slot.prepares.count(slot.digest) < needed {
            return;
        }
        slot.phase = Phase::Prepared;
        let vote = Vote { view: slot.view, seq, digest: slot.digest };
        slot.commits.add(me, vote.digest);
        out.persist(Record::Prepared { view: vote.view, seq, digest: vote.digest });
        out.promise(Target::All, Message::Commit(vote));
    }

    /// Prepared and 2f + 1 matching COMMITs, or decided elsewhere: delivered.
    fn try_commit(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let quorum = self.cfg.quorums.quorum();
        let Some(slot) = self.log.get_mut(seq) else { return };
        let committed = slot.phase == Phase::Prepared && slot.commits.count(slot.digest) >= quorum;
        let decided = slot.phase == Phase::Accepted && slot.decided;
        if !committed && !decided {
            return;
        }
        slot.phase = Phase::Delivered;
        // What others said is needed no more, and may be a lot.
        slot.decision_bodies = Vec::new();
        let batch = slot.batch.clone().expect("an accepted slot has its batch");
        out.stage(ToStage::Deliver { seq, batch });
        self.move_delivered(now);
    }

    fn move_delivered(&mut self, now: Now) {
        let mut next = self.next_undelivered();
        while self.log.get(next).is_some_and(|slot| slot.phase == Phase::Delivered) {
            self.delivered = next;
            next = self.next_undelivered();
            self.catchup.progressed(now.mono);
        }
    }
}

fn counted(counted: Counted, sin: &'static str) -> Result<(), Reject> {
    match counted {
        Counted::Fresh => Ok(()),
        Counted::Again => Err(Reject::Stale("vote again")),
        Counted::Contradicts => Err(Reject::Misbehaviour(sin)),
    }
}
