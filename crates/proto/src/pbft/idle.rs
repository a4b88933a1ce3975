//! What an idle pillar does where the group lets it run ahead (COP §4.2.1): null batches for its
//! numbers before its siblings have come to them, and one message for many of them.
//!
//! Without this an idle pillar takes a round of its own for each number that a busy sibling uses:
//! as many messages, and execution waits for the slower of the two. With it the numbers are there
//! already, and each round is about as many of them as the pillar has been idle for.
//!
//! - *Nothing new is agreed on.* A leader may propose null for any number of its own inside the
//!   watermarks, whenever it likes. Each is an instance with its own slot, votes and records; only
//!   messages that are about numbers in a row, and would leave one behind the other, leave as one
//!   (`msg::Nulls`), and are taken apart before anybody looks at them.
//! - *Nobody hurries because of it.* Siblings are not told of null batches, the stage does not
//!   complain of a gap below nulls alone, and nulls do not count as in flight: or two idle pillars
//!   would drive each other through the window.
//! - *Whoever comes back costs little.* A frame gets the number behind the run, and the siblings
//!   fill theirs below it at once, in a run, while it is agreed on. How far a pillar runs ahead
//!   grows by one number with every second occasion on which it had nothing to order, and is
//!   nothing again with the first frame.
//!
//! Not with rotating leaders: there a number that is proposed obliges all the others.

use alloc::collections::VecDeque;

use base::batch::null_digest;
use base::{Digest, Now, ReplicaId, Seq};

use super::log::Slot;
use super::msg::{Message, NullPhase, Nulls, Proposal, Vote};
use super::{Idle, Lane, Reject};
use crate::outbox::{Outbox, Target};

/// How many numbers a pillar runs ahead at most, and which part of a pillar's share of the window.
const AHEAD_MAX: u64 = 32;
const WINDOW_PART: u64 = 8;

/// What a leader knows of its pillar's idleness.
#[derive(Clone, Debug, Default)]
pub(super) struct Idleness {
    /// How often in a row siblings had moved on, and nothing was to be ordered here.
    occasions: u64,
    /// Up to where siblings had been on the last occasion.
    seen: Seq,
    /// Null batches are proposed up to here.
    ahead: Seq,
    /// The numbers, ascending, at which something else than null was proposed in this view.
    open: VecDeque<Seq>,
}

impl Idleness {
    /// A view begins.
    pub(super) fn begin_view(&mut self) {
        *self = Idleness::default();
    }

    /// Something else than null is proposed at `seq`.
    fn ordered(&mut self, seq: Seq, executed: Seq) {
        (self.occasions, self.ahead) = (0, Seq(0));
        while self.open.front().is_some_and(|open| *open <= executed) {
            self.open.pop_front();
        }
        self.open.push_back(seq);
    }

    /// How many numbers that are not null are beyond `executed`.
    pub(super) fn in_flight(&self, executed: Seq) -> usize {
        self.open.len() - self.open.partition_point(|open| *open <= executed)
    }
}

impl Lane {
    /// Whether idle pillars run ahead in this group.
    pub(super) fn idle_runs(&self) -> bool {
        self.cfg.switches.idle == Idle::Ahead
    }

    /// How many numbers a pillar runs ahead at most.
    fn ahead_max(&self) -> u64 {
        let share = self.cfg.window / u64::from(self.cfg.stripe.pillars());
        AHEAD_MAX.min(share / WINDOW_PART)
    }

    /// Siblings are at `fill`: if they are about to come to numbers that are not proposed here,
    /// there is one occasion more on which this pillar had nothing to do.
    pub(super) fn look_ahead(&mut self, fill: Seq) {
        let most = self.ahead_max();
        let apart = u64::from(self.cfg.stripe.pillars());
        let next = self.lead_next();
        let idleness = &mut self.lead.idleness;
        let distance = (idleness.occasions / 2).min(most);
        let near = next.0 < fill.0 + distance / 2 * apart;
        if self.cfg.switches.idle == Idle::Ahead && fill > idleness.seen && near {
            idleness.seen = fill;
            idleness.occasions = (idleness.occasions + 1).min(2 * most);
            idleness.ahead = Seq(fill.0 + distance * apart);
        }
    }

    /// Whether the next number is one that this idle pillar proposes before it is wanted.
    pub(super) fn runs_ahead(&self) -> bool {
        self.idle_runs()
            && self.lead_next() <= self.lead.idleness.ahead
            && !self.pool.has_eligible()
    }

    /// This replica proposes `proposal` at `seq`. Whether siblings are to hear of it.
    pub(super) fn moves_siblings(&mut self, seq: Seq, proposal: &Proposal) -> bool {
        if !self.idle_runs() {
            return true;
        }
        if *proposal == Proposal::Null {
            return base::mutant!(NullsDriveSiblings);
        }
        self.lead.idleness.ordered(seq, self.progress.executed);
        true
    }

    /// Takes a run apart.
    pub(super) fn on_nulls(
        &mut self,
        now: Now,
        from: ReplicaId,
        nulls: Nulls,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if !self.idle_runs() {
            return Err(Reject::Misbehaviour("nulls in a run in a group that has none"));
        }
        let mut result = Err(Reject::Stale("a run of nothing new"));
        for seq in nulls.seqs(self.cfg.stripe) {
            let message = nulls.one(seq, self.digest_of_null(seq));
            match self.on_peer(now, from, message, out) {
                Err(sin @ Reject::Misbehaviour(_)) => result = Err(sin),
                Err(_) => {}
                Ok(()) if matches!(result, Err(Reject::Misbehaviour(_))) => {}
                Ok(()) => result = Ok(()),
            }
        }
        result
    }

    /// The digest of the null batch at `seq`, which is at hand where null is proposed.
    fn digest_of_null(&self, seq: Seq) -> Digest {
        let slot = self.log.get(seq).filter(|slot| slot.proposal.is_some());
        let null = |slot: &&Slot| slot.proposal == Some(Proposal::Null);
        match slot.filter(|slot| null(slot) || base::mutant!(NullsCountForAnything)) {
            Some(slot) => slot.digest,
            None => null_digest(self.cfg.group, seq),
        }
    }

    /// Tells all others something about a number, and, where that is a null batch, joins it with
    /// what was just told of those before it. A run stands behind the records of all its numbers.
    pub(super) fn promise_all(&self, message: Message, out: &mut Outbox) {
        let joined = |said: &Message| {
            let Nulls { phase, view, first, .. } = self.as_run(&message)?;
            let run = self.as_run(said).filter(|run| run.phase == phase)?;
            let mut run = run.and(view, first, self.cfg.stripe)?;
            run.count += u8::from(base::mutant!(RunsSayTooMuch));
            Some(Message::Nulls(run))
        };
        if !self.idle_runs() || !out.join(joined) {
            out.promise(Target::All, message);
        }
    }

    /// A message about null batches, as a run.
    fn as_run(&self, message: &Message) -> Option<Nulls> {
        let one = |phase, view, first| Nulls { phase, view, first, count: 1 };
        let null = |vote: &Vote| {
            let slot = self.log.get(vote.seq).filter(|slot| slot.digest == vote.digest);
            slot.is_some_and(|slot| slot.proposal == Some(Proposal::Null))
        };
        match message {
            Message::Nulls(run) => Some(*run),
            Message::PrePrepare { view, seq, proposal: Proposal::Null } => {
                Some(one(NullPhase::PrePrepare, *view, *seq))
            }
            Message::Prepare(vote) if null(vote) => {
                Some(one(NullPhase::Prepare, vote.view, vote.seq))
            }
            Message::Commit(vote) if null(vote) => {
                Some(one(NullPhase::Commit, vote.view, vote.seq))
            }
            _ => None,
        }
    }
}
