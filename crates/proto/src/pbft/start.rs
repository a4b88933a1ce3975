//! How a lane begins with what an earlier life has left in the vote log, and what the
//! coordinator tells it.
//!
//! The log's records say what was promised (P and Q) and what was committed. The lane takes up
//! its votes in its view where they were, so that it never contradicts them, and hands what was
//! committed to execution again, a window at a time.

use alloc::boxed::Box;

use base::{Keyring, Now, Seq};

use super::log::Phase;
use super::past::Content;
use super::{Lane, LaneConfig, LaneStart};
use crate::group::link::FromCoordinator;
use crate::outbox::{Outbox, Record};

impl Lane {
    /// A lane that goes on where an earlier life of this replica ended. What follows from that
    /// comes with its first step.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    #[must_use]
    pub fn restore(cfg: LaneConfig, keys: Box<dyn Keyring>, start: LaneStart) -> Lane {
        let mut lane = Lane::new(cfg, keys);
        let LaneStart { stable, cut, view, active, plan, records, resumes } = start;
        lane.views.asked = view;
        lane.view = match (&plan, active) {
            (_, true) => view,
            (Some(plan), false) => plan.view.min(view),
            (None, false) => base::View(0),
        };
        // What a weak quorum vouched for moves no mark: what was promised below it still binds. But
        // up to where the log was cut, of votes for one number some records may be gone and others
        // there. They are below a certificate, and it votes for none of these again.
        let quorum = cfg.quorums.quorum();
        let base = stable.seq;
        let low = if stable.is_weak(quorum) { cut.min(base) } else { base };
        lane.views.resumes = resumes;
        lane.may_have_shown(base);
        match &plan {
            Some(plan) if plan.view == lane.view => lane.views.roles.install(plan),
            _ => lane.views.roles.begin(lane.view),
        }
        lane.checkpoints.begin(stable, &cfg);
        lane.progress.executed = base;
        lane.grievances.endorsements.skips(base);
        lane.delivered = cfg.stripe.last_of(cfg.pillar, base).unwrap_or_default();
        lane.log.cut(low);
        lane.lead.begin_view(lane.own_after(base));
        let mine = |record: &Record| {
            record.seq().is_some_and(|seq| seq > low && cfg.stripe.pillar_of(seq) == cfg.pillar)
        };
        records.into_iter().filter(mine).for_each(|record| lane.recall(record));
        lane.log.close_up();
        if let Some(plan) = plan.filter(|plan| plan.view == lane.view) {
            lane.lead.begin_view(lane.own_after(plan.top().max(base)));
            lane.views.take(plan);
        }
        if !base::mutant!(RestartForgetsVotes) {
            lane.recall_votes();
            lane.weigh_recalled();
        }
        (lane.begins, lane.restored) = (true, true);
        lane
    }

    /// Takes up one record of an earlier life.
    fn recall(&mut self, record: Record) {
        let group = self.cfg.group;
        let Some(slot) = record.seq().and_then(|seq| self.log.recalled(seq)) else { return };
        match record {
            Record::PrePrepared { view, seq, proposal, batch } => {
                let past = slot.past.get_or_insert_default();
                let digest = proposal.digest(group, seq);
                past.pre_prepare(view, digest);
                past.keep(Content { digest, proposal, batch });
            }
            Record::Prepared { view, digest, .. } => {
                slot.past.get_or_insert_default().prepare(view, digest);
            }
            Record::Committed { digest, batch, .. } => {
                let kept = slot.past.as_ref().and_then(|past| past.content(digest)).cloned();
                let given = batch.map(|(proposal, batch)| Content { digest, proposal, batch });
                if let Some(content) = given.or(kept).filter(|_| !slot.decided) {
                    slot.put(content);
                    (slot.decided, slot.recalled) = (true, true);
                }
            }
            Record::Group(_) => {}
        }
    }

    /// The votes in the present view are where they were.
    fn recall_votes(&mut self) {
        let (view, me, top) = (self.view, self.cfg.me, self.views.top());
        for (seq, slot) in self.log.iter_mut() {
            let Some(past) = &slot.past else { continue };
            let Some(digest) = past.voted_for(view) else { continue };
            let prepared = past.prepared() == Some((view, digest));
            match past.content(digest).cloned() {
                Some(content) if !slot.decided => slot.put(content),
                Some(_) if slot.digest == digest => {}
                _ => continue,
            }
            slot.phase = Phase::Accepted;
            // As `proposed_by` has it.
            if seq <= top || self.views.roles.leader(seq) != me {
                slot.prepares.add(me, digest);
            } else {
                slot.led = true;
            }
            if prepared {
                slot.phase = Phase::Prepared;
                slot.commits.add(me, digest);
            }
        }
    }

    /// The first step of a restored lane: what is committed is delivered, the plan is carried
    /// out.
    pub(super) fn begin(&mut self, now: Now, out: &mut Outbox) {
        self.begins = false;
        self.pool.begun_at = (self.progress.executed > Seq(0)).then_some(now.mono);
        self.sign_vouched(now, out);
        self.carry_out_plan(now, out);
        let seqs: alloc::vec::Vec<Seq> = self.log.iter().map(|(seq, _)| seq).collect();
        seqs.into_iter().for_each(|seq| self.advance(now, seq, out));
    }

    /// Delivers what is decided and was out of the stage's reach.
    pub(super) fn deliver_more(&mut self, now: Now, out: &mut Outbox) {
        let reach = self.progress.executed.0 + self.cfg.window;
        loop {
            let next = self.next_undelivered();
            let ready = |seq| self.log.get(seq).is_some_and(|slot| slot.decided && !slot.delivered);
            if next.0 > reach || !ready(next) {
                return;
            }
            self.advance(now, next, out);
            if self.next_undelivered() == next {
                return;
            }
        }
    }

    pub(super) fn on_coordinator(&mut self, now: Now, message: FromCoordinator, out: &mut Outbox) {
        match message {
            FromCoordinator::Stop { view } => self.on_stop(view, out),
            FromCoordinator::Install(plan) => self.on_install(now, &plan, out),
            FromCoordinator::Fill(seq) => self.lead.fill_gently_to(seq),
            FromCoordinator::Elsewhere(peer) => self.catchup.peers.is_elsewhere(peer, now.mono),
            FromCoordinator::Arrived(peer) => self.catchup.peers.has_arrived(peer),
            FromCoordinator::Voting { above } => {
                self.views.above = above;
                let held = self.log.iter().filter(|(_, slot)| slot.phase == Phase::Held);
                let held: alloc::vec::Vec<Seq> = held.map(|(seq, _)| seq).collect();
                held.into_iter().for_each(|seq| self.advance(now, seq, out));
            }
            FromCoordinator::Saved(seq) => self.on_saved(now, seq, out),
            FromCoordinator::Certified(certified) => {
                self.may_have_shown(certified.seq);
                self.on_certified(now, &certified, out);
            }
            FromCoordinator::Float(certified) => {
                self.may_have_shown(certified.seq);
                self.on_float(now, &certified, out);
            }
        }
    }
}
