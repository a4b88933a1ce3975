//! One protocol stream of a session: drafts that collect operations, and frames in flight.
//!
//! Many streams of the caller share one line; their operations keep their order because the
//! line is one ordered stream of the protocol. Not here: votes ([`super::vote`]) and sessions.
//!
//! Invariants:
//! 1. frames in flight have the ids `acked + 1 ..= acked + flying.len()`, ascending;
//! 2. at most `STREAM_WINDOW` of them;
//! 3. drafts are never empty, and each is older than those behind it;
//! 4. the frame at the front has no outcome: outcomes leave in order;
//! 5. whose outcome is known has been told if all before it have, of an outcome or a timeout.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::limits::STREAM_WINDOW;
use base::reply::reply_digest;
use base::{Digest, Frame, FrameBuilder, PillarId, Seq, Span, Time};

use super::reads::Reads;
use super::vote::{Ballot, Said, What, is_final};
use super::{OpError, Results};

/// One ordered stream.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// Its number in the protocol.
    pub(super) stream: u32,
    /// The pillar that orders it.
    pub(super) pillar: PillarId,
    /// Every frame up to this one is answered, and the caller has the answers.
    pub(super) acked: u64,
    /// Operations that wait, in order.
    pub(super) drafts: VecDeque<Draft<T>>,
    /// Frames that were sent, in order.
    pub(super) flying: VecDeque<Flight<T>>,
    /// Operations that want no order.
    pub(super) reads: Reads<T>,
    /// The last accepted replies, to tell who contradicts them.
    pub(super) recent: VecDeque<Recent>,
}

/// An accepted reply.
#[derive(Debug)]
pub(super) struct Recent {
    id: u64,
    content: Arc<Vec<u8>>,
    /// Once it was needed.
    digest: Option<Digest>,
}

/// A frame in the making.
#[derive(Debug)]
pub(super) struct Draft<T> {
    pub(super) builder: FrameBuilder,
    pub(super) tokens: Vec<T>,
    /// The caller's streams that they belong to, where that is of interest.
    pub(super) streams: Vec<u32>,
    /// When its first operation came.
    pub(super) since: Time,
    /// When its last operation times out.
    pub(super) expires: Time,
}

/// A frame that was sent and is not answered yet.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) frame: Arc<Frame>,
    /// Bytes of its operations, as they were counted when they were submitted.
    pub(super) bytes: usize,
    /// Empty once they were told of an outcome or a timeout; the frame itself is still pursued,
    /// since the stream cannot go on without it.
    pub(super) tokens: Vec<T>,
    /// As in the draft that it was.
    pub(super) streams: Vec<u32>,
    pub(super) ballot: Ballot,
    pub(super) timer: Timer,
    pub(super) expires: Time,
    /// Since when f + 1 replicas have said something about it, and no answer was accepted.
    pub(super) answered: Option<Time>,
    /// Its answer was not complete in time, and was asked for again.
    pub(super) fell_back: bool,
    /// Where in the total order it was last refused.
    pub(super) refused: Seq,
    /// What became of it, while an earlier frame still has no outcome. Its tokens may have been
    /// told, where all before it timed out.
    pub(super) outcome: Option<Result<Results, OpError>>,
}

/// When a frame is sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    /// When it was last sent.
    pub(super) sent: Time,
    /// When to send it again.
    pub(super) due: Time,
    /// How often it was sent again because nobody answered.
    pub(super) attempts: u32,
}

impl Timer {
    /// Whether it is time to send again; if so, the next time is twice as far away.
    pub(super) fn fire(&mut self, now: Time, first: Span, max: Span) -> bool {
        if now < self.due {
            return false;
        }
        self.attempts = self.attempts.saturating_add(1);
        let span = first.0.saturating_mul(1 << self.attempts.min(16)).min(max.0);
        *self = Timer { sent: now, due: now.after(Span(span)), ..*self };
        true
    }
}

impl<T> Flight<T> {
    /// Whether it was sent once.
    pub(super) fn is_first(&self) -> bool {
        self.timer.attempts == 0 && !self.fell_back
    }
}

impl<T> Line<T> {
    pub(super) fn new(stream: u32, pillar: PillarId) -> Line<T> {
        Line {
            stream,
            pillar,
            acked: 0,
            drafts: VecDeque::new(),
            flying: VecDeque::new(),
            reads: Reads::default(),
            recent: VecDeque::new(),
        }
    }

    /// The id of the next frame.
    pub(super) fn next_id(&self) -> u64 {
        self.acked + 1 + self.flying.len() as u64
    }

    /// The frame in flight with this id.
    pub(super) fn flight(&mut self, id: u64) -> Option<&mut Flight<T>> {
        let at = usize::try_from(id.checked_sub(self.acked + 1)?).ok()?;
        self.flying.get_mut(at)
    }

    /// Whether a draft may leave: always while few frames are in flight; a draft that is full
    /// (another one is behind it) as long as the window lasts.
    pub(super) fn may_cut(&self, in_flight_max: u64) -> bool {
        let in_flight = self.flying.len() as u64;
        match self.drafts.len() {
            0 => false,
            1 => in_flight < in_flight_max,
            _ => in_flight < in_flight_max.max(STREAM_WINDOW / 2),
        }
    }

    /// Takes the frame at the front when its outcome is known.
    pub(super) fn pop_settled(&mut self) -> Option<Flight<T>> {
        let settled = self.flying.front().is_some_and(|flight| flight.outcome.is_some());
        let flight = if settled { self.flying.pop_front() } else { None };
        self.acked += u64::from(settled);
        flight
    }

    /// Remembers an accepted reply for a while.
    pub(super) fn remember(&mut self, id: u64, content: &Arc<Vec<u8>>) {
        if content.len() > RECENT_BYTES_MAX {
            return;
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { id, content: Arc::clone(content), digest: None });
    }

    /// Whether a late reply is one that no correct replica sends beside the accepted one.
    pub(super) fn contradicts(&mut self, said: &Said<'_>) -> bool {
        let id = said.frame.id;
        if !is_final(said.status) || said.tentative.is_some() {
            return false;
        }
        let known = self.recent.iter_mut().rev().find(|known| known.id == id);
        known.is_some_and(|known| match said.what {
            What::Content(content) => *known.content != content,
            What::Digest(digest) => known.digest() != digest,
        })
    }

    /// The earliest instant at which something is to be done, if any.
    pub(super) fn deadline(&self) -> Option<Time> {
        let drafts = self.drafts.front().map(|draft| draft.expires);
        let waiting = self.flying.iter().filter(|flight| flight.outcome.is_none());
        let timers = waiting.map(|flight| match flight.tokens.is_empty() {
            true => flight.timer.due,
            false => flight.timer.due.min(flight.expires),
        });
        timers.chain(drafts).chain(self.reads.deadline()).min()
    }

    /// Checks the invariants.
    pub(super) fn check(&self) {
        assert!(self.flying.len() as u64 <= STREAM_WINDOW, "the window is exceeded");
        for (at, flight) in self.flying.iter().enumerate() {
            assert_eq!(flight.frame.id().id, self.acked + 1 + at as u64, "a hole in the stream");
            assert!(flight.frame.ack() <= self.acked, "an answer acknowledged that is not there");
            flight.ballot.check();
        }
        let front = self.flying.front();
        assert!(front.is_none_or(|flight| flight.outcome.is_none()), "an outcome is held back");
        let untold = self.flying.iter().find(|flight| !flight.tokens.is_empty());
        assert!(untold.is_none_or(|flight| flight.outcome.is_none()), "a caller waits in vain");
        assert!(self.drafts.iter().all(|draft| !draft.tokens.is_empty()), "an empty draft");
        self.reads.check();
        let counts = |draft: &Draft<T>| draft.builder.op_count() == draft.tokens.len();
        assert!(self.drafts.iter().all(counts), "a token for each operation");
    }
}

impl Recent {
    fn digest(&mut self) -> Digest {
        *self.digest.get_or_insert_with(|| reply_digest(&self.content))
    }
}

/// How many accepted replies a line remembers.
const RECENT_MAX: usize = STREAM_WINDOW as usize;
/// Larger replies are not remembered: what contradicts them late goes unnoticed.
const RECENT_BYTES_MAX: usize = 64 << 10;
