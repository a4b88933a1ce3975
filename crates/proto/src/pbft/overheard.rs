//! Numbers for which nothing came from the leader, and others are overheard to vote: the leader
//! leaves this replica out, or the link to it is slow.
//!
//! Among a weak quorum of PREPAREs for one digest is one of a correct backup, which has the
//! proposal from the leader and has looked at its frames and at its time. So the proposal is as
//! good from there, and its digest proves it: this replica votes like all others, two messages
//! later. Left to what is decided (`catchup`) it would move in bursts of many numbers, and the
//! others would have to do without its votes.
//!
//! Not here: the proposals that a NEW-VIEW has chosen (`views`).

use alloc::vec::Vec;

use base::{Digest, Now, ReplicaId, Seq, Span, Time};

use super::log::{Phase, Slot};
use super::msg::Message;
use super::{Lane, Log};
use crate::outbox::{Outbox, Target};

/// How long the leader's own proposal may be overtaken by others' votes for it.
const PATIENCE: Span = Span::micros(500);
/// After so long without an answer, somebody else is asked.
const AGAIN: Span = Span::millis(5);
/// Numbers above what is delivered that are asked for: whoever misses more than that is better
/// told what is decided.
const NUMBERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Overheard {
    /// Since when something may be missing; `None`: nothing is.
    since: Option<Time>,
    /// The highest number that may be.
    upto: Seq,
    /// Up to here all that was missing was asked for.
    asked: Seq,
    /// The lowest number that is missing, and since when it is that and asked for.
    lowest: (Seq, Time),
    /// Who was asked for that, and who is asked first: whoever did not answer in time comes last,
    /// also for later numbers.
    asked_of: ReplicaId,
    first: ReplicaId,
}

impl Overheard {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.since.map(|at| at.after(PATIENCE))
    }

    /// Others vote for something at `seq`.
    fn note(&mut self, now: Time, seq: Seq) {
        self.since.get_or_insert(now);
        self.upto = self.upto.max(seq);
    }
}

impl Slot {
    /// What a weak quorum of backups has accepted here, where this replica has nothing.
    pub(super) fn overheard(&self, weak: usize) -> Option<Digest> {
        let blank = self.phase == Phase::Empty && self.proposal.is_none() && self.chosen.is_none();
        let voted = |digest: &Digest| self.prepares.count(*digest) >= weak;
        self.prepares.digests().filter(|_| blank).find(voted)
    }
}

impl Lane {
    /// A backup has accepted a proposal for `seq`.
    pub(super) fn overhear(&mut self, now: Now, seq: Seq) {
        let weak = self.cfg.quorums.weak();
        let missing = |log: &Log| log.get(seq).is_some_and(|slot| slot.overheard(weak).is_some());
        if !self.leads(seq) && missing(&self.log) {
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
            // What is beyond reach is noted again when it is voted for.
            *state = Overheard { first: state.first, ..Overheard::default() };
            return;
        };
        if state.lowest.0 != lowest {
            state.lowest = (lowest, now.mono);
        } else if now.mono.since(state.lowest.1) >= AGAIN {
            (state.asked, state.lowest.1) = (Seq(0), now.mono);
            state.first = ReplicaId(state.asked_of.0.saturating_add(1));
        }
        state.since = Some(now.mono);
        for (seq, slot, digest) in missing {
            if seq > state.asked {
                let mut voters: Vec<ReplicaId> = slot.prepares.senders(digest).collect();
                voters.sort_unstable();
                let who = voters.iter().find(|who| **who >= state.first).unwrap_or(&voters[0]);
                let who = *who;
                if seq == lowest {
                    state.asked_of = who;
                }
                out.send(Target::One(who), Message::FetchProposal { seq, digest });
                state.asked = seq;
            }
        }
    }
}
