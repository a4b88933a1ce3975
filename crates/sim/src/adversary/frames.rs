//! A frame in its parts, as it travels: for whoever wants to change one of them.

use base::crypto::{ClientKeyring, PlainKeys};
use base::frame::FRAME_VERSION;
use base::{Authenticator, Frame, FrameId, Reader, ReplicaId, Writer};

use crate::host::GROUP;

/// A frame in its parts.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// Version, kind, origin, padding.
    pub(super) head: [u8; 4],
    pub(super) id: FrameId,
    pub(super) ack: u64,
    /// How many operations there are said to be.
    pub(super) count: u32,
    /// The operations, each with its length before it.
    pub(super) ops: Vec<u8>,
    /// The authenticator's kind, and what follows.
    pub(super) authenticator: Vec<u8>,
}

impl Parts {
    pub(super) fn of(frame: &Frame) -> Parts {
        let mut ops = Vec::new();
        for op in frame.ops() {
            Writer::new(&mut ops).sized(op);
        }
        let mut authenticator = Vec::new();
        match frame.authenticator() {
            Authenticator::Vector(macs) => {
                let mut w = Writer::new(&mut authenticator);
                w.u8(0).u16(macs.len() as u16);
                for mac in macs {
                    w.bytes(&mac.0);
                }
            }
            Authenticator::Signature(signature) => {
                Writer::new(&mut authenticator).u8(1).bytes(&signature.0);
            }
        }
        let count = frame.op_count() as u32;
        let head = [FRAME_VERSION, frame.kind() as u8, 0, 0];
        Parts { head, id: frame.id(), ack: frame.ack(), count, ops, authenticator }
    }

    /// The frame of these parts, if there can be one.
    pub(super) fn build(&self) -> Option<Frame> {
        let mut body = Vec::new();
        Writer::new(&mut body)
            .bytes(&self.head)
            .u32(self.id.client.0)
            .u64(self.id.session.0)
            .u32(self.id.stream)
            .u32(self.count)
            .u64(self.id.id)
            .u64(self.ack)
            .bytes(&self.ops);
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).sized(&body).bytes(&self.authenticator);
        let mut r = Reader::new(&bytes);
        let frame = Frame::decode(GROUP, &mut r).ok()?;
        r.is_empty().then_some(frame)
    }
}

/// The frame with an authenticator that `me` can make: its own entry is right.
pub(super) fn authenticated(frame: &Frame, me: ReplicaId, n: u16) -> Option<Frame> {
    let Authenticator::Vector(macs) = frame.authenticator() else { return None };
    let Authenticator::Vector(right) = PlainKeys { me, n }.authenticate(frame.digest()) else {
        return None;
    };
    let mut macs = macs.clone();
    *macs.get_mut(usize::from(me.0))? = *right.get(usize::from(me.0))?;
    let mut parts = Parts::of(frame);
    parts.authenticator.truncate(3);
    for mac in &macs {
        parts.authenticator.extend_from_slice(&mac.0);
    }
    parts.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, FrameBuilder, SessionId};

    #[test]
    fn a_frame_is_the_sum_of_its_parts() {
        let id = FrameId { client: ClientId(7), session: SessionId(9), stream: 2, id: 5 };
        let mut builder = FrameBuilder::new();
        builder.push(b"one");
        builder.push(b"");
        let keys = PlainKeys { me: ReplicaId(0), n: 4 };
        let frame = builder.request(GROUP, id, 4, |digest| keys.authenticate(digest));
        assert_eq!(Parts::of(&frame).build().as_ref(), Some(&frame));
        assert_eq!(authenticated(&frame, ReplicaId(2), 4).as_ref(), Some(&frame));
    }
}
