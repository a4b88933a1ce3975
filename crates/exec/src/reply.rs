//! Replies in the making: results are appended where they will travel, without a copy.
//!
//! Not here: what the results are. The layout is that of [`base::Reply`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{FrameId, Reply, ReplyStatus, Seq, limits};

/// Bytes at the end of an encoded reply without results: their count and their total length.
const TAIL_BYTES: usize = 8;

/// There is room for results of so many bytes in any case.
const EXPECTED_BYTES_MIN: usize = 8;

/// Most bytes that are taken for results before there are any.
const ROOM_BYTES_MAX: usize = 2 << 20;

/// The reply to a frame while its operations execute.
#[derive(Clone, Debug)]
pub struct ReplyBuilder {
    frame: FrameId,
    seq: Seq,
    content: Vec<u8>,
    /// Where the results begin.
    body: usize,
    /// Where the current result's length stands.
    current: usize,
    count: u32,
    too_large: bool,
}

impl ReplyBuilder {
    /// A reply to `frame` of `ops` operations, executed at `seq`, without results yet. Each
    /// result is expected to have `expected` bytes; it may have more.
    #[must_use]
    pub fn new(frame: FrameId, seq: Seq, ops: usize, expected: usize) -> ReplyBuilder {
        // `ops` is bounded by the frame it was decoded from. The bound is for whoever has one
        // large result and then a frame of many operations.
        let results = ops.saturating_mul(expected.max(EXPECTED_BYTES_MIN).saturating_add(4));
        let mut content = Vec::with_capacity(64 + results.min(ROOM_BYTES_MAX));
        plain(frame, seq, ReplyStatus::Executed).encode(&mut content);
        let body = content.len();
        ReplyBuilder { frame, seq, content, body, current: body, count: 0, too_large: false }
    }

    /// Starts the next result and returns where it is to be appended.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.current = self.content.len();
        self.content.extend_from_slice(&[0; 4]);
        &mut self.content
    }

    /// The result that was begun last, to append more.
    pub fn current(&mut self) -> &mut Vec<u8> {
        &mut self.content
    }

    /// Takes back whatever was appended since [`ReplyBuilder::begin`].
    ///
    /// # Panics
    /// When the appender removed bytes that were not its own.
    pub fn rewind(&mut self) {
        assert!(self.content.len() >= self.current + 4, "a result removed foreign bytes");
        self.content.truncate(self.current + 4);
    }

    /// Ends the current result. When the results are together larger than a reply may be, all
    /// of them are dropped: the reply will say so, and memory stays bounded meanwhile.
    ///
    /// # Panics
    /// When the appender removed bytes that were not its own.
    pub fn end(&mut self) {
        let start = self.current + 4;
        assert!(self.content.len() >= start, "a result removed foreign bytes");
        self.too_large |= self.content.len() - self.body > limits::REPLY_BYTES_MAX;
        if self.too_large {
            self.content.truncate(self.body);
            return;
        }
        let len = u32::try_from(self.content.len() - start).expect("below the reply limit");
        self.content[self.current..start].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
    }

    /// The results are known to be larger than a reply may be, without a look at them.
    pub fn overflow(&mut self) {
        self.too_large = true;
        self.content.truncate(self.body);
    }

    /// Bytes of a result, on the mean of those that there are.
    #[must_use]
    pub fn mean_bytes(&self) -> usize {
        let count = self.count.max(1) as usize;
        ((self.content.len() - self.body) / count).saturating_sub(4)
    }

    /// The encoded reply.
    #[must_use]
    pub fn finish(mut self) -> Arc<Vec<u8>> {
        if self.too_large {
            return status_reply(self.frame, self.seq, ReplyStatus::TooLarge);
        }
        let len = u32::try_from(self.content.len() - self.body).expect("below the reply limit");
        let tail = self.body - TAIL_BYTES;
        self.content[tail..tail + 4].copy_from_slice(&self.count.to_le_bytes());
        self.content[tail + 4..self.body].copy_from_slice(&len.to_le_bytes());
        // Replies are kept in sessions for a while, where only their lengths are counted.
        if self.content.len() < self.content.capacity() / 2 {
            self.content.shrink_to_fit();
        }
        Arc::new(self.content)
    }
}

/// The encoded reply that says `status` about `frame` and carries no results.
#[must_use]
pub fn status_reply(frame: FrameId, seq: Seq, status: ReplyStatus) -> Arc<Vec<u8>> {
    let mut content = Vec::new();
    plain(frame, seq, status).encode(&mut content);
    Arc::new(content)
}

fn plain(frame: FrameId, seq: Seq, status: ReplyStatus) -> Reply {
    Reply { frame, seq, status, count: 0, results: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, Reader, SessionId};
    use std::vec;

    const FRAME: FrameId = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };

    #[test]
    fn what_is_built_is_what_base_encodes() {
        let mut builder = ReplyBuilder::new(FRAME, Seq(9), 3, 0);
        for result in [&b"one"[..], b"", b"three"] {
            builder.begin().extend_from_slice(b"junk");
            builder.rewind();
            builder.current().extend_from_slice(result);
            builder.end();
        }
        let content = builder.finish();
        let reply = Reply::decode(&mut Reader::new(&content)).expect("a reply");
        assert_eq!(reply.results().collect::<vec::Vec<_>>(), [&b"one"[..], b"", b"three"]);
        let mut again = vec![];
        reply.encode(&mut again);
        assert_eq!(*content, again);
        assert_eq!((reply.frame, reply.seq, reply.status), (FRAME, Seq(9), ReplyStatus::Executed));
    }

    #[test]
    fn results_beyond_the_limit_become_a_refusal_and_hold_no_memory() {
        let mut builder = ReplyBuilder::new(FRAME, Seq(9), 3, 0);
        let third = vec![7; limits::REPLY_BYTES_MAX / 3];
        for _ in 0..10 {
            builder.begin().extend_from_slice(&third);
            builder.end();
            assert!(builder.content.len() <= limits::REPLY_BYTES_MAX + builder.body);
        }
        let content = builder.finish();
        let reply = Reply::decode(&mut Reader::new(&content)).expect("a reply");
        assert_eq!((reply.status, reply.count), (ReplyStatus::TooLarge, 0));
    }
    #[test]
    fn results_of_the_expected_size_do_not_move_and_room_that_is_not_used_is_given_back() {
        let mut builder = ReplyBuilder::new(FRAME, Seq(9), 100, 1000);
        let room = builder.content.capacity();
        for _ in 0..100 {
            builder.begin().extend_from_slice(&[7; 1000]);
            builder.end();
        }
        assert_eq!((builder.content.capacity(), builder.mean_bytes()), (room, 1000));
        assert!(builder.finish().capacity() <= room);

        let mut builder = ReplyBuilder::new(FRAME, Seq(9), 100_000, usize::MAX);
        assert!(builder.content.capacity() <= 64 + ROOM_BYTES_MAX);
        builder.begin().extend_from_slice(b"short");
        builder.end();
        assert_eq!(builder.mean_bytes(), 5);
        assert!(builder.finish().capacity() < 1000);
    }
}
