//! The seam between a core's effects and durability: what may be carried out now, and what has
//! to wait for the disk.
//!
//! Held back, in the order in which a core wants it done, is everything that says to somebody
//! that a record is there: promises to peers, deliveries to the stage, and what lanes and
//! coordinator tell each other. Everything else leaves at once. Durability `memory` is a journal
//! without a log: it drops records and holds nothing.
//!
//! Invariants:
//! 1. an effect that was held leaves after all that were held before it; but messages beyond
//!    [`HELD_SENDS_MAX`] do not leave at all;
//! 2. it leaves only when every record that was admitted before it is durable, except those that
//!    only a CHECKPOINT waits for ([`Record::Committed`]); that leaves when all are durable that
//!    any core had handed over by then;
//! 3. a promise leaves only after the records of its turn were handed over: what follows from it
//!    in another core finds them on their way to the disk.
//!
//! Not here: who writes records, and when: that is a [`Party`]'s.

use std::collections::VecDeque;

use base::{Seq, ToStage};
use proto::group::record::GroupRecord;
use proto::{Effect, Record, When, group};

/// One core's access to the log that all cores of a replica share. What it appends goes nowhere
/// before [`Party::submit`].
pub trait Party {
    /// Takes a record; its ticket says when it is durable. Tickets grow, from 1.
    fn append(&mut self, record: &Record) -> u64;

    /// A ticket for everything that any party has handed over so far.
    fn barrier(&mut self) -> u64;

    /// Hands over what was appended. Somebody waits for the tickets up to `awaited`.
    fn submit(&mut self, awaited: u64);

    /// From now on each new segment of the log begins with these records.
    fn carry(&mut self, records: Vec<Vec<u8>>);

    /// With the next hand-over, the life file says that this life has recovered.
    fn recovered(&mut self);

    /// Up to which ticket this party's records are durable.
    fn durable(&self) -> u64;

    /// Whether too much waits for the disk.
    fn behind(&self) -> bool;
}

/// Messages to others that may wait for the disk. More of them are lost, as on a bad network:
/// what still matters is said again.
pub const HELD_SENDS_MAX: usize = 1 << 15;

/// What a journal has to know about an effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sorted<E> {
    /// To be written.
    Record(Record),
    /// Says that the records before it are there.
    Promise(E),
    /// Says that everything is there that was handed to execution up to this number.
    Settled(Seq, E),
    /// Says nothing about records.
    Free(E),
}

/// An effect that a journal can sort.
pub trait Journalled: Sized {
    /// Which of the three it is.
    fn sort(self) -> Sorted<Self>;

    /// Whether it is the first of them.
    fn is_record(&self) -> bool;

    /// Whether it is a message, which a network might lose as well.
    fn may_be_lost(&self) -> bool;
}

impl Journalled for Effect {
    fn sort(self) -> Sorted<Effect> {
        match self {
            Effect::Persist(record) => Sorted::Record(record),
            Effect::Send { when: When::Settled(seq), .. } => Sorted::Settled(seq, self),
            Effect::Stage(ToStage::Tentative { .. }) if base::mutant!(TentativeBeforeDurable) => {
                Sorted::Free(self)
            }
            Effect::Send { when: When::Durable, .. }
            // Tentative replies promise what a COMMIT does.
            | Effect::Stage(ToStage::Deliver { .. } | ToStage::Tentative { .. })
            | Effect::Coordinator(_) => Sorted::Promise(self),
            Effect::Send { when: When::Now, .. }
            | Effect::Stage(_)
            | Effect::Siblings(_)
            | Effect::Fact(_) => Sorted::Free(self),
        }
    }

    fn is_record(&self) -> bool {
        matches!(self, Effect::Persist(_))
    }

    fn may_be_lost(&self) -> bool {
        matches!(self, Effect::Send { .. })
    }
}

impl Journalled for group::Effect {
    fn sort(self) -> Sorted<group::Effect> {
        match self {
            group::Effect::Persist(record) => Sorted::Record(Record::Group(record)),
            group::Effect::Send { when: When::Settled(seq), .. } => Sorted::Settled(seq, self),
            group::Effect::Send { when: When::Durable, .. } | group::Effect::Lanes(_) => {
                Sorted::Promise(self)
            }
            group::Effect::Send { when: When::Now, .. }
            | group::Effect::State { .. }
            | group::Effect::Save(_)
            | group::Effect::Stage(_)
            | group::Effect::Fact(_) => Sorted::Free(self),
        }
    }

    fn is_record(&self) -> bool {
        matches!(self, group::Effect::Persist(_))
    }

    fn may_be_lost(&self) -> bool {
        matches!(self, group::Effect::Send { .. })
    }
}

/// Whether this effect of the coordinator changes what each new segment of the log has to begin
/// with. A stable checkpoint is said by the next one, too: not worth a copy of everything.
#[must_use]
pub fn is_carried(effect: &group::Effect) -> bool {
    matches!(effect, group::Effect::Persist(record) if !matches!(record, GroupRecord::Stable(_)))
}

/// Decides when the effects of one core may be carried out.
#[derive(Debug)]
pub struct Journal<E, L> {
    /// `None` in durability `memory`.
    log: Option<L>,
    /// Effects that wait, each for a ticket.
    held: VecDeque<(u64, E)>,
    /// The ticket that effects from now on wait for.
    after: u64,
    /// Records were admitted and not handed over yet.
    keeps: bool,
    /// Up to which number a barrier was asked for.
    settled: Seq,
}

impl<E: Journalled, L: Party> Journal<E, L> {
    /// A journal over `log`; without one nothing is written and nothing waits.
    #[must_use]
    pub fn new(log: Option<L>) -> Journal<E, L> {
        Journal { log, held: VecDeque::new(), after: 0, keeps: false, settled: Seq(0) }
    }

    /// Takes an effect. Returns it when it may be carried out now; keeps it, or consumes it when
    /// it is a record or one message too many, otherwise.
    pub fn admit(&mut self, effect: E) -> Option<E> {
        let Some(log) = &mut self.log else {
            // In this mode no record ever becomes more durable than it is.
            return (!effect.is_record()).then_some(effect);
        };
        match effect.sort() {
            Sorted::Record(record) => {
                let ticket = log.append(&record);
                self.keeps = true;
                if !matches!(record, Record::Committed { .. }) {
                    self.after = ticket;
                }
                None
            }
            Sorted::Settled(seq, effect) => {
                if seq > self.settled && !base::mutant!(CertifiesBeforeDurable) {
                    (self.settled, self.after) = (seq, log.barrier());
                }
                self.promise(effect)
            }
            Sorted::Promise(effect) => self.promise(effect),
            Sorted::Free(effect) => Some(effect),
        }
    }

    fn promise(&mut self, effect: E) -> Option<E> {
        let ripe = self.held.is_empty() && !self.keeps && self.ripe_at(self.after);
        if ripe || base::mutant!(PromisesNotHeld) {
            return Some(effect);
        }
        // A disk that stands still is no reason to hoard what is said again and again.
        if self.held.len() < HELD_SENDS_MAX || !effect.may_be_lost() {
            self.held.push_back((self.after, effect));
        }
        None
    }

    fn ripe_at(&self, ticket: u64) -> bool {
        self.log.as_ref().is_none_or(|log| log.durable() >= ticket)
    }

    /// From now on each new segment of the log begins with these records.
    pub fn carry<I: Iterator<Item = Record>>(&mut self, records: impl FnOnce() -> I) {
        if let Some(log) = &mut self.log {
            log.carry(
                records()
                    .map(|record| {
                        let mut bytes = Vec::new();
                        record.encode(&mut bytes);
                        bytes
                    })
                    .collect(),
            );
        }
    }

    /// This life has recovered: the life file is to say so, after the records before this.
    pub fn recovered(&mut self) {
        if let Some(log) = &mut self.log {
            log.recovered();
        }
    }

    /// Hands the records of this turn to the log.
    pub fn submit(&mut self) {
        self.keeps = false;
        if let Some(log) = &mut self.log {
            log.submit(self.after);
        }
    }

    /// The next effect that was kept and may be carried out by now.
    pub fn released(&mut self) -> Option<E> {
        if self.ripe() { self.held.pop_front().map(|(_, effect)| effect) } else { None }
    }

    /// Whether there is such an effect.
    #[must_use]
    pub fn ripe(&self) -> bool {
        !self.keeps && self.held.front().is_some_and(|(ticket, _)| self.ripe_at(*ticket))
    }

    /// Whether so much waits for the disk that clients have to be read more slowly.
    #[must_use]
    pub fn behind(&self) -> bool {
        self.log.as_ref().is_some_and(Party::behind)
    }

    /// Effects that wait for the disk.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}
