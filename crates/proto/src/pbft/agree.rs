//! The three phases of the normal case: PRE-PREPARE, PREPARE, COMMIT (design §4).
//!
//! In-order verification (COP §3.2, §4.1): a proposal's digest is computed, and its frames'
//! authenticity is looked at, only when the proposal can still be accepted; a vote is compared
//! only when its slot still needs it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, Digest, Frame, Now, ReplicaId, Seq, Span, ToStage, View, VoteSet, limits};

use super::log::{Counted, Phase, Slot};
use super::msg::{Message, Proposal, Vote};
use super::pool::Want;
use super::{Lane, Reject, pool};
use crate::group::link::Grievance;
use crate::outbox::{Outbox, Record};

/// Most places of proposals that wait for frames here. Beyond it only the number that is needed
/// next takes a proposal: or a faulty leader could fill the memory with names of phantoms.
const WANTS_MAX: usize = 16_384;

/// Where a proposal comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The leader of this view has proposed it: its frames need to be trusted.
    Leader,
    /// The NEW-VIEW of this view has chosen it.
    Plan,
    /// A weak quorum of backups has accepted it.
    Backups,
    /// A weak quorum says that it is decided.
    Decision,
}

impl Lane {
    /// Whether a vote or a proposal for `seq` in `view` is for here and now.
    fn in_scope(&mut self, from: ReplicaId, view: View, seq: Seq) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("number of another pillar"));
        }
        if view != self.view && !(base::mutant!(OldViewsVotesCount) && view < self.view) {
            return Err(Reject::Stale("another view"));
        }
        let high =
            if base::mutant!(WindowUnchecked) { self.high().0 + 4096 } else { self.high().0 };
        if seq <= self.low() || seq.0 > high {
            self.catchup.peers.mentions(from, seq, self.cfg.quorums.weak());
            return Err(Reject::Stale("outside the watermarks"));
        }
        if seq <= self.views.start() {
            return Err(Reject::Stale("below the beginning of the view"));
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
        if from != self.leader(seq) && !base::mutant!(AnybodyProposes) {
            return Err(self.out_of_turn("pre-prepare from a replica that does not lead"));
        }
        if seq <= self.views.top() && !base::mutant!(PlanDoesNotBind) {
            return self.on_proposal_is(now, seq, proposal, out);
        }
        let slot = self.log.slot(seq).ok_or(Reject::Stale("cut off"))?;
        let another = slot.proposal.as_ref().is_some_and(|known| *known != proposal);
        if base::mutant!(SecondProposalReplaces) && another && !slot.decided {
            (slot.phase, slot.prepares, slot.commits) = Default::default();
            slot.displace();
        }
        if let Some(known) = &slot.proposal {
            return match (*known == proposal, slot.phase) {
                (true, _) if slot.led => Err(Reject::Stale("pre-prepare again")),
                (true, phase) => {
                    // Known from others, or voted for by an earlier life.
                    (slot.led, slot.phase) = (true, phase.max(Phase::Waiting));
                    self.advance(now, seq, out);
                    Ok(())
                }
                (false, Phase::Empty) => Err(Reject::Stale("another batch is decided")),
                (false, _) if !slot.led => {
                    Err(self.out_of_turn("another proposal than backups vote for"))
                }
                (false, _) => Err(Reject::Misbehaviour("second proposal for one number")),
            };
        }
        if proposal.names_twice() {
            return Err(Reject::Misbehaviour("proposal that names a frame twice"));
        }
        self.room_for(seq, &proposal)?;
        self.in_bucket(from, seq, &proposal)?;
        self.in_time(now, seq, &proposal)?;
        self.install(now, seq, proposal, Origin::Leader);
        self.follow_proposal(now.mono, seq);
        self.look_for_two_proposals(now, seq, out);
        self.advance(now, seq, out);
        Ok(())
    }

    /// Whether there is room for the frames that the proposal names, should they be missing.
    pub(super) fn room_for(&self, seq: Seq, proposal: &Proposal) -> Result<(), Reject> {
        let named = proposal.entries().len();
        let is_next = seq == self.next_undelivered();
        if !is_next && named > 0 && self.pool.wants() + named > WANTS_MAX {
            return Err(Reject::Stale("too many frames are missing already"));
        }
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
        let silence = self.silence_before(self.leader(seq), seq);
        let patience = Span(bound.0.saturating_add(silence.0));
        if (early <= bound && late <= patience) || base::mutant!(ClockUnchecked) {
            return Ok(());
        }
        let digest = proposal.digest(self.cfg.group, seq);
        let backers = |slot: &Slot| {
            let mut who = VoteSet::EMPTY;
            who.insert(self.leader(seq));
            slot.prepares.senders(digest).chain(slot.commits.senders(digest)).for_each(|r| {
                who.insert(r);
            });
            who.len()
        };
        if self.log.get(seq).map_or(0, backers) >= self.cfg.quorums.weak().max(2) {
            return Ok(());
        }
        self.grievances.refused_of(self.leader(seq), seq);
        Err(match early > bound {
            true => Reject::Misbehaviour("proposed time is out of bounds"),
            false => Reject::Stale("proposed too long ago"),
        })
    }

    /// Puts a proposal into its empty slot and notes which frames it waits for.
    pub(super) fn install(&mut self, now: Now, seq: Seq, proposal: Proposal, origin: Origin) {
        let digest = proposal.digest(self.cfg.group, seq);
        let slot = self.log.get_mut(seq).expect("the caller found the slot");
        debug_assert!(slot.proposal.is_none() && slot.batch.is_none());
        // Momentary when nothing is missing: `advance` moves on at once.
        if origin != Origin::Decision || slot.chosen == Some(digest) {
            slot.phase = Phase::Waiting;
        }
        slot.decided |= origin == Origin::Decision;
        slot.led = origin == Origin::Leader;
        if let Some(content) = slot.past.as_ref().and_then(|past| past.content(digest)) {
            let content = content.clone();
            slot.put(content);
            self.mark_ordered(now, seq);
            return;
        }
        slot.digest = digest;
        slot.proposal = Some(proposal);
        self.want_bodies(now, seq, origin);
    }

    /// Takes from the pool what the proposal at `seq` names, and waits for the rest.
    pub(super) fn want_bodies(&mut self, now: Now, seq: Seq, origin: Origin) {
        let weak = self.cfg.quorums.weak();
        // The leader's proposal says that it has checked the frames itself.
        let voucher = (origin == Origin::Leader).then_some(self.leader(seq));
        let slot = self.log.get_mut(seq).expect("the caller found the slot");
        let entries = slot.proposal.as_ref().map_or(&[][..], |proposal| proposal.entries());
        // The slot holds on to the bodies itself: the pool lets go of a frame as soon as *some*
        // number with it is executed, and a faulty leader may propose a frame twice.
        let mut bodies = Vec::with_capacity(entries.len());
        for (place, entry) in entries.iter().enumerate() {
            let want = Want { seq, place, needs_trust: origin == Origin::Leader };
            let key = pool::key_of(entry);
            if want.needs_trust {
                let pool = (&mut self.pool, weak);
                self.grievances.endorsements.answer_for(now.mono, key, pool);
            }
            bodies.push(self.pool.want(now.mono, key, want, voucher, weak));
        }
        slot.missing = bodies.iter().filter(|body| body.is_none()).count();
        slot.bodies = bodies;
        if slot.missing > 0 {
            self.catchup.waits_for_proposal(now.mono);
        }
    }

    /// The frames of what the slot is about are ordered. What is executed has left the pool, and
    /// what was refused then may wait there for another order.
    pub(super) fn mark_ordered(&mut self, now: Now, seq: Seq) {
        let open = seq > self.progress.executed;
        let Some(slot) = self.log.get(seq).filter(|_| open) else { return };
        for entry in slot.proposal.iter().flat_map(|proposal| proposal.entries()) {
            let key = pool::key_of(entry);
            self.pool.mark_ordered(&key, seq);
            let own = self.pool.get(&key).filter(|held| held.is_awaited());
            self.grievances.ordered(now.mono, &key, own.map(|held| held.pending_since));
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
        if self.proposed_by(vote.seq) == Some(from) && !base::mutant!(LeaderPrepares) {
            return Err(self.out_of_turn("prepare from the leader"));
        }
        let slot = self.log.slot(vote.seq).ok_or(Reject::Stale("cut off"))?;
        if slot.phase == Phase::Committed {
            return Err(Reject::Stale("already committed"));
        }
        counted(slot.prepares.add(from, vote.digest), "two prepares for one number")?;
        match slot.phase {
            Phase::Empty => self.overhear(now, vote.seq),
            _ if slot.digest != vote.digest => self.look_for_two_proposals(now, vote.seq, out),
            _ => {}
        }
        self.follow_votes(now.mono, vote.seq);
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
        if slot.phase == Phase::Committed {
            return Err(Reject::Stale("already committed"));
        }
        counted(slot.commits.add(from, vote.digest), "two commits for one number")?;
        self.advance(now, vote.seq, out);
        Ok(())
    }

    /// A weak quorum has accepted another proposal for `seq` than the leader told this replica:
    /// a correct one among them has it from the leader.
    fn look_for_two_proposals(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let weak = self.cfg.quorums.weak();
        let Some(slot) = self.log.get(seq).filter(|slot| slot.chosen.is_none()) else { return };
        let mine = slot.digest;
        let digests = slot.prepares.digests().filter(|digest| *digest != mine);
        let mut others: Vec<Digest> = digests.collect();
        others.sort_unstable();
        let told_two = others.chunk_by(|a, b| a == b).any(|same| same.len() >= weak);
        if told_two && !base::mutant!(EquivocationUnnoticed) {
            self.aggrieved(now.mono, (Grievance::Equivocates, self.leader(seq)), out);
        }
    }

    /// Moves the slot of `seq` on as far as it goes.
    pub(super) fn advance(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        self.try_hold(now, seq);
        self.try_accept(now, seq, out);
        self.try_prepare(now, seq, out);
        self.try_commit(now, seq, out);
    }

    /// Every frame is here and trusted.
    fn try_hold(&mut self, now: Now, seq: Seq) {
        let Some(slot) = self.log.get_mut(seq) else { return };
        let completed = slot.complete();
        let held = slot.phase == Phase::Waiting && slot.batch.is_some();
        if held {
            slot.phase = Phase::Held;
        }
        if completed || held {
            self.mark_ordered(now, seq);
        }
    }

    /// The proposal of this view is complete: Q(n, d, v), and a PREPARE of all but who proposed it.
    fn try_accept(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let (me, view) = (self.cfg.me, self.view);
        let proposed = self.proposed_by(seq) == Some(me);
        let may_vote = self.may_vote(seq);
        let Some(slot) = self.log.get(seq) else { return };
        // A decision may have displaced what this replica has voted for in this view.
        if slot.phase != Phase::Held || !may_vote || slot.voted_in(view) {
            return;
        }
        // No correct leader proposes it, and no record of the log could hold it.
        let weight = slot.weight;
        if weight > limits::BATCH_BYTES_MAX || !self.may_weigh(now, seq, weight) {
            return;
        }
        let slot = self.log.get_mut(seq).expect("it is held");
        slot.phase = Phase::Accepted;
        slot.accepted_at = now.mono;
        let vote = Vote { view, seq, digest: slot.digest };
        let proposal = slot.proposal.clone().expect("held");
        let batch = slot.batch.clone().expect("held");
        if !proposed {
            slot.prepares.add(me, vote.digest);
        }
        out.persist(Record::PrePrepared { view, seq, proposal, batch });
        if !proposed {
            self.promise_all(Message::Prepare(vote), out);
            self.leaving.commits.carry();
            self.votes_for(now.mono, seq);
        }
    }

    /// The accepted proposal and 2f matching PREPAREs of backups, or 2f + 1 of anybody where nobody
    /// is known to have proposed it in this view: P(n, d, v), and COMMIT.
    fn try_prepare(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let short = usize::from(base::mutant!(PrepareQuorumShort));
        let (me, view) = (self.cfg.me, self.view);
        let may_vote = self.may_vote(seq);
        let Some(slot) = self.log.get(seq) else { return };
        let needed =
            (self.cfg.quorums.quorum() - self.leader_votes(seq, slot)).saturating_sub(short);
        let Some(slot) = self.log.get_mut(seq) else { return };
        let ready = slot.phase == Phase::Accepted && may_vote;
        if !ready || slot.prepares.count(slot.digest) < needed {
            return;
        }
        slot.phase = Phase::Prepared;
        let vote = Vote { view, seq, digest: slot.digest };
        slot.commits.add(me, vote.digest);
        if !base::mutant!(PreparedUnrecorded) {
            out.persist(Record::Prepared { view, seq, digest: vote.digest });
        }
        // What a client makes of a tentative reply, it makes of this vote. What is handed over
        // already is voted for again, since others may need that.
        let fresh = seq > self.delivered && !slot.delivered;
        if let Some(batch) = slot.batch.as_ref().filter(|batch| fresh && ***batch != Batch::Null)
            && self.cfg.switches.tentative
        {
            out.stage(ToStage::Tentative { seq, view, batch: Arc::clone(batch) });
        }
        self.send_commit(now.mono, vote, out);
    }

    /// 2f + 1 matching COMMITs, or decided elsewhere: delivered. A quorum of them is enough even
    /// where this replica has not prepared: a weak quorum of correct ones has.
    fn try_commit(&mut self, now: Now, seq: Seq, out: &mut Outbox) {
        let quorum = self.cfg.quorums.quorum() - usize::from(base::mutant!(CommitQuorumShort));
        // Above it only what an earlier life has left in the log: the stage takes no more.
        let reach = Seq(self.progress.executed.0 + self.cfg.window);
        let Some(slot) = self.log.get_mut(seq) else { return };
        let Some(batch) = &slot.batch else { return };
        if slot.phase < Phase::Committed && slot.commits.count(slot.digest) >= quorum {
            slot.decided = true;
            if slot.phase == Phase::Prepared {
                slot.phase = Phase::Committed;
                let round = now.mono.since(slot.accepted_at);
                let leader = usize::from(self.views.roles.leader(seq).0);
                let own = self.grievances.pace.monitors.get_mut(leader);
                own.unwrap_or(&mut self.grievances.monitor).committed(round);
            }
        }
        // What came with a state that was fetched is not handed over again.
        if !slot.decided || slot.delivered || seq > reach || seq <= self.delivered {
            return;
        }
        let (digest, batch) = (slot.digest, batch.clone());
        slot.delivered = true;
        // What others said is needed no more, and may be a lot.
        slot.decision_bodies = Vec::new();
        // The record of an earlier life is as durable as it gets: all of the log was made so when
        // it was opened.
        if !slot.recalled {
            let proposal = slot.proposal.as_ref().filter(|_| !slot.is_recorded(digest));
            let unrecorded = proposal.map(|proposal| (proposal.clone(), batch.clone()));
            out.persist(Record::Committed { seq, digest, batch: unrecorded });
        }
        out.stage(ToStage::Deliver { seq, batch });
        self.move_delivered(now);
    }

    pub(super) fn move_delivered(&mut self, now: Now) {
        let mut next = self.next_undelivered();
        while self.log.get(next).is_some_and(|slot| slot.delivered) {
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
