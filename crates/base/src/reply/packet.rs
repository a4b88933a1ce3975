//! Replies as they travel: what the replica adds of its own, and the content or its digest.
//!
//! `view u64 | flags u8`, then `length u32 | content`, or which frame, where, and the digest of
//! the content. Only executed frames are answered by digests; what else there is to say is short.
//!
//! Not here: which replica sends which ([`super::Repliers`]), and what clients accept (`proto`).

use alloc::vec::Vec;

use super::reply_digest;
use crate::codec::{Malformed, Reader, Writer};
use crate::digest::Digest;
use crate::frame::FrameId;
use crate::id::{ClientId, Seq, SessionId, View};
use crate::limits;

/// The batch is prepared, and not known to be committed.
const TENTATIVE: u8 = 1;
/// The digest of the content stands for it.
const DIGEST: u8 = 2;

/// Bytes of a reply that is a digest.
pub const DIGEST_REPLY_BYTES: usize = 8 + 1 + 24 + 8 + 32;

/// Bytes of a whole reply beside its content.
pub const WHOLE_REPLY_BYTES: usize = 8 + 1 + 4;

/// One replica's reply to one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyPacket<'a> {
    /// The view that the replica is in, a hint; of a tentative reply the view in which the batch
    /// is prepared, and part of the vote.
    pub view: View,
    /// Whether the batch is prepared and not known to be committed.
    pub tentative: bool,
    /// What is voted on.
    pub body: ReplyBody<'a>,
}

/// What a replica says, or which digest that has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyBody<'a> {
    /// An encoded [`super::Reply`].
    Whole(&'a [u8]),
    /// The digest of one.
    Digest(ReplyDigest),
}

/// What stands for the content of a reply to an executed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyDigest {
    /// The frame that is answered.
    pub frame: FrameId,
    /// Where in the total order the answer was decided.
    pub seq: Seq,
    /// The digest of the content.
    pub digest: Digest,
}

impl ReplyDigest {
    /// The digest of `content`, which answers `frame` at `seq`.
    #[must_use]
    pub fn of(frame: FrameId, seq: Seq, content: &[u8]) -> ReplyDigest {
        ReplyDigest { frame, seq, digest: reply_digest(content) }
    }
}

impl<'a> ReplyPacket<'a> {
    /// A reply of a committed batch, in full, of a replica in `view`.
    #[must_use]
    pub fn whole(view: View, content: &'a [u8]) -> ReplyPacket<'a> {
        ReplyPacket { view, tentative: false, body: ReplyBody::Whole(content) }
    }

    /// What a replica in `view` sends in full, of a batch that is committed or, as yet, prepared
    /// in view `tentative`.
    #[must_use]
    pub fn new(view: View, tentative: Option<View>, content: &'a [u8]) -> ReplyPacket<'a> {
        let body = ReplyBody::Whole(content);
        let view = tentative.unwrap_or(view);
        ReplyPacket { view, tentative: tentative.is_some(), body }
    }

    /// Bytes of [`ReplyPacket::encode`].
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self.body {
            ReplyBody::Whole(content) => WHOLE_REPLY_BYTES + content.len(),
            ReplyBody::Digest(_) => DIGEST_REPLY_BYTES,
        }
    }

    /// Appends the reply as it travels.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        let tentative = if self.tentative { TENTATIVE } else { 0 };
        w.u64(self.view.0);
        match &self.body {
            ReplyBody::Whole(content) => w.u8(tentative).sized(content),
            ReplyBody::Digest(ReplyDigest { frame, seq, digest }) => w
                .u8(tentative | DIGEST)
                .u32(frame.client.0)
                .u64(frame.session.0)
                .u32(frame.stream)
                .u64(frame.id)
                .u64(seq.0)
                .digest(*digest),
        };
    }

    /// Reads one reply; whether its content is a [`super::Reply`] is not looked at.
    ///
    /// # Errors
    /// When the bytes are too short, the content is too long, or a flag is unknown.
    pub fn decode(r: &mut Reader<'a>) -> Result<ReplyPacket<'a>, Malformed> {
        let view = View(r.u64("reply view")?);
        let flags = r.u8("reply flags")?;
        let body = match flags & !TENTATIVE {
            0 => ReplyBody::Whole(r.sized(limits::CLIENT_PACKET_BYTES_MAX, "reply content")?),
            DIGEST => {
                let client = ClientId(r.u32("reply principal")?);
                let session = SessionId(r.u64("reply session")?);
                let stream = r.u32("reply stream")?;
                let frame = FrameId { client, session, stream, id: r.u64("reply id")? };
                let seq = Seq(r.u64("reply sequence number")?);
                ReplyBody::Digest(ReplyDigest { frame, seq, digest: r.digest("reply digest")? })
            }
            _ => return Err(Malformed("reply flags")),
        };
        Ok(ReplyPacket { view, tentative: flags & TENTATIVE != 0, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn packets_survive_the_wire_and_unknown_flags_are_refused() {
        let frame = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };
        let digest = ReplyBody::Digest(ReplyDigest::of(frame, Seq(5), b"content"));
        for body in [ReplyBody::Whole(b"content"), ReplyBody::Whole(b""), digest] {
            for tentative in [false, true] {
                let packet = ReplyPacket { view: View(6), tentative, body };
                let mut bytes = vec![];
                packet.encode(&mut bytes);
                assert_eq!(bytes.len(), packet.encoded_len());
                assert_eq!(ReplyPacket::decode(&mut Reader::new(&bytes)), Ok(packet));
                for end in 0..bytes.len() {
                    assert!(ReplyPacket::decode(&mut Reader::new(&bytes[..end])).is_err());
                }
                bytes[8] |= 4;
                assert!(ReplyPacket::decode(&mut Reader::new(&bytes)).is_err());
            }
        }
    }
}
