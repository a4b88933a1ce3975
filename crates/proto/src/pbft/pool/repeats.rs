//! What was executed of late, and how often a client may repeat itself.
//!
//! A client sends a frame again when it lacks the reply. It gets the cached one; should that not
//! help, because too few replicas have it, the frame is ordered once more and the client table
//! answers. Both cost the replicas more than the client, and a frame that is ordered again in some
//! replicas' eyes only keeps the others waiting for its body. So a principal has an allowance of
//! repetitions, which fills with time and is deep enough for all that it may have under way.
//!
//! Invariants:
//! 1. the last [`RECENT_MAX`] executions are remembered, of each frame the last one;
//! 2. the first time that a frame comes over its principal's own link is no repetition, even if
//!    it was executed before that: a replica that reads late must not shut its clients out.

use alloc::collections::{BTreeMap, VecDeque};

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
    /// It was decided, and what became of it is not known here. `came`: it had come.
    LetGo {
        came: bool,
    },
}

impl Came {
    /// What it takes to have it ordered again when it comes once more, if it is then: nothing if
    /// it comes for the first time.
    fn asks_again(self) -> Option<Span> {
        match self {
            Came::LetGo { came: false } => Some(Span(0)),
            Came::Again | Came::LetGo { .. } => Some(ORDER_AGAIN),
            Came::Never | Came::Once | Came::Twice => None,
        }
    }

    fn is_let_go(self) -> bool {
        matches!(self, Came::LetGo { .. })
    }

    /// Whether it had come.
    pub(super) fn had_come(self) -> bool {
        !matches!(self, Came::Never | Came::LetGo { came: false })
    }
}

/// The memory of executed frames, and the allowances.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats {
    /// And where it was executed last.
    executed: BTreeMap<Key, (Came, Seq)>,
    /// One place for each execution; that of one which is forgotten, or was not the frame's last,
    /// drops nothing.
    order: VecDeque<(Key, Seq)>,
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
        self.executed.get(key).is_some_and(|(came, _)| !came.is_let_go())
    }

    /// Where `key` was executed last, if that was of late.
    pub(super) fn at(&self, key: &Key) -> Option<Seq> {
        self.executed.get(key).map(|(_, at)| *at)
    }

    /// `key` was executed at `seq`; `came`: how often over its principal's own link.
    pub(super) fn executed(&mut self, key: &Key, came: Came, seq: Seq) {
        let known = self.executed.get(key).copied();
        let came = match known {
            // What becomes of it is known now.
            Some((Came::LetGo { came: true }, _)) => Came::Once,
            Some((Came::LetGo { came: false }, _)) => Came::Never,
            Some((before, _)) => before,
            None => came,
        };
        self.executed.insert(*key, (came, seq));
        if known.is_some_and(|(_, at)| at == seq) {
            return;
        }
        self.order.push_back((*key, seq));
        if self.order.len() > RECENT_MAX
            && let Some((oldest, at)) = self.order.pop_front()
            && self.at(&oldest) == Some(at)
        {
            self.executed.remove(&oldest);
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
        if came.asks_again().is_some_and(|cost| self.takes(now, client, cost)) {
            self.executed.remove(key);
            return None;
        }
        if came != Came::Never && !self.takes(now, client, REPEAT) {
            return Some(Arrival::TooOften);
        }
        let next = match came {
            Came::Never => Came::Once,
            Came::LetGo { .. } => came,
            _ => Came::Again,
        };
        self.executed.insert(*key, (next, at));
        Some(Arrival::Executed)
    }

    /// `key` was let go, and somebody who has executed so far holds it: it was refused and has come
    /// once more. If so, it is forgotten.
    pub(super) fn is_held_again(&mut self, key: &Key, executed: Option<Seq>) -> bool {
        let held = |(came, at): &(Came, Seq)| came.is_let_go() && executed >= Some(*at);
        let again = self.executed.get(key).is_some_and(held);
        if again {
            self.executed.remove(key);
        }
        again
    }

    /// Whether `key`, should it arrive now, is to be ordered again.
    pub(super) fn orders_again(&self, now: Time, key: &Key) -> bool {
        let cost = self.executed.get(key).and_then(|(came, _)| came.asks_again());
        cost.is_some_and(|cost| self.after(now, key.0.client, cost).is_some())
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
        assert!(self.order.len() <= RECENT_MAX && self.executed.len() <= self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Digest, FrameId, SessionId};

    fn key(id: u64) -> Key {
        let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id };
        (id, Digest([1; 32]))
    }

    /// A frame is executed, and again long after that: the place of the first time is not the
    /// second one's.
    #[test]
    fn what_is_executed_again_is_remembered_anew() {
        for forgotten in [false, true] {
            let mut repeats = Repeats::default();
            repeats.executed(&key(1), Came::Once, Seq(1));
            (2..=5_000).for_each(|id| repeats.executed(&key(id), Came::Once, Seq(id)));
            if forgotten {
                repeats.forget(&key(1));
            }
            repeats.executed(&key(1), Came::Once, Seq(5_001));
            repeats.check();
            (5_002..=13_192).for_each(|id| repeats.executed(&key(id), Came::Once, Seq(id)));
            repeats.check();
            assert_eq!(repeats.at(&key(1)), Some(Seq(5_001)), "forgotten: {forgotten}");
            repeats.executed(&key(13_193), Came::Once, Seq(13_193));
            repeats.check();
            assert_eq!(repeats.at(&key(1)), None, "8,192 later ones");
        }
    }

    /// Over and over, whoever asks for it.
    #[test]
    fn one_frame_that_is_executed_without_end_takes_no_memory() {
        let mut repeats = Repeats::default();
        for seq in 1..=3 * RECENT_MAX as u64 {
            repeats.executed(&key(1), Came::Once, Seq(seq));
            if seq % 2 == 0 {
                repeats.forget(&key(1));
            }
            repeats.check();
        }
        assert!(repeats.order.len() <= RECENT_MAX);
    }
}
