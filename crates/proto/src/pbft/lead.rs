//! What a leader does: batches that adapt to the load, null batches that fill an idle pillar's
//! numbers, and ticks for an idle group.
//!
//! Batching: while fewer than `in_flight_max` of its instances are unexecuted, a lane proposes
//! what is eligible at once, so that a lone request never waits; beyond that frames gather, and
//! a full batch goes as soon as there is one. Load thus makes batches larger by itself.
//!
//! Filling (COP §4.2.1; design, trap 4): when a sibling has proposed n, every lower number of
//! this stripe is proposed too, with frames if there are any, else with null. How far pillars
//! drift apart is bounded by the watermarks, which all pillars share (COP §4.2.2).
//!
//! Filling for others, who wait for a checkpoint: only while clients want nothing. Their batches
//! bring the group there, too, and a null batch takes as many messages as a full one.

use alloc::vec::Vec;

use base::{AgreedTime, BatchEntry, Now, Seq, Sibling, Span, Time};

use super::agree::Origin;
use super::idle::Idleness;
use super::log::Phase;
use super::msg::{Message, Proposal};
use super::{Lane, Log};
use crate::outbox::Outbox;

/// The least time between two ticks, whatever deadlines the service declares.
const TICK_MIN: Span = Span::millis(10);
/// The same for a leader that waits for a state, or is about to.
const TICK_BEHIND: Span = Span::secs(1);

/// So long after it has proposed frames, a lane proposes nothing only because others wait for a
/// checkpoint: under load it never comes to that, and a replica that asks for numbers without end
/// costs clients nothing.
const BUSY: Span = Span::micros(500);

/// The leader's own state.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    /// The next number to propose.
    next: Seq,
    /// Numbers up to here must be proposed, with null if need be.
    fill: Seq,
    /// Numbers up to here are to be proposed at a gentle pace.
    gentle_fill: Seq,
    /// A number beyond the high mark that frames wait for, and siblings were told of.
    beyond: Seq,
    /// When frames were proposed last.
    served: Option<Time>,
    /// Since when the oldest eligible frame waits for a fuller batch.
    gathering_since: Option<Time>,
    /// The end of the checkpoint interval for which frames were dealt.
    dealt: Seq,
    /// The service's deadline in agreed time, and when the monotonic clock will show it.
    deadline: Option<AgreedTime>,
    tick_at: Option<Time>,
    last_tick: Time,
    /// What it does while there is nothing to order, where it runs ahead then.
    pub(super) idleness: Idleness,
}

impl Lead {
    pub(super) fn new(first: Seq) -> Lead {
        Lead {
            next: first,
            fill: Seq(0),
            gentle_fill: Seq(0),
            beyond: Seq(0),
            served: None,
            gathering_since: None,
            dealt: Seq(0),
            deadline: None,
            tick_at: None,
            last_tick: Time::ZERO,
            idleness: Idleness::default(),
        }
    }

    pub(super) fn fill_to(&mut self, seq: Seq) {
        if !base::mutant!(IdlePillarLeavesGaps) {
            self.fill = self.fill.max(seq);
        }
    }

    /// As far as others wait for a checkpoint, while clients want nothing.
    pub(super) fn fill_gently_to(&mut self, seq: Seq) {
        self.gentle_fill = self.gentle_fill.max(seq);
    }

    /// Up to where others wait for numbers.
    pub(super) fn gentle_fill(&self) -> Seq {
        self.gentle_fill
    }

    /// A view begins: its NEW-VIEW has fixed everything below `next`.
    pub(super) fn begin_view(&mut self, next: Seq) {
        (self.next, self.gathering_since, self.tick_at) = (next, None, None);
        (self.dealt, self.beyond) = (Seq(0), Seq(0));
        self.idleness.begin_view();
    }

    pub(super) fn deadline_changed(&mut self, deadline: Option<AgreedTime>) {
        if self.deadline != deadline {
            self.deadline = deadline;
            self.tick_at = None;
        }
    }
}

impl Lane {
    /// Instances of this lane that are proposed and not yet executed: only those that clients wait
    /// for, where idle pillars run ahead.
    pub(super) fn in_flight(&self) -> usize {
        match self.idle_runs() {
            true => self.lead.idleness.in_flight(self.settled()),
            false => self.unexecuted(),
        }
    }

    /// Up to here nothing is under way any more. Who is behind a quorum, as a certificate proves,
    /// or waits for a state, goes by what the group has done: clients, who have their answers from
    /// others, must not wait for as long as it executes nothing.
    fn settled(&self) -> Seq {
        if self.lacks_a_state() { self.group_is_at() } else { self.progress.executed }
    }

    /// Whether it waits for a state, or is about to.
    fn lacks_a_state(&self) -> bool {
        self.floats() || self.checkpoints.ahead() > self.progress.executed
    }

    /// Numbers of this lane that are proposed and not yet executed.
    fn unexecuted(&self) -> usize {
        let executed = self.cfg.stripe.next_of(self.cfg.pillar, self.settled());
        let ahead = self.lead.next.0.saturating_sub(executed.0);
        let apart = u64::from(self.cfg.stripe.pillars()) * self.views.roles.count(executed).max(1);
        usize::try_from(ahead / apart).expect("below the window")
    }

    /// The next number that this replica would propose.
    pub(super) fn lead_next(&self) -> Seq {
        self.lead.next
    }

    /// When a batch that gathers frames goes, full or not.
    pub(super) fn batch_deadline(&self) -> Option<Time> {
        let since = self.lead.gathering_since?;
        let room = self.in_flight() < self.cfg.batching.in_flight_max;
        (self.may_propose() && room).then(|| since.after(self.cfg.batching.delay))
    }

    /// Whether the next number is one that others wait for, and there is room for it.
    fn may_fill_gently(&self) -> bool {
        let room = self.unexecuted() < self.cfg.batching.in_flight_max;
        room && self.lead.next <= self.lead.gentle_fill
    }

    /// When numbers are filled that others wait for, as far as clients let it come to that.
    pub(super) fn fill_deadline(&self) -> Option<Time> {
        let may = self.may_propose() && self.may_fill_gently();
        self.lead.served.map(|at| at.after(BUSY)).filter(|_| may)
    }

    /// When a tick is due, unless something is under way that moves agreed time anyway.
    pub(super) fn tick_deadline(&self) -> Option<Time> {
        let may = self.may_propose() && self.in_flight() == 0;
        self.lead.tick_at.filter(|_| may)
    }

    /// Proposes all that is due.
    pub(super) fn propose(&mut self, now: Now, out: &mut Outbox) {
        if !self.is_leader() {
            return;
        }
        self.schedule_tick(now);
        self.look_ahead(self.lead.fill);
        loop {
            self.skip_known();
            self.deal(now.mono);
            if !self.may_propose() {
                break;
            }
            let Some(proposal) = self.next_proposal(now) else { break };
            self.propose_one(now, proposal, out);
        }
        self.look_for_the_end(out);
    }

    /// Where frames wait for a number beyond the high mark, siblings fill theirs up to it: the next
    /// checkpoint that everybody can sign may be at the very end of the window, where replicas
    /// have fetched a state that lacks those before it.
    fn look_for_the_end(&mut self, out: &mut Outbox) {
        let next = self.lead.next;
        let beyond = next > self.high() && self.leads(next) && self.pool.has_eligible();
        if beyond && self.lead.beyond != next {
            self.lead.beyond = next;
            out.siblings(Sibling::Proposed(next));
        }
    }

    /// Whether this replica leads and the next number is its to propose.
    fn may_propose(&self) -> bool {
        let next = self.lead.next;
        next <= self.high() && self.leads(next) && self.may_vote(next)
    }

    /// Moves past numbers for which a proposal is known that this life of the leader did not
    /// make: what a peer says is decided stays decided.
    fn skip_known(&mut self) {
        let least = self.log.first().max(self.next_undelivered());
        if self.lead.next < least {
            self.lead.next = self.own_after(least.prev());
        }
        let known = |log: &Log, seq| log.get(seq).is_some_and(|slot| slot.proposal.is_some());
        while known(&self.log, self.lead.next) {
            self.lead.next = self.own_after(self.lead.next);
        }
    }

    /// Where leaders rotate: queues what is dealt to this replica in the checkpoint interval of
    /// its next number.
    pub(super) fn deal(&mut self, now: Time) {
        let end = self.views.roles.interval_end(self.lead.next);
        if self.views.roles.rotate() && end != self.lead.dealt {
            self.lead.dealt = end;
            let quorum = self.cfg.quorums.quorum();
            self.pool.deal((&self.views.roles, self.cfg.me, self.lead.next), quorum);
            self.lead.gathering_since = self.pool.has_eligible().then_some(now);
            // Among them may be some whose bodies others were to ask for so far.
            self.catchup.waits_for_bodies(now);
        }
    }

    fn next_proposal(&mut self, now: Now) -> Option<Proposal> {
        let batching = self.cfg.batching;
        let idle = self.lead.served.is_none_or(|at| now.mono >= at.after(BUSY));
        let must_fill = self.lead.next < self.lead.fill || (idle && self.may_fill_gently());
        let due = self.batch_is_due(now.mono);
        if due || (must_fill && self.pool.has_eligible()) {
            let most = (batching.frames_max, batching.bytes_max);
            let keys = self.pool.take_batch(self.cfg.quorums.quorum(), most);
            self.lead.gathering_since = self.pool.has_eligible().then_some(now.mono);
            if !keys.is_empty() {
                self.lead.served = Some(now.mono);
                let entry = |(id, digest)| BatchEntry { id, digest };
                let entries: Vec<BatchEntry> = keys.into_iter().map(entry).collect();
                return Some(Proposal::Frames { time: now.wall, entries });
            }
        }
        if must_fill || self.runs_ahead() {
            return Some(Proposal::Null);
        }
        if self.lead.tick_at.is_some_and(|at| at <= now.mono) && self.in_flight() == 0 {
            self.lead.tick_at = None;
            self.lead.last_tick = now.mono;
            return Some(Proposal::Frames { time: now.wall, entries: Vec::new() });
        }
        None
    }

    fn batch_is_due(&mut self, now: Time) -> bool {
        if !self.pool.has_eligible() {
            self.lead.gathering_since = None;
            return false;
        }
        let batching = self.cfg.batching;
        let since = *self.lead.gathering_since.get_or_insert(now);
        let full = self.pool.has_full_batch(batching.frames_max, batching.bytes_max);
        let waited = now.since(since) >= batching.delay;
        let room = self.in_flight() < batching.in_flight_max;
        // A full batch need not wait for room: twice the depth bounds what is unexecuted, as far as
        // this replica keeps up with the group.
        (room && (full || waited)) || (full && self.in_flight() < 2 * batching.in_flight_max)
    }

    fn propose_one(&mut self, now: Now, proposal: Proposal, out: &mut Outbox) {
        let seq = self.lead.next;
        self.lead.next = self.own_after(seq);
        let moves = self.moves_siblings(seq, &proposal);
        self.log.slot(seq).expect("known numbers were skipped");
        let message = Message::PrePrepare { view: self.view, seq, proposal: proposal.clone() };
        self.install(now, seq, proposal, Origin::Leader);
        // Accepting records Q; the proposal leaves behind that record.
        self.advance(now, seq, out);
        let accepted = self.log.get(seq).is_some_and(|slot| slot.phase >= Phase::Accepted);
        debug_assert!(accepted, "the leader has what it proposes");
        if accepted {
            self.promise_all(message, out);
            self.leaving.commits.carry();
            self.send_bodies(seq, out);
        }
        if moves {
            out.siblings(Sibling::Proposed(seq));
        }
        if self.views.roles.rotate() {
            self.owes_below(now.mono, seq);
        }
    }

    /// Pillar 0 orders a tick when the service has declared a deadline and nothing else moves
    /// agreed time past it.
    fn schedule_tick(&mut self, now: Now) {
        // Where all lead, the one whose number is next.
        if !self.leads(self.next_undelivered()) {
            self.lead.tick_at = None;
            return;
        }
        if self.cfg.pillar.0 != 0 {
            return;
        }
        if let Some(deadline) = self.lead.deadline {
            let wait = Span(deadline.0.saturating_sub(now.wall.0));
            // Who waits for a state does not learn whether the last one was enough.
            let pause = if self.lacks_a_state() { TICK_BEHIND } else { TICK_MIN };
            let earliest = self.lead.last_tick.after(pause);
            self.lead.tick_at = Some(now.mono.after(wait).max(earliest));
        }
    }
}
