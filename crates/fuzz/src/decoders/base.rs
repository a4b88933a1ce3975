//! Frames, replies, and the payloads of packets.

use base::packet::{PacketKind, PeerHeader};
use base::reply::{ReplyBody, ReplyDigest, ReplyHead, ReplyPacket};
use base::transfer::{Manifest, StateMessage};
use base::{
    ClientId, Epoch, Frame, FrameId, Incarnation, PillarId, Reader, ReplicaId, Reply, ReplyStatus,
    Seq, SessionId, View, Writer,
};
use proto::pbft::msg::Message;

use super::{accepted, canonical, encoded, told};
use crate::samples::{self, GROUP};
use crate::target::{Outcome, Run};

/// `Frame::decode`.
pub fn frame() -> Run {
    Box::new(|bytes| {
        let read = canonical(bytes, |r| Frame::decode(GROUP, r), Frame::encode);
        let Ok((frame, used)) = read else { return told(read) };
        assert_eq!(frame.encoded_len(), used);
        assert_eq!(frame.ops().count(), frame.op_count());
        accepted((frame.kind() as u8, frame.op_count() > 1), used)
    })
}

/// Encoded frames.
#[must_use]
pub fn frame_seeds() -> Vec<Vec<u8>> {
    encoded(&samples::frames(), Frame::encode)
}

fn replies() -> Vec<Reply> {
    let frame = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };
    let reply = |status, count, results: &[u8]| {
        let results = results.to_vec();
        Reply { frame, seq: Seq(8), status, count, results }
    };
    let mut results = vec![];
    Writer::new(&mut results).sized(b"+OK\r\n").sized(b"").sized(&[7; 200]);
    let mut all: Vec<Reply> = [
        ReplyStatus::Opened,
        ReplyStatus::Closed,
        ReplyStatus::OutOfOrder(9),
        ReplyStatus::NoSession,
        ReplyStatus::StaleSession(SessionId(6)),
        ReplyStatus::ReplyGone,
        ReplyStatus::Conflict,
        ReplyStatus::OutOfWindow,
        ReplyStatus::TooLarge,
        ReplyStatus::Unread,
    ]
    .map(|status| reply(status, 0, b""))
    .into();
    all.push(reply(ReplyStatus::Executed, 3, &results));
    all
}

/// `Reply::decode`, `ReplyHead::peek`, and `ReplyPacket::decode`.
pub fn reply() -> Run {
    Box::new(|bytes| {
        let mut r = Reader::new(bytes);
        let Ok(packet) = ReplyPacket::decode(&mut r) else { return Outcome::of("packet") };
        let mut again = vec![];
        packet.encode(&mut again);
        assert!(bytes.starts_with(&again) && again.len() == packet.encoded_len());
        let ReplyBody::Whole(content) = packet.body else { return Outcome::of("digest") };
        let head = ReplyHead::peek(content);
        let read = canonical(content, Reply::decode, Reply::encode);
        let Ok((reply, used)) = read else { return told(read) };
        if used == content.len() {
            let (head, results) = head.expect("what is a reply has a head");
            assert_eq!((head.frame, head.count), (reply.frame, reply.count));
            assert!(results == reply.results);
            assert_eq!(reply.results().count(), reply.count as usize);
        }
        accepted(std::mem::discriminant(&reply.status), used)
    })
}

/// Encoded replies.
#[must_use]
pub fn reply_seeds() -> Vec<Vec<u8>> {
    let content = encoded(&replies(), Reply::encode);
    let mut seeds =
        encoded(&content, |content, out| ReplyPacket::whole(View(3), content).encode(out));
    let mut r = Reader::new(&content[0]);
    let frame = Reply::decode(&mut r).expect("own encoding").frame;
    let body = ReplyBody::Digest(ReplyDigest::of(frame, Seq(7), &content[0]));
    let tentative = ReplyPacket { view: View(3), tentative: true, body };
    seeds.extend(encoded(&[tentative], ReplyPacket::encode));
    seeds
}

/// What comes on a client's link: `PacketKind::split`, then frames or replies back to back.
pub fn client_packet() -> Run {
    Box::new(|bytes| {
        let (kind, body) = match PacketKind::split(bytes) {
            Ok(split) => split,
            Err(error) => return Outcome::of(error.0),
        };
        assert_eq!(bytes[0], kind as u8);
        let mut r = Reader::new(body);
        let mut items = 0u32;
        let end = loop {
            if r.is_empty() {
                break Ok(());
            }
            let item = match kind {
                PacketKind::Request => Frame::decode(GROUP, &mut r).map(drop),
                PacketKind::Reply => ReplyPacket::decode(&mut r).map(drop),
                _ => break Ok(()),
            };
            match item {
                Ok(()) => items += 1,
                Err(error) => break Err(error.0),
            }
        };
        Outcome::of((kind as u8, items.checked_ilog2(), end))
    })
}

/// Client packets of all kinds.
#[must_use]
pub fn client_packet_seeds() -> Vec<Vec<u8>> {
    let of = |kind: PacketKind, body: Vec<Vec<u8>>| [vec![kind as u8], body.concat()].concat();
    vec![
        of(PacketKind::Request, frame_seeds()),
        of(PacketKind::Reply, reply_seeds()),
        of(PacketKind::StatusQuery, vec![]),
        of(PacketKind::Status, vec![b"{}".to_vec()]),
        of(PacketKind::Goodbye, vec![]),
        of(PacketKind::Nudge, vec![vec![9, 0, 0, 0, 0, 0, 0, 0]]),
    ]
}

/// The header that packets between replicas begin with.
#[must_use]
pub fn header() -> Vec<u8> {
    let header = PeerHeader {
        epoch: Epoch(0),
        sender: ReplicaId(3),
        pillar: PillarId(0),
        incarnation: Incarnation(1),
    };
    let mut out = vec![];
    header.encode(&mut out);
    out
}

/// What comes on a replica's link: `PeerHeader::decode`, then messages back to back.
pub fn peer_packet() -> Run {
    Box::new(|bytes| {
        let read = canonical(bytes, PeerHeader::decode, PeerHeader::encode);
        let Ok((_, used)) = read else { return told(read) };
        let mut r = Reader::new(&bytes[used..]);
        let mut kinds = 0u64;
        while !r.is_empty() {
            let kind = r.rest()[0];
            match Message::decode(GROUP, &mut r) {
                Ok(_) => kinds |= 1 << (kind & 31),
                Err(error) => return Outcome::of((kinds, error.0)),
            }
        }
        Outcome::of(kinds)
    })
}

/// Packets between replicas.
#[must_use]
pub fn peer_packet_seeds() -> Vec<Vec<u8>> {
    let messages = encoded(&samples::messages(), Message::encode);
    let packet = |some: &[Vec<u8>]| [header(), some.concat()].concat();
    messages.chunks(3).map(packet).chain([header()]).collect()
}

/// `StateMessage::decode`.
pub fn state_message() -> Run {
    Box::new(|bytes| {
        let read = canonical(bytes, StateMessage::decode, StateMessage::encode);
        if let Ok((message, used)) = &read {
            assert!(message.encoded_len_max() >= *used);
        }
        told(read)
    })
}

/// Encoded messages between stages.
#[must_use]
pub fn state_message_seeds() -> Vec<Vec<u8>> {
    encoded(&samples::state_messages(), StateMessage::encode)
}

/// `Manifest::decode`.
pub fn manifest() -> Run {
    Box::new(|bytes| told(canonical(bytes, Manifest::decode, Manifest::encode)))
}

/// Encoded manifests.
#[must_use]
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    encoded(&[Manifest::default()], Manifest::encode)
}
