//! Leaving a view and beginning one: the lane's part in the view change (design, traps 2 to 4).
//!
//! The coordinator decides. On STOP the lane votes no more and hands over what it has promised;
//! on INSTALL it takes the plan of the NEW-VIEW for its own numbers. In between it goes on as a
//! learner. Proposals that the plan does not name are void: their frames wait for the new leader.
//!
//! A plan may reach beyond this replica's high mark; it is carried out as the low mark moves.
//! Numbers at or below the plan's start are not voted on in its view.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::batch::null_digest;
use base::{Digest, Now, ReplicaId, Seq, Time, View};

use super::agree::Origin;
use super::early::Early;
use super::log::{Phase, Slot};
use super::msg::{Message, Proposal};
use super::{Input, Lane, LaneConfig, Reject, Roles};
use crate::group::link::{Choice, Plan, SliceEntry, ToCoordinator};
use crate::outbox::{Outbox, Target};

/// What looking for a proposal costs the asker's share.
const FETCH_PROPOSAL_COST_BYTES: usize = 1 << 10;

/// Where the lane stands between views.
#[derive(Clone, Debug)]
pub(super) struct Views {
    /// The highest view that this replica votes in or has asked for: it votes in none below.
    pub(super) asked: View,
    /// It may vote for numbers above this one only; `None`: for nothing.
    pub(super) above: Option<Seq>,
    /// An earlier life may have executed numbers up to here, and shown clients what came of them.
    pub(super) shown: Seq,
    /// Whether there was one.
    pub(super) resumes: bool,
    /// The plan of the present view, while some of it is yet to be carried out.
    plan: Option<Arc<Plan>>,
    /// The beginning and the end of what the plan fixes.
    start: Seq,
    top: Seq,
    /// Up to where the plan is carried out.
    applied: Seq,
    /// The view for which the coordinator waits for this pillar's slice.
    owes_slice: Option<View>,
    early: Early,
    /// Who leads in the view.
    pub(super) roles: Roles,
}

impl Views {
    pub(super) fn new(cfg: &LaneConfig) -> Views {
        let numbers = cfg.window / u64::from(cfg.stripe.pillars()) + 1;
        let numbers = usize::try_from(numbers).expect("a window fits into memory");
        Views {
            asked: View(0),
            above: Some(Seq(0)),
            shown: Seq(0),
            resumes: false,
            plan: None,
            start: Seq(0),
            top: Seq(0),
            applied: Seq(0),
            owes_slice: None,
            early: Early::new(cfg.quorums.n(), numbers),
            roles: Roles::new(cfg),
        }
    }

    pub(super) fn early(&self) -> super::early::Held {
        self.early.held()
    }

    /// Nothing at or below it is voted on in this view.
    pub(super) fn start(&self) -> Seq {
        self.start
    }

    /// The last number that the NEW-VIEW has fixed.
    pub(super) fn top(&self) -> Seq {
        self.top
    }

    pub(super) fn take(&mut self, plan: Arc<Plan>) {
        (self.start, self.top) = (plan.start.seq, plan.top());
        (self.applied, self.plan) = (plan.start.seq, Some(plan));
    }

    pub(super) fn check(&self) {
        self.early.check();
        assert!(self.start <= self.top && self.applied >= self.start);
    }
}

impl Lane {
    /// Whether this replica votes in its view, as far as the view goes.
    pub(super) fn is_active(&self) -> bool {
        self.views.asked == self.view
    }

    /// Whether this replica may vote for `seq` in its view.
    pub(super) fn may_vote(&self, seq: Seq) -> bool {
        let active = self.is_active() || base::mutant!(VotesAfterLeaving);
        active && seq > self.views.start && self.views.above.is_some_and(|a| seq > a)
    }

    /// Keeps what is said in a view that is not installed here yet.
    pub(super) fn keep_early(&mut self, from: ReplicaId, message: &Message) {
        let view = match message {
            // Where they rotate, who leads is not known before the view begins.
            Message::PrePrepare { view, .. }
                if self.views.roles.rotate() || from == view.leader(self.cfg.quorums.n()) =>
            {
                *view
            }
            Message::Prepare(vote) | Message::Commit(vote) => vote.view,
            _ => return,
        };
        if view > self.view {
            self.views.early.keep(from, view, message.clone());
        }
    }

    /// Votes in no view below `view` from now on, and hands over what was promised.
    pub(super) fn on_stop(&mut self, view: View, out: &mut Outbox) {
        if view <= self.view || view < self.views.asked {
            return;
        }
        // What waits is promised, and named in the slice; afterwards it would be a vote in a view
        // that was left.
        if !base::mutant!(HeldCommitsOutliveView) {
            self.release_all_commits(out);
        }
        self.views.asked = view;
        let present = self.view;
        self.log.iter_mut().for_each(|(_, slot)| slot.fold(present));
        // They would go to a leader that is being replaced; the frames stay.
        self.leaving.vouches.clear();
        self.views.owes_slice = Some(view);
        self.try_slice(out);
    }

    /// Hands over the slice that the coordinator waits for. A log whose checkpoint file is gone may
    /// hold promises beyond the window of the last certificate that is known here; then the slice
    /// waits for a newer one. Otherwise the log has it (`move_mark`).
    pub(super) fn try_slice(&mut self, out: &mut Outbox) {
        let Some(view) = self.views.owes_slice else { return };
        let stable = self.checkpoints.certified();
        let mut entries = Vec::new();
        for (seq, slot) in self.log.iter().filter(|(seq, _)| *seq > stable.seq) {
            let Some(past) = &slot.past else { continue };
            let pre_prepared = past.pre_prepared().to_vec();
            entries.push(SliceEntry { seq, prepared: past.prepared(), pre_prepared });
        }
        let high = stable.seq.0 + self.cfg.window;
        if entries.last().is_some_and(|entry: &SliceEntry| entry.seq.0 > high) {
            return;
        }
        self.views.owes_slice = None;
        self.tell_suspect(view, out);
        let pillar = self.cfg.pillar;
        out.coordinator(ToCoordinator::Slice { pillar, view, stable, entries });
    }

    /// The view begins.
    pub(super) fn on_install(&mut self, now: Now, plan: &Arc<Plan>, out: &mut Outbox) {
        if plan.view <= self.view || plan.view < self.views.asked {
            return;
        }
        let old = core::mem::replace(&mut self.view, plan.view);
        if !base::mutant!(HeldCommitsOutliveView) {
            self.leaving.commits.forget();
        }
        self.views.roles.install(plan);
        self.views.asked = plan.view;
        self.views.owes_slice = None;
        let mut void = Vec::new();
        for (seq, slot) in self.log.iter_mut() {
            void.extend(slot.begin_view(old).map(|proposal| (seq, proposal)));
        }
        for (seq, proposal) in void.into_iter().filter(|_| !base::mutant!(DisplacedForgotten)) {
            self.unwant_all(now, seq, Some(&proposal));
        }
        // A frame may be in another batch, too, that is decided.
        let executed = self.progress.executed;
        let open = self.log.iter().filter(|(seq, slot)| slot.decided && *seq > executed);
        let open: Vec<Seq> = open.map(|(seq, _)| seq).collect();
        open.into_iter().for_each(|seq| self.mark_ordered(now, seq));
        // Before anything of the plan is voted for.
        self.log.undecided.begin_view();
        self.views.take(plan.clone());
        self.on_certified(now, &plan.start, out);
        self.tell_if_beyond_reach(plan.start.seq, out);
        self.catchup.begin_view(now.mono);
        self.grievances.pace.begin_view(now.mono);
        self.grievances.begin_view(now.mono);
        self.told = (self.delivered, Time::ZERO);
        self.carry_out_plan(now, out);
        self.lead.begin_view(self.own_after(self.views.top));
        self.deal(now.mono);
        self.offer_pending(now, out);
        for (from, message) in self.views.early.take(self.view) {
            // Counted there, if it is of no use any more.
            let incarnation = base::Incarnation::default();
            let _ = self.step(now, Input::Peer { from, incarnation, message }, out);
        }
    }

    /// What waits for its order is made known to the new leader.
    fn offer_pending(&mut self, now: Now, out: &mut Outbox) {
        self.leaving.vouches.clear();
        self.grievances.frame_waits(now.mono, self.cfg.view_timeout);
        let leads = self.is_leader();
        for key in self.pool.begin_view(now.mono, leads.then_some(self.cfg.me)) {
            self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
            self.catchup.waits_for_bodies(now.mono);
        }
        self.vouch_again(now, (self.vouched_to(), usize::MAX), out);
        self.forward_again(out);
    }

    /// Carries out the plan as far as the high mark allows.
    pub(super) fn carry_out_plan(&mut self, now: Now, out: &mut Outbox) {
        let Some(plan) = self.views.plan.clone() else { return };
        let upto = plan.top().min(self.high());
        let from = self.views.applied.max(self.low());
        let mut seq = self.cfg.stripe.next_of(self.cfg.pillar, from);
        while seq <= upto {
            if let Some(choice) = plan.choice(seq) {
                self.choose(now, seq, choice, out);
            }
            seq = self.cfg.stripe.next_of(self.cfg.pillar, seq);
        }
        self.views.applied = self.views.applied.max(upto);
        if upto == plan.top() {
            self.views.plan = None;
        }
    }

    /// The NEW-VIEW has fixed `choice` for `seq`.
    fn choose(&mut self, now: Now, seq: Seq, choice: Choice, out: &mut Outbox) {
        let digest = match choice {
            Choice::Null => null_digest(self.cfg.group, seq),
            Choice::Digest(digest) => digest,
        };
        let Some(slot) = self.log.slot(seq) else { return };
        slot.chosen = Some(digest);
        if slot.proposal.is_some() {
            // Decided already, or voted for by an earlier life. That another digest is decided
            // takes more than f faulty replicas; this one then says no more about the number.
            if slot.digest == digest && slot.phase == Phase::Empty {
                slot.phase = Phase::Waiting;
            }
        } else if choice == Choice::Null {
            self.install(now, seq, Proposal::Null, Origin::Plan);
        } else if let Some(known) = slot.stood_by(digest).cloned() {
            self.install(now, seq, known, Origin::Plan);
        } else if seq > self.delivered {
            self.catchup.waits_for_proposal(now.mono);
            out.send(Target::All, Message::FetchProposal { seq, digest });
        }
        self.advance(now, seq, out);
    }

    /// A peer asks for the proposal behind a digest that it has from a NEW-VIEW, or from votes.
    pub(super) fn on_fetch_proposal(
        &mut self,
        now: Now,
        from: ReplicaId,
        (seq, digest): (Seq, Digest),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("fetch for another pillar"));
        }
        if !self.catchup.peers.may_serve(from, now.mono) {
            return Err(Reject::Stale("fetches faster than they are answered"));
        }
        self.catchup.peers.served(from, now.mono, FETCH_PROPOSAL_COST_BYTES);
        let known = self.log.get(seq).and_then(|slot| slot.stood_by(digest));
        let Some(proposal) = known.cloned() else {
            return Err(Reject::Stale("fetch of a proposal that is not known here"));
        };
        let message = Message::ProposalIs { seq, proposal };
        self.catchup.peers.served(from, now.mono, message.encoded_len_max());
        out.send(Target::One(from), message);
        Ok(())
    }

    /// The proposal that the NEW-VIEW has chosen or that others vote for, from anybody: its
    /// digest proves it.
    pub(super) fn on_proposal_is(
        &mut self,
        now: Now,
        seq: Seq,
        proposal: Proposal,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("number of another pillar"));
        }
        let slot = self.log.get(seq).filter(|slot| slot.proposal.is_none());
        let (weak, leads) = (self.cfg.quorums.weak(), self.leads(seq));
        let chosen = |slot: &Slot| slot.chosen.map(|digest| (digest, Origin::Plan));
        let overheard = |slot: &Slot| {
            let digest = slot.overheard(weak).filter(|_| !leads)?;
            Some((digest, Origin::Backups))
        };
        let wanted = slot.and_then(|slot| chosen(slot).or_else(|| overheard(slot)));
        let Some((digest, origin)) = wanted else {
            return Err(Reject::Stale("proposal that is not looked for"));
        };
        if proposal.digest(self.cfg.group, seq) != digest && !base::mutant!(ProposalUnverified) {
            // Perhaps it was in an earlier view.
            return Err(Reject::Stale("another proposal than is looked for"));
        }
        if origin == Origin::Backups {
            self.room_for(seq, &proposal)?;
        }
        self.catchup.proposal_came(now.mono);
        self.install(now, seq, proposal, origin);
        self.advance(now, seq, out);
        Ok(())
    }
}
