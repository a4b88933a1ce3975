//! Answers to who is behind: bodies that it asks for, and what this replica knows about the numbers
//! that it has not delivered.
//!
//! Not here: asking, and what becomes of answers (`catchup`). Whatever a peer asks for costs this
//! replica a bounded share of its time (`peers`), and a decision is not told again while it may
//! still be on its way: who catches up asks as soon as something has come, which on a slow link
//! is many times before the next can be there.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{BatchEntry, Frame, Now, ReplicaId, Seq, Span, View};

use super::catchup::DECISIONS_MAX;
use super::log::{Phase, Slot};
use super::msg::{Message, Vote};
use super::peers::Asker;
use super::{Lane, Reject, pool};
use crate::outbox::{Effect, Outbox, Target};

/// About how many bytes one answer has.
const ANSWER_BYTES: usize = 256 << 10;
/// What a fetch costs its sender's share beside the bodies that it gets.
const FETCH_COST_BYTES: usize = 1 << 10;
const FETCH_COST_BYTES_PER_ENTRY: usize = 64;
/// And for each body in the slot among which what left the pool is looked for.
const FETCH_COST_BYTES_PER_LOOK: usize = 64;
/// A decision that was told is taken for lost when so many of these shares of the time after
/// which a lane cries for help have passed, and the peer is where it was.
const LOST_SHARE: u64 = 4;

impl Lane {
    pub(super) fn on_fetch(
        &mut self,
        now: Now,
        from: ReplicaId,
        seq: Seq,
        entries: &[BatchEntry],
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("fetch for another pillar"));
        }
        // Looking costs, too.
        let cost = FETCH_COST_BYTES + entries.len() * FETCH_COST_BYTES_PER_ENTRY;
        self.catchup.peers.served(from, now.mono, cost);
        let mut logged: Option<Vec<(Arc<Frame>, bool)>> = None;
        for entry in entries {
            if !self.catchup.peers.may_serve(from, now.mono) {
                return Err(Reject::Stale("fetches faster than they are answered"));
            }
            let held = self.pool.get(&pool::key_of(entry));
            let here = held.and_then(|held| held.frame.clone().zip(Some(held.own)));
            let found = match here {
                Some((_, true)) => here,
                _ => {
                    if logged.is_none() {
                        let bodies = self.bodies_of(seq);
                        let cost = bodies.len() * FETCH_COST_BYTES_PER_LOOK;
                        self.catchup.peers.served(from, now.mono, cost);
                        logged = Some(bodies);
                    }
                    let logged = logged.as_deref().unwrap_or_default();
                    let place = logged.binary_search_by_key(&entry.digest, |(f, _)| f.digest());
                    place.ok().map(|place| logged[place].clone()).or(here)
                }
            };
            if let Some((frame, vouched)) = found {
                self.catchup.peers.served(from, now.mono, frame.encoded_len());
                out.send(Target::One(from), Message::Body { vouched, frame });
            }
        }
        Ok(())
    }

    /// The frames in the slot of `seq`, by digest, and whether this replica vouches for them:
    /// what is decided is authentic, and what it has voted for it has found authentic, or knows
    /// from a correct replica that it is. An earlier life may have voted: the pool has forgotten
    /// whether the frame was genuine, and with some replicas gone its vote may be one of the few.
    fn bodies_of(&self, seq: Seq) -> Vec<(Arc<Frame>, bool)> {
        let Some(slot) = self.log.get(seq) else { return Vec::new() };
        let past = slot.past.iter().flat_map(|past| past.contents()).map(|kept| &kept.batch);
        let mut bodies = Vec::new();
        let sure = slot.decided || slot.is_recorded(slot.digest);
        for (batch, sure) in
            slot.batch.iter().map(|batch| (batch, sure)).chain(past.map(|b| (b, false)))
        {
            if let base::Batch::Frames { frames, .. } = &**batch {
                bodies.extend(frames.iter().map(|frame| (frame.clone(), sure)));
            }
        }
        bodies.sort_unstable_by_key(|(frame, sure)| (frame.digest(), !*sure));
        bodies.dedup_by_key(|(frame, _)| frame.digest());
        bodies
    }

    /// `from` says how far it is. Whoever is behind gets help, at a bounded rate.
    pub(super) fn on_status(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, stable, delivered): (View, Seq, Seq),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        // As far from overflow as every other number on the wire.
        if stable.0.max(delivered.0) > u64::MAX >> 1 {
            return Err(Reject::Misbehaviour("status beyond all numbers"));
        }
        self.catchup.peers.mentions(from, delivered, self.cfg.quorums.weak());
        self.catchup.peers.set_status(from, (view, now.mono), stable, delivered);
        self.tell_if_left_behind(now, out);
        if !self.catchup.peers.may_answer(from, now.mono) {
            return Err(Reject::Stale("status before the last was digested"));
        }
        let to = Target::One(from);
        if self.low() > stable {
            self.sign_low_mark();
        }
        for checkpoint in self.checkpoints.sent_above(stable) {
            out.settled(to, checkpoint.seq, Message::Checkpoint(*checkpoint));
        }
        let (mut bytes, mut owes, mine) = (0, None, self.decided_upto());
        let lost = Span(self.cfg.retransmit.0 / LOST_SHARE);
        // Votes are of use only in the view that both are in.
        let votes = view == self.view && self.is_active();
        let asker = Asker { view, votes, delivered };
        let (mut told, numbers) = self.catchup.peers.untold(from, now.mono, asker, lost);
        // What it would refuse: beyond what is next, or above its high mark.
        let reach = DECISIONS_MAX * u64::from(self.cfg.stripe.pillars());
        let last = (delivered.0 + reach - 1).min(stable.0 + self.cfg.window);
        let above = self.log.above(told).filter(|(_, slot)| slot.is_touched());
        for (seq, slot) in above.take(numbers) {
            if bytes >= ANSWER_BYTES || seq.0 > last {
                break;
            }
            let votes = votes && seq > stable;
            bytes += self.answer_about(to, (seq, slot), votes, out);
            if votes && self.owes_vote(seq, slot) {
                owes = owes.or(Some(seq));
            }
            // Not beyond a hole: what is missing here may be told in a moment.
            if seq <= mine {
                told = seq;
            }
        }
        self.catchup.peers.tell(from, told);
        self.catchup.peers.served(from, now.mono, bytes);
        // It may be this replica's COMMIT that the peer needs, and this one may need a vote for
        // that which only somebody has who delivered the number, too, and so repeats nothing.
        if let Some(seq) = owes.filter(|_| self.catchup.may_ask_for_votes(now.mono)) {
            let (view, stable) = (self.views.asked, self.low());
            let delivered = Seq(seq.0 - 1).max(stable);
            out.send(Target::All, Message::Status { view, stable, delivered });
        }
        // So that the peer knows that it is behind, and does not blame its leader for that.
        if mine > delivered {
            out.send(to, self.status());
        }
        Ok(())
    }

    /// Whether votes that it lacks would have this replica vote for what it has delivered. At or
    /// below the low mark, where it is bound by what an earlier life may have said, or has voted
    /// for something else, it votes for nothing any more, whatever it is told; and whoever leads
    /// a number votes by proposing.
    fn owes_vote(&self, seq: Seq, slot: &Slot) -> bool {
        let open = seq > self.low() && slot.delivered && slot.phase < Phase::Prepared;
        let said = slot.phase < Phase::Accepted && slot.voted_in(self.view);
        let leads = slot.phase == Phase::Empty && self.leads(seq);
        open && self.may_vote(seq) && !said && !leads
    }

    /// Says what this replica knows about one number; `votes`, too, if they may be needed. About
    /// how many bytes that is.
    fn answer_about(
        &self,
        to: Target,
        (seq, slot): (Seq, &Slot),
        votes: bool,
        out: &mut Outbox,
    ) -> usize {
        let Some(proposal) = &slot.proposal else { return 0 };
        let before = out.effects().len();
        if slot.is_to_be_delivered() {
            out.promise(to, Message::Decided { seq, proposal: proposal.clone() });
        }
        // Also what was delivered: others may need this very vote for their quorum, and one
        // DECIDED alone convinces nobody.
        if votes && slot.phase >= Phase::Accepted {
            let vote = Vote { view: self.view, seq, digest: slot.digest };
            let (view, me) = (self.view, self.cfg.me);
            if self.leads(seq) && slot.chosen.is_none() {
                out.promise(to, Message::PrePrepare { view, seq, proposal: proposal.clone() });
            }
            if slot.prepares.said(me, slot.digest) {
                out.promise(to, Message::Prepare(vote));
            }
            if slot.commits.said(me, slot.digest) {
                out.promise(to, Message::Commit(vote));
            }
        }
        let said = out.effects()[before..].iter();
        said.map(|effect| match effect {
            Effect::Send { message, .. } => message.encoded_len_max(),
            _ => 0,
        })
        .sum()
    }
}
