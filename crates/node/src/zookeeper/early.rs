//! Events that are there before a client can be told of them: what comes before them is still on
//! its way, or the client takes nothing. Not here: when it is told ([`super::conn`]).
//!
//! Invariant: [`Early::bytes`] is what the waiting events take.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use svc::zk::op::{Event, Events};

/// Events of one connection that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Early {
    batches: VecDeque<Events>,
    bytes: usize,
}

impl Early {
    /// Bytes that the waiting events take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none wait.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// These wait as well.
    pub(super) fn push(&mut self, events: Events) {
        self.bytes += bytes_of(&events);
        self.batches.push_back(events);
    }

    /// The first ones, if the number of their first is one of these; they wait no more.
    pub(super) fn take(&mut self, numbers: RangeInclusive<u64>) -> Option<Events> {
        let first = self.batches.front()?.first;
        let events = numbers.contains(&first).then(|| self.batches.pop_front())??;
        self.bytes -= bytes_of(&events);
        Some(events)
    }
}

fn bytes_of(events: &Events) -> usize {
    let paths: usize = events.list.iter().map(|event| event.path.len()).sum();
    size_of::<Events>() + events.list.len() * size_of::<Event>() + paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_until_it_is_taken() {
        let event = |bytes: usize| Event { kind: 1, path: "x".repeat(bytes).into() };
        let mut early = Early::default();
        assert!(early.is_empty() && early.take(0..=u64::MAX).is_none());
        early.push(Events { first: 7, list: vec![event(1000), event(500)] });
        let one = early.bytes();
        assert!(one >= 1500);
        // A batch without events takes memory, too.
        early.push(Events { first: 9, list: vec![] });
        assert!(early.bytes() > one && early.take(8..=9).is_none());
        assert_eq!(early.take(7..=7).map(|events| events.list.len()), Some(2));
        assert_eq!(early.take(0..=9).map(|events| events.first), Some(9));
        assert_eq!((early.bytes(), early.is_empty()), (0, true));
    }
}
