//! State transfer: what a checkpoint consists of, and what replicas ask each other about it.
//!
//! A checkpoint's certified digest covers its [`Manifest`]; the manifest's two roots cover two
//! trees of objects ([`Part`]): the service's, and the session table. Whoever knows the digest
//! can thus verify the manifest, every node of both trees, and every object, each by itself and
//! before it is used (design §3.8).
//!
//! Not here: who asks whom, and when (`exec::transfer`).

use alloc::vec::Vec;

use crate::digest::{Domain, Hasher};
use crate::{AgreedTime, Digest, GroupId, Malformed, Reader, Seq, Writer};

/// What a checkpoint's digest is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    /// The number after whose execution it was taken.
    pub seq: Seq,
    /// The group's pillars.
    pub pillars: u16,
    /// The agreed time after it.
    pub time: AgreedTime,
    /// The root over the service's objects.
    pub service: Digest,
    /// The root over the session table's buckets.
    pub sessions: Digest,
}

impl Manifest {
    /// The digest that replicas sign.
    #[must_use]
    pub fn digest(&self, group: GroupId) -> Digest {
        let mut hasher = Hasher::new(Domain::Checkpoint);
        hasher.update(&group.0).update_u64(self.seq.0);
        hasher.update_u64(u64::from(self.pillars)).update_u64(self.time.0);
        hasher.update(&self.service.0);
        if !crate::mutant!(SessionsNotInDigest) {
            hasher.update(&self.sessions.0);
        }
        hasher.finish()
    }

    /// Appends the manifest.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.u64(self.seq.0).u16(self.pillars).u64(self.time.0);
        w.digest(self.service).digest(self.sessions);
    }

    /// Reads a manifest. It means nothing until its digest was compared.
    ///
    /// # Errors
    /// When the bytes are too few.
    pub fn decode(r: &mut Reader<'_>) -> Result<Manifest, Malformed> {
        Ok(Manifest {
            seq: Seq(r.u64("manifest number")?),
            pillars: r.u16("manifest pillars")?,
            time: AgreedTime(r.u64("manifest time")?),
            service: r.digest("manifest service root")?,
            sessions: r.digest("manifest sessions root")?,
        })
    }
}

/// One of the two trees of objects under a manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The service's objects.
    Service,
    /// The session table's buckets.
    Sessions,
}

/// Who needs a checkpoint to stay readable while execution goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SnapshotReader {
    /// Other replicas that fetch it.
    Transfer,
    /// This replica's disk, or a snapshot that is saved.
    Disk,
}

/// Between the stages of two replicas, about one checkpoint that the asked one holds readable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateMessage {
    /// A replica that fetches the checkpoint asks.
    Ask {
        /// Which checkpoint.
        checkpoint: Seq,
        /// For what.
        request: StateRequest,
    },
    /// The answer; believed only as far as it verifies.
    Tell {
        /// Which checkpoint.
        checkpoint: Seq,
        /// What was asked for.
        answer: StateAnswer,
    },
}

/// What a replica asks about a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateRequest {
    /// Its manifest.
    Manifest,
    /// The children's digests of `count` inner nodes of one level.
    Nodes {
        /// Which tree.
        part: Part,
        /// The level of the nodes, from 1: their children are one level below.
        level: u8,
        /// The first node.
        first: u32,
        /// How many, `1..=NODES_MAX`.
        count: u32,
    },
    /// Objects from their beginning: each whole or, if it is longer, its first
    /// [`PIECE_BYTES_MAX`] bytes, in an answer of its own.
    Objects {
        /// Which tree.
        part: Part,
        /// Their numbers, ascending, at most [`OBJECTS_PER_REQUEST_MAX`].
        objects: Vec<u32>,
    },
    /// A further piece of one large object.
    Piece {
        /// Which tree.
        part: Part,
        /// The object.
        object: u32,
        /// From which byte on.
        offset: u64,
    },
}

/// What a source answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateAnswer {
    /// The manifest.
    Manifest(Manifest),
    /// The children's digests of consecutive nodes, concatenated.
    Nodes {
        /// Which tree.
        part: Part,
        /// The level of the nodes.
        level: u8,
        /// The first node.
        first: u32,
        /// The digests.
        digests: Vec<Digest>,
    },
    /// A piece of an object, or all of it.
    Object {
        /// Which tree.
        part: Part,
        /// The object.
        object: u32,
        /// Bytes of the whole object.
        total: u64,
        /// Where the piece begins.
        offset: u64,
        /// The piece: [`PIECE_BYTES_MAX`] bytes, or all that is left.
        bytes: Vec<u8>,
    },
    /// The source does not hold this checkpoint (any more).
    Gone,
}

/// Most nodes in one request.
pub const NODES_MAX: u32 = 1024;
/// Most objects in one request.
pub const OBJECTS_PER_REQUEST_MAX: usize = 1024;
/// Most bytes of an object in one answer.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// Most digests in one answer: [`NODES_MAX`] nodes of 16 children.
pub const NODE_DIGESTS_MAX: usize = 16 * NODES_MAX as usize;
/// Bytes of a message beside its digests, numbers or piece.
const HEAD_BYTES_MAX: usize = 96;

impl StateMessage {
    /// Appends the message: the checkpoint, a type byte, then the fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        match self {
            StateMessage::Ask { checkpoint, request } => {
                w.u64(checkpoint.0);
                encode_request(request, &mut w);
            }
            StateMessage::Tell { checkpoint, answer } => {
                w.u64(checkpoint.0);
                encode_answer(answer, out);
            }
        }
    }

    /// Reads one message. Nothing in it is believed.
    ///
    /// # Errors
    /// When the bytes are no message within the limits.
    pub fn decode(r: &mut Reader<'_>) -> Result<StateMessage, Malformed> {
        let checkpoint = Seq(r.u64("state checkpoint")?);
        let kind = r.u8("state message type")?;
        if kind < FIRST_ANSWER {
            let request = decode_request(kind, r)?;
            return Ok(StateMessage::Ask { checkpoint, request });
        }
        Ok(StateMessage::Tell { checkpoint, answer: decode_answer(kind, r)? })
    }

    /// Bytes of [`StateMessage::encode`], or a little more.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        HEAD_BYTES_MAX
            + match self {
                StateMessage::Ask { request: StateRequest::Objects { objects, .. }, .. } => {
                    objects.len() * 4
                }
                StateMessage::Tell { answer: StateAnswer::Nodes { digests, .. }, .. } => {
                    digests.len() * 32
                }
                StateMessage::Tell { answer: StateAnswer::Object { bytes, .. }, .. } => bytes.len(),
                _ => 0,
            }
    }
}

/// Type bytes of answers begin here.
const FIRST_ANSWER: u8 = 16;

fn encode_request(request: &StateRequest, w: &mut Writer<'_>) {
    match request {
        StateRequest::Manifest => w.u8(1),
        StateRequest::Nodes { part, level, first, count } => {
            w.u8(2).u8(part.code()).u8(*level).u32(*first).u32(*count)
        }
        StateRequest::Objects { part, objects } => {
            w.u8(3).u8(part.code()).count(objects.len());
            objects.iter().fold(w, |w, object| w.u32(*object))
        }
        StateRequest::Piece { part, object, offset } => {
            w.u8(4).u8(part.code()).u32(*object).u64(*offset)
        }
    };
}

fn decode_request(kind: u8, r: &mut Reader<'_>) -> Result<StateRequest, Malformed> {
    match kind {
        1 => Ok(StateRequest::Manifest),
        2 => {
            let (part, level) = (Part::decode(r)?, decode_level(r)?);
            let (first, count) = (r.u32("first node")?, r.u32("node count")?);
            let fits = (1..=NODES_MAX).contains(&count) && first.checked_add(count).is_some();
            fits.then_some(StateRequest::Nodes { part, level, first, count })
                .ok_or(Malformed("node count"))
        }
        3 => {
            let part = Part::decode(r)?;
            let count = r.count(OBJECTS_PER_REQUEST_MAX, 4, "object count")?;
            let mut objects = Vec::with_capacity(count);
            for _ in 0..count {
                let object = r.u32("object")?;
                if objects.last().is_some_and(|last| *last >= object) {
                    return Err(Malformed("order of objects"));
                }
                objects.push(object);
            }
            Ok(StateRequest::Objects { part, objects })
        }
        4 => Ok(StateRequest::Piece {
            part: Part::decode(r)?,
            object: r.u32("object")?,
            offset: r.u64("piece offset")?,
        }),
        _ => Err(Malformed("state message type")),
    }
}

fn encode_answer(answer: &StateAnswer, out: &mut Vec<u8>) {
    match answer {
        StateAnswer::Manifest(manifest) => {
            Writer::new(out).u8(FIRST_ANSWER);
            manifest.encode(out);
        }
        StateAnswer::Nodes { part, level, first, digests } => {
            let mut w = Writer::new(out);
            w.u8(FIRST_ANSWER + 1).u8(part.code()).u8(*level).u32(*first).count(digests.len());
            for digest in digests {
                w.digest(*digest);
            }
        }
        StateAnswer::Object { part, object, total, offset, bytes } => {
            Writer::new(out)
                .u8(FIRST_ANSWER + 2)
                .u8(part.code())
                .u32(*object)
                .u64(*total)
                .u64(*offset)
                .sized(bytes);
        }
        StateAnswer::Gone => {
            Writer::new(out).u8(FIRST_ANSWER + 3);
        }
    }
}

fn decode_answer(kind: u8, r: &mut Reader<'_>) -> Result<StateAnswer, Malformed> {
    match kind - FIRST_ANSWER {
        0 => Ok(StateAnswer::Manifest(Manifest::decode(r)?)),
        1 => {
            let (part, level) = (Part::decode(r)?, decode_level(r)?);
            let first = r.u32("first node")?;
            let count = r.count(NODE_DIGESTS_MAX, 32, "digest count")?;
            let mut digests = Vec::with_capacity(count);
            for _ in 0..count {
                digests.push(r.digest("node digest")?);
            }
            Ok(StateAnswer::Nodes { part, level, first, digests })
        }
        2 => {
            let (part, object) = (Part::decode(r)?, r.u32("object")?);
            let (total, offset) = (r.u64("object length")?, r.u64("piece offset")?);
            let bytes = r.sized(PIECE_BYTES_MAX, "piece")?;
            let end = offset.checked_add(bytes.len() as u64);
            if end.is_none_or(|end| end > total) {
                return Err(Malformed("piece offset"));
            }
            Ok(StateAnswer::Object { part, object, total, offset, bytes: bytes.to_vec() })
        }
        3 => Ok(StateAnswer::Gone),
        _ => Err(Malformed("state message type")),
    }
}

fn decode_level(r: &mut Reader<'_>) -> Result<u8, Malformed> {
    let level = r.u8("node level")?;
    (1..=LEVELS_MAX).contains(&level).then_some(level).ok_or(Malformed("node level"))
}

/// Highest level of a tree: 16 to this power is above every number of objects.
const LEVELS_MAX: u8 = 8;

impl Part {
    fn code(self) -> u8 {
        match self {
            Part::Service => 0,
            Part::Sessions => 1,
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Part, Malformed> {
        match r.u8("part of the state")? {
            0 => Ok(Part::Service),
            1 => Ok(Part::Sessions),
            _ => Err(Malformed("part of the state")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn samples() -> Vec<StateMessage> {
        let (service, sessions) = (Part::Service, Part::Sessions);
        let manifest = Manifest {
            seq: Seq(512),
            pillars: 4,
            time: AgreedTime(7),
            service: Digest([1; 32]),
            sessions: Digest([2; 32]),
        };
        let requests = vec![
            StateRequest::Manifest,
            StateRequest::Nodes { part: service, level: 2, first: 16, count: NODES_MAX },
            StateRequest::Objects { part: sessions, objects: vec![1, 5, 9] },
            StateRequest::Objects { part: service, objects: vec![] },
            StateRequest::Piece { part: service, object: 3, offset: 1 << 40 },
        ];
        let digests = vec![Digest([3; 32]); 17];
        let object = |total, offset, bytes| StateAnswer::Object {
            part: service,
            object: 8,
            total,
            offset,
            bytes,
        };
        let answers = vec![
            StateAnswer::Manifest(manifest),
            StateAnswer::Nodes { part: sessions, level: 1, first: 0, digests },
            object(10, 4, vec![9; 6]),
            object(0, 0, vec![]),
            StateAnswer::Gone,
        ];
        let checkpoint = Seq(512);
        let asks = requests.into_iter().map(|request| StateMessage::Ask { checkpoint, request });
        let tells = answers.into_iter().map(|answer| StateMessage::Tell { checkpoint, answer });
        asks.chain(tells).collect()
    }

    fn decoded(bytes: &[u8]) -> Result<StateMessage, Malformed> {
        StateMessage::decode(&mut Reader::new(bytes))
    }

    #[test]
    fn messages_survive_the_wire_and_no_prefix_of_one_is_a_message() {
        for message in samples() {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            assert!(bytes.len() <= message.encoded_len_max(), "{message:?}");
            let mut r = Reader::new(&bytes);
            assert_eq!(StateMessage::decode(&mut r), Ok(message));
            assert!(r.is_empty());
            for len in 0..bytes.len() {
                assert!(decoded(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn a_flipped_byte_gives_another_message_or_none() {
        for message in samples() {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            for at in 0..bytes.len() {
                bytes[at] ^= 0x41;
                assert_ne!(decoded(&bytes), Ok(message.clone()));
                bytes[at] ^= 0x41;
            }
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_no_message() {
        let refused = |message: &StateMessage, why| {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            assert_eq!(decoded(&bytes), Err(Malformed(why)), "{message:?}");
        };
        let ask = |request| StateMessage::Ask { checkpoint: Seq(1), request };
        let tell = |answer| StateMessage::Tell { checkpoint: Seq(1), answer };
        let nodes = |level, first, count| {
            ask(StateRequest::Nodes { part: Part::Service, level, first, count })
        };
        refused(&nodes(0, 0, 1), "node level");
        refused(&nodes(9, 0, 1), "node level");
        refused(&nodes(1, 0, 0), "node count");
        refused(&nodes(1, 0, NODES_MAX + 1), "node count");
        refused(&nodes(1, u32::MAX, 1), "node count");
        let objects = |objects| ask(StateRequest::Objects { part: Part::Service, objects });
        refused(&objects(vec![2, 2]), "order of objects");
        refused(&objects((0..=OBJECTS_PER_REQUEST_MAX as u32).collect()), "object count");
        let piece = |total, offset, len| {
            let bytes = vec![0; len];
            tell(StateAnswer::Object { part: Part::Service, object: 0, total, offset, bytes })
        };
        refused(&piece(4, 1, 4), "piece offset");
        refused(&piece(u64::MAX, u64::MAX, 1), "piece offset");
        refused(&piece(u64::MAX, 0, PIECE_BYTES_MAX + 1), "piece");
        let digests = vec![Digest::ZERO; NODE_DIGESTS_MAX + 1];
        let part = Part::Sessions;
        refused(&tell(StateAnswer::Nodes { part, level: 1, first: 0, digests }), "digest count");
        let short = [1, 0, 0, 0, 0, 0, 0, 0, 17, 0, 1, 0, 0, 0, 0, 255, 63, 0, 0, 7];
        assert_eq!(decoded(&short), Err(Malformed("digest count")));
    }
}
