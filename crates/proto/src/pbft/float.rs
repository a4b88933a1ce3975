//! What a replica does about numbers whose state it lacks: it votes above them all the same, and
//! learns what became of none of them (`docs/protocol/recovery.md`, F9 to F11; L14).
//!
//! Not here: noticing that it is left behind (`catchup`), the transfer (`exec`, `group`), and what
//! is certified (`checkpoint`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, Now, Seq, StableCheckpoint};

use super::log::Slot;
use super::msg::Proposal;
use super::{Lane, Log};
use crate::outbox::Outbox;

impl Lane {
    /// What this replica misses is in nobody's log any more, and is being fetched. Meanwhile it
    /// goes on agreeing above what is certified: should the others be no quorum without it,
    /// nothing would ever come to be executed that it could fetch.
    pub(super) fn on_float(&mut self, now: Now, certified: &StableCheckpoint, out: &mut Outbox) {
        self.on_certified(now, certified, out);
        // The same for all pillars, or nobody would know what has to be fetched.
        let floor = certified.seq;
        if floor <= self.low().max(self.progress.executed) {
            return;
        }
        self.void_upto(now, floor);
        self.hear_anew(now);
        self.grievances.endorsements.skips(floor);
        self.checkpoints.float_above(floor);
        self.log.cut(floor);
        self.count_as_delivered(now, floor);
        self.told.0 = self.told.0.max(self.delivered);
        self.carry_out_plan(now, out);
    }

    /// Of what is decided while a replica waits for a state nothing is heard until the state is
    /// there: its frames are let go, or the pool would be full of them, and what the others refuse
    /// would be taken for ordered when it comes again. Also of what is not delivered, as it is out
    /// of the stage's reach.
    pub(super) fn let_go_decided(&mut self, now: Now, out: &mut Outbox) {
        if !self.floats() {
            return;
        }
        let decided = |log: &Log, seq| log.get(seq).and_then(Slot::decided_batch);
        loop {
            let next = self.cfg.stripe.next_of(self.cfg.pillar, self.checkpoints.let_go_upto());
            let Some(batch) = decided(&self.log, next) else { return };
            self.let_go(now, (next, &batch), out);
        }
    }

    /// This replica does not learn what became of what it has not executed up to `upto`: the others
    /// have. What was let go of that and has come since waits for its order anew.
    pub(super) fn skip(&mut self, now: Now, upto: Seq, out: &mut Outbox) {
        self.void_upto(now, upto);
        let from = self.checkpoints.let_go_upto().max(self.progress.executed);
        let skipped = self.log.above(from).take_while(|(seq, _)| *seq <= upto);
        let decided = |(seq, slot): (Seq, &Slot)| Some((seq, slot.decided_batch()?));
        let skipped: Vec<(Seq, Arc<Batch>)> = skipped.filter_map(decided).collect();
        skipped.iter().for_each(|(seq, batch)| self.let_go(now, (*seq, batch), out));
        self.progress.executed = self.progress.executed.max(upto);
        self.refused.retain(|(seq, _)| *seq > upto);
    }

    fn let_go(&mut self, now: Now, (seq, batch): (Seq, &Batch), out: &mut Outbox) {
        self.checkpoints.let_go(seq);
        let Batch::Frames { frames, .. } = batch else { return };
        for frame in frames {
            let key = (frame.id(), frame.digest());
            self.grievances.endorsements.done(&key, None);
            let wanted = self.pool.let_go(&key, seq);
            self.fill_places(now, frame, &wanted, out);
        }
    }

    /// What others have vouched for may be executed or refused in what this replica skips.
    pub(super) fn hear_anew(&mut self, now: Now) {
        let me = self.is_leader().then_some(self.cfg.me);
        self.pool.fetched(now.mono, me);
    }

    /// Whether this replica agrees on numbers without the state before them.
    pub(super) fn floats(&self) -> bool {
        self.checkpoints.awaited() > self.progress.executed
    }

    pub(super) fn count_as_delivered(&mut self, now: Now, upto: Seq) {
        let last = self.cfg.stripe.last_of(self.cfg.pillar, upto).unwrap_or_default();
        if last > self.delivered {
            self.delivered = last;
            self.catchup.progressed(now.mono);
        }
        self.move_delivered(now);
    }

    /// Nothing is waited for any more that proposals up to `upto` name. Their frames are free, also
    /// of what was delivered and will never be executed here: whether it was executed elsewhere or
    /// refused is not known, and the client table makes nothing of what was executed already.
    pub(super) fn void_upto(&mut self, now: Now, upto: Seq) {
        let open = self.log.above(self.progress.executed).take_while(|(seq, _)| *seq <= upto);
        let void: Vec<(Seq, Proposal)> =
            open.filter_map(|(seq, slot)| Some((seq, slot.proposal.clone()?))).collect();
        for (seq, proposal) in void {
            self.unwant_all(now, seq, Some(&proposal));
        }
    }
}
