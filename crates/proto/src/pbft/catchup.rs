//! Catching up: retransmission, missing bodies, and instances that were decided elsewhere.
//!
//! A lane that makes no progress although it knows of more to come tells its peers how far it is
//! (STATUS). Whoever is ahead answers with its own votes for what is still open and with DECIDED
//! for what is delivered. One peer can lie: DECIDED counts when a weak quorum says the same
//! (design, trap 9); bodies are recognised by their digest.
//!
//! Beyond the logs of the others (one window below their low mark) only a transfer of state
//! helps; that is told as a fact.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{BatchEntry, Frame, Now, ReplicaId, Seq, Span, Time, limits};

use super::log::{Counted, Phase};
use super::msg::{Message, Proposal, Vote};
use super::{Lane, Reject, pool};
use crate::outbox::{Fact, Outbox, Target};

/// How long a proposal may wait for a frame that is on its way from the client.
const BODY_PATIENCE: Span = Span::millis(3);
/// The longest wait between two cries for help.
const RETRANSMIT_MAX: Span = Span::millis(1000);
/// How often a lane tells how far it is: while it moves, and while it idles.
const HEARTBEAT_BUSY: Span = Span::secs(1);
const HEARTBEAT_IDLE: Span = Span::secs(5);
/// The least time between two answers to one peer, and how many numbers one answer covers.
const ANSWER_GAP: Span = Span::millis(2);
const ANSWER_NUMBERS: usize = 128;
/// Bytes of bodies that one peer gets per [`ANSWER_GAP`].
const BODY_BYTES_PER_GAP: usize = 2 << 20;
/// Frames that nobody ordered for this long are forgotten.
const FRAME_LIFETIME: Span = Span::secs(60);
/// Pending frames that are vouched for again when the leader seems not to know them.
const VOUCH_AGAIN_MAX: usize = 1024;

/// The timers and what is known about the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Catchup {
    /// The highest number that anybody has mentioned.
    highest_seen: Seq,
    last_progress: Time,
    /// Cries since the last progress; each doubles the wait.
    cries: u32,
    last_cry: Time,
    last_heartbeat: Time,
    moved_since_heartbeat: bool,
    /// Since when some proposal waits for frames, and when they were last asked for.
    waiting_since: Option<Time>,
    last_fetch: Time,
    peers: Vec<Peer>,
    /// The number about which it was told that nobody's log reaches back to it.
    told_lost: Option<Seq>,
    /// What was asked for last reaches up to here, and whether all of it has come.
    asked_to: Seq,
    ask_again: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    last_answer: Option<Time>,
    body_bytes: usize,
    body_gap: Time,
    stable: Seq,
}

impl Catchup {
    /// Somebody mentioned `seq`.
    pub(super) fn saw(&mut self, seq: Seq) {
        self.highest_seen = self.highest_seen.max(seq);
    }

    pub(super) fn progressed(&mut self, now: Time) {
        self.last_progress = now;
        self.cries = 0;
        self.moved_since_heartbeat = true;
    }

    pub(super) fn waits_for_bodies(&mut self, now: Time) {
        self.waiting_since.get_or_insert(now);
    }

    fn peer(&mut self, replica: ReplicaId) -> &mut Peer {
        let index = usize::from(replica.0);
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, Peer::default);
        }
        &mut self.peers[index]
    }

    fn heartbeat_at(&self, waiting: bool) -> Time {
        let busy = waiting || self.moved_since_heartbeat;
        self.last_heartbeat.after(if busy { HEARTBEAT_BUSY } else { HEARTBEAT_IDLE })
    }

    fn cry_at(&self, first: Span) -> Time {
        let wait = Span(first.0.saturating_mul(1 << self.cries.min(16)).min(RETRANSMIT_MAX.0));
        self.last_progress.max(self.last_cry).after(wait)
    }

    fn fetch_at(&self) -> Option<Time> {
        let since = self.waiting_since?;
        Some(since.max(self.last_fetch).after(BODY_PATIENCE))
    }
}

impl Lane {
    fn status(&self) -> Message {
        Message::Status { view: self.view, stable: self.low(), delivered: self.delivered }
    }

    /// Whether there is more to come than was delivered here.
    fn is_behind(&self) -> bool {
        let next = self.next_undelivered();
        self.catchup.highest_seen >= next
            || self.log.highest_touched().is_some_and(|top| top >= next)
    }

    pub(super) fn catchup_deadline(&self) -> Time {
        let mut at = self.catchup.heartbeat_at(self.pool.len() > 0);
        if self.is_behind() {
            at = at.min(self.catchup.cry_at(self.cfg.retransmit));
            if self.catchup.ask_again {
                at = at.min(self.catchup.last_cry.after(ANSWER_GAP));
            }
        }
        self.catchup.fetch_at().map_or(at, |fetch| at.min(fetch))
    }

    /// Looks at the timers.
    pub(super) fn catch_up(&mut self, now: Now, out: &mut Outbox) {
        if self.catchup.fetch_at().is_some_and(|at| at <= now.mono) {
            self.fetch_missing(now, out);
        }
        let due = self.catchup.cry_at(self.cfg.retransmit) <= now.mono;
        // While decisions flow, the next are asked for as soon as the last have come, so that
        // catching up is faster than moving on.
        let flows = self.catchup.ask_again && now.mono.since(self.catchup.last_cry) >= ANSWER_GAP;
        if self.is_behind() && (due || flows) {
            self.catchup.last_cry = now.mono;
            self.catchup.cries += u32::from(due);
            self.catchup.ask_again = false;
            let step = u64::from(self.cfg.stripe.pillars()) * ANSWER_NUMBERS as u64;
            self.catchup.asked_to = Seq(self.delivered.0 + step);
            out.send(Target::All, self.status());
        }
        if self.catchup.heartbeat_at(self.pool.len() > 0) <= now.mono {
            self.catchup.last_heartbeat = now.mono;
            self.catchup.moved_since_heartbeat = false;
            out.send(Target::All, self.status());
            self.vouch_again(out);
            let horizon = now.mono.0.saturating_sub(FRAME_LIFETIME.0);
            self.pool.expire(Time(horizon));
        }
    }

    /// The link to `peer` is new: what was under way on the old one may be lost.
    pub(super) fn on_connected(&mut self, peer: ReplicaId, out: &mut Outbox) {
        self.catchup.peer(peer).last_answer = None;
        out.send(Target::One(peer), self.status());
        if peer == self.leader() {
            self.vouch_again(out);
        }
    }

    /// Vouches once more for what still waits for its order.
    fn vouch_again(&mut self, out: &mut Outbox) {
        if self.leads() {
            return;
        }
        let entries = self.pool.unordered_own(VOUCH_AGAIN_MAX);
        for chunk in entries.chunks(limits::BATCH_FRAMES_MAX) {
            out.send(Target::One(self.leader()), Message::Vouch(chunk.to_vec()));
        }
    }

    /// Asks for the bodies that proposals here wait for, and as leader for those that others
    /// vouch for.
    fn fetch_missing(&mut self, now: Now, out: &mut Outbox) {
        self.catchup.last_fetch = now.mono;
        let mut waiting = false;
        for (seq, slot) in self.log.iter().filter(|(_, slot)| slot.phase == Phase::Waiting) {
            waiting = true;
            out.send(Target::All, Message::Fetch { seq, entries: slot.missing_entries() });
        }
        if self.leads() {
            waiting |= self.fetch_unproposed(now, out);
        }
        if !waiting {
            self.catchup.waiting_since = None;
        }
    }

    fn fetch_unproposed(&mut self, now: Now, out: &mut Outbox) -> bool {
        let before = Time(now.mono.0.saturating_sub(BODY_PATIENCE.0));
        let entries = self.pool.bodies_to_fetch(self.cfg.quorums.weak(), before);
        if entries.is_empty() {
            return false;
        }
        entries.iter().for_each(|entry| self.pool.want_unproposed(&pool::key_of(entry)));
        out.send(Target::All, Message::Fetch { seq: self.lead_next(), entries });
        true
    }

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
        for entry in entries {
            let Some((frame, vouched)) = self.find_body(seq, entry) else { continue };
            let peer = self.catchup.peer(from);
            if now.mono.since(peer.body_gap) >= ANSWER_GAP {
                (peer.body_gap, peer.body_bytes) = (now.mono, 0);
            }
            peer.body_bytes += frame.encoded_len();
            if peer.body_bytes > BODY_BYTES_PER_GAP && peer.body_bytes > frame.encoded_len() {
                return Err(Reject::Stale("fetches faster than they are answered"));
            }
            out.send(Target::One(from), Message::Body { vouched, frame });
        }
        Ok(())
    }

    /// A frame by name, from the pool or from the slot of `seq`.
    fn find_body(&self, seq: Seq, entry: &BatchEntry) -> Option<(Arc<Frame>, bool)> {
        if let Some(held) = self.pool.get(&pool::key_of(entry))
            && let Some(frame) = &held.frame
        {
            return Some((frame.clone(), held.own));
        }
        let base::Batch::Frames { frames, .. } = self.log.get(seq)?.batch.as_deref()? else {
            return None;
        };
        frames.iter().find(|f| f.digest() == entry.digest).map(|f| (f.clone(), false))
    }

    pub(super) fn on_body(
        &mut self,
        now: Now,
        from: ReplicaId,
        vouched: bool,
        frame: &Arc<Frame>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let key = (frame.id(), frame.digest());
        let Some(entry) = self.pool.get(&key) else {
            return Err(Reject::Stale("body that nobody waits for"));
        };
        // In order: the authenticator is looked at only while the frame is not trusted yet.
        let trusted = entry.own || entry.vouches.len() >= self.cfg.quorums.weak();
        let own = !trusted
            && self.keys.check(frame.id().client, frame.digest(), frame.authenticator());
        if vouched {
            self.pool.vouch(now.mono, from, key);
        }
        if entry_is_complete(&self.pool, &key) {
            self.pool.trust(&key, own);
        } else if !self.pool.body(now.mono, frame, own) {
            return Err(Reject::Stale("body that nobody waits for"));
        }
        self.frame_changed(now, &key, out);
        Ok(())
    }

    /// `from` says how far it is. Whoever is behind gets help, at a bounded rate.
    pub(super) fn on_status(
        &mut self,
        now: Now,
        from: ReplicaId,
        stable: Seq,
        delivered: Seq,
        out: &mut Outbox,
    ) {
        self.catchup.saw(delivered);
        self.catchup.peer(from).stable = stable;
        self.tell_if_left_behind(out);
        let peer = self.catchup.peer(from);
        if peer.last_answer.is_some_and(|at| now.mono.since(at) < ANSWER_GAP) {
            return;
        }
        peer.last_answer = Some(now.mono);
        let to = Target::One(from);
        for checkpoint in self.checkpoints.sent_above(stable) {
            out.send(to, Message::Checkpoint(*checkpoint));
        }
        let (view, me, leads) = (self.view, self.cfg.me, self.leads());
        let above = self.log.iter().filter(|(seq, slot)| *seq > delivered && slot.is_touched());
        for (seq, slot) in above.take(ANSWER_NUMBERS) {
            let Some(proposal) = &slot.proposal else { continue };
            if slot.phase == Phase::Delivered {
                out.send(to, Message::Decided { seq, proposal: proposal.clone() });
            }
            // Also what was delivered: others may need this very vote for their quorum, and one
            // DECIDED alone convinces nobody.
            if slot.view != view || slot.phase < Phase::Accepted || seq <= stable {
                continue;
            }
            let vote = Vote { view, seq, digest: slot.digest };
            if leads && !slot.decided {
                out.promise(to, Message::PrePrepare { view, seq, proposal: proposal.clone() });
            }
            if slot.prepares.said(me) {
                out.promise(to, Message::Prepare(vote));
            }
            if slot.commits.said(me) {
                out.promise(to, Message::Commit(vote));
            }
        }
    }

    /// The logs of a weak quorum no longer reach back to what is missing here.
    fn tell_if_left_behind(&mut self, out: &mut Outbox) {
        let missing = self.next_undelivered();
        let beyond = |peer: &&Peer| peer.stable.0.saturating_sub(self.cfg.window) >= missing.0;
        let lost: Vec<Seq> = self.catchup.peers.iter().filter(beyond).map(|p| p.stable).collect();
        if lost.len() >= self.cfg.quorums.weak() {
            let stable = lost.into_iter().min().expect("a weak quorum is not empty");
            if self.catchup.told_lost.replace(missing) != Some(missing) {
                out.fact(Fact::LeftBehind { missing, stable });
            }
        }
    }

    pub(super) fn on_decided(
        &mut self,
        now: Now,
        from: ReplicaId,
        seq: Seq,
        proposal: Proposal,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("number of another pillar"));
        }
        if seq <= self.delivered || seq <= self.low() || seq > self.high() {
            return Err(Reject::Stale("decided outside of what is missing"));
        }
        let digest = proposal.digest(self.cfg.group, seq);
        let weak = self.cfg.quorums.weak();
        let slot = self.log.slot(seq).ok_or(Reject::Stale("cut off"))?;
        if slot.phase == Phase::Delivered {
            return Err(Reject::Stale("already delivered"));
        }
        match slot.decisions.add(from, digest) {
            Counted::Fresh => {}
            Counted::Again => return Err(Reject::Stale("decided again")),
            Counted::Contradicts => return Err(Reject::Misbehaviour("two decisions for one number")),
        }
        if !slot.decision_bodies.iter().any(|(d, _)| *d == digest) {
            slot.decision_bodies.push((digest, proposal));
        }
        if slot.decisions.count(digest) >= weak {
            self.adopt_decision(now, seq, digest, out);
        }
        Ok(())
    }

    /// A weak quorum says that `digest` is decided at `seq`: whatever this replica thought of
    /// that number gives way.
    fn adopt_decision(&mut self, now: Now, seq: Seq, digest: base::Digest, out: &mut Outbox) {
        let slot = self.log.get_mut(seq).expect("the caller found the slot");
        slot.decided = true;
        let decided = slot.decision_bodies.iter().find(|(d, _)| *d == digest);
        let proposal = decided.map(|(_, proposal)| proposal.clone()).expect("kept with the vote");
        let same = slot.phase >= Phase::Accepted && slot.digest == digest;
        if same {
            // The digest is what was voted for here: only the phase is behind.
            slot.phase = Phase::Accepted;
        } else {
            let old = slot.proposal.take();
            slot.phase = Phase::Empty;
            slot.batch = None;
            slot.bodies.clear();
            slot.missing = 0;
            for entry in old.iter().flat_map(|proposal| proposal.entries()) {
                self.pool.unwant(&pool::key_of(entry), seq);
            }
            self.install(now, seq, proposal, true);
            self.fetch_decided(seq, out);
        }
        self.advance(now, seq, out);
        if self.delivered >= self.catchup.asked_to && self.is_behind() {
            self.catchup.ask_again = true;
        }
    }

    /// Asks one of those who say what is decided at `seq` for the bodies. No patience here: the
    /// client has long stopped sending them.
    fn fetch_decided(&mut self, seq: Seq, out: &mut Outbox) {
        let Some(slot) = self.log.get(seq) else { return };
        let entries = slot.missing_entries();
        if let Some(source) = slot.decisions.senders(slot.digest).next()
            && !entries.is_empty()
        {
            out.send(Target::One(source), Message::Fetch { seq, entries });
        }
    }
}

fn entry_is_complete(pool: &pool::Pool, key: &pool::Key) -> bool {
    pool.get(key).is_some_and(|entry| entry.frame.is_some())
}
