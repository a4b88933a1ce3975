//! Replies in the making: results are appended where they will travel, without a copy.
//!
//! Not here: what the results are. The layout is that of [`base::Reply`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{FrameId, Reply, ReplyStatus, Seq, limits};

/// Bytes at the end of an encoded reply without results: their count and their total length.
const TAIL_BYTES: usize = 8;

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
    /// A reply to `frame` of `ops` operations, executed at `seq`, without results yet.
    #[must_use]
    pub fn new(frame: FrameId, seq: Seq, ops: usize) -> ReplyBuilder {
        // Room for short results; `ops` is bounded by the frame it was decoded from.
        let mut content = Vec::with_capacity(64 + ops * 12);
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
        let mut builder = ReplyBuilder::new(FRAME, Seq(9), 3);
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
        let mut builder = ReplyBuilder::new(FRAME, Seq(9), 3);
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
}
