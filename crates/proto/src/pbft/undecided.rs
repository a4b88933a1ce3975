//! What the proposals weigh that this replica has voted for and that are not decided yet.
//!
//! A vote is a record of the log with all bodies of its batch. A leader may name one frame at any
//! number of its window, and a frame that is here costs it nothing but the name, so that a faulty
//! one could have every replica write its window full of the largest batches: far more than memory
//! or disks hold. So a complete proposal waits for its vote while others of this view weigh too
//! much. Not the number that is decided next: whatever is the lowest number that some correct
//! replica lacks, all of them vote for it, and nothing stands still. Nor is a frame refused for
//! being named again, for that is right where it was refused by execution, which this replica may
//! have yet to hear of.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use base::{Now, Seq, limits};

use super::Lane;
use super::log::{Phase, Slot};
use crate::outbox::Outbox;

/// Bytes of batches that are voted for beyond the number that is decided next.
pub(super) const UNDECIDED_BYTES_MAX: usize = 2 * limits::BATCH_BYTES_MAX;

/// What is voted for and undecided, and what waits because of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Undecided {
    /// Everything of this stripe up to here is decided and here.
    upto: Seq,
    /// The weight of what was accepted beyond that, where it has any.
    accepted: BTreeMap<Seq, usize>,
    /// The sum of those.
    bytes: usize,
    /// Complete proposals that wait for their vote.
    held_back: BTreeSet<Seq>,
}

impl Undecided {
    /// Another view begins: what was proposed in the last one is voted for anew, or void.
    pub(super) fn begin_view(&mut self) {
        (self.bytes, self.accepted, self.held_back) = Default::default();
    }

    /// The batch at `seq`, which weighs so much, is voted for.
    fn accept(&mut self, seq: Seq, weight: usize) {
        self.held_back.remove(&seq);
        if seq > self.upto && weight > 0 {
            let before = self.accepted.insert(seq, weight).unwrap_or(0);
            self.bytes = self.bytes + weight - before;
        }
    }

    /// Everything up to `upto` is decided and here.
    fn pass(&mut self, upto: Seq) {
        self.upto = upto;
        while let Some(first) = self.accepted.first_entry().filter(|one| *one.key() <= upto) {
            self.bytes -= first.remove();
        }
    }

    pub(super) fn check(&self) {
        assert_eq!(self.accepted.values().sum::<usize>(), self.bytes);
        assert!(self.accepted.keys().all(|seq| *seq > self.upto));
    }
}

impl Lane {
    /// Whether the complete proposal at `seq` may be voted for now. If not, it is as soon as what
    /// is before it is decided.
    pub(super) fn may_weigh(&mut self, now: Now, seq: Seq, weight: usize) -> bool {
        if self.has_room(seq, weight) {
            // How late it was proposed was seen when it was held back.
            let watched = self.log.undecided.held_back.contains(&seq);
            self.log.undecided.accept(seq, weight);
            if !watched && !self.leads(seq) {
                self.watch_order(now.mono, seq);
            }
            return true;
        }
        if self.log.undecided.held_back.insert(seq) {
            self.watch_order(now.mono, seq);
        }
        false
    }

    /// A leader does not hold back what it proposes itself: how much that is, it decides.
    fn has_room(&mut self, seq: Seq, weight: usize) -> bool {
        self.pass_decided();
        let next = self.cfg.stripe.next_of(self.cfg.pillar, self.log.undecided.upto);
        let fits = self.log.undecided.bytes + weight <= UNDECIDED_BYTES_MAX;
        weight == 0 || fits || seq <= next || self.proposed_by(seq) == Some(self.cfg.me)
    }

    /// What is decided stays so: the next look begins where this one ends.
    fn pass_decided(&mut self) {
        let mut upto = self.log.undecided.upto.max(self.delivered);
        let mut next = self.cfg.stripe.next_of(self.cfg.pillar, upto);
        while self.log.get(next).is_some_and(Slot::is_to_be_delivered) {
            (upto, next) = (next, self.cfg.stripe.next_of(self.cfg.pillar, next));
        }
        self.log.undecided.pass(upto);
    }

    /// Votes for what there was no room for, as far as there is now.
    pub(super) fn accept_held_back(&mut self, now: Now, out: &mut Outbox) {
        while let Some(seq) = self.log.undecided.held_back.first().copied() {
            let held = self.log.get(seq).filter(|slot| slot.phase == Phase::Held);
            let weight = held.map(|slot| slot.weight);
            if weight.is_some_and(|weight| !self.has_room(seq, weight)) {
                return;
            }
            self.advance(now, seq, out);
            self.log.undecided.held_back.remove(&seq);
        }
    }

    /// The votes of an earlier life in this view.
    pub(super) fn weigh_recalled(&mut self) {
        self.pass_decided();
        let above = self.log.above(self.log.undecided.upto);
        let open = above.filter(|(_, slot)| slot.phase >= Phase::Accepted && !slot.decided);
        let open: Vec<(Seq, usize)> = open.map(|(seq, slot)| (seq, slot.weight)).collect();
        open.into_iter().for_each(|(seq, weight)| self.log.undecided.accept(seq, weight));
    }
}
