//! A replica's vote log, without a disk: which records are durable, and what waits for them.
//!
//! One log for all pillars and the coordinator, in the order of writing; whatever becomes durable
//! is a prefix of it (group commit). Every part's effects that depend on durability wait in their
//! order (design §3.9). Not here: the bytes of records, torn blocks, checksums (`rt`'s log has
//! its own tests).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Digest, GroupId, PillarId, Seq, ToStage, View};
use proto::group;
use proto::pbft::msg::{Message, Proposal};
use proto::{Effect, Record, When};

use crate::events::Part;

/// What waits.
pub(crate) enum Held {
    Lane(PillarId, Effect),
    Coordinator(group::Effect),
}

/// The log of one replica.
#[derive(Default)]
pub(crate) struct Journal {
    group: GroupId,
    /// Places of records that were cut are empty.
    log: Vec<Option<Record>>,
    durable: usize,
    /// What waits, with the length of log that must be durable for it; in order per part.
    held: VecDeque<(usize, Held)>,
    /// The length of the log after each part's last record.
    written: BTreeMap<Part, usize>,
    /// A flush is under way.
    pub(crate) flushing: bool,
    /// What durable records say: kept when the records are trimmed.
    promised: BTreeSet<(u8, View, Seq, Digest)>,
    left: View,
}

const Q: u8 = 0;
const P: u8 = 1;

impl Journal {
    pub(crate) fn new(group: GroupId) -> Journal {
        Journal { group, ..Journal::default() }
    }

    /// A log that begins with what an earlier life left on disk.
    pub(crate) fn reopen(group: GroupId, log: Vec<Record>) -> Journal {
        let log = log.into_iter().map(Some).collect();
        let mut journal = Journal { log, ..Journal::new(group) };
        journal.flushed(journal.log.len());
        journal
    }

    pub(crate) fn len(&self) -> usize {
        self.log.len()
    }

    pub(crate) fn durable(&self) -> usize {
        self.durable
    }

    /// What the log holds after a crash that spares `upto` records.
    pub(crate) fn into_records(mut self, upto: usize) -> Vec<Record> {
        self.log.truncate(upto);
        self.log.into_iter().flatten().collect()
    }

    /// What is at or below `seq` is needed no more.
    pub(crate) fn cut(&mut self, seq: Seq) {
        for record in &mut self.log[..self.durable] {
            if record.as_ref().and_then(Record::seq).is_some_and(|of| of <= seq) {
                *record = None;
            }
        }
    }

    /// Takes an effect. Gives it back when it may be carried out now.
    pub(crate) fn admit(&mut self, held: Held) -> Option<Held> {
        let part = match &held {
            Held::Lane(pillar, _) => Part::Lane(*pillar),
            Held::Coordinator(_) => Part::Coordinator,
        };
        let record = match held {
            Held::Lane(_, Effect::Persist(record)) => record,
            Held::Coordinator(group::Effect::Persist(record)) => Record::Group(record),
            held => {
                let needs = self.written.get(&part).copied().unwrap_or(0);
                if !depends(&held) || needs <= self.durable {
                    return Some(held);
                }
                self.held.push_back((needs, held));
                return None;
            }
        };
        self.log.push(Some(record));
        self.written.insert(part, self.log.len());
        None
    }

    /// The first `upto` records are durable: what waited for them may go.
    pub(crate) fn flushed(&mut self, upto: usize) -> Vec<Held> {
        for record in self.log[self.durable.min(upto)..upto].iter().flatten() {
            match record {
                Record::PrePrepared { view, seq, proposal, .. } => {
                    let digest = proposal.digest(self.group, *seq);
                    self.promised.insert((Q, *view, *seq, digest));
                }
                Record::Prepared { view, seq, digest } => {
                    self.promised.insert((P, *view, *seq, *digest));
                }
                Record::Group(group::record::GroupRecord::Left { view }) => {
                    self.left = self.left.max(*view);
                }
                _ => {}
            }
        }
        self.durable = self.durable.max(upto);
        let (go, stay) = self.held.drain(..).partition(|(needs, _)| *needs <= upto);
        self.held = stay;
        let go: VecDeque<(usize, Held)> = go;
        go.into_iter().map(|(_, held)| held).collect()
    }

    /// Durable before promise: what `message` promises is written.
    ///
    /// # Panics
    /// When it is not.
    pub(crate) fn check_promise(&self, message: &Message) {
        let promised = |kind, view, seq, digest| self.promised.contains(&(kind, view, seq, digest));
        let ok = match message {
            Message::PrePrepare { view, seq, proposal } => {
                promised(Q, *view, *seq, Proposal::digest(proposal, self.group, *seq))
            }
            Message::Prepare(vote) => promised(Q, vote.view, vote.seq, vote.digest),
            Message::Commit(vote) => promised(P, vote.view, vote.seq, vote.digest),
            Message::Group(message) => match &**message {
                group::msg::GroupMessage::ViewChange(change) => self.left >= change.view,
                _ => true,
            },
            _ => true,
        };
        assert!(ok, "a promise left before its record was durable: {message:?}");
    }
}

/// Whether an effect waits for the records before it.
fn depends(held: &Held) -> bool {
    match held {
        Held::Lane(_, effect) => match effect {
            Effect::Send { when, .. } => *when == When::Durable,
            Effect::Stage(message) => matches!(message, ToStage::Deliver { .. }),
            _ => false,
        },
        Held::Coordinator(effect) => match effect {
            group::Effect::Send { when, .. } => *when == When::Durable,
            group::Effect::Lanes(_) => true,
            _ => false,
        },
    }
}
