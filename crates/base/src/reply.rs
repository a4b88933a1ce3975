//! Replies to frames, as replicas send and clients vote on them.
//!
//! A reply is what the total order made of a frame: the same bytes at every correct replica.
//! What a replica adds of its own (its view, how firmly it stands by it) stands outside the voted
//! content, in [`ReplyPacket`].

use alloc::vec::Vec;

use crate::codec::{Malformed, Reader, Writer};
use crate::digest::{Digest, Domain};
use crate::frame::FrameId;
use crate::id::{ClientId, Seq, SessionId};
use crate::limits;

mod packet;
mod repliers;

pub use packet::{DIGEST_REPLY_BYTES, ReplyBody, ReplyDigest, ReplyPacket, WHOLE_REPLY_BYTES};
pub use repliers::{Answer, DIGEST_WORTH_BYTES, Repliers};

/// What became of a frame. Each is decided deterministically at the merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyStatus {
    /// Executed; the reply carries one result per operation.
    Executed,
    /// The session is open (also when it already was).
    Opened,
    /// The session is closed.
    Closed,
    /// Ordered before its predecessor in an ordered stream; to be sent again. Carries the id
    /// that the stream expects.
    OutOfOrder(u64),
    /// The session was never opened or has been evicted: its requests cannot be told from
    /// replays. The client opens a new one.
    NoSession,
    /// The session to be opened is not above the highest that the principal opened before.
    /// Carries that one.
    StaleSession(SessionId),
    /// Executed before, but its reply is no longer kept.
    ReplyGone,
    /// Another frame with this id was ordered first.
    Conflict,
    /// The id is beyond the stream's window, or the session has too many streams.
    OutOfWindow,
    /// Executed, but the results are larger than a reply may be.
    TooLarge,
    /// A frame of reads that was not answered: one of its operations is no read, its results are
    /// large, or this replica cannot tell what is current or has too many to answer. It is to be
    /// ordered.
    Unread,
}

impl ReplyStatus {
    fn code(self) -> (u8, u64) {
        match self {
            ReplyStatus::Executed => (0, 0),
            ReplyStatus::Opened => (1, 0),
            ReplyStatus::Closed => (2, 0),
            ReplyStatus::OutOfOrder(expected) => (3, expected),
            ReplyStatus::NoSession => (4, 0),
            ReplyStatus::StaleSession(highest) => (5, highest.0),
            ReplyStatus::ReplyGone => (6, 0),
            ReplyStatus::Conflict => (7, 0),
            ReplyStatus::OutOfWindow => (8, 0),
            ReplyStatus::TooLarge => (9, 0),
            ReplyStatus::Unread => (10, 0),
        }
    }

    fn from_code(code: u8, arg: u64) -> Result<ReplyStatus, Malformed> {
        let status = match code {
            0 => ReplyStatus::Executed,
            1 => ReplyStatus::Opened,
            2 => ReplyStatus::Closed,
            3 => ReplyStatus::OutOfOrder(arg),
            4 => ReplyStatus::NoSession,
            5 => ReplyStatus::StaleSession(SessionId(arg)),
            6 => ReplyStatus::ReplyGone,
            7 => ReplyStatus::Conflict,
            8 => ReplyStatus::OutOfWindow,
            9 => ReplyStatus::TooLarge,
            10 => ReplyStatus::Unread,
            _ => return Err(Malformed("reply status")),
        };
        // Canonical: an argument where there is none would make two encodings of one reply.
        if status.code() == (code, arg) { Ok(status) } else { Err(Malformed("reply argument")) }
    }
}

/// A reply to one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The frame that is answered.
    pub frame: FrameId,
    /// Where in the total order the answer was decided.
    pub seq: Seq,
    /// What became of the frame.
    pub status: ReplyStatus,
    /// Number of results.
    pub count: u32,
    /// The results, each with a `u32` length before it. Empty unless executed.
    pub results: Vec<u8>,
}

impl Reply {
    /// Appends the voted content.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (code, arg) = self.status.code();
        Writer::new(out)
            .u32(self.frame.client.0)
            .u64(self.frame.session.0)
            .u32(self.frame.stream)
            .u64(self.frame.id)
            .u64(self.seq.0)
            .u8(code)
            .u64(arg)
            .u32(self.count)
            .sized(&self.results);
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// When the bytes are not a reply within the limits. Results are walked through, so that
    /// [`Reply::results`] cannot fail later.
    pub fn decode(r: &mut Reader<'_>) -> Result<Reply, Malformed> {
        let (ReplyHead { frame, seq, status, count }, results) = ReplyHead::read(r)?;
        let mut walk = Reader::new(results);
        for _ in 0..count {
            walk.sized(limits::REPLY_BYTES_MAX, "reply result")?;
        }
        walk.finish("reply results")?;
        Ok(Reply { frame, seq, status, count, results: results.to_vec() })
    }

    /// The results in order of the operations.
    pub fn results(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.results);
        (0..self.count).map(move |_| {
            reader.sized(limits::REPLY_BYTES_MAX, "reply result").expect("checked when decoded")
        })
    }
}

/// What stands before the results of an encoded reply: enough to say which frame it answers
/// without a copy of what it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHead {
    /// The frame that is answered.
    pub frame: FrameId,
    /// Where in the total order the answer was decided.
    pub seq: Seq,
    /// What became of the frame.
    pub status: ReplyStatus,
    /// Number of results.
    pub count: u32,
}

impl ReplyHead {
    /// Splits encoded content into its head and its results, each result with a `u32` length
    /// before it. The results are not walked through: [`Reply::decode`] does that.
    ///
    /// # Errors
    /// When the bytes are not a reply within the limits.
    pub fn peek(content: &[u8]) -> Result<(ReplyHead, &[u8]), Malformed> {
        let mut r = Reader::new(content);
        let whole = ReplyHead::read(&mut r)?;
        r.finish("reply")?;
        Ok(whole)
    }

    fn read<'a>(r: &mut Reader<'a>) -> Result<(ReplyHead, &'a [u8]), Malformed> {
        let client = ClientId(r.u32("reply principal")?);
        let session = SessionId(r.u64("reply session")?);
        let stream = r.u32("reply stream")?;
        let id = r.u64("reply id")?;
        let seq = Seq(r.u64("reply sequence number")?);
        let (code, arg) = (r.u8("reply status")?, r.u64("reply argument")?);
        let status = ReplyStatus::from_code(code, arg)?;
        let count = r.u32("reply count")?;
        let results = r.sized(limits::REPLY_BYTES_MAX, "reply results")?;
        let frame = FrameId { client, session, stream, id };
        Ok((ReplyHead { frame, seq, status, count }, results))
    }
}

/// The digest of an encoded reply: what clients vote on.
#[must_use]
pub fn reply_digest(content: &[u8]) -> Digest {
    Digest::of(Domain::Reply, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn replies_survive_the_wire_and_have_one_encoding() {
        let frame = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };
        let mut results = vec![];
        Writer::new(&mut results).sized(b"+OK\r\n").sized(b"");
        let reply = Reply { frame, seq: Seq(8), status: ReplyStatus::Executed, count: 2, results };
        let mut bytes = vec![];
        reply.encode(&mut bytes);
        assert_eq!(Reply::decode(&mut Reader::new(&bytes)), Ok(reply.clone()));
        let (head, results) = ReplyHead::peek(&bytes).expect("own encoding");
        assert_eq!((head.frame, head.seq, head.status), (reply.frame, reply.seq, reply.status));
        assert_eq!((head.count, results), (2, &reply.results[..]));
        assert_eq!(reply.results().collect::<vec::Vec<_>>(), [&b"+OK\r\n"[..], b""]);
        // The argument of a status without one must be zero.
        bytes[33] = 1;
        assert!(Reply::decode(&mut Reader::new(&bytes)).is_err());
    }
}
