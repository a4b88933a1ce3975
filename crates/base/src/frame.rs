//! Request frames: the unit in which clients' requests are authenticated, hashed, identified,
//! ordered and answered.
//!
//! A frame carries many operations of one stream of one session. Its identity is
//! (principal, session, stream, id); its digest covers the group and every byte but the
//! authenticator. See `docs/format.md` for the byte map.
//!
//! Invariants of a [`Frame`] that exists (the decoder and the builder are the only ways to one):
//! 1. its operations are well-formed, at most [`limits::FRAME_OPS_MAX`], each at most
//!    [`limits::OP_BYTES_MAX`];
//! 2. `digest` is the digest of `body` in the group it was decoded for;
//! 3. whether the authenticator is genuine is *not* known: that is checked in order, when needed.

use alloc::vec::Vec;

use crate::codec::{Malformed, Reader, Writer};
use crate::crypto::{Mac, Signature};
use crate::digest::{Digest, Domain, Hasher};
use crate::id::{ClientId, GroupId, SessionId};
use crate::limits;

/// Version of the frame layout.
pub const FRAME_VERSION: u8 = 1;

/// Bytes of a frame's body before its operations.
pub const FRAME_HEADER_BYTES: usize = 40;

/// The identity of a frame: exactly-once is decided on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameId {
    /// The principal that authenticated the frame.
    pub client: ClientId,
    /// The session it belongs to.
    pub session: SessionId,
    /// The stream inside the session. Streams with [`UNORDERED`] set have no order of their own.
    pub stream: u32,
    /// Position in the stream, from 1. 0 is the opening of the session, `u64::MAX` its closing.
    pub id: u64,
}

/// The bit of a stream number that makes the stream unordered: its frames execute in whatever
/// order they are agreed on. Frames of other streams execute in id order.
pub const UNORDERED: u32 = 1 << 31;

/// The bit of a stream number that says that its frames are reads ([`FrameKind::Read`]): they
/// are answered out of the state as it is, get no place in the order, and are in nobody's table.
pub const READS: u32 = 1 << 30;

/// What a frame asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Execute the operations.
    Request = 1,
    /// Open the session. No operations; id 0.
    Open = 2,
    /// Close the session and forget its replies. No operations; id `u64::MAX`.
    Close = 3,
    /// Answer the operations, which only read, without ordering them. Its id is the client's own
    /// count of its reads.
    Read = 4,
}

/// How a frame proves to the replicas whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authenticator {
    /// One MAC per replica over the frame's digest: convinces each replica alone.
    Vector(Vec<Mac>),
    /// A signature over the frame's digest: convinces everybody.
    Signature(Signature),
}

/// A decoded request frame. Shared as `Arc<Frame>` between a pillar and the execution stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    kind: FrameKind,
    id: FrameId,
    ack: u64,
    ops: u32,
    digest: Digest,
    body: Vec<u8>,
    authenticator: Authenticator,
}

/// Where in its frame an operation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpPlace {
    start: u32,
    len: u32,
}

impl Frame {
    /// What the frame asks for.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The frame's identity.
    #[must_use]
    pub fn id(&self) -> FrameId {
        self.id
    }

    /// The client has the replies to all frames of this stream up to this id.
    #[must_use]
    pub fn ack(&self) -> u64 {
        self.ack
    }

    /// The digest that identifies the content, in this group.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Number of operations.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.ops as usize
    }

    /// The operations in order.
    pub fn ops(&self) -> impl Iterator<Item = &[u8]> {
        self.ops_from(0, 0)
    }

    /// The operations after the first `done`, which are together `bytes` long.
    pub fn ops_from(&self, done: usize, bytes: usize) -> impl Iterator<Item = &[u8]> {
        // Each stands behind its length.
        let mut reader = Reader::new(&self.body[FRAME_HEADER_BYTES + 4 * done + bytes..]);
        (done..self.ops as usize).map(move |_| {
            reader.sized(limits::OP_BYTES_MAX, "operation").expect("checked when decoded")
        })
    }

    /// Where the operations are, in order: for [`Frame::op_at`], by whoever wants them apart from
    /// each other.
    pub fn places(&self) -> impl Iterator<Item = OpPlace> {
        let mut at = FRAME_HEADER_BYTES;
        self.ops().map(move |op| {
            // Behind its length.
            let start = at + 4;
            at = start + op.len();
            let short = |n: usize| u32::try_from(n).expect("frames are smaller");
            OpPlace { start: short(start), len: short(op.len()) }
        })
    }

    /// The operation at a place of this frame.
    ///
    /// # Panics
    /// When it is a place of a longer frame.
    #[must_use]
    pub fn op_at(&self, place: OpPlace) -> &[u8] {
        &self.body[place.start as usize..][..place.len as usize]
    }

    /// How the frame proves whose it is.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// Bytes that this frame holds in memory, roughly: what quotas count.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.body.len() + 256
    }

    /// Whether it is small enough to travel with a proposal, where bodies do that.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.body.len() <= limits::INLINE_BYTES_MAX
    }

    /// Bytes of [`Frame::encode`].
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let authenticator = match &self.authenticator {
            Authenticator::Vector(macs) => 3 + macs.len() * 16,
            Authenticator::Signature(_) => 65,
        };
        4 + self.body.len() + authenticator
    }

    /// Appends the frame as it travels: body with its length, then the authenticator.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.sized(&self.body);
        match &self.authenticator {
            Authenticator::Vector(macs) => {
                w.u8(0).u16(u16::try_from(macs.len()).expect("one per replica"));
                macs.iter().for_each(|mac| {
                    w.bytes(&mac.0);
                });
            }
            Authenticator::Signature(signature) => {
                w.u8(1).bytes(&signature.0);
            }
        }
    }

    /// Reads one frame for `group` and computes its digest. Does not check the authenticator.
    ///
    /// # Errors
    /// When the bytes are not a frame within the limits.
    pub fn decode(group: GroupId, r: &mut Reader<'_>) -> Result<Frame, Malformed> {
        let body = r.sized(limits::FRAME_BYTES_MAX, "frame body")?;
        let authenticator = decode_authenticator(r)?;
        let (kind, id, ack, ops) = decode_body(body)?;
        let digest = frame_digest(group, body);
        Ok(Frame { kind, id, ack, ops, digest, body: body.to_vec(), authenticator })
    }
}

fn decode_authenticator(r: &mut Reader<'_>) -> Result<Authenticator, Malformed> {
    match r.u8("authenticator kind")? {
        0 => {
            let count = usize::from(r.u16("authenticator vector")?);
            if count > limits::REPLICAS_MAX {
                return Err(Malformed("authenticator vector"));
            }
            let macs = (0..count).map(|_| r.array("authenticator vector").map(Mac));
            Ok(Authenticator::Vector(macs.collect::<Result<_, _>>()?))
        }
        1 => Ok(Authenticator::Signature(Signature(r.array("frame signature")?))),
        _ => Err(Malformed("authenticator kind")),
    }
}

fn decode_body(body: &[u8]) -> Result<(FrameKind, FrameId, u64, u32), Malformed> {
    let mut r = Reader::new(body);
    if r.u8("frame version")? != FRAME_VERSION {
        return Err(Malformed("frame version"));
    }
    let kind = match r.u8("frame kind")? {
        1 => FrameKind::Request,
        2 => FrameKind::Open,
        3 => FrameKind::Close,
        4 => FrameKind::Read,
        _ => return Err(Malformed("frame kind")),
    };
    // Origin 0 is a client. System and group-certificate origins get their own numbers.
    if r.u8("frame origin")? != 0 || r.u8("frame padding")? != 0 {
        return Err(Malformed("frame origin"));
    }
    let client = ClientId(r.u32("frame principal")?);
    let session = SessionId(r.u64("frame session")?);
    let stream = r.u32("frame stream")?;
    let ops = r.u32("frame operation count")?;
    let id = r.u64("frame id")?;
    let ack = r.u64("frame acknowledgement")?;
    let shape_ok = match kind {
        FrameKind::Request => ops > 0 && id > 0 && id < u64::MAX && ack < id && stream & READS == 0,
        FrameKind::Read => ops > 0 && id > 0 && id < u64::MAX && ack == 0 && stream & READS != 0,
        FrameKind::Open => ops == 0 && id == 0 && ack == 0 && stream == 0,
        FrameKind::Close => ops == 0 && id == u64::MAX && ack == 0 && stream == 0,
    };
    if !shape_ok || ops as usize > limits::FRAME_OPS_MAX {
        return Err(Malformed("frame header"));
    }
    for _ in 0..ops {
        r.sized(limits::OP_BYTES_MAX, "operation")?;
    }
    r.finish("frame body")?;
    Ok((kind, FrameId { client, session, stream, id }, ack, ops))
}

fn frame_digest(group: GroupId, body: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Domain::Frame);
    hasher.update(&group.0).update(body);
    hasher.finish()
}

/// Builds a frame, operation by operation, without a copy per operation.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    body: Vec<u8>,
    ops: u32,
}

impl Default for FrameBuilder {
    fn default() -> FrameBuilder {
        FrameBuilder::new()
    }
}

/// Most bytes of room that a frame has before there are operations.
const ROOM_BYTES_MAX: usize = 2 << 20;

impl FrameBuilder {
    /// An empty frame.
    #[must_use]
    pub fn new() -> FrameBuilder {
        FrameBuilder { body: alloc::vec![0; FRAME_HEADER_BYTES], ops: 0 }
    }

    /// An empty frame with room for about so many bytes, or less when they are many.
    #[must_use]
    pub fn with_room(bytes: usize) -> FrameBuilder {
        let mut body = Vec::with_capacity(bytes.clamp(FRAME_HEADER_BYTES, ROOM_BYTES_MAX));
        body.resize(FRAME_HEADER_BYTES, 0);
        FrameBuilder { body, ops: 0 }
    }

    /// Whether an operation of `len` bytes still fits. A fresh builder takes any operation of
    /// at most [`limits::OP_BYTES_MAX`] bytes.
    #[must_use]
    pub fn fits(&self, len: usize) -> bool {
        // 2 KiB cover the authenticator of the largest group.
        let bytes = self.body.len() + 4 + len + 2048;
        len <= limits::OP_BYTES_MAX
            && bytes <= limits::FRAME_BYTES_MAX
            && (self.ops as usize) < limits::FRAME_OPS_MAX
    }

    /// Adds an operation.
    ///
    /// # Panics
    /// When it does not fit: ask [`FrameBuilder::fits`] first.
    pub fn push(&mut self, op: &[u8]) {
        assert!(self.fits(op.len()), "operation does not fit into the frame");
        Writer::new(&mut self.body).sized(op);
        self.ops += 1;
    }

    /// Number of operations so far.
    #[must_use]
    pub fn op_count(&self) -> usize {
        self.ops as usize
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether no operation was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops == 0
    }

    /// Completes a request frame: `authenticate` turns the digest into the authenticator.
    ///
    /// # Panics
    /// When the frame is empty, unless ack < id < `u64::MAX`, or when the stream is one of reads.
    #[must_use]
    pub fn request(
        self,
        group: GroupId,
        id: FrameId,
        ack: u64,
        authenticate: impl FnOnce(Digest) -> Authenticator,
    ) -> Frame {
        assert!(self.ops > 0 && ack < id.id && id.id < u64::MAX && id.stream & READS == 0);
        self.complete(group, FrameKind::Request, id, ack, authenticate)
    }

    /// Completes a frame of reads.
    ///
    /// # Panics
    /// When the frame is empty, unless 0 < id < `u64::MAX`, or when the stream is none of reads.
    #[must_use]
    pub fn read(
        self,
        group: GroupId,
        id: FrameId,
        authenticate: impl FnOnce(Digest) -> Authenticator,
    ) -> Frame {
        assert!(self.ops > 0 && id.id > 0 && id.id < u64::MAX && id.stream & READS != 0);
        self.complete(group, FrameKind::Read, id, 0, authenticate)
    }

    /// Completes the opening of a session.
    #[must_use]
    pub fn open(
        group: GroupId,
        client: ClientId,
        session: SessionId,
        authenticate: impl FnOnce(Digest) -> Authenticator,
    ) -> Frame {
        let id = FrameId { client, session, stream: 0, id: 0 };
        FrameBuilder::new().complete(group, FrameKind::Open, id, 0, authenticate)
    }

    /// Completes the closing of a session.
    #[must_use]
    pub fn close(
        group: GroupId,
        client: ClientId,
        session: SessionId,
        authenticate: impl FnOnce(Digest) -> Authenticator,
    ) -> Frame {
        let id = FrameId { client, session, stream: 0, id: u64::MAX };
        FrameBuilder::new().complete(group, FrameKind::Close, id, 0, authenticate)
    }

    fn complete(
        mut self,
        group: GroupId,
        kind: FrameKind,
        id: FrameId,
        ack: u64,
        authenticate: impl FnOnce(Digest) -> Authenticator,
    ) -> Frame {
        let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
        Writer::new(&mut header)
            .bytes(&[FRAME_VERSION, kind as u8, 0, 0])
            .u32(id.client.0)
            .u64(id.session.0)
            .u32(id.stream)
            .u32(self.ops)
            .u64(id.id)
            .u64(ack);
        self.body[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        // It may be kept until it is answered, and only its length is counted.
        if self.body.len() < self.body.capacity() / 2 {
            self.body.shrink_to_fit();
        }
        let digest = frame_digest(group, &self.body);
        let authenticator = authenticate(digest);
        Frame { kind, id, ack, ops: self.ops, digest, body: self.body, authenticator }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn sample() -> Frame {
        let mut builder = FrameBuilder::new();
        builder.push(b"one");
        builder.push(b"");
        let id = FrameId { client: ClientId(7), session: SessionId(9), stream: 2, id: 5 };
        builder.request(GroupId([1; 32]), id, 4, |_| Authenticator::Vector(vec![Mac([3; 16]); 4]))
    }

    #[test]
    fn a_frame_survives_the_wire() {
        let frame = sample();
        let mut bytes = vec![];
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.encoded_len());
        let mut r = Reader::new(&bytes);
        let back = Frame::decode(GroupId([1; 32]), &mut r).expect("own encoding");
        assert!(r.is_empty());
        assert_eq!(back, frame);
        assert_eq!(back.ops().collect::<vec::Vec<_>>(), [&b"one"[..], b""]);
        let placed: vec::Vec<&[u8]> = back.places().map(|place| back.op_at(place)).collect();
        assert_eq!(placed, [&b"one"[..], b""]);
        assert_eq!(back.ops_from(1, 3).collect::<vec::Vec<_>>(), [b""]);
        assert_eq!(back.ops_from(2, 3).count(), 0);
    }

    #[test]
    fn reads_and_requests_have_streams_of_their_own() {
        let id = FrameId { client: ClientId(7), session: SessionId(9), stream: READS | 2, id: 5 };
        let mut builder = FrameBuilder::new();
        builder.push(b"one");
        let frame = builder.read(GroupId([1; 32]), id, |_| Authenticator::Vector(vec![]));
        let mut bytes = vec![];
        frame.encode(&mut bytes);
        let decode = |bytes: &[u8]| Frame::decode(GroupId([1; 32]), &mut Reader::new(bytes));
        assert_eq!(decode(&bytes), Ok(frame));
        for kind in [FrameKind::Request, FrameKind::Open, FrameKind::Close] {
            bytes[4 + 1] = kind as u8;
            assert!(decode(&bytes).is_err(), "{kind:?} in a stream of reads");
        }
        bytes.clear();
        sample().encode(&mut bytes);
        bytes[4 + 1] = FrameKind::Read as u8;
        assert!(decode(&bytes).is_err(), "a read in another stream");
    }

    #[test]
    fn the_digest_binds_the_group() {
        let frame = sample();
        let mut bytes = vec![];
        frame.encode(&mut bytes);
        let other = Frame::decode(GroupId([2; 32]), &mut Reader::new(&bytes)).expect("decodes");
        assert_ne!(other.digest(), frame.digest());
    }

    #[test]
    fn every_truncation_and_every_bad_count_is_refused() {
        let frame = sample();
        let mut bytes = vec![];
        frame.encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(Frame::decode(GroupId([1; 32]), &mut Reader::new(&bytes[..len])).is_err());
        }
        for count in [0u32, 1, 3, u32::MAX] {
            let mut bad = bytes.clone();
            bad[4 + 20..4 + 24].copy_from_slice(&count.to_le_bytes());
            assert!(Frame::decode(GroupId([1; 32]), &mut Reader::new(&bad)).is_err(), "{count}");
        }
    }
    /// Room is a guess: it changes neither what a frame is nor, for long, what it takes.
    #[test]
    fn room_that_is_not_used_is_given_back() {
        let id = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };
        let complete = |mut builder: FrameBuilder, op: &[u8]| {
            builder.push(op);
            builder.request(GroupId([1; 32]), id, 0, |_| Authenticator::Vector(vec![]))
        };
        let short = complete(FrameBuilder::with_room(1 << 20), b"short");
        assert!(short.body.capacity() < 1000);
        assert_eq!(short, complete(FrameBuilder::new(), b"short"));
        let op = vec![7; 100_000];
        assert_eq!(complete(FrameBuilder::with_room(1), &op).op_count(), 1);
        assert!(FrameBuilder::with_room(usize::MAX).body.capacity() <= 2 * ROOM_BYTES_MAX);
    }
}
