//! What rotating leaders (`roles`) ask of a lane: to follow the others' numbers, to propose no
//! frames but those dealt to it, and to notice who does not keep up.
//!
//! Numbers are proposed by all leaders side by side, and executed only without a gap. So who sees
//! a proposal owes all its own numbers below it, with frames if there are any, else null; and a
//! leader that has used up its numbers of a checkpoint interval obliges the others to end the
//! interval, for frames may wait that are dealt to somebody else in the next.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use base::{BatchEntry, ReplicaId, Seq, Span, Time, View};

use super::log::Slot;
use super::monitor::Monitor;
use super::msg::Proposal;
use super::pool::Keeps;
use super::{Lane, Leaders, Reject, Roles, Switches};
use crate::group::link::{Grievance, ToCoordinator};
use crate::outbox::{Outbox, Target};

/// When which numbers were owed, and how late each leader was with them.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Since when a number is owed, ascending: all below it that were not proposed before.
    seen: VecDeque<(Seq, Time)>,
    /// How late each leader proposes what it owes. Empty with a fixed leader.
    pub(super) monitors: Vec<Monitor>,
}

impl Pace {
    pub(super) fn new(switches: Switches, n: u16) -> Pace {
        let count = if switches.leaders == Leaders::Rotating { usize::from(n) } else { 0 };
        Pace { seen: VecDeque::new(), monitors: vec![Monitor::default(); count] }
    }

    pub(super) fn begin_view(&mut self, now: Time) {
        self.seen.clear();
        self.monitors.iter_mut().for_each(|monitor| monitor.begin_view(now, false));
    }

    /// A number up to `seq` is proposed: those below are owed from now on.
    fn owed(&mut self, now: Time, seq: Seq, delivered: Seq) {
        while self.seen.front().is_some_and(|(seq, _)| *seq <= delivered) {
            self.seen.pop_front();
        }
        if self.seen.back().is_none_or(|(last, _)| seq > *last) {
            self.seen.push_back((seq, now));
        }
    }

    /// How long `seq` has been owed.
    pub(super) fn lateness(&self, now: Time, seq: Seq) -> Span {
        let place = self.seen.partition_point(|(owed, _)| *owed <= seq);
        self.seen.get(place).map_or(Span(0), |(_, since)| now.since(*since))
    }
}

impl Lane {
    /// Who leads in this view.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.views.roles
    }

    pub(super) fn leader(&self, seq: Seq) -> ReplicaId {
        self.views.roles.leader(seq)
    }

    pub(super) fn leads(&self, seq: Seq) -> bool {
        self.leader(seq) == self.cfg.me
    }

    /// Who answers for `seq` in this view by having proposed it, and sends no PREPARE. Nobody where
    /// the NEW-VIEW has fixed it: its sender may have yet to fetch what was chosen, and where
    /// leaders rotate, who leads the number may not even be in the view. What is prepared on the
    /// word of somebody who has no record of it could be lost with one replica more, and then no
    /// later NEW-VIEW could choose anything for that number (A2).
    pub(super) fn proposed_by(&self, seq: Seq) -> Option<ReplicaId> {
        (seq > self.views.top()).then(|| self.leader(seq))
    }

    /// How many votes for the proposal at `seq` are the leader's, who sends no PREPARE: one or
    /// none.
    ///
    /// Where leaders rotate, a faulty sender of NEW-VIEWs can give replicas of one view different
    /// rosters: who leads the number here may have proposed nothing, and have no record of what a
    /// weak quorum of backups is overheard to vote for. There it counts once it has proposed. With
    /// a fixed leader all agree on who it is, and a correct backup among them has it from there.
    pub(super) fn leader_votes(&self, seq: Seq, slot: &Slot) -> usize {
        let counts = slot.led || !self.views.roles.rotate();
        usize::from(counts && self.proposed_by(seq).is_some())
    }

    /// Somebody does what is for others to do by the roster of this view: nothing that a correct
    /// replica does, unless the NEW-VIEW of this view has given it another roster.
    pub(super) fn out_of_turn(&self, what: &'static str) -> Reject {
        let certain = !self.views.roles.rotate() || self.view == View(0);
        if certain { Reject::Misbehaviour(what) } else { Reject::Stale(what) }
    }

    /// Whether this replica leads some numbers of its view.
    pub(super) fn is_leader(&self) -> bool {
        self.views.roles.rotate() || self.leads(Seq(1))
    }

    /// Whom this replica's vouches are for.
    pub(super) fn vouched_to(&self) -> Target {
        if self.views.roles.rotate() { Target::All } else { Target::One(self.leader(Seq(1))) }
    }

    /// The first number above `after` that is this replica's to propose; none that it ever comes
    /// to if it does not lead.
    pub(super) fn own_after(&self, after: Seq) -> Seq {
        if !self.views.roles.rotate() {
            return self.cfg.stripe.next_of(self.cfg.pillar, after);
        }
        let next = self.views.roles.next_of(self.cfg.me, self.cfg.pillar, after);
        next.unwrap_or(Seq(u64::MAX >> 1))
    }

    /// How the pool keeps frames: what it is to forget, and when.
    pub(super) fn pool_role(&self) -> Keeps {
        match (self.views.roles.rotate(), self.is_leader()) {
            (true, _) => Keeps::Both,
            (false, true) => Keeps::AsLeader,
            (false, false) => Keeps::AsBackup,
        }
    }

    /// Whether the leader of `seq` may propose these frames there.
    pub(super) fn in_bucket(
        &self,
        leader: ReplicaId,
        seq: Seq,
        proposal: &Proposal,
    ) -> Result<(), Reject> {
        let dealt = |entry: &BatchEntry| self.views.roles.dealt_to(&entry.id, seq) == leader;
        if self.views.roles.rotate()
            && !proposal.entries().iter().all(dealt)
            && !base::mutant!(WrongBucketAccepted)
        {
            return Err(self.out_of_turn("frames that are dealt to another leader"));
        }
        Ok(())
    }

    /// `seq` is proposed: whatever of this replica is below is to be proposed, too.
    pub(super) fn follow_proposal(&mut self, now: Time, seq: Seq) {
        if !self.views.roles.rotate() || seq <= self.progress.executed {
            return;
        }
        let late = self.grievances.pace.lateness(now, seq);
        let leader = self.leader(seq);
        self.grievances.pace.monitors[usize::from(leader.0)].ordered(late, false);
        self.fill_below(seq);
    }

    /// This replica votes for `seq`, so that the others know of it, unless it is excluded: they owe
    /// what is below. Its maker may have shown the proposal here long before it did elsewhere.
    pub(super) fn votes_for(&mut self, now: Time, seq: Seq) {
        let roles = &self.views.roles;
        if roles.rotate() && roles.is_leading(self.cfg.me, seq) && seq > self.progress.executed {
            self.owes_below(now, seq);
        }
    }

    /// Somebody votes for `seq`, also where the proposal did not come. Its maker may have shown it
    /// to one correct replica alone, which holds it against others if what is below stays empty:
    /// so one vote is enough to do one's part. A liar can oblige others so, but no more than by a
    /// proposal of its own: who is excluded makes none, and does not count. That others have heard
    /// of it takes the votes of a weak quorum.
    pub(super) fn follow_votes(&mut self, now: Time, seq: Seq) {
        if !self.views.roles.rotate() {
            return;
        }
        let Some(slot) = self.log.get(seq) else { return };
        let roles = &self.views.roles;
        let heard = slot.prepares.all().filter(|who| roles.is_leading(*who, seq)).count();
        if heard >= self.cfg.quorums.weak() {
            self.owes_below(now, seq);
        } else if heard > 0 {
            self.fill_below(seq);
        }
    }

    pub(super) fn owes_below(&mut self, now: Time, seq: Seq) {
        self.grievances.pace.owed(now, seq, self.delivered);
        self.fill_below(seq);
    }

    /// All own numbers below `seq` are to be proposed.
    fn fill_below(&mut self, seq: Seq) {
        self.lead.fill_to(seq);
        let end = self.views.roles.interval_end(seq);
        let next = self.views.roles.next_of(self.leader(seq), self.cfg.pillar, seq);
        if next.is_none_or(|next| next > end) {
            // Frames may wait for whom they are dealt to next.
            self.lead.fill_to(end.next());
        }
    }

    /// A sibling has proposed `seq`: its block is to be proposed whole.
    pub(super) fn fill_block(&mut self, seq: Seq) {
        let upto = match self.views.roles.rotate() {
            // Not into the next interval, whose numbers oblige others to end it.
            true => self.views.roles.block_end(seq).min(self.views.roles.interval_end(seq)).next(),
            false => seq,
        };
        self.lead.fill_to(upto);
    }

    /// Whom this lane complains about when nothing gets on.
    pub(super) fn suspect(&self) -> ReplicaId {
        self.leader(self.next_undelivered())
    }

    /// Names who would soon be blamed, with the slice that ends the view: who holds up the rest,
    /// or else who has owed a frame for T/2, as a quorum says. A liar that asks for each next view
    /// needs one correct replica more to end this one, and that one alone excludes nobody.
    pub(super) fn tell_suspect(&self, view: View, out: &mut Outbox) {
        let (half, now) = (self.half_timeout(), self.grievances.looked);
        let whom = match self.owes_for(half) {
            true => Some(self.suspect()),
            false => self.grievances.endorsements.debtor(now, half),
        };
        if let Some(whom) = whom.filter(|whom| self.views.roles.rotate() && *whom != self.cfg.me) {
            out.coordinator(ToCoordinator::Suspects { view, whom });
        }
    }

    fn half_timeout(&self) -> Span {
        Span(self.cfg.view_timeout.0 / 2)
    }

    /// Looks at who proposes late what it owes. No client has a part in that.
    pub(super) fn look_for_late(&mut self, now: Time, out: &mut Outbox) {
        let base = Span(self.cfg.view_timeout.0 / 5);
        for place in 0..self.grievances.pace.monitors.len() {
            let monitor = &mut self.grievances.pace.monitors[place];
            monitor.turn(now, base);
            if monitor.doubts() && !base::mutant!(SlownessUnnoticed) {
                monitor.reassured();
                let whom = ReplicaId(u16::try_from(place).expect("one per replica"));
                self.aggrieved(now, (Grievance::Slow, whom), out);
            }
        }
    }
}
