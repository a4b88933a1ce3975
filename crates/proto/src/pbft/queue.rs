//! What waits to be proposed, served in turn: a few frames of each principal after the other, so
//! that one that floods does not keep the others waiting.
//!
//! A turn is more than one frame, for what is ordered together is answered together: the replies
//! to a client then share a packet, and so do its next requests, at every replica.
//!
//! Frames that a quorum endorses as overdue go before all others.
//!
//! Invariants:
//! 1. a principal is in `turns` exactly once if it has something waiting, else not;
//! 2. `had` is what the first of `turns` has had in its turn, which is not over.

use alloc::collections::{BTreeMap, VecDeque};

use base::ClientId;

use super::pool::Key;

/// Most frames that a principal is served in one turn while others wait.
const TURN_FRAMES: usize = 16;
/// About how many bytes of frames it is served in one turn; a larger one goes alone.
const TURN_BYTES: usize = 16 << 10;

/// The queue of a leader: names of frames with their weights.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    urgent: VecDeque<(Key, usize)>,
    waiting: BTreeMap<ClientId, VecDeque<(Key, usize)>>,
    turns: VecDeque<ClientId>,
    /// Frames and bytes.
    had: (usize, usize),
    len: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The weights of all that waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, key: Key, weight: usize, urgent: bool) {
        self.len += 1;
        self.bytes += weight;
        if urgent {
            self.urgent.push_back((key, weight));
            return;
        }
        let of = self.waiting.entry(key.0.client).or_default();
        if of.is_empty() {
            self.turns.push_back(key.0.client);
        }
        of.push_back((key, weight));
    }

    /// What is next.
    pub(super) fn peek(&self) -> Option<(Key, usize)> {
        if let Some(first) = self.urgent.front() {
            return Some(*first);
        }
        self.waiting.get(self.turns.front()?)?.front().copied()
    }

    /// Takes what [`Queue::peek`] shows.
    pub(super) fn pop(&mut self) -> Option<(Key, usize)> {
        let (key, weight) = match self.urgent.pop_front() {
            Some(first) => first,
            None => {
                let client = *self.turns.front()?;
                let of = self.waiting.get_mut(&client)?;
                let first = of.pop_front()?;
                self.had = (self.had.0 + 1, self.had.1 + first.1);
                let over = self.had.0 >= TURN_FRAMES || self.had.1 >= TURN_BYTES;
                if of.is_empty() {
                    self.waiting.remove(&client);
                    self.end_turn();
                } else if over {
                    self.end_turn();
                    self.turns.push_back(client);
                }
                first
            }
        };
        self.len -= 1;
        self.bytes -= weight;
        Some((key, weight))
    }

    fn end_turn(&mut self) {
        self.turns.pop_front();
        self.had = (0, 0);
    }

    /// Keeps what `stays`.
    pub(super) fn retain(&mut self, stays: impl Fn(&Key) -> bool) {
        self.urgent.retain(|(key, _)| stays(key));
        self.waiting.retain(|_, of| {
            of.retain(|(key, _)| stays(key));
            !of.is_empty()
        });
        let (waiting, first) = (&self.waiting, self.turns.front().copied());
        self.turns.retain(|client| waiting.contains_key(client));
        if self.turns.front().copied() != first {
            self.had = (0, 0);
        }
        let all = || self.urgent.iter().chain(self.waiting.values().flatten());
        self.len = all().count();
        self.bytes = all().map(|(_, weight)| weight).sum();
    }

    pub(super) fn check(&self) {
        let all = || self.urgent.iter().chain(self.waiting.values().flatten());
        assert_eq!(self.len, all().count());
        assert_eq!(self.bytes, all().map(|(_, weight)| weight).sum::<usize>());
        assert_eq!(self.turns.len(), self.waiting.len());
        assert!(self.turns.iter().all(|client| self.waiting.contains_key(client)));
        assert!(self.had.0 < TURN_FRAMES && self.had.1 < TURN_BYTES);
        assert!(self.had == (0, 0) || !self.turns.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use base::{Digest, FrameId, SessionId};

    fn key(client: u32, id: u64) -> Key {
        let client = ClientId(client);
        (FrameId { client, session: SessionId(1), stream: 0, id }, Digest([1; 32]))
    }

    fn clients(queue: &mut Queue) -> Vec<u32> {
        core::iter::from_fn(|| queue.pop()).map(|(key, _)| key.0.client.0).collect()
    }

    #[test]
    fn one_that_floods_waits_its_turn() {
        let mut queue = Queue::default();
        (1..=100).for_each(|id| queue.push(key(1, id), 10, false));
        queue.push(key(2, 1), 10, false);
        queue.push(key(3, 1), 10, false);
        queue.push(key(4, 1), 10, true);
        queue.check();
        let order = clients(&mut queue);
        let (first, rest) = order.split_at(1 + TURN_FRAMES);
        assert_eq!((first[0], &rest[..3]), (4, &[2, 3, 1][..]));
        assert!(first[1..].iter().all(|client| *client == 1));
        assert_eq!((order.len(), queue.len(), queue.bytes()), (103, 0, 0));
        queue.check();
    }

    #[test]
    fn large_frames_make_a_turn_short() {
        let mut queue = Queue::default();
        (1..=3).for_each(|id| queue.push(key(1, id), TURN_BYTES, false));
        (1..=4).for_each(|id| queue.push(key(2, id), TURN_BYTES / 2, false));
        assert_eq!(clients(&mut queue), [1, 2, 2, 1, 2, 2, 1]);
    }

    #[test]
    fn a_turn_that_was_begun_is_not_another_ones() {
        let mut queue = Queue::default();
        (1..=40).for_each(|id| queue.push(key(1, id), 10, false));
        (1..=40).for_each(|id| queue.push(key(2, id), 10, false));
        assert_eq!(queue.pop(), Some((key(1, 1), 10)));
        queue.retain(|key| key.0.client != ClientId(1));
        queue.check();
        queue.push(key(1, 41), 10, false);
        let order = clients(&mut queue);
        assert_eq!(order.iter().take_while(|client| **client == 2).count(), TURN_FRAMES);
        assert_eq!(order.len(), 41);
    }

    #[test]
    fn what_is_forgotten_leaves_no_turn() {
        let mut queue = Queue::default();
        queue.push(key(1, 1), 10, false);
        queue.push(key(2, 1), 20, true);
        queue.push(key(3, 1), 30, false);
        queue.retain(|key| key.0.client != ClientId(1));
        queue.check();
        assert_eq!((queue.len(), queue.bytes()), (2, 50));
        assert_eq!(queue.peek(), Some((key(2, 1), 20)));
    }
}
