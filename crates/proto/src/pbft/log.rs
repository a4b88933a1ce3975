//! The log of one pillar: a slot for every number of its stripe that is not yet cut off.
//!
//! A slot keeps three things apart. Its *votes* belong to the present view and go one way:
//! empty, waiting (the proposal of this view is here, but not all of its frames), held, accepted
//! (voted for), prepared, committed; a new view begins at empty. Its *outcome*, once known,
//! never changes: decided, then delivered. Its *past* is what this replica has promised in
//! earlier views. Votes are collected in any phase, since messages arrive in any order.
//!
//! What an earlier life has left may begin far beyond the checkpoint that is on disk: that life
//! had fetched a later one, and ended before it was saved. Such numbers have slots of their own,
//! and those in between have none, for a long absence may be billions of them.
//!
//! Invariants:
//! 1. slots cover consecutive numbers of the stripe, from `first`; beyond them, only numbers of
//!    which an earlier life has left something have one;
//! 2. per view, kind, sender and slot at most one vote is kept, and it is the first;
//! 3. a slot at or beyond held has every body of its batch, and so has a delivered one;
//! 4. every batch that P or Q names is here.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, BatchEntry, Digest, Frame, PillarId, ReplicaId, Seq, Stripe, Time, View};

use super::msg::Proposal;
use super::past::{Content, Past};
use super::undecided::Undecided;

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
            Some((_, said)) if base::mutant!(MessagesCount) && *said == digest => {
                self.votes.push((from, digest));
                Counted::Fresh
            }
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
        self.votes
            .iter()
            .filter(|(_, said)| base::mutant!(AnyDigestCounts) || *said == digest)
            .count()
    }

    /// Who voted for `digest`.
    pub(super) fn senders(&self, digest: Digest) -> impl Iterator<Item = ReplicaId> {
        self.votes.iter().filter(move |(_, said)| *said == digest).map(|(sender, _)| *sender)
    }

    /// Who voted at all.
    pub(super) fn all(&self) -> impl Iterator<Item = ReplicaId> {
        self.votes.iter().map(|(sender, _)| *sender)
    }

    /// What was voted for, once per sender.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.votes.iter().map(|(_, digest)| *digest)
    }

    /// Whether `who` has voted for `digest`.
    pub(super) fn said(&self, who: ReplicaId, digest: Digest) -> bool {
        self.votes.contains(&(who, digest))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }
}

/// How far the voting of the present view is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Phase {
    /// No proposal of this view is known.
    #[default]
    Empty,
    /// A proposal is known; frames are missing or not yet trusted.
    Waiting,
    /// It is complete. Momentary, except in a replica that may not vote for this number, or where
    /// too much is under way already (`undecided`).
    Held,
    /// The proposal was accepted: Q. A backup has sent PREPARE.
    Accepted,
    /// A quorum has accepted it: P. COMMIT was sent.
    Prepared,
    /// A quorum has prepared it. Nothing more is to be said about it in this view.
    Committed,
}

/// One consensus instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// What the number is about here: the proposal of this view, or what is decided.
    pub(super) proposal: Option<Proposal>,
    /// The proposal's digest; zero while there is none.
    pub(super) digest: Digest,
    /// Whether the proposal is known to be committed, from votes or because a weak quorum says
    /// so: its frames need no vouching.
    pub(super) decided: bool,
    /// Whether an earlier life has left the record that says so in the log.
    pub(super) recalled: bool,
    /// Whether it was handed to execution.
    pub(super) delivered: bool,
    /// What the NEW-VIEW of this view has fixed for this number.
    pub(super) chosen: Option<Digest>,
    /// Whether the leader of this view has itself told this replica of the proposal.
    pub(super) led: bool,
    /// Entries of the proposal that are missing a body or trust.
    pub(super) missing: usize,
    /// The bodies that are here and trusted, in order of the entries, until all are.
    pub(super) bodies: Vec<Option<Arc<Frame>>>,
    /// Bytes of the bodies, once all are here.
    pub(super) weight: usize,
    /// The bodies, once all are here.
    pub(super) batch: Option<Arc<Batch>>,
    pub(super) prepares: Votes,
    pub(super) commits: Votes,
    /// When the proposal was accepted in this view.
    pub(super) accepted_at: Time,
    /// Who says which proposal is decided here.
    pub(super) decisions: Votes,
    /// The proposals that go with `decisions`, one per digest: at most as many as there are
    /// senders.
    pub(super) decision_bodies: Vec<(Digest, Proposal)>,
    /// What was promised in earlier views.
    pub(super) past: Option<Box<Past>>,
}

impl Slot {
    /// Its batch, if it is decided and all of it is here.
    pub(super) fn decided_batch(&self) -> Option<Arc<Batch>> {
        self.batch.clone().filter(|_| self.decided)
    }

    /// Whether there are bodies or, of what the NEW-VIEW has chosen, the proposal to be asked for.
    pub(super) fn is_incomplete(&self) -> bool {
        self.missing > 0 || (self.chosen.is_some() && self.proposal.is_none())
    }

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

    /// Makes the batch once nothing is missing; true if that was now.
    pub(super) fn complete(&mut self) -> bool {
        if self.batch.is_some() || self.missing > 0 {
            return false;
        }
        let batch = match &self.proposal {
            None => return false,
            Some(Proposal::Null) => Batch::Null,
            Some(Proposal::Frames { time, .. }) => {
                Batch::Frames { time: *time, frames: self.bodies.drain(..).flatten().collect() }
            }
        };
        self.hold(Arc::new(batch));
        true
    }

    fn hold(&mut self, batch: Arc<Batch>) {
        self.weight = match &*batch {
            Batch::Null => 0,
            Batch::Frames { frames, .. } => frames.iter().map(|frame| frame.weight()).sum(),
        };
        self.batch = Some(batch);
    }

    /// Makes the slot be about a proposal that comes with its batch.
    pub(super) fn put(&mut self, content: Content) {
        (self.digest, self.proposal) = (content.digest, Some(content.proposal));
        (self.missing, self.bodies) = (0, Vec::new());
        self.hold(content.batch);
    }

    /// Whether anything is known about this number that is of use in the present view.
    pub(super) fn is_touched(&self) -> bool {
        self.proposal.is_some()
            || self.chosen.is_some()
            || !self.prepares.is_empty()
            || !self.commits.is_empty()
            || !self.decisions.is_empty()
    }

    /// Whether the batch is decided and here: an earlier life's log may hold more than execution
    /// takes at a time.
    pub(super) fn is_to_be_delivered(&self) -> bool {
        self.decided && self.batch.is_some()
    }

    /// Whether this replica has voted for something in `view`, the present one or an earlier.
    pub(super) fn voted_in(&self, view: View) -> bool {
        self.past.as_ref().is_some_and(|past| past.voted_in(view))
    }

    /// Whether a record of this digest's pre-preparation exists.
    pub(super) fn is_recorded(&self, digest: Digest) -> bool {
        (self.phase >= Phase::Accepted && self.digest == digest)
            || self.past.as_ref().is_some_and(|past| past.names(digest))
    }

    /// The proposal with this digest, if this replica stands by it: it voted for it or knows
    /// that it is decided.
    pub(super) fn stood_by(&self, digest: Digest) -> Option<&Proposal> {
        let current = self.phase >= Phase::Accepted || self.decided;
        let past = || Some(&self.past.as_ref()?.content(digest)?.proposal);
        let found = self.proposal.as_ref().filter(|_| current && self.digest == digest);
        found.or_else(past)
    }

    /// The promises of `view`, the present one, become past: it is being left.
    pub(super) fn fold(&mut self, view: View) {
        if self.phase < Phase::Accepted {
            return;
        }
        let past = self.past.get_or_insert_default();
        if !base::mutant!(QForgotten) {
            past.pre_prepare(view, self.digest);
        }
        if self.phase >= Phase::Prepared && !base::mutant!(PForgotten) {
            past.prepare(view, self.digest);
        }
    }

    /// The slot is no longer about its proposal, which is returned. The batch stays if P or Q
    /// names it.
    pub(super) fn displace(&mut self) -> Option<Proposal> {
        let proposal = self.proposal.take()?;
        self.led = false;
        let digest = core::mem::take(&mut self.digest);
        (self.missing, self.weight, self.bodies) = (0, 0, Vec::new());
        if let Some(batch) = self.batch.take()
            && let Some(past) = &mut self.past
        {
            past.keep(Content { digest, proposal: proposal.clone(), batch });
        }
        Some(proposal)
    }

    /// View `old` is over. What is decided stays; a proposal that is not is returned: its frames
    /// are free.
    pub(super) fn begin_view(&mut self, old: View) -> Option<Proposal> {
        self.fold(old);
        (self.phase, self.chosen, self.led) = (Phase::Empty, None, false);
        (self.prepares, self.commits) = (Votes::default(), Votes::default());
        if self.decided { None } else { self.displace() }
    }

    /// What is stable needs no promises and no votes any more, only its batch for laggards. Where
    /// it came with a state that was fetched, it is not known which batch that is.
    pub(super) fn settle(&mut self) {
        (self.past, self.decisions) = (None, Votes::default());
        if !self.decided {
            self.displace();
        }
        (self.phase, self.chosen, self.led) = (Phase::Empty, None, false);
        (self.prepares, self.commits) = (Votes::default(), Votes::default());
        self.decision_bodies = Vec::new();
    }

    fn check(&self, seq: Seq) {
        let (about, complete) = (self.proposal.is_some(), self.batch.is_some());
        assert_eq!(about, self.phase > Phase::Empty || self.decided, "{seq:?}");
        assert_eq!(complete, about && self.missing == 0, "{seq:?}");
        assert!(self.phase < Phase::Held || complete, "{seq:?}");
        assert!(self.phase != Phase::Waiting || self.missing > 0, "{seq:?}");
        assert!(!self.delivered || (self.decided && complete), "{seq:?}");
        assert!(self.phase == Phase::Empty || self.chosen.is_none_or(|d| d == self.digest));
        if let Some(past) = &self.past {
            past.check(complete.then_some(self.digest));
        }
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
    /// What an earlier life has left beyond those.
    far: BTreeMap<Seq, Slot>,
    /// The highest number that is settled, and the weight of all settled ones that are here.
    settled: Seq,
    settled_bytes: usize,
    pub(super) undecided: Undecided,
}

impl Log {
    pub(super) fn new(stripe: Stripe, pillar: PillarId) -> Log {
        let first = stripe.next_of(pillar, Seq(0));
        let (slots, far) = (VecDeque::new(), BTreeMap::new());
        let undecided = Undecided::default();
        Log { stripe, pillar, first, slots, far, settled: Seq(0), settled_bytes: 0, undecided }
    }

    fn place(&self, seq: Seq) -> Option<usize> {
        let index = self.stripe.index_of(seq).checked_sub(self.stripe.index_of(self.first))?;
        usize::try_from(index).ok()
    }

    /// The number after those that are covered without a gap.
    fn end(&self) -> Seq {
        Seq(self.first.0 + self.slots.len() as u64 * u64::from(self.stripe.pillars()))
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Slot> {
        self.slots.get(self.place(seq)?).or_else(|| self.far.get(&seq))
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Slot> {
        let place = self.place(seq)?;
        self.slots.get_mut(place).or_else(|| self.far.get_mut(&seq))
    }

    /// The slot of `seq`, made if it is not there yet. The caller has checked the watermarks,
    /// which bound how many are made. `None` below the first slot.
    pub(super) fn slot(&mut self, seq: Seq) -> Option<&mut Slot> {
        let place = self.place(seq)?;
        while self.slots.len() <= place {
            self.extend();
        }
        self.slots.get_mut(place)
    }

    fn extend(&mut self) {
        let slot = self.far.remove(&self.end()).unwrap_or_default();
        self.slots.push_back(slot);
    }

    /// The same for a number of which an earlier life has left something, however far it is, and
    /// for no other. `None` below the first slot.
    pub(super) fn recalled(&mut self, seq: Seq) -> Option<&mut Slot> {
        match self.place(seq)? <= self.slots.len() {
            true => self.slot(seq),
            false => Some(self.far.entry(seq).or_default()),
        }
    }

    /// Takes in what follows without a gap.
    pub(super) fn close_up(&mut self) {
        while self.far.contains_key(&self.end()) {
            self.extend();
        }
    }

    /// How many numbers have a slot at the moment.
    pub(super) fn len(&self) -> usize {
        self.slots.len() + self.far.len()
    }

    /// The lowest number still in the log.
    pub(super) fn first(&self) -> Seq {
        self.first
    }

    /// The highest number about which anything is known, or the one before the first slot.
    pub(super) fn highest_touched(&self) -> Option<Seq> {
        if let Some((seq, _)) = self.far.iter().rev().find(|(_, slot)| slot.is_touched()) {
            return Some(*seq);
        }
        let index = self.slots.iter().rposition(Slot::is_touched)?;
        Some(Seq(self.first.0 + index as u64 * u64::from(self.stripe.pillars())))
    }

    /// The low mark has moved from `low` to `stable`: what is in between is settled. Never more
    /// than that is looked at, since far more is kept for laggards.
    pub(super) fn settle(&mut self, low: Seq, stable: Seq) {
        let lowest = self.first.max(self.stripe.next_of(self.pillar, low));
        let (skip, step) = (self.place(lowest).unwrap_or(0), u64::from(self.stripe.pillars()));
        let near = self.slots.iter_mut().skip(skip);
        let near = near.enumerate().map(|(i, slot)| (Seq(lowest.0 + i as u64 * step), slot));
        let far = self.far.range_mut(lowest..).map(|(seq, slot)| (*seq, slot));
        for (seq, slot) in near.chain(far).take_while(|(seq, _)| *seq <= stable) {
            slot.settle();
            self.settled_bytes += slot.weight;
            self.settled = seq;
        }
    }

    /// Cuts settled numbers off until what is left of them is at most `bytes` heavy.
    pub(super) fn cut_to_weight(&mut self, bytes: usize) {
        while self.settled_bytes > bytes && self.first <= self.settled {
            let gap = self.far.first_key_value().filter(|_| self.slots.is_empty());
            self.cut(gap.map_or(self.first, |(seq, _)| *seq));
        }
    }

    /// Forgets every number at or below `upto`.
    pub(super) fn cut(&mut self, upto: Seq) {
        while self.first <= upto
            && let Some(slot) = self.slots.pop_front()
        {
            if self.first <= self.settled {
                self.settled_bytes -= slot.weight;
            }
            self.first = self.stripe.next_of(self.pillar, self.first);
        }
        if self.first <= upto {
            self.first = self.stripe.next_of(self.pillar, upto);
        }
        while let Some(lowest) = self.far.first_entry()
            && *lowest.key() < self.first
        {
            let (seq, slot) = lowest.remove_entry();
            if seq <= self.settled {
                self.settled_bytes -= slot.weight;
            }
        }
        self.close_up();
    }

    /// Numbers and slots, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, &Slot)> {
        self.above(Seq(self.first.0 - 1))
    }

    /// Those above `low`, without a look at the others.
    pub(super) fn above(&self, low: Seq) -> impl Iterator<Item = (Seq, &Slot)> {
        let step = u64::from(self.stripe.pillars());
        let skip = self.place(self.stripe.next_of(self.pillar, low)).unwrap_or(0);
        let near = self.slots.iter().enumerate().skip(skip);
        let near = near.map(move |(i, s)| (Seq(self.first.0 + i as u64 * step), s));
        near.chain(self.far.range(low.next()..).map(|(seq, slot)| (*seq, slot)))
    }

    /// The same as [`Log::iter`], to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Seq, &mut Slot)> {
        let (first, step) = (self.first.0, u64::from(self.stripe.pillars()));
        let near = self.slots.iter_mut().enumerate();
        let near = near.map(move |(i, s)| (Seq(first + i as u64 * step), s));
        near.chain(self.far.iter_mut().map(|(seq, slot)| (*seq, slot)))
    }

    pub(super) fn check(&self) {
        let here = |seq: &Seq| self.stripe.pillar_of(*seq) == self.pillar;
        assert!(here(&self.first));
        assert!(self.far.keys().all(|seq| here(seq) && *seq >= self.end()));
        self.iter().for_each(|(seq, slot)| slot.check(seq));
        self.undecided.check();
        let settled = self.iter().take_while(|(seq, _)| *seq <= self.settled);
        assert_eq!(settled.map(|(_, slot)| slot.weight).sum::<usize>(), self.settled_bytes);
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
        log.slot(Seq(8)).expect("above the first").chosen = Some(Digest([1; 32]));
        assert!(log.get(Seq(5)).is_some());
        assert_eq!(log.highest_touched(), Some(Seq(8)));
        let above = |log: &Log, low| log.above(Seq(low)).map(|(seq, _)| seq).collect::<Vec<_>>();
        assert_eq!(above(&log, 0), [2, 5, 8].map(Seq));
        assert_eq!(above(&log, 4), [5, 8].map(Seq));
        assert_eq!(above(&log, 5), [Seq(8)]);
        assert_eq!(above(&log, 99), []);
        log.cut(Seq(5));
        assert_eq!(above(&log, 1), [Seq(8)]);
        assert_eq!(log.first(), Seq(8));
        assert!(log.get(Seq(5)).is_none() && log.slot(Seq(5)).is_none());
        log.cut(Seq(100));
        assert_eq!(log.first(), Seq(101));
        assert_eq!(log.highest_touched(), None);
    }

    #[test]
    fn what_an_earlier_life_has_left_far_away_costs_what_it_is_and_not_the_way_there() {
        const FAR: u64 = 1 << 50;
        let stripe = Stripe::new(2).expect("in range");
        let mut log = Log::new(stripe, PillarId(0));
        let touch = |slot: &mut Slot| slot.chosen = Some(Digest([1; 32]));
        // In the order of their records, not of their numbers.
        for seq in [3, 1, FAR + 3, FAR + 1, FAR + 7, 3] {
            touch(log.recalled(Seq(seq)).expect("nothing is cut"));
        }
        log.close_up();
        log.check();
        let seqs = |log: &Log| log.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>();
        assert_eq!(seqs(&log), [1, 3, FAR + 1, FAR + 3, FAR + 7]);
        assert_eq!(log.highest_touched(), Some(Seq(FAR + 7)));
        assert!(log.get(Seq(5)).is_none() && log.get(Seq(FAR + 3)).is_some());
        // Life goes on where it begins: the numbers near the checkpoint have their slots.
        touch(log.slot(Seq(7)).expect("nothing is cut"));
        assert_eq!(seqs(&log), [1, 3, 5, 7, FAR + 1, FAR + 3, FAR + 7]);
        assert_eq!(log.above(Seq(7)).next().map(|(seq, _)| seq.0), Some(FAR + 1));
        log.settle(Seq(0), Seq(FAR + 1));
        assert_eq!(log.settled, Seq(FAR + 1));
        // And there once the way to them is cut off.
        log.cut(Seq(FAR));
        assert_eq!((log.first(), log.far.len()), (Seq(FAR + 1), 1));
        assert!(log.slot(Seq(FAR + 9)).is_some());
        assert_eq!(seqs(&log), [FAR + 1, FAR + 3, FAR + 5, FAR + 7, FAR + 9]);
        assert_eq!(log.highest_touched(), Some(Seq(FAR + 7)));
        log.check();
    }

    #[test]
    fn what_weighs_too_much_is_cut_also_across_a_gap() {
        const FAR: u64 = 1 << 50;
        let stripe = Stripe::new(1).expect("in range");
        let mut log = Log::new(stripe, PillarId(0));
        let put = |slot: &mut Slot, weight| {
            let (digest, batch) = (Digest([1; 32]), Arc::new(Batch::Null));
            slot.put(Content { digest, proposal: Proposal::Null, batch });
            (slot.decided, slot.weight) = (true, weight);
        };
        for seq in [1, 2, FAR, FAR + 1, FAR + 2] {
            put(log.recalled(Seq(seq)).expect("nothing is cut"), 10);
        }
        log.settle(Seq(0), Seq(FAR + 1));
        log.check();
        log.cut_to_weight(15);
        assert_eq!(log.first(), Seq(FAR + 1));
        log.cut_to_weight(0);
        assert_eq!((log.first(), log.len()), (Seq(FAR + 2), 1));
        log.check();
    }
}
