//! The bytes of a [`Record`]: what the vote log holds.
//!
//! A version byte, a kind byte, then the fields; canonical, like every encoding here. A batch is
//! written as its proposal and the bodies that the proposal names, in its order: reading checks
//! that they belong together, so that a log never yields a batch that nobody proposed. Which
//! bytes of a file are a record, and whether they are intact, is the log's business.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, Frame, GroupId, Malformed, Reader, Seq, View, Writer};

use crate::group::record::GroupRecord;
use crate::outbox::Record;
use crate::pbft::msg::{Proposal, decode_proposal, decode_seq, encode_proposal};

/// Version of the encoding.
const RECORD_VERSION: u8 = 1;

impl Record {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out).u8(RECORD_VERSION);
        match self {
            Record::PrePrepared { view, seq, proposal, batch } => {
                Writer::new(out).u8(1).u64(view.0).u64(seq.0);
                encode_batch(proposal, batch, out);
            }
            Record::Prepared { view, seq, digest } => {
                Writer::new(out).u8(2).u64(view.0).u64(seq.0).digest(*digest);
            }
            Record::Committed { seq, digest, batch } => {
                Writer::new(out).u8(3).u64(seq.0).digest(*digest).u8(u8::from(batch.is_some()));
                if let Some((proposal, batch)) = batch {
                    encode_batch(proposal, batch, out);
                }
            }
            Record::Group(record) => {
                Writer::new(out).u8(4);
                record.encode(out);
            }
        }
    }

    /// Reads one record of the group.
    ///
    /// # Errors
    /// When the bytes are no record: of another version, cut off, or with bodies that are not
    /// those of the proposal.
    pub fn decode(group: GroupId, r: &mut Reader<'_>) -> Result<Record, Malformed> {
        if r.u8("record version")? != RECORD_VERSION {
            return Err(Malformed("record version"));
        }
        Ok(match r.u8("record kind")? {
            1 => {
                let view = View(r.u64("record view")?);
                let seq = decode_seq(r)?;
                let (proposal, batch) = decode_batch(group, r)?;
                Record::PrePrepared { view, seq, proposal, batch }
            }
            2 => Record::Prepared {
                view: View(r.u64("record view")?),
                seq: decode_seq(r)?,
                digest: r.digest("record digest")?,
            },
            3 => decode_committed(group, r)?,
            4 => Record::Group(GroupRecord::decode(r)?),
            _ => return Err(Malformed("record kind")),
        })
    }

    /// The number that the record is about: a record at or below a durable checkpoint is not
    /// needed any more. `None` for the coordinator's.
    #[must_use]
    pub fn seq(&self) -> Option<Seq> {
        match self {
            Record::PrePrepared { seq, .. }
            | Record::Prepared { seq, .. }
            | Record::Committed { seq, .. } => Some(*seq),
            Record::Group(_) => None,
        }
    }
}

fn decode_committed(group: GroupId, r: &mut Reader<'_>) -> Result<Record, Malformed> {
    let seq = decode_seq(r)?;
    let digest = r.digest("record digest")?;
    let batch = match r.u8("record flag")? {
        0 => None,
        1 => Some(decode_batch(group, r)?),
        _ => return Err(Malformed("record flag")),
    };
    if batch.as_ref().is_some_and(|(proposal, _)| proposal.digest(group, seq) != digest) {
        return Err(Malformed("record digest"));
    }
    Ok(Record::Committed { seq, digest, batch })
}

fn encode_batch(proposal: &Proposal, batch: &Batch, out: &mut Vec<u8>) {
    encode_proposal(proposal, out);
    if let Batch::Frames { frames, .. } = batch {
        debug_assert_eq!(frames.len(), proposal.entries().len());
        frames.iter().for_each(|frame| frame.encode(out));
    }
}

fn decode_batch(group: GroupId, r: &mut Reader<'_>) -> Result<(Proposal, Arc<Batch>), Malformed> {
    let proposal = decode_proposal(r)?;
    let batch = match &proposal {
        Proposal::Null => Batch::Null,
        Proposal::Frames { time, entries } => {
            // What is left of the record bounds how many frames there can be.
            let mut frames = Vec::new();
            for entry in entries {
                let frame = Frame::decode(group, r)?;
                if (frame.id(), frame.digest()) != (entry.id, entry.digest) {
                    return Err(Malformed("record body"));
                }
                frames.push(Arc::new(frame));
            }
            Batch::Frames { time: *time, frames }
        }
    };
    Ok((proposal, Arc::new(batch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{
        AgreedTime, Authenticator, BatchEntry, ClientId, Digest, FrameBuilder, FrameId, SessionId,
    };
    use std::vec;

    const GROUP: GroupId = GroupId([3; 32]);

    fn batch(op: &[u8]) -> (Proposal, Arc<Batch>) {
        let id = FrameId { client: ClientId(1), session: SessionId(2), stream: 3, id: 4 };
        let mut builder = FrameBuilder::new();
        builder.push(op);
        let frame = builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![]));
        let time = AgreedTime(7);
        let entries = vec![BatchEntry { id, digest: frame.digest() }];
        let frames = vec![Arc::new(frame)];
        (Proposal::Frames { time, entries }, Arc::new(Batch::Frames { time, frames }))
    }

    fn samples() -> Vec<Record> {
        let (proposal, body) = batch(b"op");
        let (view, seq) = (View(2), Seq(9));
        let digest = proposal.digest(GROUP, seq);
        let null = (Proposal::Null, Arc::new(Batch::Null));
        let null_digest = Proposal::Null.digest(GROUP, seq);
        vec![
            Record::PrePrepared { view, seq, proposal: proposal.clone(), batch: body.clone() },
            Record::PrePrepared { view, seq, proposal: null.0.clone(), batch: null.1.clone() },
            Record::Prepared { view, seq, digest },
            Record::Committed { seq, digest, batch: None },
            Record::Committed { seq, digest, batch: Some((proposal, body)) },
            Record::Committed { seq, digest: null_digest, batch: Some(null) },
        ]
    }

    #[test]
    fn records_survive_the_log_and_no_prefix_of_one_is_a_record() {
        for record in samples() {
            let mut bytes = vec![];
            record.encode(&mut bytes);
            let mut r = Reader::new(&bytes);
            assert_eq!(Record::decode(GROUP, &mut r), Ok(record));
            assert!(r.is_empty());
            for len in 0..bytes.len() {
                assert!(Record::decode(GROUP, &mut Reader::new(&bytes[..len])).is_err());
            }
        }
    }

    #[test]
    fn other_versions_other_bodies_and_other_digests_are_refused() {
        let ((proposal, _), (_, other)) = (batch(b"op"), batch(b"another"));
        let (view, seq) = (View(0), Seq(1));
        let refused = |record: &Record| {
            let mut bytes = vec![];
            record.encode(&mut bytes);
            Record::decode(GROUP, &mut Reader::new(&bytes))
        };
        let mixed = Record::PrePrepared { view, seq, proposal, batch: other };
        assert_eq!(refused(&mixed), Err(Malformed("record body")));
        let null = Some((Proposal::Null, Arc::new(Batch::Null)));
        let lie = Record::Committed { seq, digest: Digest([1; 32]), batch: null };
        assert_eq!(refused(&lie), Err(Malformed("record digest")));
        let mut bytes = vec![];
        samples()[2].encode(&mut bytes);
        bytes[0] = 2;
        let got = Record::decode(GROUP, &mut Reader::new(&bytes));
        assert_eq!(got, Err(Malformed("record version")));
    }
}
