//! What comes out of a client core: effects, results, errors, counters.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use base::reply::ReplyHead;
use base::{Frame, PillarId, Reader, ReplicaId, SessionId, VoteSet, limits};

use super::reads::SINCE_BYTES;

/// One thing that the owner of a core does.
#[derive(Clone, Debug)]
pub enum Effect<T> {
    /// Send a frame to this pillar. Links that are down are skipped: the core sends again.
    Send {
        /// The pillar.
        pillar: PillarId,
        /// Of which replicas.
        to: SendTo,
        /// What.
        frame: Arc<Frame>,
    },
    /// Operations came to an end. Tokens are in the order of submission.
    Done {
        /// One per operation.
        tokens: Vec<T>,
        /// One result per token, or one error for all.
        outcome: Result<Results, OpError>,
    },
    /// A new session is being opened. Links of earlier sessions are of no more use.
    SessionChanged(SessionId),
    /// The session is open.
    SessionOpened(SessionId),
    /// The session is closed; nothing more will happen.
    Closed,
    /// Tell all replicas, on every link and before anything that follows, not to rely on these
    /// for answers; and those whose link comes up later ([`super::ClientCore::avoided`]).
    Avoid(VoteSet),
    /// A replica sent what no correct replica sends. Told each time the count doubles.
    Suspect {
        /// Which one.
        replica: ReplicaId,
        /// How often so far.
        wrong_replies: u64,
    },
}

/// Whom a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendTo {
    /// All replicas.
    All,
    /// One replica.
    One(ReplicaId),
}

/// The accepted results of one frame, one per operation, sharing the bytes of the reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Results {
    content: Arc<Vec<u8>>,
    /// Where the results begin in `content`.
    at: usize,
    /// Bytes of each that are not the caller's.
    skip: usize,
    /// Whether they were given without an order.
    unordered: bool,
    count: usize,
    /// Bytes of the largest one.
    largest: usize,
}

impl Results {
    /// The results in an encoded reply; `None` unless it has exactly `ops` well-formed ones.
    pub(super) fn new(content: Arc<Vec<u8>>, ops: usize) -> Option<Results> {
        let (head, results) = ReplyHead::peek(&content).ok()?;
        let at = content.len() - results.len();
        let mut walk = Reader::new(results);
        let mut largest = 0;
        for _ in 0..head.count {
            let result = walk.sized(limits::REPLY_BYTES_MAX, "reply result").ok()?;
            largest = largest.max(result.len());
        }
        let whole = walk.is_empty() && head.count as usize == ops;
        whole.then_some(Results { content, at, skip: 0, unordered: false, count: ops, largest })
    }

    /// The same of a reply to `ops` reads without an order, each result of which begins with
    /// since when it is so.
    pub(super) fn of_reads(content: Arc<Vec<u8>>, ops: usize) -> Option<Results> {
        let results = Results::new(content, ops)?;
        let each = results.iter().all(|result| result.len() >= SINCE_BYTES);
        each.then_some(Results { skip: SINCE_BYTES, unordered: true, ..results })
    }

    /// The same, given without an order.
    pub(super) fn unordered(self) -> Results {
        Results { unordered: true, ..self }
    }

    /// Whether they were given without an order.
    #[must_use]
    pub fn is_unordered(&self) -> bool {
        self.unordered
    }

    /// Number of results.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The results in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.content[self.at..]);
        (0..self.count).map(move |_| {
            let result = reader.sized(limits::REPLY_BYTES_MAX, "reply result");
            &result.expect("checked at acceptance")[self.skip..]
        })
    }

    /// The bytes that the results lie in, to share them without a copy.
    #[must_use]
    pub fn content(&self) -> &Arc<Vec<u8>> {
        &self.content
    }

    /// Where in [`Results::content`] each result lies, in order.
    pub fn ranges(&self) -> impl Iterator<Item = core::ops::Range<usize>> {
        let mut at = self.at;
        self.iter().map(move |result| {
            let start = at + 4 + self.skip;
            at = start + result.len();
            start..at
        })
    }

    /// Bytes of the largest result.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }
}

/// Why an operation has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpError {
    /// It took longer than the request timeout. Unless it was still queued it may have been
    /// executed, or may yet be.
    TimedOut,
    /// The group no longer knows the session: it may or may not have been executed, and will
    /// not be any more.
    SessionLost,
    /// It was executed, but the group no longer has its reply.
    ReplyGone,
    /// It was executed, but the results of its frame are larger than a reply may be.
    ResultTooLarge,
    /// The replicas agree on a reply that does not fit the frame: a defect of the service.
    BadReply,
    /// The client was closed. If it was sent it may have been executed.
    Closed,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpError::TimedOut => "the operation timed out; its outcome is unknown",
            OpError::SessionLost => "the session was lost; the outcome is unknown",
            OpError::ReplyGone => "executed, but the reply is no longer kept",
            OpError::ResultTooLarge => "executed, but the results are too large for a reply",
            OpError::BadReply => "the group answered with a reply that does not fit the request",
            OpError::Closed => "the client was closed; the outcome is unknown",
        })
    }
}

impl core::error::Error for OpError {}

/// Why an operation was not taken. It was certainly not executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// Too much is queued and in flight.
    Full,
    /// Larger than [`limits::OP_BYTES_MAX`].
    TooLarge,
    /// The client is closed.
    Closed,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubmitError::Full => "too many operations are queued",
            SubmitError::TooLarge => "the operation is too large",
            SubmitError::Closed => "the client is closed",
        })
    }
}

impl core::error::Error for SubmitError {}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientCounters {
    /// Request frames sent for the first time.
    pub frames: u64,
    /// Frames sent again.
    pub resent: u64,
    /// Of these: because an answer was not complete in time.
    pub fallbacks: u64,
    /// Operations with a result.
    pub completed: u64,
    /// Operations without one.
    pub failed: u64,
    /// Reads answered without an order.
    pub reads: u64,
    /// Reads that went without an order at first, and were ordered after all.
    pub reads_ordered: u64,
    /// Replies received, of whatever kind.
    pub replies: u64,
    /// Nudges received, from whichever replica.
    pub nudges: u64,
    /// Replies to frames that were answered already: normal, n - f - 1 or so per frame.
    pub late_replies: u64,
    /// Replies to frames of earlier sessions.
    pub stale_replies: u64,
    /// Frames refused because they were ordered before their predecessor.
    pub refused: u64,
    /// Sessions that the group no longer knew.
    pub sessions_lost: u64,
    /// Replies that no correct replica sends.
    pub wrong_replies: u64,
}

impl ClientCounters {
    /// These and `other`'s.
    #[must_use]
    pub fn plus(&self, other: &ClientCounters) -> ClientCounters {
        ClientCounters {
            frames: self.frames + other.frames,
            resent: self.resent + other.resent,
            fallbacks: self.fallbacks + other.fallbacks,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            reads: self.reads + other.reads,
            reads_ordered: self.reads_ordered + other.reads_ordered,
            replies: self.replies + other.replies,
            nudges: self.nudges + other.nudges,
            late_replies: self.late_replies + other.late_replies,
            stale_replies: self.stale_replies + other.stale_replies,
            refused: self.refused + other.refused,
            sessions_lost: self.sessions_lost + other.sessions_lost,
            wrong_replies: self.wrong_replies + other.wrong_replies,
        }
    }
}
