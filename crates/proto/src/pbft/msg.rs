//! The messages between the same pillar of different replicas.
//!
//! One struct per kind. Group, epoch, pillar, sender, receiver and the sender's incarnation are
//! bound by the link's seal (design §3.3) and by the packet's header; type, view and sequence
//! number stand in the message. Byte map: `docs/format.md`; steps: `docs/protocol/pbft.md`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::batch::{batch_digest, null_digest};
use base::transfer::StateMessage;
use base::{
    AgreedTime, BatchEntry, ClientId, Digest, Frame, FrameId, GroupId, Malformed, Reader, Seq,
    SessionId, Signature, View, Writer, limits,
};

use crate::group::msg::GroupMessage;

mod nulls;

pub use nulls::{NullPhase, Nulls, RUN_MAX};

/// Bytes of an encoded [`BatchEntry`].
const ENTRY_BYTES: usize = 56;
/// Bytes of an encoded entry with a number.
const HELD_BYTES: usize = ENTRY_BYTES + 8;

/// What a leader proposes for a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposal {
    /// The null batch.
    Null,
    /// Frames by name, at a proposed time. None at all is a tick.
    Frames {
        /// The leader's clock.
        time: AgreedTime,
        /// The frames in the order in which they are to execute.
        entries: Vec<BatchEntry>,
    },
}

impl Proposal {
    /// The digest that the instance agrees on.
    #[must_use]
    pub fn digest(&self, group: GroupId, seq: Seq) -> Digest {
        match self {
            Proposal::Null => null_digest(group, seq),
            Proposal::Frames { time, entries } => batch_digest(group, seq, *time, entries),
        }
    }

    /// The frames that are proposed.
    #[must_use]
    pub fn entries(&self) -> &[BatchEntry] {
        match self {
            Proposal::Null => &[],
            Proposal::Frames { entries, .. } => entries,
        }
    }

    /// Whether it names a frame more than once, which no correct leader does.
    #[must_use]
    pub fn names_twice(&self) -> bool {
        // Eight bytes tell almost all digests apart, and sort faster than whole names.
        let short =
            |entry: &BatchEntry| entry.digest.0.first_chunk().map(|b| u64::from_le_bytes(*b));
        let mut shorts: Vec<Option<u64>> = self.entries().iter().map(short).collect();
        shorts.sort_unstable();
        if shorts.windows(2).all(|pair| pair[0] != pair[1]) {
            return false;
        }
        let name = |entry: &BatchEntry| (entry.id, entry.digest);
        let mut names: Vec<_> = self.entries().iter().map(name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// PREPARE or COMMIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The view in which it is cast.
    pub view: View,
    /// The number.
    pub seq: Seq,
    /// For which digest.
    pub digest: Digest,
}

/// CHECKPOINT: this replica's state after `seq` has this digest. Signed, since it must convince
/// third parties.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// After which number.
    pub seq: Seq,
    /// The digest of the whole state.
    pub digest: Digest,
    /// Over [`Checkpoint::signed_bytes`].
    pub signature: Signature,
}

impl Checkpoint {
    /// What is signed: domain, group, epoch, number, digest.
    #[must_use]
    pub fn signed_bytes(group: GroupId, epoch: base::Epoch, seq: Seq, digest: Digest) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        Writer::new(&mut out)
            .bytes(b"stylite checkpoint\0")
            .bytes(&group.0)
            .u32(epoch.0)
            .u64(seq.0)
            .digest(digest);
        out
    }
}

/// Most frames that one ENDORSE or OWED names.
pub const ENDORSE_MAX: usize = 256;

/// A message of a pillar to the same pillar of another replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The leader of `view` proposes a batch for `seq`.
    PrePrepare {
        /// The view.
        view: View,
        /// The number.
        seq: Seq,
        /// The batch.
        proposal: Proposal,
    },
    /// A backup has accepted the proposal.
    Prepare(Vote),
    /// A replica has prepared the proposal.
    Commit(Vote),
    /// One of these three, of the null batch for several numbers in a row.
    Nulls(Nulls),
    /// To the leader: these frames reached the sender from their client itself (design §3.4), and
    /// it holds them until a batch names them that it executes after `executed`.
    Vouch {
        /// Up to here nothing that the sender executes takes the frames away: how far it has
        /// executed, or further (L3c).
        executed: Seq,
        /// The frames.
        entries: Vec<BatchEntry>,
    },
    /// To the leader, where bodies travel with proposals: this frame reached the sender from its
    /// client itself.
    Forward(Arc<Frame>),
    /// Asks for the bodies of these frames, which are proposed for `seq`.
    Fetch {
        /// The number whose batch names them.
        seq: Seq,
        /// The frames.
        entries: Vec<BatchEntry>,
    },
    /// The body of a frame, in answer to a fetch.
    Body {
        /// Whether the sender vouches for it.
        vouched: bool,
        /// The body.
        frame: Arc<Frame>,
    },
    /// The sender's signed state digest.
    Checkpoint(Checkpoint),
    /// How far the sender is; whoever is ahead helps it.
    Status {
        /// The sender's view.
        view: View,
        /// The sender's low mark.
        stable: Seq,
        /// Highest number up to which this pillar's numbers are decided and with the sender,
        /// without a gap: delivered, but for what execution is too far behind to take.
        delivered: Seq,
    },
    /// From coordinator to coordinator; on pillar 0's link only.
    Group(Arc<GroupMessage>),
    /// From stage to stage; on pillar 0's link only.
    State(Arc<StateMessage>),
    /// The sender has seen this proposal committed; believed when a weak quorum says so
    /// (design, trap 9).
    Decided {
        /// The number.
        seq: Seq,
        /// The batch.
        proposal: Proposal,
    },
    /// Asks for the proposal with this digest, which a NEW-VIEW has chosen for `seq`.
    FetchProposal {
        /// The number.
        seq: Seq,
        /// The digest.
        digest: Digest,
    },
    /// The answer: recognised by its digest.
    ProposalIs {
        /// The number.
        seq: Seq,
        /// The batch.
        proposal: Proposal,
    },
    /// These frames reached the sender from their client itself, and it has waited long for
    /// their order. At most [`ENDORSE_MAX`].
    Endorse {
        /// The view whose leader does not order them.
        view: View,
        /// The frames, of each principal the oldest first, and for how long the sender holds each,
        /// as [`Message::Vouch`] says it.
        entries: Vec<(BatchEntry, Seq)>,
    },
    /// The leader owes these frames: the sender holds them, and a quorum endorses each. At most
    /// [`ENDORSE_MAX`].
    Owed {
        /// The view whose leader does not order them.
        view: View,
        /// The frames, and for how long the sender holds each, as [`Message::Vouch`] says it.
        entries: Vec<(BatchEntry, Seq)>,
    },
}

impl Message {
    /// Appends the message: a type byte, then its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::PrePrepare { view, seq, proposal } => {
                Writer::new(out).u8(1).u64(view.0).u64(seq.0);
                encode_proposal(proposal, out);
            }
            Message::Prepare(vote) => encode_vote(2, vote, out),
            Message::Commit(vote) => encode_vote(3, vote, out),
            Message::Vouch { executed, entries } => {
                Writer::new(out).u8(4).u64(executed.0);
                encode_entries(entries, out);
            }
            Message::Fetch { seq, entries } => {
                Writer::new(out).u8(5).u64(seq.0);
                encode_entries(entries, out);
            }
            Message::Body { vouched, frame } => {
                Writer::new(out).u8(6).u8(u8::from(*vouched));
                frame.encode(out);
            }
            Message::Checkpoint(Checkpoint { seq, digest, signature }) => {
                Writer::new(out).u8(7).u64(seq.0).digest(*digest).bytes(&signature.0);
            }
            Message::Status { view, stable, delivered } => {
                Writer::new(out).u8(8).u64(view.0).u64(stable.0).u64(delivered.0);
            }
            Message::Decided { seq, proposal } => {
                Writer::new(out).u8(9).u64(seq.0);
                encode_proposal(proposal, out);
            }
            Message::FetchProposal { seq, digest } => {
                Writer::new(out).u8(10).u64(seq.0).digest(*digest);
            }
            Message::ProposalIs { seq, proposal } => {
                Writer::new(out).u8(11).u64(seq.0);
                encode_proposal(proposal, out);
            }
            Message::Endorse { view, entries } => encode_held(12, *view, entries, out),
            Message::Owed { view, entries } => encode_held(13, *view, entries, out),
            Message::Forward(frame) => {
                Writer::new(out).u8(14);
                frame.encode(out);
            }
            Message::Nulls(nulls) => nulls.encode(15, out),
            Message::Group(message) => {
                Writer::new(out).u8(16);
                message.encode(out);
            }
            Message::State(message) => {
                Writer::new(out).u8(17);
                message.encode(out);
            }
        }
    }

    /// Bytes of [`Message::encode`], or a little more.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let entries = match self {
            Message::PrePrepare { proposal, .. }
            | Message::Decided { proposal, .. }
            | Message::ProposalIs { proposal, .. } => proposal.entries().len(),
            Message::Endorse { entries, .. } | Message::Owed { entries, .. } => {
                return 16 + entries.len() * HELD_BYTES;
            }
            Message::Vouch { entries, .. } | Message::Fetch { entries, .. } => entries.len(),
            Message::Body { frame, .. } | Message::Forward(frame) => {
                return 8 + frame.encoded_len();
            }
            Message::Group(message) => return 8 + message.encoded_len_max(),
            Message::State(message) => return 8 + message.encoded_len_max(),
            _ => 0,
        };
        128 + entries * ENTRY_BYTES
    }

    /// Reads one message. Frames are decoded for `group`.
    ///
    /// # Errors
    /// When the bytes are no message within the limits.
    pub fn decode(group: GroupId, r: &mut Reader<'_>) -> Result<Message, Malformed> {
        let message = match r.u8("message type")? {
            1 => Message::PrePrepare {
                view: View(r.u64("pre-prepare view")?),
                seq: decode_seq(r)?,
                proposal: decode_proposal(r)?,
            },
            2 => Message::Prepare(decode_vote(r)?),
            3 => Message::Commit(decode_vote(r)?),
            4 => Message::Vouch {
                executed: Seq(r.u64("vouch executed")?),
                entries: decode_entries(r)?,
            },
            5 => Message::Fetch { seq: decode_seq(r)?, entries: decode_entries(r)? },
            6 => {
                let vouched = match r.u8("body flag")? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("body flag")),
                };
                Message::Body { vouched, frame: Arc::new(Frame::decode(group, r)?) }
            }
            7 => Message::Checkpoint(Checkpoint {
                seq: decode_seq(r)?,
                digest: r.digest("checkpoint digest")?,
                signature: Signature(r.array("checkpoint signature")?),
            }),
            8 => Message::Status {
                view: View(r.u64("status view")?),
                stable: Seq(r.u64("status low mark")?),
                delivered: Seq(r.u64("status delivered")?),
            },
            9 => Message::Decided { seq: decode_seq(r)?, proposal: decode_proposal(r)? },
            10 => {
                Message::FetchProposal { seq: decode_seq(r)?, digest: r.digest("wanted proposal")? }
            }
            11 => Message::ProposalIs { seq: decode_seq(r)?, proposal: decode_proposal(r)? },
            12 => {
                let (view, entries) = decode_held(r)?;
                Message::Endorse { view, entries }
            }
            13 => {
                let (view, entries) = decode_held(r)?;
                Message::Owed { view, entries }
            }
            14 => Message::Forward(Arc::new(Frame::decode(group, r)?)),
            15 => Message::Nulls(Nulls::decode(r)?),
            16 => Message::Group(Arc::new(GroupMessage::decode(group, r)?)),
            17 => Message::State(Arc::new(StateMessage::decode(r)?)),
            _ => return Err(Malformed("message type")),
        };
        Ok(message)
    }
}

fn encode_vote(kind: u8, vote: &Vote, out: &mut Vec<u8>) {
    Writer::new(out).u8(kind).u64(vote.view.0).u64(vote.seq.0).digest(vote.digest);
}

fn decode_vote(r: &mut Reader<'_>) -> Result<Vote, Malformed> {
    Ok(Vote {
        view: View(r.u64("vote view")?),
        seq: decode_seq(r)?,
        digest: r.digest("vote digest")?,
    })
}

/// Numbers on the wire are never 0, and stay far from overflow.
pub(crate) fn decode_seq(r: &mut Reader<'_>) -> Result<Seq, Malformed> {
    let seq = r.u64("sequence number")?;
    if seq == 0 || seq > u64::MAX >> 1 {
        return Err(Malformed("sequence number"));
    }
    Ok(Seq(seq))
}

pub(crate) fn encode_proposal(proposal: &Proposal, out: &mut Vec<u8>) {
    match proposal {
        Proposal::Null => {
            Writer::new(out).u8(0);
        }
        Proposal::Frames { time, entries } => {
            Writer::new(out).u8(1).u64(time.0);
            encode_entries(entries, out);
        }
    }
}

pub(crate) fn decode_proposal(r: &mut Reader<'_>) -> Result<Proposal, Malformed> {
    match r.u8("proposal kind")? {
        0 => Ok(Proposal::Null),
        1 => Ok(Proposal::Frames {
            time: AgreedTime(r.u64("proposal time")?),
            entries: decode_entries(r)?,
        }),
        _ => Err(Malformed("proposal kind")),
    }
}

fn encode_entries(entries: &[BatchEntry], out: &mut Vec<u8>) {
    Writer::new(out).count(entries.len());
    for entry in entries {
        encode_entry(entry, out);
    }
}

fn encode_entry(entry: &BatchEntry, out: &mut Vec<u8>) {
    Writer::new(out)
        .u32(entry.id.client.0)
        .u64(entry.id.session.0)
        .u32(entry.id.stream)
        .u64(entry.id.id)
        .digest(entry.digest);
}

fn encode_held(kind: u8, view: View, entries: &[(BatchEntry, Seq)], out: &mut Vec<u8>) {
    Writer::new(out).u8(kind).u64(view.0).count(entries.len());
    for (entry, executed) in entries {
        encode_entry(entry, out);
        Writer::new(out).u64(executed.0);
    }
}

fn decode_held(r: &mut Reader<'_>) -> Result<(View, Vec<(BatchEntry, Seq)>), Malformed> {
    let view = View(r.u64("endorsed view")?);
    let count = r.count(ENDORSE_MAX, HELD_BYTES, "endorsed count")?;
    let one = |_| Ok((decode_entry(r)?, Seq(r.u64("endorser's number")?)));
    Ok((view, (0..count).map(one).collect::<Result<_, _>>()?))
}

fn decode_entries(r: &mut Reader<'_>) -> Result<Vec<BatchEntry>, Malformed> {
    let count = r.count(limits::BATCH_FRAMES_MAX, ENTRY_BYTES, "entry count")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(decode_entry(r)?);
    }
    Ok(entries)
}

fn decode_entry(r: &mut Reader<'_>) -> Result<BatchEntry, Malformed> {
    let id = FrameId {
        client: ClientId(r.u32("entry principal")?),
        session: SessionId(r.u64("entry session")?),
        stream: r.u32("entry stream")?,
        id: r.u64("entry id")?,
    };
    Ok(BatchEntry { id, digest: r.digest("entry digest")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Authenticator, FrameBuilder};
    use std::vec;

    fn samples() -> Vec<Message> {
        let id = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };
        let entry = BatchEntry { id, digest: Digest([9; 32]) };
        let entries = vec![entry];
        let proposal = Proposal::Frames { time: AgreedTime(5), entries: entries.clone() };
        let vote = Vote { view: View(1), seq: Seq(2), digest: Digest([3; 32]) };
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        let frame = builder.request(GroupId::default(), id, 0, |_| Authenticator::Vector(vec![]));
        vec![
            Message::PrePrepare { view: View(7), seq: Seq(8), proposal: proposal.clone() },
            Message::PrePrepare { view: View(7), seq: Seq(8), proposal: Proposal::Null },
            Message::Prepare(vote),
            Message::Commit(vote),
            Message::Nulls(Nulls {
                phase: NullPhase::Prepare,
                view: View(1),
                first: Seq(2),
                count: 9,
            }),
            Message::Vouch { executed: Seq(7), entries: entries.clone() },
            Message::Fetch { seq: Seq(8), entries },
            Message::Body { vouched: true, frame: Arc::new(frame.clone()) },
            Message::Forward(Arc::new(frame)),
            Message::Checkpoint(Checkpoint {
                seq: Seq(512),
                digest: Digest([1; 32]),
                signature: Signature([2; 64]),
            }),
            Message::Status { view: View(1), stable: Seq(0), delivered: Seq(4) },
            Message::Decided { seq: Seq(8), proposal: proposal.clone() },
            Message::FetchProposal { seq: Seq(8), digest: Digest([4; 32]) },
            Message::ProposalIs { seq: Seq(8), proposal },
            Message::Endorse { view: View(1), entries: vec![(entry, Seq(7))] },
            Message::Owed { view: View(1), entries: vec![(entry, Seq(0)), (entry, Seq(6))] },
        ]
    }

    #[test]
    fn messages_survive_the_wire_and_no_prefix_of_one_is_a_message() {
        for message in samples() {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            assert!(bytes.len() <= message.encoded_len_max(), "{message:?}");
            let mut r = Reader::new(&bytes);
            assert_eq!(Message::decode(GroupId::default(), &mut r), Ok(message));
            assert!(r.is_empty());
            for len in 0..bytes.len() {
                assert!(
                    Message::decode(GroupId::default(), &mut Reader::new(&bytes[..len])).is_err()
                );
            }
        }
    }

    #[test]
    fn an_entry_count_beyond_what_is_there_allocates_nothing() {
        let bytes = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
        let got = Message::decode(GroupId::default(), &mut Reader::new(&bytes));
        assert_eq!(got, Err(Malformed("entry count")));
        let bytes = [12, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0];
        let got = Message::decode(GroupId::default(), &mut Reader::new(&bytes));
        assert_eq!(got, Err(Malformed("endorsed count")));
    }
}
