//! The payloads of sealed packets: what stands inside the seal, before the messages begin.
//!
//! Two kinds of link, two layouts. A replica's packet is a [`PeerHeader`] and then messages of
//! the agreement protocol back to back. A client's packet is one byte of [`PacketKind`] and then
//! that kind's body.
//!
//! Whoever dials sends a packet as soon as the handshake is done, to prove that it lives and is
//! not a recording: a replica one without messages, a client one with an empty payload, unless
//! it has something to say at once. Only then do replies go to the new link.
//!
//! Not here: the seal and the length before it (`auth`), and the messages
//! themselves. Byte map: `docs/format.md`.

use alloc::vec::Vec;

use crate::codec::{Malformed, Reader, Writer};
use crate::id::{Epoch, Incarnation, PillarId, ReplicaId};

/// Version of the payload layout of links between replicas.
pub const PEER_PACKET_VERSION: u8 = 1;

/// Bytes of an encoded [`PeerHeader`].
pub const PEER_HEADER_BYTES: usize = 17;

/// Largest body of a [`PacketKind::Status`] packet, in bytes: what the largest group has to say,
/// and a proof.
pub const STATUS_BYTES_MAX: usize = 256 << 10;

/// Bytes of the body of a [`PacketKind::Nudge`] packet.
pub const NUDGE_BYTES: usize = 8;

/// Bytes of the body of a [`PacketKind::Avoid`] packet.
pub const AVOID_BYTES: usize = 8;

/// What every packet between replicas says about its sender. The link's seal proves the same:
/// the receiver compares, so that a packet never means something else in another place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerHeader {
    /// The membership epoch.
    pub epoch: Epoch,
    /// Who sends.
    pub sender: ReplicaId,
    /// Between which pillars.
    pub pillar: PillarId,
    /// The life of the sender.
    pub incarnation: Incarnation,
}

impl PeerHeader {
    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out)
            .u8(PEER_PACKET_VERSION)
            .u32(self.epoch.0)
            .u16(self.sender.0)
            .u16(self.pillar.0)
            .u64(self.incarnation.0);
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When the bytes are too few or of another version.
    pub fn decode(r: &mut Reader<'_>) -> Result<PeerHeader, Malformed> {
        if r.u8("packet version")? != PEER_PACKET_VERSION {
            return Err(Malformed("packet version"));
        }
        Ok(PeerHeader {
            epoch: Epoch(r.u32("packet epoch")?),
            sender: ReplicaId(r.u16("packet sender")?),
            pillar: PillarId(r.u16("packet pillar")?),
            incarnation: Incarnation(r.u64("packet incarnation")?),
        })
    }
}

/// What a packet on a client's link carries: its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketKind {
    /// To the replica: one or more request frames ([`crate::Frame::encode`]) back to back.
    Request = 1,
    /// To the client: one or more replies ([`crate::reply::ReplyPacket`]) back to back.
    Reply = 2,
    /// To the replica: how are you? Empty.
    StatusQuery = 3,
    /// To the client: the replica's report as JSON, at most [`STATUS_BYTES_MAX`] bytes.
    Status = 4,
    /// To the client: this replica drains and takes no more frames. Empty.
    Goodbye = 5,
    /// To the client: something waits for it in the service's state. The number of the batch
    /// since which it waits, [`NUDGE_BYTES`] bytes, little-endian.
    Nudge = 6,
    /// To the replica: do not rely on these replicas for answers to this session. A bit for each,
    /// replica 0 the lowest, [`AVOID_BYTES`] bytes, little-endian.
    Avoid = 7,
}

impl PacketKind {
    /// Appends the kind; the body follows.
    pub fn begin(self, out: &mut Vec<u8>) {
        out.push(self as u8);
    }

    /// A packet without a body.
    #[must_use]
    pub fn alone(self) -> [u8; 1] {
        [self as u8]
    }

    /// Splits a client packet's payload into its kind and its body.
    ///
    /// # Errors
    /// When the payload is empty or of an unknown kind, when there is a body where none belongs
    /// or none where one does, or when a status is too long.
    pub fn split(payload: &[u8]) -> Result<(PacketKind, &[u8]), Malformed> {
        let (kind, body) = payload.split_first().ok_or(Malformed("packet kind"))?;
        let (kind, fits) = match kind {
            1 => (PacketKind::Request, !body.is_empty()),
            2 => (PacketKind::Reply, !body.is_empty()),
            3 => (PacketKind::StatusQuery, body.is_empty()),
            4 => (PacketKind::Status, !body.is_empty() && body.len() <= STATUS_BYTES_MAX),
            5 => (PacketKind::Goodbye, body.is_empty()),
            6 => (PacketKind::Nudge, body.len() == NUDGE_BYTES),
            7 => (PacketKind::Avoid, body.len() == AVOID_BYTES),
            _ => return Err(Malformed("packet kind")),
        };
        if fits { Ok((kind, body)) } else { Err(Malformed("packet body")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn headers_survive_the_wire_and_other_versions_are_refused() {
        let header = PeerHeader {
            epoch: Epoch(1),
            sender: ReplicaId(2),
            pillar: PillarId(3),
            incarnation: Incarnation(4),
        };
        let mut bytes = vec![];
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), PEER_HEADER_BYTES);
        assert_eq!(PeerHeader::decode(&mut Reader::new(&bytes)), Ok(header));
        assert!(PeerHeader::decode(&mut Reader::new(&bytes[..16])).is_err());
        bytes[0] = 2;
        assert!(PeerHeader::decode(&mut Reader::new(&bytes)).is_err());
    }

    #[test]
    fn bodies_stand_where_they_belong() {
        assert_eq!(PacketKind::split(&[1, 9]), Ok((PacketKind::Request, &[9u8][..])));
        assert_eq!(PacketKind::split(&PacketKind::Goodbye.alone()), {
            Ok((PacketKind::Goodbye, &[][..]))
        });
        for bad in [&[][..], &[0], &[1], &[2], &[3, 0], &[4], &[5, 0], &[6, 0], &[7, 0], &[8, 0]] {
            assert!(PacketKind::split(bad).is_err(), "{bad:?}");
        }
        assert!(PacketKind::split(&vec![4; STATUS_BYTES_MAX + 2]).is_err());
    }
}
