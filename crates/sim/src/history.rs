//! Whether a client history of counters is linearizable.
//!
//! A counter's answers say where an operation stands: an `add` that answered v is the v-th, and a
//! `read` that answered v stands between the v-th `add` and the one before. So the order is known
//! up to reads of one value, and the history is linearizable exactly if nothing that stands later
//! had ended before something that stands earlier began. O(n log n).

use std::collections::{BTreeMap, BTreeSet};

use base::Time;

/// What was asked of a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ask {
    /// The value.
    Read,
    /// One more; answers the value before.
    Add,
}

/// An operation that has an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Done {
    /// The order: reads of a value stand before the `add` that ends it.
    place: (u64, Ask),
    began: Time,
    ended: Time,
}

/// All operations that clients have answers to, by counter.
#[derive(Clone, Debug, Default)]
pub struct History {
    done: BTreeMap<u32, Vec<Done>>,
}

impl History {
    /// An operation on `counter` that was asked at `began` has the answer `value` at `ended`.
    pub fn record(&mut self, counter: u32, ask: Ask, value: u64, began: Time, ended: Time) {
        let done = Done { place: (value, ask), began, ended };
        self.done.entry(counter).or_default().push(done);
    }

    /// Operations so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.values().map(Vec::len).sum()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks the history; once every client has all its answers, `complete`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, complete: bool) -> Result<(), String> {
        for (counter, done) in &self.done {
            check_counter(done, complete).map_err(|why| format!("counter {counter}: {why}"))?;
        }
        Ok(())
    }
}

fn check_counter(done: &[Done], complete: bool) -> Result<(), String> {
    let mut order = done.to_vec();
    order.sort_by_key(|one| (one.place, one.began));
    let adds: Vec<u64> =
        order.iter().filter(|one| one.place.1 == Ask::Add).map(|one| one.place.0).collect();
    let distinct: BTreeSet<u64> = adds.iter().copied().collect();
    if distinct.len() != adds.len() {
        return Err("two additions got one answer".into());
    }
    if complete && adds.last().is_some_and(|last| last + 1 != adds.len() as u64) {
        return Err(format!("{} additions, and the last is number {:?}", adds.len(), adds.last()));
    }
    let mut latest = Time::ZERO;
    for one in &order {
        if one.ended < latest {
            return Err(format!("{one:?} ended before something began that it stands behind"));
        }
        latest = latest.max(one.began);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(ops: &[(Ask, u64, u64, u64)]) -> Result<(), String> {
        let mut history = History::default();
        for (ask, value, began, ended) in ops {
            history.record(0, *ask, *value, Time(*began), Time(*ended));
        }
        history.check(true)
    }

    #[test]
    fn histories_are_told_apart() {
        use Ask::{Add, Read};
        assert_eq!(history(&[(Add, 0, 1, 5), (Add, 1, 2, 3), (Read, 1, 2, 4)]), Ok(()));
        assert_eq!(history(&[(Read, 0, 2, 9), (Add, 0, 1, 5), (Read, 1, 3, 9)]), Ok(()));
        assert!(history(&[(Add, 0, 1, 2), (Add, 0, 3, 4)]).is_err(), "executed twice, or lost");
        assert!(history(&[(Add, 1, 1, 2), (Add, 0, 3, 4)]).is_err(), "against real time");
        assert!(history(&[(Add, 0, 1, 2), (Read, 0, 3, 4)]).is_err(), "a stale read");
        assert!(history(&[(Read, 1, 1, 2), (Add, 0, 3, 4)]).is_err(), "a read of the future");
        assert!(history(&[(Add, 0, 1, 2), (Add, 2, 3, 4)]).is_err(), "an addition of nobody");
    }
}
