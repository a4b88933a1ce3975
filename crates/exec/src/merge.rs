//! The total-order merge: batches come from any pillar in any order and leave in the order of
//! their numbers, without a gap (COP §4.2.1).
//!
//! Not here: whether a batch was agreed on (the pillars' business) and what it does when it is
//! executed. Holds at most `window` batches; what does not fit is refused, not kept.
//!
//! Invariants:
//! 1. `slots[i]` holds number `taken + 1 + i`; the last slot, if any, is filled;
//! 2. there are at most `window` slots;
//! 3. a number is taken at most once, and only after all below it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;

use base::{Batch, Seq};

/// Batches on their way into the total order.
#[derive(Clone, Debug)]
pub struct Merge {
    taken: Seq,
    window: u64,
    slots: VecDeque<Option<Arc<Batch>>>,
    refused: u64,
    /// Whether null batches may be far ahead of everything else, so that none of them waits.
    nulls_ahead: bool,
    /// The highest number delivered so far whose batch is not null.
    framed: Seq,
}

/// Why a delivery was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undeliverable {
    /// The number is at or below what was taken out for execution already.
    Old,
    /// The number is further ahead than the window reaches.
    BeyondWindow,
    /// A batch with this number waits already. The first one stays.
    Twice,
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Undeliverable::Old => "its number is executed already",
            Undeliverable::BeyondWindow => "its number is beyond the window",
            Undeliverable::Twice => "its number is delivered already",
        })
    }
}

impl Merge {
    /// A merge that continues after `taken` and looks `window` numbers ahead.
    ///
    /// # Panics
    /// When the window is empty.
    #[must_use]
    pub fn new(taken: Seq, window: u64) -> Merge {
        assert!(window > 0, "a merge without a window takes nothing");
        let slots = VecDeque::new();
        Merge { taken, window, slots, refused: 0, nulls_ahead: false, framed: Seq(0) }
    }

    /// The same where null batches are delivered long before anybody wants them: no gap is told
    /// of that only they are behind.
    #[must_use]
    pub fn with_nulls_ahead(self, nulls_ahead: bool) -> Merge {
        Merge { nulls_ahead, ..self }
    }

    /// Takes in the batch that was agreed on at `seq`.
    ///
    /// # Errors
    /// When the number is old, too far ahead or already there; the batch is dropped and counted.
    pub fn deliver(&mut self, seq: Seq, batch: Arc<Batch>) -> Result<(), Undeliverable> {
        let refusal = match seq.0.checked_sub(self.taken.0 + 1) {
            None => Undeliverable::Old,
            Some(ahead) if ahead >= self.window => Undeliverable::BeyondWindow,
            Some(ahead) => {
                let slot = usize::try_from(ahead).expect("below the window, which is in memory");
                if self.slots.len() <= slot {
                    self.slots.resize(slot + 1, None);
                }
                if self.slots[slot].is_none() {
                    if *batch != Batch::Null {
                        self.framed = self.framed.max(seq);
                    }
                    self.slots[slot] = Some(batch);
                    return Ok(());
                }
                Undeliverable::Twice
            }
        };
        self.refused += 1;
        Err(refusal)
    }

    /// Takes out the next batch in order, if it is there.
    pub fn take(&mut self) -> Option<(Seq, Arc<Batch>)> {
        let batch = self.slots.front_mut()?.take()?;
        self.slots.pop_front();
        self.taken = self.taken.next();
        Some((self.taken, batch))
    }

    /// Continues after `taken` instead, whatever was taken before. Batches that wait and still
    /// fit are kept.
    pub fn jump(&mut self, taken: Seq) {
        let ahead = taken.0.saturating_sub(self.taken.0);
        let passed = usize::try_from(ahead).map_or(self.slots.len(), |n| n.min(self.slots.len()));
        self.slots.drain(..passed);
        let back = self.taken.0.saturating_sub(taken.0);
        if back >= self.window || self.slots.is_empty() {
            self.slots.clear();
        } else {
            (0..back).for_each(|_| self.slots.push_front(None));
            self.slots.truncate(usize::try_from(self.window).unwrap_or(usize::MAX));
            while self.slots.back().is_some_and(Option::is_none) {
                self.slots.pop_back();
            }
        }
        self.taken = taken;
        let framed = |slot: &Option<Arc<Batch>>| slot.as_ref().is_some_and(|b| **b != Batch::Null);
        let place = self.slots.iter().rposition(framed);
        self.framed = place.map_or(taken, |place| Seq(taken.0 + 1 + place as u64));
    }

    /// Whether [`Merge::take`] would give a batch.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.slots.front().is_some_and(Option::is_some)
    }

    /// The lowest number that was not delivered yet and, if a higher one was, the highest that
    /// was. `None` when nothing waits behind a gap.
    #[must_use]
    pub fn gap(&self) -> Option<(Seq, Seq)> {
        let missing = self.slots.iter().position(Option::is_none)?;
        let missing = Seq(self.taken.0 + 1 + missing as u64);
        let waits = match self.nulls_ahead && !base::mutant!(NullsWaitForOthers) {
            true => self.framed,
            false => self.highest(),
        };
        (waits > missing).then_some((missing, waits))
    }

    /// The highest number delivered so far.
    #[must_use]
    pub fn highest(&self) -> Seq {
        Seq(self.taken.0 + self.slots.len() as u64)
    }

    /// The last number that was taken out.
    #[must_use]
    pub fn taken(&self) -> Seq {
        self.taken
    }

    /// Deliveries that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        assert!(self.slots.len() as u64 <= self.window, "more slots than the window");
        assert!(self.slots.back().is_none_or(Option::is_some), "the last slot is empty");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn null() -> Arc<Batch> {
        Arc::new(Batch::Null)
    }

    #[test]
    fn every_order_of_delivery_gives_the_order_of_numbers() {
        for rotation in 0..8u64 {
            for stride in [1u64, 3, 5, 7] {
                let mut merge = Merge::new(Seq(10), 8);
                let mut taken = Vec::new();
                for i in 0..8 {
                    let seq = Seq(11 + (i * stride + rotation) % 8);
                    assert_eq!(merge.deliver(seq, null()), Ok(()));
                    while let Some((seq, _)) = merge.take() {
                        taken.push(seq.0);
                    }
                    merge.check();
                }
                assert_eq!(taken, (11..=18).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_jump_keeps_what_still_fits() {
        for (from, to) in [(10u64, 10u64), (10, 12), (10, 15), (10, 40), (10, 8), (10, 3), (10, 0)]
        {
            let mut merge = Merge::new(Seq(from), 6);
            for seq in [from + 1, from + 3, from + 6] {
                assert_eq!(merge.deliver(Seq(seq), null()), Ok(()));
            }
            merge.jump(Seq(to));
            merge.check();
            let fits = |seq: &u64| (to + 1..=to + 6).contains(seq);
            let expected: Vec<u64> =
                [from + 1, from + 3, from + 6].into_iter().filter(fits).collect();
            let mut kept = Vec::new();
            for seq in to + 1..=to + 6 {
                if merge.deliver(Seq(seq), null()) == Err(Undeliverable::Twice) {
                    kept.push(seq);
                }
                assert_eq!(merge.take().map(|(seq, _)| seq), Some(Seq(seq)));
            }
            assert_eq!(kept, expected, "{from} to {to}");
        }
    }

    #[test]
    fn old_distant_and_second_deliveries_are_refused_and_counted() {
        let mut merge = Merge::new(Seq(4), 3);
        assert_eq!(merge.deliver(Seq(4), null()), Err(Undeliverable::Old));
        assert_eq!(merge.deliver(Seq(0), null()), Err(Undeliverable::Old));
        assert_eq!(merge.deliver(Seq(8), null()), Err(Undeliverable::BeyondWindow));
        assert_eq!(merge.deliver(Seq(u64::MAX), null()), Err(Undeliverable::BeyondWindow));
        assert_eq!(merge.deliver(Seq(7), null()), Ok(()));
        assert_eq!(merge.deliver(Seq(7), null()), Err(Undeliverable::Twice));
        assert_eq!(merge.refused(), 5);
        assert_eq!((merge.gap(), merge.highest()), (Some((Seq(5), Seq(7))), Seq(7)));
        assert!(!merge.is_ready());
        assert_eq!(merge.deliver(Seq(5), null()), Ok(()));
        assert!(merge.is_ready());
        assert_eq!(merge.gap(), Some((Seq(6), Seq(7))));
        merge.check();
    }
}
