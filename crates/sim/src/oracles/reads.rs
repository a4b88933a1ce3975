//! Reads without an order: between which batches each may stand, by what it saw.
//!
//! Knows what every counter was after every batch, as far as batches were executed anywhere. A
//! read stands behind a whole batch, at or after everything that had ended before it began, where
//! the counter was what it saw; of all such places the first is taken, for whatever comes later
//! has the most room then. Once all have a place, the history with the reads is linearizable
//! (`answers`). Sees a value that comes back for what it is: two places.
//!
//! Looks at counters alone (`crate::work`); other work has no reads.

use std::collections::BTreeMap;

use base::{Batch, Seq};

use super::executions::{Done, Place};
use crate::work::counters::Question;

/// What a client has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Of which counter.
    pub counter: u32,
    /// Only whether it is odd.
    pub parity: bool,
    /// The answer.
    pub value: u64,
}

/// What every counter was after which batch.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    counts: BTreeMap<u32, Vec<(Seq, u64)>>,
}

impl Reads {
    /// A number was executed somewhere for the first time.
    pub fn follows(&mut self, seq: Seq, batch: &Batch, done: &Done) {
        let Batch::Frames { frames, .. } = batch else { return };
        let ops = frames.iter().flat_map(|frame| frame.ops());
        for (index, op) in (1..).zip(ops) {
            let executed = done.executions.iter().any(|one| one.index == index);
            let Some(counter) = Question::added_to(op).filter(|_| executed) else { continue };
            let counts = self.counts.entry(counter).or_default();
            let count = counts.last().map_or(0, |(_, count)| *count) + 1;
            match counts.last_mut() {
                Some((last, known)) if *last == seq => *known = count,
                _ => counts.push((seq, count)),
            }
        }
    }

    /// The first place at or after `from` where `read` sees what it saw, if there is one.
    #[must_use]
    pub fn place(&self, read: &Read, from: Place) -> Option<Place> {
        let sees = |count: u64| read.value == if read.parity { count % 2 } else { count };
        let counts = self.counts.get(&read.counter).map_or(&[][..], Vec::as_slice);
        let later = counts.partition_point(|(seq, _)| *seq <= from.0);
        let now = later.checked_sub(1).map_or(0, |at| counts[at].1);
        if sees(now) {
            return Some((from.0, u32::MAX));
        }
        let found = counts[later..].iter().find(|(_, count)| sees(*count));
        found.map(|(seq, _)| (*seq, u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_stands_where_it_saw_what_there_was() {
        let counts = BTreeMap::from([(7, vec![(Seq(2), 1), (Seq(5), 3), (Seq(6), 4)])]);
        let reads = Reads { counts };
        let place = |parity, value, from: (u64, u32)| {
            let read = Read { counter: 7, parity, value };
            reads.place(&read, (Seq(from.0), from.1)).map(|(seq, _)| seq.0)
        };
        assert_eq!(place(false, 0, (0, 0)), Some(0));
        assert_eq!(place(false, 3, (0, 0)), Some(5));
        assert_eq!(place(false, 2, (0, 0)), None, "in the middle of a batch");
        assert_eq!(place(false, 1, (4, 1)), Some(4));
        assert_eq!(place(false, 1, (5, 1)), None, "it is more by then");
        assert_eq!(place(true, 0, (2, 0)), Some(6), "it has come back");
        assert_eq!(place(true, 0, (0, 9)), Some(0));
        assert_eq!(place(true, 1, (9, 0)), None);
        let other = Read { counter: 8, parity: false, value: 0 };
        assert_eq!(reads.place(&other, (Seq(9), 0)), Some((Seq(9), u32::MAX)));
    }
}
