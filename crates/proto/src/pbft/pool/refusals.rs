//! What was refused of late, and where: who vouches for such a frame has to know that.
//!
//! Invariant: at most [`REFUSALS_MAX`] frames are remembered, those that were refused last. What
//! is forgotten is as if it had never been refused: a vouch that was given before, and comes after
//! thousands of refusals more, counts, though its sender may have dropped the frame.

use alloc::collections::{BTreeMap, VecDeque};

use base::Seq;

use super::Key;

/// Refused frames that are remembered.
const REFUSALS_MAX: usize = 4_096;

/// Where frames were refused, the highest number of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    at: BTreeMap<Key, Seq>,
    order: VecDeque<Key>,
}

impl Refusals {
    /// `key` was refused at `seq`.
    pub(super) fn note(&mut self, key: Key, seq: Seq) {
        let known = self.at.insert(key, seq.max(self.last(&key)));
        if known.is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REFUSALS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.at.remove(&oldest);
        }
    }

    /// Where `key` was refused last; 0 if that is not known.
    pub(super) fn last(&self, key: &Key) -> Seq {
        self.at.get(key).copied().unwrap_or_default()
    }

    pub(super) fn check(&self) {
        assert!(self.order.len() <= REFUSALS_MAX && self.at.len() == self.order.len());
    }
}
