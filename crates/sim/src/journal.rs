//! The seam between a replica's cores and its log: what gathers for the next group commit, and
//! what durable records have promised.
//!
//! Which effects wait, and for what, is the very journal that `rt` runs (`durable`); here is who
//! stands in for the writer's thread. Also the check that nothing is promised to anybody before
//! its record is durable (design §3.9), and that a replica that begins whole knows all of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use base::{Digest, GroupId, Seq, View};
use durable::{Boot, Party, Portion};
use proto::group::msg::GroupMessage;
use proto::group::record::GroupRecord;
use proto::pbft::msg::{Message, Proposal};
use proto::{Effect, Record, group};

use crate::host::GROUP;
use crate::options::{Durability, Options};

/// The journal of one core.
pub(crate) type Journal<E> = durable::Journal<E, SimParty>;

/// Records that gather for the next group commit, or are on their way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) portion: Portion,
    /// The last ticket of each party in it, where there is one.
    tickets: Vec<(usize, u64)>,
    records: Vec<Record>,
}

/// What the parties of a replica share.
#[derive(Debug, Default)]
struct Desk {
    gathered: Gathered,
    /// Per party: up to which ticket its records are durable.
    durable: Vec<u64>,
}

/// One core's access to the log.
#[derive(Debug)]
pub(crate) struct SimParty {
    desk: Rc<RefCell<Desk>>,
    party: usize,
    ticket: u64,
    awaited: u64,
}

impl Party for SimParty {
    fn append(&mut self, record: &Record) -> u64 {
        let gathered = &mut self.desk.borrow_mut().gathered;
        record.encode(&mut gathered.portion.bytes);
        gathered.portion.ends.push((gathered.portion.bytes.len(), record.seq()));
        gathered.records.push(record.clone());
        self.ticket += 1;
        gathered.tickets.push((self.party, self.ticket));
        self.ticket
    }

    fn barrier(&mut self) -> u64 {
        self.ticket += 1;
        self.desk.borrow_mut().gathered.tickets.push((self.party, self.ticket));
        self.ticket
    }

    fn submit(&mut self, awaited: u64) {
        self.desk.borrow_mut().gathered.portion.urgent |= awaited > self.awaited;
        self.awaited = awaited;
    }

    fn carry(&mut self, records: Vec<Vec<u8>>) {
        self.desk.borrow_mut().gathered.portion.carried = Some(records);
    }

    fn recovered(&mut self) {
        let portion = &mut self.desk.borrow_mut().gathered.portion;
        (portion.recovered, portion.urgent) = (true, true);
    }

    fn durable(&self) -> u64 {
        self.desk.borrow().durable[self.party]
    }

    fn behind(&self) -> bool {
        false
    }
}

/// The journals of one replica's cores in one life.
#[derive(Debug)]
pub(crate) struct Journals {
    desk: Rc<RefCell<Desk>>,
    pub(crate) lanes: Vec<Journal<Effect>>,
    pub(crate) coordinator: Journal<group::Effect>,
}

impl Journals {
    pub(crate) fn new(options: &Options) -> Journals {
        let parties = usize::from(options.pillars) + 1;
        let desk = Desk { durable: vec![0; parties], ..Desk::default() };
        let desk = Rc::new(RefCell::new(desk));
        let keeps = options.durability != Durability::Memory;
        let party = |party| {
            let desk = Rc::clone(&desk);
            keeps.then_some(SimParty { desk, party, ticket: 0, awaited: 0 })
        };
        Journals {
            lanes: (1..parties).map(|lane| Journal::new(party(lane - 1))).collect(),
            coordinator: Journal::new(party(parties - 1)),
            desk,
        }
    }

    /// Takes what has gathered; none when that is nothing, or when it is nothing that anybody
    /// waits for and `lazy` is not.
    pub(crate) fn take(&self) -> Option<Gathered> {
        let gathered = &mut self.desk.borrow_mut().gathered;
        (!gathered.portion.is_empty()).then(|| std::mem::take(gathered))
    }

    /// Whether something has gathered, and whether somebody waits for it.
    pub(crate) fn waiting(&self) -> Option<bool> {
        let gathered = &self.desk.borrow().gathered;
        let urgent = gathered.portion.urgent || gathered.portion.trim.is_some();
        (!gathered.portion.ends.is_empty() || urgent).then_some(urgent)
    }

    /// The log is to be cut up to `seq`.
    pub(crate) fn trim(&self, seq: Seq) {
        let portion = &mut self.desk.borrow_mut().gathered.portion;
        portion.trim = portion.trim.max(Some(seq));
    }

    /// These records are durable now.
    pub(crate) fn settle(&self, written: &Gathered) {
        let durable = &mut self.desk.borrow_mut().durable;
        for (party, ticket) in &written.tickets {
            durable[*party] = *ticket;
        }
    }
}

/// What a replica has promised durably, kept over its lives.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    votes: BTreeSet<(Seq, u8, View, Digest)>,
    left: View,
    /// Up to which number all that was executed can be had again from disk or from the log, and
    /// what is there beyond it.
    settled: Seq,
    decided: BTreeSet<Seq>,
    /// Records that were written, and of which the next loss of power may leave nothing.
    written: Vec<Record>,
}

const Q: u8 = 0;
const P: u8 = 1;

impl Promises {
    /// A record is durable, or as durable as it will ever be.
    pub(crate) fn note(&mut self, record: &Record) {
        if let Some(vote) = vote(GROUP, record) {
            self.votes.insert(vote);
        }
        if let Record::Group(GroupRecord::Left { view }) = record {
            self.left = self.left.max(*view);
        }
        if let Record::Committed { seq, .. } = record {
            self.decided.insert(*seq);
            self.settle(self.settled);
        }
    }

    /// The state at `seq` is on disk.
    pub(crate) fn settle(&mut self, seq: Seq) {
        self.settled = self.settled.max(seq);
        self.decided = self.decided.split_off(&self.settled.next());
        while self.decided.remove(&self.settled.next()) {
            self.settled = self.settled.next();
        }
    }

    /// These records were written; if that is `durable`, so are all that were written before.
    pub(crate) fn note_all(&mut self, written: &Gathered, durable: bool) {
        self.written.extend_from_slice(&written.records);
        if durable {
            std::mem::take(&mut self.written).iter().for_each(|record| self.note(record));
        }
    }

    /// A life that knows nothing of what was promised.
    pub(crate) fn forget(&mut self) {
        *self = Promises::default();
    }

    /// What a life finds on its disk is all that it has.
    pub(crate) fn begin(&mut self, boot: &Boot) {
        (self.settled, self.decided) = (boot.stable.seq, BTreeSet::new());
        self.written.clear();
        boot.records.iter().flatten().for_each(|record| self.note(record));
    }

    /// A life that begins whole knows what was promised above the checkpoint it begins with.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn check_start(&mut self, boot: &Boot) {
        let records = boot.records.iter().flatten();
        let known: BTreeSet<_> = records.filter_map(|record| vote(GROUP, record)).collect();
        let above = (boot.begins_above().next(), 0, View(0), Digest::ZERO);
        for promised in self.votes.range(above..) {
            assert!(known.contains(promised), "a vote that was durable is forgotten: {promised:?}");
        }
        let left = boot.group_records.iter().filter_map(|record| match record {
            GroupRecord::Left { view } => Some(*view),
            GroupRecord::Installed(new_view) => Some(new_view.view),
            _ => None,
        });
        let left = left.max().unwrap_or_default();
        assert!(left >= self.left, "it had left {:?} behind, and knows of {left:?}", self.left);
        self.votes.extend(known);
    }

    /// Durable before promise: that something is prepared is written before anybody is answered
    /// on the ground of it.
    ///
    /// # Panics
    /// When it is not.
    pub(crate) fn check_prepared(&self, seq: Seq, view: View) {
        let first = (seq, P, view, Digest::ZERO);
        let known = self.votes.range(first..).next();
        let ok = known.is_some_and(|(s, kind, v, _)| (*s, *kind, *v) == (seq, P, view));
        assert!(ok, "{seq:?} executes tentatively in {view:?}, and its record is not durable");
    }

    /// Durable before promise: what `message` promises is written.
    ///
    /// # Panics
    /// When it is not.
    pub(crate) fn check(&self, message: &Message) {
        let promised = |kind, view, seq, digest| self.votes.contains(&(seq, kind, view, digest));
        let ok = match message {
            Message::PrePrepare { view, seq, proposal } => {
                promised(Q, *view, *seq, Proposal::digest(proposal, GROUP, *seq))
            }
            Message::Prepare(vote) => promised(Q, vote.view, vote.seq, vote.digest),
            Message::Commit(vote) => promised(P, vote.view, vote.seq, vote.digest),
            Message::Checkpoint(checkpoint) => self.settled >= checkpoint.seq,
            Message::Group(message) => match &**message {
                GroupMessage::ViewChange(change) => self.left >= change.view,
                GroupMessage::HaveState { seq, .. } => self.settled >= *seq,
                _ => true,
            },
            _ => true,
        };
        assert!(ok, "a promise left before its record was durable: {message:?}");
    }
}

/// What a record promises about a number.
fn vote(group: GroupId, record: &Record) -> Option<(Seq, u8, View, Digest)> {
    match record {
        Record::PrePrepared { view, seq, proposal, .. } => {
            Some((*seq, Q, *view, proposal.digest(group, *seq)))
        }
        Record::Prepared { view, seq, digest } => Some((*seq, P, *view, *digest)),
        Record::Committed { .. } | Record::Group(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use base::{Incarnation, ReplicaId};
    use store::{Beginning, Dir, Identity, LogOptions, Opened, Voice};

    use super::*;
    use crate::storage::SimStorage;

    fn committed(seq: u64) -> Gathered {
        let mut gathered = Gathered::default();
        let record = Record::Committed { seq: Seq(seq), digest: Digest::ZERO, batch: None };
        let portion = &mut gathered.portion;
        record.encode(&mut portion.bytes);
        portion.ends.push((portion.bytes.len(), record.seq()));
        gathered.records.push(record);
        gathered
    }

    #[test]
    fn what_is_only_written_is_durable_with_the_next_sync() {
        let storage = SimStorage::new(0);
        let identity = Identity { group: GROUP, replica: ReplicaId(0) };
        let opened = Dir::open(Path::new("state"), identity, Arc::new(storage.clone()));
        let Opened { mut dir, .. } = opened.expect("opens");
        let first = Beginning { voice: Voice::Whole, why: String::new() };
        let layout = LogOptions { segment_bytes: 64 << 10 };
        let log = dir.begin(&first, Incarnation(1), store::Durability::Sync, layout);
        let mut log = log.expect("nothing fails").expect("a log");
        let mut promises = Promises::default();
        let mut write = |gathered: Gathered, sync: bool| {
            gathered.portion.write(&mut log, sync).expect("nothing fails");
            promises.note_all(&gathered, storage.log_is_durable());
            promises.settled
        };
        for seq in 1..=3 {
            assert_eq!(write(committed(seq), true), Seq(0), "nobody waits for it");
        }
        let barrier = || {
            let portion = Portion { urgent: true, ..Portion::default() };
            Gathered { portion, ..Gathered::default() }
        };
        assert_eq!(write(barrier(), false), Seq(0), "it was handed to the system");
        assert_eq!(write(barrier(), true), Seq(3));
    }
}
