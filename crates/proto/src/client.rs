//! The client core: one session of one principal with all pillars of a group, sans-IO.
//!
//! ```text
//!            f+1 Opened                        f+1 NoSession, Conflict, OutOfWindow
//! Opening ───────────────► Open ────────────────────────────────────────► Opening
//!    ▲  │ f+1 StaleSession   │ close                                      (higher session)
//!    └──┘ (higher session)   ▼
//!                         Closing ── f+1 Closed ──► Closed
//! ```
//!
//! Operations of the caller's many streams share a few ordered protocol streams, the *lines*;
//! those of one caller stream keep their order. A line collects operations in a draft and sends
//! it as a frame as soon as few frames are in flight: a lone operation leaves at once, and under
//! load frames grow by themselves. A frame goes to the same pillar of all replicas; its reply is
//! accepted once f + 1 replicas gave the same one, or more where that is not enough
//! ([`Acceptance`]). Frames are sent again, unchanged, until they are answered: the caller's
//! timeout ends the waiting, not the frame.
//!
//! What it is not: links, their keys and their reconnecting, wake-ups and clocks are the
//! driver's. It depends on `base` alone. The invariants stand in `line` and `vote`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::crypto::ClientKeyring;
use base::frame::READS;
use base::limits::{self, STREAM_WINDOW};
use base::reply::ReplyPacket;
use base::{Frame, FrameBuilder, FrameId, Now, PillarId, ReplicaId};
use base::{Seq, SessionId, Time, View, VoteSet};

mod config;
mod fallback;
mod line;
mod reads;
mod replies;
mod results;
mod route;
mod session;
#[cfg(test)]
mod tests;
mod vote;

pub use config::{Acceptance, ClientConfig};
pub use results::{ClientCounters, Effect, OpError, Results, SendTo, SubmitError};

use fallback::Patience;
use line::{Draft, Flight, Line, Timer};
use reads::Streams;
use vote::{Ballot, Said};

/// One session of one principal. `T` is whatever the caller wants back with the outcome of an
/// operation.
///
/// The owner calls [`ClientCore::turn`] after each round of submissions and replies, carries out
/// everything in [`ClientCore::drain`], and calls again at [`ClientCore::deadline`] at the
/// latest.
pub struct ClientCore<T> {
    config: ClientConfig,
    keys: Box<dyn ClientKeyring>,
    session: SessionId,
    phase: Phase,
    lines: Vec<Line<T>>,
    /// What the caller's streams have on their way, where reads want no order.
    streams: Streams,
    /// Operations and bytes that are queued or in flight.
    held_ops: usize,
    held_bytes: usize,
    /// Bytes of the largest result of late, which bounds the operations of a frame.
    result_bytes: usize,
    replicas: Vec<Standing>,
    /// Who leads, as far as replies say.
    leader: ReplicaId,
    /// Replicas that the group was told not to rely on for answers, and when.
    avoided: (VoteSet, Time),
    patience: Patience,
    counters: ClientCounters,
    effects: Vec<Effect<T>>,
}

/// What is known about one replica.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    wrong_replies: u64,
    view: View,
    /// The highest batch that it named in a nudge.
    nudged: Seq,
    /// Answers that had to be asked for again because of it.
    missed: u64,
    /// The same of late.
    misses: u32,
    /// When the last of these was counted.
    missed_at: Time,
    /// Until when it is not relied on.
    avoided_until: Time,
}

/// Where the session is. Opening and closing carry the frame that is voted on.
enum Phase {
    Opening(Errand),
    Open,
    Closing(Errand),
    Closed,
}

/// The frame that opens or closes the session.
struct Errand {
    frame: Arc<Frame>,
    ballot: Ballot,
    timer: Timer,
}

impl<T> ClientCore<T> {
    /// A client that begins to open a session, numbered by the wall clock: above every session
    /// that the principal opened before, as long as its clock went forward; otherwise the group
    /// says how far to go.
    ///
    /// # Panics
    /// When the configuration is out of its ranges.
    #[must_use]
    pub fn new(config: ClientConfig, keys: Box<dyn ClientKeyring>, now: Now) -> ClientCore<T> {
        config.check();
        let line = |stream: u16| Line::new(u32::from(stream), config.pillar_of(stream));
        let mut core = ClientCore {
            lines: (0..config.lines).map(line).collect(),
            replicas: (0..config.quorums.n()).map(|_| Standing::default()).collect(),
            streams: Streams::default(),
            keys,
            session: SessionId(0),
            phase: Phase::Closed,
            leader: View(0).leader(config.quorums.n()),
            held_ops: 0,
            held_bytes: 0,
            result_bytes: 0,
            avoided: (VoteSet::EMPTY, Time::ZERO),
            patience: Patience::new(config.retransmit),
            counters: ClientCounters::default(),
            effects: Vec::new(),
            config,
        };
        core.open(now, SessionId(0));
        core
    }

    /// Queues an operation of the caller's `stream`, behind all earlier ones of that stream.
    /// It leaves with the next [`ClientCore::turn`] that finds room in the line.
    ///
    /// # Errors
    /// [`SubmitError`], with the token.
    pub fn submit(
        &mut self,
        now: Now,
        stream: u32,
        op: &[u8],
        token: T,
    ) -> Result<(), (SubmitError, T)> {
        let token = self.admit(op, token)?;
        self.order_reads_of(now.mono, stream);
        self.push_ordered(now.mono, stream, op, token);
        Ok(())
    }

    /// The same for an operation that only reads, as the caller knows. Where the group answers
    /// such without an order, it is asked for that, unless an ordered operation of the same
    /// stream is under way.
    ///
    /// # Errors
    /// [`SubmitError`], with the token.
    pub fn submit_read(
        &mut self,
        now: Now,
        stream: u32,
        op: &[u8],
        token: T,
    ) -> Result<(), (SubmitError, T)> {
        if !self.config.reads {
            return self.submit(now, stream, op, token);
        }
        let token = self.admit(op, token)?;
        if let Some(token) = self.try_read(now, stream, op, token) {
            self.order_reads_of(now.mono, stream);
            self.push_ordered(now.mono, stream, op, token);
        }
        Ok(())
    }

    /// Makes room for an operation.
    fn admit(&mut self, op: &[u8], token: T) -> Result<T, (SubmitError, T)> {
        if op.len() > limits::OP_BYTES_MAX {
            return Err((SubmitError::TooLarge, token));
        }
        if matches!(self.phase, Phase::Closing(_) | Phase::Closed) {
            return Err((SubmitError::Closed, token));
        }
        let bytes = self.held_bytes + op.len() + OP_OVERHEAD_BYTES;
        if self.held_ops >= self.config.held_ops_max || bytes > self.config.held_bytes_max {
            return Err((SubmitError::Full, token));
        }
        self.held_ops += 1;
        self.held_bytes = bytes;
        Ok(token)
    }

    /// Queues an operation that was admitted.
    fn push_ordered(&mut self, now: Time, stream: u32, op: &[u8], token: T) {
        let at = stream as usize % self.lines.len();
        let expires = now.after(self.config.request_timeout);
        let reads = self.config.reads;
        let draft = self.draft(at, now, op.len());
        draft.builder.push(op);
        draft.tokens.push(token);
        draft.expires = expires;
        if reads {
            draft.streams.push(stream);
            self.streams.ordered(stream);
        }
    }

    /// Takes a reply that came from replica `from` on its authenticated link.
    pub fn on_reply(&mut self, now: Now, from: ReplicaId, reply: &ReplyPacket<'_>) {
        let Some(standing) = self.replicas.get_mut(usize::from(from.0)) else { return };
        if core::mem::replace(&mut standing.view, reply.view) != reply.view {
            self.look_for_leader();
        }
        self.counters.replies += 1;
        let tentative = reply.tentative.then_some(reply.view);
        let Some(said) = Said::read(reply.body, tentative) else { return self.suspect(from) };
        if said.frame.client != self.config.client {
            return self.suspect(from);
        }
        if said.frame.session != self.session {
            self.counters.stale_replies += 1;
        } else if said.frame.stream == 0 && (said.frame.id == 0 || said.frame.id == u64::MAX) {
            self.on_errand_reply(now, from, &said);
        } else if self.is_open() && said.frame.stream & READS != 0 {
            self.on_read_reply(now, from, &said);
        } else if self.is_open() {
            self.on_frame_reply(now, from, &said);
        } else {
            // The session is closing and its frames are forgotten: nothing to compare with.
            self.counters.late_replies += 1;
        }
    }

    /// Replica `from` says, on its authenticated link, that something waits for this session in
    /// the service's state since batch `seq`.
    pub fn on_nudge(&mut self, from: ReplicaId, seq: Seq) {
        let Some(standing) = self.replicas.get_mut(usize::from(from.0)) else { return };
        standing.nudged = standing.nudged.max(seq);
        self.counters.nudges += 1;
    }

    /// The batch since which something waits for this session, as f + 1 replicas say: at least
    /// one of them is correct, so that f liars cause nothing.
    #[must_use]
    pub fn nudged(&self) -> Seq {
        let mut said: Vec<Seq> = self.replicas.iter().map(|standing| standing.nudged).collect();
        said.sort_unstable_by(|a, b| b.cmp(a));
        said.get(self.config.quorums.weak() - 1).copied().unwrap_or_default()
    }

    /// A link to `replica` for `pillar` is up (again): what is in flight there is sent to it.
    pub fn on_link(&mut self, replica: ReplicaId, pillar: PillarId) {
        let to = SendTo::One(replica);
        if let (Phase::Opening(errand) | Phase::Closing(errand), PillarId(0)) =
            (&self.phase, pillar)
        {
            self.effects.push(Effect::Send { pillar, to, frame: Arc::clone(&errand.frame) });
        }
        for line in self.lines.iter().filter(|line| line.pillar == pillar) {
            for flight in line.flying.iter().filter(|flight| flight.outcome.is_none()) {
                if self.is_for(replica, flight) {
                    let frame = Arc::clone(&flight.frame);
                    self.effects.push(Effect::Send { pillar, to, frame });
                }
            }
        }
    }

    /// Ends timeouts, sends again what is due, and cuts queued operations into frames.
    pub fn turn(&mut self, now: Now) {
        self.expire(now.mono);
        let (first, max) = (self.config.retransmit, self.config.retransmit_max);
        if let Phase::Opening(errand) | Phase::Closing(errand) = &mut self.phase
            && errand.timer.fire(now.mono, first, max)
        {
            let frame = Arc::clone(&errand.frame);
            self.counters.resent += 1;
            self.effects.push(Effect::Send { pillar: PillarId(0), to: SendTo::All, frame });
        }
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        (0..self.lines.len()).for_each(|at| self.resend_due(at, now.mono));
        // Before what they are told to heed.
        self.avoid(now);
        for at in 0..self.lines.len() {
            self.turn_reads(at, now.mono);
            while self.lines[at].may_cut(self.config.frames_in_flight_max)
                && !self.overtakes(&self.lines[at])
            {
                self.cut(at, now.mono);
            }
        }
    }

    /// Closes the session: what is queued or in flight fails with [`OpError::Closed`], and the
    /// group is asked to forget the session.
    pub fn close(&mut self, now: Now) {
        let was_open = match &self.phase {
            Phase::Closing(_) | Phase::Closed => return,
            Phase::Opening(_) => false,
            Phase::Open => true,
        };
        self.fail_reads(OpError::Closed);
        self.fail_flights(OpError::Closed);
        self.fail_drafts(OpError::Closed);
        if !was_open {
            self.phase = Phase::Closed;
            return self.effects.push(Effect::Closed);
        }
        let ClientConfig { group, client, .. } = self.config;
        let sign = |digest| self.keys.authenticate(digest);
        let frame = Arc::new(FrameBuilder::close(group, client, self.session, sign));
        self.phase = Phase::Closing(self.errand(now, frame));
    }

    /// Takes the effects out, in order, keeping the allocation.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect<T>> {
        self.effects.drain(..)
    }

    /// When [`ClientCore::turn`] is to be called at the latest, if ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let errand = match &self.phase {
            Phase::Opening(errand) | Phase::Closing(errand) => Some(errand.timer.due),
            Phase::Open | Phase::Closed => None,
        };
        let open = matches!(self.phase, Phase::Open);
        let line = |line: &Line<T>| match open {
            true => line.deadline(),
            false => line.drafts.front().map(|draft| draft.expires),
        };
        self.lines.iter().filter_map(line).chain(errand).min()
    }

    /// The current session. Links are opened for it.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the session is open, so that operations get through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Operations that are queued or in flight.
    #[must_use]
    pub fn held_ops(&self) -> usize {
        self.held_ops
    }

    /// Bytes of operations that are queued or in flight.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Plain numbers of what happened so far.
    #[must_use]
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }

    /// Replies of `replica` that no correct replica sends. A suspicion, not a proof.
    #[must_use]
    pub fn wrong_replies(&self, replica: ReplicaId) -> u64 {
        self.replicas.get(usize::from(replica.0)).map_or(0, |standing| standing.wrong_replies)
    }

    /// The view that `replica` named last: a hint.
    #[must_use]
    pub fn view_hint(&self, replica: ReplicaId) -> View {
        self.replicas.get(usize::from(replica.0)).map_or(View(0), |standing| standing.view)
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// When one is broken.
    pub fn check(&self) {
        self.lines.iter().for_each(Line::check);
        let held = |line: &Line<T>| -> usize {
            let drafts = line.drafts.iter().map(|draft| draft.tokens.len());
            drafts.chain(line.flying.iter().map(|flight| flight.frame.op_count())).sum()
        };
        let ordered: usize = self.lines.iter().map(held).sum();
        let reads: usize = self.lines.iter().map(|line| line.reads.held()).sum();
        if self.config.reads {
            self.streams.check(ordered, reads);
        }
        let held = ordered + reads;
        assert_eq!(held, self.held_ops, "operations are miscounted");
        assert!(held > 0 || self.held_bytes == 0, "bytes are miscounted");
        let quiet = self.lines.iter().all(|line| line.flying.is_empty());
        assert!(quiet || self.is_open(), "frames in flight without a session");
    }

    /// The draft of line `at` that takes an operation of `len` bytes.
    fn draft(&mut self, at: usize, now: Time, len: usize) -> &mut Draft<T> {
        let ops_max = self.frame_ops_max();
        let bytes_max = self.config.frame_bytes_max;
        let age_max = self.config.request_timeout.0 / 8;
        let line = &mut self.lines[at];
        let drafts = &mut line.drafts;
        let takes = |draft: &Draft<T>| {
            draft.builder.op_count() < ops_max
                && draft.builder.bytes() + len <= bytes_max
                && draft.builder.fits(len)
                && now.since(draft.since).0 <= age_max
        };
        if !drafts.back().is_some_and(takes) {
            // It may become as large as the one before it, and then need not grow to that.
            let room = line.flying.back().map_or(0, |flight| flight.frame.encoded_len());
            let (tokens, streams) = (Vec::new(), Vec::new());
            let builder = FrameBuilder::with_room(room);
            drafts.push_back(Draft { builder, tokens, streams, since: now, expires: now });
        }
        drafts.back_mut().expect("one was pushed if there was none")
    }

    /// How many operations a frame may have, so that its reply stays well below the limit if
    /// results are as large as of late.
    fn frame_ops_max(&self) -> usize {
        if self.config.unbatched {
            return 1;
        }
        let by_reply = limits::REPLY_BYTES_MAX / 2 / (self.result_bytes + OP_OVERHEAD_BYTES);
        self.config.frame_ops_max.min(by_reply).max(1)
    }

    /// Sends the oldest draft of line `at` as a frame.
    fn cut(&mut self, at: usize, now: Time) {
        let line = &mut self.lines[at];
        let Some(draft) = line.drafts.pop_front() else { return };
        let ClientConfig { group, client, retransmit, .. } = self.config;
        let (session, stream, id) = (self.session, line.stream, line.next_id());
        let id = FrameId { client, session, stream, id };
        let sign = |digest| self.keys.authenticate(digest);
        let Draft { builder, tokens, streams, expires, .. } = draft;
        let bytes = held_bytes(builder.bytes());
        let frame = Arc::new(builder.request(group, id, line.acked, sign));
        let timer = Timer { sent: now, due: now.after(retransmit), attempts: 0 };
        let flown = Arc::clone(&frame);
        let ballot = Ballot::default();
        line.flying.push_back(Flight {
            frame: flown,
            bytes,
            tokens,
            streams,
            ballot,
            timer,
            expires,
            answered: None,
            fell_back: false,
            refused: Seq(0),
            outcome: None,
        });
        let pillar = line.pillar;
        let to = self.shown_to(&frame);
        self.counters.frames += 1;
        self.effects.push(Effect::Send { pillar, to, frame });
    }

    fn resend_due(&mut self, at: usize, now: Time) {
        let (first, max) = (self.config.retransmit, self.config.retransmit_max);
        let mut incomplete = Vec::new();
        let line = &mut self.lines[at];
        for flight in line.flying.iter_mut().filter(|flight| flight.outcome.is_none()) {
            if flight.answered.is_some() && !flight.fell_back && flight.timer.due <= now {
                flight.fell_back = true;
                incomplete.push(flight.frame.id().id);
            } else if !flight.timer.fire(now, first, max) {
                continue;
            }
            let frame = Arc::clone(&flight.frame);
            self.counters.resent += 1;
            self.effects.push(Effect::Send { pillar: line.pillar, to: SendTo::All, frame });
        }
        for id in incomplete {
            self.fall_back(at, id, now);
            let due = now.after(first);
            if let Some(flight) = self.lines[at].flight(id) {
                flight.timer = Timer { sent: now, due, ..flight.timer };
            }
        }
    }

    /// Tells the callers whose time is over. Frames in flight stay. A draft goes, and all behind
    /// it in its line with it: were they sent when the group is back after all, operations would
    /// be executed that their callers submitted behind one that was given up.
    fn expire(&mut self, now: Time) {
        let late = Err(OpError::TimedOut);
        for at in 0..self.lines.len() {
            self.tell(at, Some(now));
            let line = &mut self.lines[at];
            let over = line.drafts.front().is_some_and(|draft| draft.expires <= now);
            for draft in line.drafts.drain(..if over { line.drafts.len() } else { 0 }) {
                self.held_ops -= draft.tokens.len();
                self.held_bytes -= held_bytes(draft.builder.bytes());
                self.streams.ended(&draft.streams);
                self.counters.failed += draft.tokens.len() as u64;
                self.effects.push(Effect::Done { tokens: draft.tokens, outcome: late.clone() });
            }
        }
    }
}

/// What an operation costs a frame beside its bytes.
const OP_OVERHEAD_BYTES: usize = 4;

/// Bytes that the operations of a frame were counted with when they were submitted.
fn held_bytes(body: usize) -> usize {
    body - base::frame::FRAME_HEADER_BYTES
}

// A line keeps half of the window for drafts that are full.
const _: () = assert!(STREAM_WINDOW >= 2);
