//! Numbers for which nothing came from the leader, and others are overheard to vote: the leader
//! leaves this replica out, or the link to it is slow.
//!
//! Among a weak quorum of PREPAREs for one digest is one of a correct backup, which has the
//! proposal from the leader and has looked at its frames and at its time. So the proposal is as
//! good from there, and its digest proves it: this replica votes like all others, two messages
//! later. Left to what is decided (`catchup`) it would move in bursts of many numbers, and the
//! others would have to do without its votes.
//!
//! Likewise where the proposal is known only because it is decided: that is no reason to vote for
//! it, a weak quorum of PREPAREs is. Others may need this replica's vote, whatever the leader says.
//!
//! Not here: the proposals that a NEW-VIEW has chosen (`views`).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use base::{Digest, Now, ReplicaId, Seq, Span, Time};

use super::Lane;
use super::log::{Phase, Slot};
use super::msg::Message;
use crate::outbox::{Outbox, Target};

/// How long the leader's own proposal may be overtaken by others' votes for it.
const PATIENCE: Span = Span::micros(500);
/// After so long without an answer, somebody else is asked. Doubles, up to 32 times, while nothing
/// that was asked for comes.
const AGAIN: Span = Span::millis(5);
const AGAIN_MAX: u32 = 5;
/// Numbers that are asked for again once the wait does not double any more: perhaps nobody hears,
/// for as long as that may be.
const VAIN_NUMBERS_MAX: usize = 4;
/// Numbers above what is delivered that are asked for: whoever misses more than that is better
/// told what is decided.
const NUMBERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Overheard {
    /// When to look at what is missing; `None`: nothing is within reach.
    look_at: Option<Time>,
    /// The highest number that may be missing; zero: none is, not beyond reach either.
    upto: Seq,
    /// What was asked for and has not come.
    asked: BTreeSet<Seq>,
    /// The lowest number that is missing, and since when it is that and asked for.
    lowest: (Seq, Time),
    /// How often it was asked for again since anything came.
    again: u32,
    /// Who was asked for it, and who is asked first: whoever did not answer in time comes last,
    /// also for later numbers.
    asked_of: ReplicaId,
    first: ReplicaId,
}

impl Overheard {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// Others vote for something at `seq`.
    fn note(&mut self, now: Time, seq: Seq) {
        self.upto = self.upto.max(seq);
        if !self.asked.contains(&seq) {
            self.look_within(now.after(PATIENCE));
        }
    }

    fn look_within(&mut self, at: Time) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }

    /// More is delivered: what lay beyond reach may be within it.
    pub(super) fn reaches_further(&mut self, now: Time) {
        if self.upto > Seq(0) {
            self.look_within(now.after(PATIENCE));
        }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.look_at.is_none() && self.upto == Seq(0)
    }

    /// Something that was asked for has come.
    pub(super) fn came(&mut self, now: Time) {
        self.again = 0;
        if self.look_at.is_some() {
            self.look_within(now.after(PATIENCE));
        }
    }

    /// When somebody else is asked.
    fn again_at(&self) -> Time {
        self.lowest.1.after(Span(AGAIN.0 << self.again.min(AGAIN_MAX)))
    }
}

impl Slot {
    /// What a weak quorum of backups has accepted here, where this replica has nothing.
    pub(super) fn overheard(&self, weak: usize) -> Option<Digest> {
        let blank = self.phase == Phase::Empty && self.proposal.is_none() && self.chosen.is_none();
        let voted = |digest: &Digest| self.prepares.count(*digest) >= weak;
        self.prepares.digests().filter(|_| blank).find(voted)
    }

    /// Whether a weak quorum of backups has accepted what this replica knows to be decided, and
    /// has not taken for a proposal of this view.
    fn is_joinable(&self, weak: usize) -> bool {
        let aside = self.phase == Phase::Empty && self.chosen.is_none();
        aside && self.proposal.is_some() && self.prepares.count(self.digest) >= weak
    }
}

impl Lane {
    /// A backup has accepted a proposal for `seq`, where this replica has none of this view.
    pub(super) fn overhear(&mut self, now: Now, seq: Seq) {
        let weak = self.cfg.quorums.weak();
        if self.leads(seq) {
            return;
        }
        let Some(slot) = self.log.get_mut(seq) else { return };
        if slot.is_joinable(weak) {
            slot.phase = Phase::Waiting;
        } else if slot.overheard(weak).is_some() {
            self.catchup.overheard.note(now.mono, seq);
        }
    }

    /// Asks for the proposals that others vote for and the leader has not sent in time.
    pub(super) fn ask_for_overheard(&mut self, now: Now, out: &mut Outbox) {
        if self.catchup.overheard.deadline().is_none_or(|at| at > now.mono) {
            return;
        }
        let (weak, upto) = (self.cfg.quorums.weak(), self.catchup.overheard.upto);
        let numbers = self.log.above(self.delivered).take(NUMBERS_MAX);
        let missing = numbers.take_while(|(seq, _)| *seq <= upto);
        let mut missing = missing
            .filter_map(|(seq, slot)| slot.overheard(weak).map(|digest| (seq, slot, digest)))
            .peekable();
        let state = &mut self.catchup.overheard;
        let Some(lowest) = missing.peek().map(|(seq, ..)| *seq) else {
            // What is beyond reach was voted for, and may not be again: it is looked at when more
            // is delivered.
            let beyond = self.log.above(self.delivered).skip(NUMBERS_MAX);
            let mut beyond = beyond.take_while(|(seq, _)| *seq <= upto);
            let more = beyond.any(|(_, slot)| slot.overheard(weak).is_some());
            let upto = if more { upto } else { Seq(0) };
            *state = Overheard { upto, first: state.first, ..Overheard::default() };
            return;
        };
        let mut again = 0;
        if state.lowest.0 != lowest {
            (state.lowest, state.again) = ((lowest, now.mono), 0);
        } else if now.mono >= state.again_at() {
            again = if state.again < AGAIN_MAX { NUMBERS_MAX } else { VAIN_NUMBERS_MAX };
            (state.again, state.lowest.1) = (state.again.saturating_add(1), now.mono);
            state.first = ReplicaId(state.asked_of.0.saturating_add(1));
        }
        let before = core::mem::take(&mut state.asked);
        for (place, (seq, slot, digest)) in missing.enumerate() {
            state.asked.insert(seq);
            if before.contains(&seq) && place >= again {
                continue;
            }
            let mut voters: Vec<ReplicaId> = slot.prepares.senders(digest).collect();
            voters.sort_unstable();
            let who = voters.iter().find(|who| **who >= state.first).unwrap_or(&voters[0]);
            let who = *who;
            if seq == lowest {
                state.asked_of = who;
            }
            out.send(Target::One(who), Message::FetchProposal { seq, digest });
        }
        state.look_at = Some(state.again_at());
    }
}
