//! What was refused of late, and where: who vouches for such a frame has to know that. So it is
//! with what was executed and is ordered again, for its client repeats it.
//!
//! Invariant: at most [`REFUSALS_MAX`] refusals are remembered, the last ones. What is forgotten
//! is as if it had never been refused: a vouch that was given before, and comes after thousands of
//! refusals more, counts, though its sender may have dropped the frame.

use alloc::collections::{BTreeMap, VecDeque};

use base::Seq;

use super::Key;

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 4_096;

/// Where frames were refused, the highest number of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    at: BTreeMap<Key, Seq>,
    order: VecDeque<(Key, Seq)>,
}

impl Refusals {
    /// `key` was refused at `seq`.
    pub(super) fn note(&mut self, key: Key, seq: Seq) {
        if self.at.get(&key).is_some_and(|known| *known >= seq) {
            return;
        }
        self.at.insert(key, seq);
        self.order.push_back((key, seq));
        if self.order.len() > REFUSALS_MAX
            && let Some((oldest, seq)) = self.order.pop_front()
            && self.at.get(&oldest) == Some(&seq)
        {
            self.at.remove(&oldest);
        }
    }

    /// Where `key` was refused last, if that is known.
    pub(super) fn last(&self, key: &Key) -> Option<Seq> {
        self.at.get(key).copied()
    }

    pub(super) fn check(&self) {
        assert!(self.order.len() <= REFUSALS_MAX && self.at.len() <= self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, Digest, FrameId, SessionId};

    #[test]
    fn the_last_refusals_are_remembered() {
        let key = |id| {
            let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id };
            (id, Digest([1; 32]))
        };
        let mut refusals = Refusals::default();
        refusals.note(key(1), Seq(1));
        (2..=4_000).for_each(|id| refusals.note(key(id), Seq(id)));
        refusals.note(key(1), Seq(5_000));
        refusals.note(key(1), Seq(3));
        (4_001..=8_000).for_each(|id| refusals.note(key(id), Seq(6_000)));
        refusals.check();
        assert_eq!(refusals.last(&key(1)), Some(Seq(5_000)), "it was refused again");
        assert_eq!((refusals.last(&key(2)), refusals.last(&key(8_000))), (None, Some(Seq(6_000))));
    }
}
