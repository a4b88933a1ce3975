//! What was executed of late, and how often a client may repeat itself.
//!
//! A client sends a frame again when it lacks the reply. It gets the cached one; should that not
//! help, because too few replicas have it, the frame is ordered once more and the client table
//! answers. Both cost the replicas more than the client, and a frame that is ordered again in some
//! replicas' eyes only keeps the others waiting for its body. So a principal has an allowance of
//! repetitions, which fills with time and is deep enough for all that it may have under way.
//!
//! Invariants:
//! 1. at most [`RECENT_MAX`] frames are remembered;
//! 2. the first time that a frame comes over its principal's own link is no repetition, even if
//!    it was executed before that: a replica that reads late must not shut its clients out.

use alloc::collections::{BTreeMap, VecDeque, btree_map};

use base::{ClientId, Seq, Span, Time};

use super::{Arrival, Key};

/// Executed frames that are remembered, to tell a retransmission from a new frame.
const RECENT_MAX: usize = 8_192;
/// What a repetition takes from its principal's allowance.
const REPEAT: Span = Span::micros(500);
/// What it takes to have an executed frame ordered once more.
const ORDER_AGAIN: Span = Span::millis(4);
/// The whole allowance: about twice the frames that a principal may have pending.
const ALLOWANCE: Span = Span::secs(1);

/// How often an executed frame has come over its principal's own link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    Never,
    Once,
    /// Both times before it was executed.
    Twice,
    Again,
    /// It had come, and was decided; what became of it is not known here.
    LetGo,
}

impl Came {
    /// Whether it is ordered again when it comes once more.
    fn asks_again(self) -> bool {
        matches!(self, Came::Again | Came::LetGo)
    }
}

/// The memory of executed frames, and the allowances.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats {
    /// And where it was executed last.
    executed: BTreeMap<Key, (Came, Seq)>,
    order: VecDeque<Key>,
    /// When each allowance is whole again; not kept for long after that.
    whole_at: BTreeMap<ClientId, Time>,
}

impl Repeats {
    pub(super) fn len(&self) -> usize {
        self.executed.len()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.executed.contains_key(key)
    }

    /// Whether it is known that `key` was executed of late.
    pub(super) fn was_executed(&self, key: &Key) -> bool {
        self.executed.get(key).is_some_and(|(came, _)| *came != Came::LetGo)
    }

    /// Where `key` was executed last, if that was of late.
    pub(super) fn at(&self, key: &Key) -> Option<Seq> {
        self.executed.get(key).map(|(_, at)| *at)
    }

    /// `key` was executed at `seq`; `came`: how often over its principal's own link.
    pub(super) fn executed(&mut self, key: &Key, came: Came, seq: Seq) {
        match self.executed.entry(*key) {
            btree_map::Entry::Occupied(mut known) => {
                let (before, at) = known.get_mut();
                // What becomes of it is known now.
                *before = if *before == Came::LetGo { Came::Once } else { *before };
                *at = seq;
            }
            btree_map::Entry::Vacant(place) => {
                place.insert((came, seq));
                self.order.push_back(*key);
                if self.order.len() > RECENT_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.executed.remove(&oldest);
                }
            }
        }
    }

    /// Forgets that `key` was executed; how often it had come, if it was.
    pub(super) fn forget(&mut self, key: &Key) -> Came {
        self.executed.remove(key).map_or(Came::Never, |(came, _)| came)
    }

    /// `key` arrived over its principal's own link. `None` when it was not executed of late, or
    /// is to be ordered again.
    pub(super) fn arrive(&mut self, now: Time, key: &Key) -> Option<Arrival> {
        let (came, at) = *self.executed.get(key)?;
        let client = key.0.client;
        // A second retransmission: the stage has had nothing to say to the first, or too few have.
        if came.asks_again() && self.takes(now, client, ORDER_AGAIN) {
            self.executed.remove(key);
            return None;
        }
        if came != Came::Never && !self.takes(now, client, REPEAT) {
            return Some(Arrival::TooOften);
        }
        let next = if came == Came::Never { Came::Once } else { Came::Again };
        self.executed.insert(*key, (next, at));
        Some(Arrival::Executed)
    }

    /// `key` was let go, and somebody who has executed so far holds it: it was refused and has come
    /// once more. If so, it is forgotten.
    pub(super) fn is_held_again(&mut self, key: &Key, executed: Option<Seq>) -> bool {
        let held = |(came, at): &(Came, Seq)| *came == Came::LetGo && executed >= Some(*at);
        let again = self.executed.get(key).is_some_and(held);
        if again {
            self.executed.remove(key);
        }
        again
    }

    /// Whether `key`, should it arrive now, is to be ordered again.
    pub(super) fn orders_again(&self, now: Time, key: &Key) -> bool {
        let again = self.executed.get(key).is_some_and(|(came, _)| came.asks_again());
        again && self.after(now, key.0.client, ORDER_AGAIN).is_some()
    }

    /// A frame of `client` that waits here came again: whether that counts.
    pub(super) fn may_repeat(&mut self, now: Time, client: ClientId) -> bool {
        self.takes(now, client, REPEAT)
    }

    fn takes(&mut self, now: Time, client: ClientId, cost: Span) -> bool {
        let after = self.after(now, client, cost);
        if let Some(after) = after {
            self.whole_at.insert(client, after);
        }
        after.is_some()
    }

    /// When the allowance of `client` would be whole again after this; `None` when it does not
    /// cover it.
    fn after(&self, now: Time, client: ClientId, cost: Span) -> Option<Time> {
        let whole_at = self.whole_at.get(&client).copied().unwrap_or_default();
        let after = now.max(whole_at).after(cost);
        (after.since(now) <= ALLOWANCE).then_some(after)
    }

    /// Forgets allowances that were whole again `before` that time.
    pub(super) fn expire(&mut self, before: Time) {
        self.whole_at.retain(|_, at| *at >= before);
    }

    pub(super) fn check(&self) {
        assert!(self.executed.len() <= RECENT_MAX && self.order.len() <= RECENT_MAX);
    }
}
