//! The log of one pillar: a slot for every number of its stripe that is not yet cut off.
//!
//! A slot goes one way: empty, waiting (a proposal is here, but not all of its frames), accepted
//! (voted for), prepared, delivered. Votes are collected in any phase, since messages arrive in
//! any order.
//!
//! Invariants:
//! 1. slots cover consecutive numbers of the stripe, from `first`;
//! 2. per phase, sender and slot at most one vote is kept, and it is the first;
//! 3. a slot at or beyond accepted holds every body of its batch.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, BatchEntry, Digest, Frame, PillarId, ReplicaId, Seq, Stripe, View};

use super::msg::Proposal;

/// Votes of distinct senders, one each: the first stays (design, trap 13).
#[derive(Clone, Debug, Default)]
pub(super) struct Votes {
    votes: Vec<(ReplicaId, Digest)>,
}

/// What became of a vote that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    /// It is the sender's first.
    Fresh,
    /// The sender said the same before.
    Again,
    /// The sender said something else before.
    Contradicts,
}

impl Votes {
    pub(super) fn add(&mut self, from: ReplicaId, digest: Digest) -> Counted {
        match self.votes.iter().find(|(sender, _)| *sender == from) {
            None => {
                self.votes.push((from, digest));
                Counted::Fresh
            }
            Some((_, said)) if *said == digest => Counted::Again,
            Some(_) => Counted::Contradicts,
        }
    }

    /// Distinct senders that voted for `digest`.
    pub(super) fn count(&self, digest: Digest) -> usize {
        self.votes.iter().filter(|(_, said)| *said == digest).count()
    }

    /// Who voted for `digest`.
    pub(super) fn senders(&self, digest: Digest) -> impl Iterator<Item = ReplicaId> {
        self.votes.iter().filter(move |(_, said)| *said == digest).map(|(sender, _)| *sender)
    }

    /// Whether `who` has voted for `digest`.
    pub(super) fn said(&self, who: ReplicaId, digest: Digest) -> bool {
        self.votes.contains(&(who, digest))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }
}

/// How far a slot is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Phase {
    /// No proposal is known.
    #[default]
    Empty,
    /// A proposal is known; frames are missing or not yet trusted.
    Waiting,
    /// The proposal was accepted: Q. A backup has sent PREPARE.
    Accepted,
    /// A quorum has accepted it: P. COMMIT was sent.
    Prepared,
    /// A quorum has prepared it, or a weak quorum says so. Handed to execution.
    Delivered,
}

/// One consensus instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// The view in which the proposal was made.
    pub(super) view: View,
    pub(super) proposal: Option<Proposal>,
    /// The proposal's digest; zero while there is none.
    pub(super) digest: Digest,
    /// Whether a weak quorum says that this proposal is decided: its frames need no vouching.
    pub(super) decided: bool,
    /// Entries of the proposal that are missing a body or trust.
    pub(super) missing: usize,
    /// The bodies that are here and trusted, in order of the entries, until accepted.
    pub(super) bodies: Vec<Option<Arc<Frame>>>,
    /// Bytes of the bodies, once accepted.
    pub(super) weight: usize,
    /// The bodies, once accepted.
    pub(super) batch: Option<Arc<Batch>>,
    pub(super) prepares: Votes,
    pub(super) commits: Votes,
    /// Who says which proposal is decided here.
    pub(super) decisions: Votes,
    /// The proposals that go with `decisions`, one per digest: at most as many as there are
    /// senders.
    pub(super) decision_bodies: Vec<(Digest, Proposal)>,
}

impl Slot {
    /// The entries whose bodies are missing or not trusted.
    pub(super) fn missing_entries(&self) -> Vec<BatchEntry> {
        let entries = self.proposal.iter().flat_map(|proposal| proposal.entries());
        let missing = entries.zip(&self.bodies).filter(|(_, body)| body.is_none());
        missing.map(|(entry, _)| *entry).collect()
    }

    /// The body of the frame at `place` of the proposal is here and trusted.
    pub(super) fn fill(&mut self, place: usize, frame: &Arc<Frame>) {
        if let Some(body) = self.bodies.get_mut(place)
            && body.is_none()
        {
            *body = Some(frame.clone());
            self.missing -= 1;
        }
    }

    /// Whether anything is known about this number.
    pub(super) fn is_touched(&self) -> bool {
        self.phase > Phase::Empty
            || !self.prepares.is_empty()
            || !self.commits.is_empty()
            || !self.decisions.is_empty()
    }
}

/// The slots of one pillar.
#[derive(Clone, Debug)]
pub(super) struct Log {
    stripe: Stripe,
    pillar: PillarId,
    /// The number of the first slot.
    first: Seq,
    slots: VecDeque<Slot>,
}

impl Log {
    pub(super) fn new(stripe: Stripe, pillar: PillarId) -> Log {
        Log { stripe, pillar, first: stripe.next_of(pillar, Seq(0)), slots: VecDeque::new() }
    }

    fn place(&self, seq: Seq) -> Option<usize> {
        let index = self.stripe.index_of(seq).checked_sub(self.stripe.index_of(self.first))?;
        usize::try_from(index).ok()
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Slot> {
        self.slots.get(self.place(seq)?)
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Slot> {
        let place = self.place(seq)?;
        self.slots.get_mut(place)
    }

    /// The slot of `seq`, made if it is not there yet. The caller has checked the watermarks,
    /// which bound how many are made. `None` below the first slot.
    pub(super) fn slot(&mut self, seq: Seq) -> Option<&mut Slot> {
        let place = self.place(seq)?;
        while self.slots.len() <= place {
            self.slots.push_back(Slot::default());
        }
        self.slots.get_mut(place)
    }

    /// The lowest number still in the log.
    pub(super) fn first(&self) -> Seq {
        self.first
    }

    /// The highest number about which anything is known, or the one before the first slot.
    pub(super) fn highest_touched(&self) -> Option<Seq> {
        let index = self.slots.iter().rposition(Slot::is_touched)?;
        Some(Seq(self.first.0 + index as u64 * u64::from(self.stripe.pillars())))
    }

    /// How far up the log may be cut so that what is left at or below `low` is at most
    /// `bytes` heavy.
    pub(super) fn cut_for_weight(&self, low: Seq, bytes: usize) -> Seq {
        let mut kept = 0;
        let below: Vec<(Seq, usize)> =
            self.iter().take_while(|(seq, _)| *seq <= low).map(|(n, s)| (n, s.weight)).collect();
        let heavy = below.iter().rev().find(|(_, weight)| {
            kept += weight;
            kept > bytes
        });
        heavy.map_or(Seq(0), |(seq, _)| *seq)
    }

    /// Forgets every number at or below `upto`.
    pub(super) fn cut(&mut self, upto: Seq) {
        while self.first <= upto {
            self.slots.pop_front();
            self.first = self.stripe.next_of(self.pillar, self.first);
        }
    }

    /// Numbers and slots, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, &Slot)> {
        let step = u64::from(self.stripe.pillars());
        self.slots.iter().enumerate().map(move |(i, s)| (Seq(self.first.0 + i as u64 * step), s))
    }

    pub(super) fn check(&self) {
        assert_eq!(self.stripe.pillar_of(self.first), self.pillar);
        for (seq, slot) in self.iter() {
            assert_eq!(slot.proposal.is_some(), slot.phase > Phase::Empty, "{seq:?}");
            assert_eq!(slot.batch.is_some(), slot.phase >= Phase::Accepted, "{seq:?}");
            assert_eq!(slot.missing > 0, slot.phase == Phase::Waiting, "{seq:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vote_of_a_sender_stays() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let mut votes = Votes::default();
        assert_eq!(votes.add(ReplicaId(1), a), Counted::Fresh);
        assert_eq!(votes.add(ReplicaId(1), a), Counted::Again);
        assert_eq!(votes.add(ReplicaId(1), b), Counted::Contradicts);
        assert_eq!((votes.count(a), votes.count(b)), (1, 0));
    }

    #[test]
    fn slots_are_found_by_number_and_cut_from_below() {
        let stripe = Stripe::new(3).expect("in range");
        let mut log = Log::new(stripe, PillarId(1));
        assert_eq!(log.first(), Seq(2));
        log.slot(Seq(8)).expect("above the first").phase = Phase::Waiting;
        assert!(log.get(Seq(5)).is_some());
        assert_eq!(log.highest_touched(), Some(Seq(8)));
        log.cut(Seq(5));
        assert_eq!(log.first(), Seq(8));
        assert!(log.get(Seq(5)).is_none() && log.slot(Seq(5)).is_none());
        log.cut(Seq(100));
        assert_eq!(log.first(), Seq(101));
        assert_eq!(log.highest_touched(), None);
    }
}
