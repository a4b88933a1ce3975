//! How much waits to be written to each client: over all connections of a principal, and over each.
//!
//! A principal may have hundreds of connections, and what each of them may leave unread would be a
//! replica's memory together. So a bound holds for the sum. Where it is passed, the connection goes
//! on which most waits: the others of the principal may be read by somebody else, who is not to
//! suffer.
//!
//! Nothing is looked up by name, for a sum is kept with each reply: by its slot, a connection knows
//! the number of its principal's sum.
//!
//! Not here: what waits (`conn`), what is done beyond the bound (`answers`). Depends on nothing.

/// What waits to be written to the clients of one lane, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Of each slot that a client's connection has: whose it is, and what waits on it.
    slots: Vec<Option<Waiting>>,
    /// What waits for each principal.
    sums: Vec<usize>,
    /// Numbers of sums that nobody has.
    free: Vec<Purse>,
}

/// The number of a principal's sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Purse(usize);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    purse: Purse,
    bytes: usize,
}

impl Unread {
    /// A sum for a principal that has none.
    pub(crate) fn begin(&mut self) -> Purse {
        self.free.pop().unwrap_or_else(|| {
            self.sums.push(0);
            Purse(self.sums.len() - 1)
        })
    }

    /// The principal of this sum has no connection any more.
    pub(crate) fn end(&mut self, purse: Purse) {
        debug_assert_eq!(self.sums[purse.0], 0, "what waited went with its connection");
        self.free.push(purse);
    }

    /// The connection on `slot` is one of this principal's.
    pub(crate) fn up(&mut self, slot: usize, purse: Purse) {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot] = Some(Waiting { purse, bytes: 0 });
    }

    /// It is gone, and what waited on it.
    pub(crate) fn down(&mut self, slot: usize) {
        self.set(slot, 0);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = None;
        }
    }

    /// So much waits on `slot` now. Does nothing if that is no client's.
    pub(crate) fn set(&mut self, slot: usize, bytes: usize) {
        if let Some(Some(waiting)) = self.slots.get_mut(slot) {
            let sum = &mut self.sums[waiting.purse.0];
            *sum = *sum - waiting.bytes + bytes;
            waiting.bytes = bytes;
        }
    }

    /// What waits on all connections of the principal that has `slot`.
    pub(crate) fn of_principal(&self, slot: usize) -> usize {
        let waiting = self.slots.get(slot).copied().flatten();
        waiting.map_or(0, |waiting| self.sums[waiting.purse.0])
    }

    /// That one of its connections on which most waits. Looks at all connections of the lane.
    pub(crate) fn longest(&self, slot: usize) -> Option<usize> {
        let purse = self.slots.get(slot).copied().flatten()?.purse;
        let all = self.slots.iter().enumerate();
        let own = all.filter_map(|(at, waiting)| Some((at, waiting.filter(|w| w.purse == purse)?)));
        own.max_by_key(|(_, waiting)| waiting.bytes).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_of_a_principal_count_together_and_those_of_others_do_not() {
        let mut unread = Unread::default();
        let (one, other) = (unread.begin(), unread.begin());
        for (slot, purse) in [(3, one), (0, other), (7, one)] {
            unread.up(slot, purse);
        }
        unread.set(3, 100);
        unread.set(7, 300);
        unread.set(0, 1_000);
        assert_eq!([3, 7, 0].map(|slot| unread.of_principal(slot)), [400, 400, 1_000]);
        assert_eq!([3, 7, 0].map(|slot| unread.longest(slot)), [Some(7), Some(7), Some(0)]);
        // It reads some.
        unread.set(7, 50);
        assert_eq!((unread.of_principal(3), unread.longest(7)), (150, Some(3)));
        unread.down(3);
        assert_eq!((unread.of_principal(7), unread.longest(7)), (50, Some(7)));
    }

    #[test]
    fn what_nobody_has_counts_for_nobody_and_numbers_are_used_again() {
        let mut unread = Unread::default();
        unread.set(5, 100);
        unread.down(5);
        assert_eq!((unread.of_principal(5), unread.longest(5)), (0, None));
        for _ in 0..100 {
            let purse = unread.begin();
            unread.up(2, purse);
            assert_eq!(unread.of_principal(2), 0);
            unread.set(2, 10);
            unread.down(2);
            unread.end(purse);
        }
        assert_eq!((unread.sums.len(), unread.slots.len()), (1, 3));
    }
}
