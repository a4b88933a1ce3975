//! One stream of a session: which of its frames were executed, and the replies that the client
//! has not acknowledged yet (design: exactly-once is a window per session and stream).
//!
//! What becomes of frame `id` with digest `d`, where `acked` is the highest acknowledged id:
//!
//! | id                                  | ordered stream      | unordered stream |
//! |-------------------------------------|---------------------|------------------|
//! | at or below `acked`                 | gone                | gone             |
//! | claimed, same digest                | its reply, or gone  | the same         |
//! | claimed, other digest               | conflict            | conflict         |
//! | the lowest not claimed              | new                 | new              |
//! | another one in the window           | out of order        | new              |
//! | above `acked` + `STREAM_WINDOW`     | beyond the window   | the same         |
//!
//! Below `acked` the digest is no longer known, so a conflict is not told from a repetition;
//! neither executes. An ordered stream ignores acknowledgements of what was not executed; an
//! unordered one believes them: a client that acknowledges a reply it cannot have will not have
//! that frame executed, which harms nobody else.
//!
//! Invariants:
//! 1. entries are in strictly ascending order of id, all in `acked + 1 ..= acked + STREAM_WINDOW`;
//! 2. in an ordered stream they are `acked + 1 ..` without a gap.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::digest::Domain;
use base::frame::UNORDERED;
use base::limits::{self, STREAM_WINDOW};
use base::{Digest, Malformed, Reader, Writer};

use crate::session::Waiting;

/// The executed frames of one stream that are not acknowledged yet.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    ordered: bool,
    acked: u64,
    entries: VecDeque<Entry>,
}

/// A frame that was let through to execution.
#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    frame: Digest,
    /// Position among all frames of the session, in order of execution: tells the oldest.
    order: u64,
    reply: Cached,
}

/// What is kept of a reply.
#[derive(Clone, Debug)]
enum Cached {
    /// The frame executes; never so between batches, so never in a checkpoint.
    Pending,
    /// Dropped because the session held too many bytes.
    Dropped,
    /// The reply, and its digest once a checkpoint needed it: most replies are acknowledged
    /// before that.
    Kept(Arc<Vec<u8>>, Option<Digest>),
}

/// What a stream was before a frame, as far as the frame has changed it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Earlier {
    acked: u64,
    /// What the frame has acknowledged, in ascending order.
    gone: Vec<Entry>,
    /// The frame itself, where it was let through.
    pub(crate) claimed: Option<u64>,
}

/// What a stream says to a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Not executed before; it may be claimed.
    New,
    /// Executed before, with this reply.
    Done(Arc<Vec<u8>>),
    /// Executed or acknowledged before, without a reply that is still kept.
    Gone,
    /// Executes just now.
    Pending,
    /// Another frame with this id was first.
    Conflict,
    /// The stream expects this id first.
    Expects(u64),
    /// Beyond the window.
    Beyond,
}

impl Stream {
    /// The stream with this number, without a history.
    pub(crate) fn new(number: u32) -> Stream {
        Stream { ordered: number & UNORDERED == 0, acked: 0, entries: VecDeque::new() }
    }

    /// Drops what the client has the replies to; returns how many bytes that frees. What goes is
    /// kept in `earlier`, where somebody may want it back.
    pub(crate) fn ack(&mut self, upto: u64, mut earlier: Option<&mut Earlier>) -> usize {
        let upto = if self.ordered { upto.min(self.expected() - 1) } else { upto };
        if let Some(earlier) = &mut earlier {
            earlier.acked = self.acked;
        }
        let mut freed = 0;
        while self.entries.front().is_some_and(|entry| entry.id <= upto) {
            let Some(entry) = self.entries.pop_front() else { break };
            freed += entry.bytes();
            if let Some(earlier) = &mut earlier {
                earlier.gone.push(entry);
            }
        }
        self.acked = self.acked.max(upto);
        freed
    }

    /// Takes back what became of one frame; whatever came after it is taken back already.
    pub(crate) fn restore(&mut self, earlier: Earlier) {
        let Earlier { acked, gone, claimed } = earlier;
        self.entries.retain(|entry| Some(entry.id) != claimed);
        for entry in gone.into_iter().rev().filter(|_| !base::mutant!(RollBackLosesReplies)) {
            self.entries.push_front(entry);
        }
        self.acked = acked;
    }

    /// What becomes of frame `id` with digest `frame`.
    pub(crate) fn judge(&self, id: u64, frame: Digest) -> Verdict {
        if id <= self.acked {
            return Verdict::Gone;
        }
        if let Some(entry) = self.entry(id) {
            let conflicts = entry.frame != frame && !base::mutant!(ConflictGetsTheReply);
            return if conflicts { Verdict::Conflict } else { entry.verdict() };
        }
        if id - self.acked > STREAM_WINDOW && !base::mutant!(StreamWindowUnchecked) {
            Verdict::Beyond
        } else if self.ordered && id != self.expected() && !base::mutant!(StreamOutOfOrder) {
            Verdict::Expects(self.expected())
        } else {
            Verdict::New
        }
    }

    /// Whether frame `id` will certainly be new once those that are `waiting` are entered, and
    /// its own acknowledgement is taken.
    pub(crate) fn takes(&self, id: u64, ack: u64, waiting: Option<&Waiting>) -> bool {
        let (ids, told) = waiting.map_or((&[][..], 0), |w| (&w.ids[..], w.acked));
        let mut acked = self.acked.max(told);
        if self.ordered {
            acked = acked.max(ack.min(id.saturating_sub(1)));
            let next = self.expected() + ids.len() as u64;
            return id == next && id - acked <= STREAM_WINDOW;
        }
        acked = acked.max(ack);
        let fresh = self.entry(id).is_none() && !ids.contains(&id);
        id > acked && id - acked <= STREAM_WINDOW && fresh
    }

    /// Whether frames execute in the order of their ids.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// What is known about frame `id` whatever its digest; `None` when it was not executed.
    pub(crate) fn recall(&self, id: u64) -> Option<Verdict> {
        if id <= self.acked {
            return Some(Verdict::Gone);
        }
        self.entry(id).map(Entry::verdict)
    }

    /// Enters frame `id` as one that executes now. Only after [`Verdict::New`].
    pub(crate) fn claim(&mut self, id: u64, frame: Digest, order: u64) {
        let at = self.entries.partition_point(|entry| entry.id < id);
        self.entries.insert(at, Entry { id, frame, order, reply: Cached::Pending });
    }

    /// Stores the reply to claimed frame `id`. False when the frame is no longer there.
    pub(crate) fn record(&mut self, id: u64, reply: &Arc<Vec<u8>>) -> bool {
        let at = self.entries.partition_point(|entry| entry.id < id);
        let entry = self.entries.get_mut(at).filter(|entry| entry.id == id);
        let found = entry.is_some();
        if let Some(entry) = entry {
            entry.reply = Cached::Kept(Arc::clone(reply), None);
        }
        found
    }

    /// The order and id of the oldest frame whose reply is kept.
    pub(crate) fn oldest(&self) -> Option<(u64, u64)> {
        let kept = self.entries.iter().filter(|entry| matches!(entry.reply, Cached::Kept(..)));
        kept.map(|entry| (entry.order, entry.id)).min()
    }

    /// Drops the reply to frame `id` and returns its bytes; the frame stays known.
    pub(crate) fn forget_reply(&mut self, id: u64) -> usize {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id);
        entry.map_or(0, |entry| {
            let bytes = entry.bytes();
            entry.reply = Cached::Dropped;
            bytes
        })
    }

    /// Bytes of kept replies.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::bytes).sum()
    }

    /// Checks the invariants.
    pub(crate) fn check(&self) {
        let mut last = self.acked;
        for entry in &self.entries {
            assert!(entry.id > last, "ids ascend");
            assert!(!self.ordered || entry.id == last + 1, "an ordered stream has a hole");
            assert!(entry.id - self.acked <= STREAM_WINDOW, "beyond the window");
            last = entry.id;
        }
    }

    /// Appends what the session's digest covers: all but the replies' bytes, whose digests stand
    /// for them.
    pub(crate) fn summarize(&mut self, w: &mut Writer<'_>) {
        w.u64(self.acked).count(self.entries.len());
        for entry in &mut self.entries {
            w.u64(entry.id).digest(entry.frame).u64(entry.order);
            w.digest(entry.reply_digest());
        }
    }

    /// Appends the stream with its replies.
    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.u64(self.acked).count(self.entries.len());
        for entry in &self.entries {
            w.u64(entry.id).digest(entry.frame).u64(entry.order);
            match &entry.reply {
                Cached::Kept(reply, _) => w.u8(1).sized(reply),
                Cached::Pending | Cached::Dropped => w.u8(0),
            };
        }
    }

    /// Reads stream `number`; `order_end` is above every order in its session.
    pub(crate) fn decode(
        number: u32,
        order_end: u64,
        r: &mut Reader<'_>,
    ) -> Result<Stream, Malformed> {
        let mut stream = Stream::new(number);
        stream.acked = r.u64("stream acknowledgement")?;
        if stream.acked > u64::MAX - 2 * STREAM_WINDOW && stream.ordered {
            return Err(Malformed("stream acknowledgement"));
        }
        let count = r.count(STREAM_WINDOW as usize, 49, "stream entries")?;
        let mut last = stream.acked;
        for _ in 0..count {
            let id = r.u64("stream entry id")?;
            let frame = r.digest("stream entry digest")?;
            let order = r.u64("stream entry order")?;
            let reply = match r.u8("stream entry reply")? {
                0 => Cached::Dropped,
                1 => {
                    let reply = r.sized(limits::CLIENT_PACKET_BYTES_MAX, "cached reply")?;
                    Cached::Kept(Arc::new(reply.to_vec()), None)
                }
                _ => return Err(Malformed("stream entry reply")),
            };
            let fits = id > last && id - stream.acked <= STREAM_WINDOW && order < order_end;
            if !fits || (stream.ordered && id != last + 1) {
                return Err(Malformed("stream entry"));
            }
            stream.entries.push_back(Entry { id, frame, order, reply });
            last = id;
        }
        Ok(stream)
    }

    /// The lowest id that is not claimed, in an ordered stream.
    fn expected(&self) -> u64 {
        self.acked + 1 + self.entries.len() as u64
    }

    fn entry(&self, id: u64) -> Option<&Entry> {
        let at = self.entries.partition_point(|entry| entry.id < id);
        self.entries.get(at).filter(|entry| entry.id == id)
    }
}

impl Entry {
    fn verdict(&self) -> Verdict {
        match &self.reply {
            Cached::Pending => Verdict::Pending,
            Cached::Dropped => Verdict::Gone,
            Cached::Kept(reply, _) => Verdict::Done(Arc::clone(reply)),
        }
    }

    fn bytes(&self) -> usize {
        if let Cached::Kept(reply, _) = &self.reply { reply.len() } else { 0 }
    }

    fn reply_digest(&mut self) -> Digest {
        let Cached::Kept(reply, digest) = &mut self.reply else { return Digest::ZERO };
        *digest.get_or_insert_with(|| Digest::of(Domain::Reply, reply))
    }
}
