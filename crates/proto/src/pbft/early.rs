//! Messages of views that are not installed here yet: kept until they are, within bounds.
//!
//! One view per sender, the highest that it spoke in: a faulty one can only push out its own.

use alloc::vec;
use alloc::vec::Vec;

use base::{ReplicaId, View};

use super::msg::Message;

/// Bytes that are kept, of all senders together.
const EARLY_BYTES_MAX: usize = 64 << 20;

/// What came early.
#[derive(Clone, Debug)]
pub(super) struct Early {
    by: Vec<Kept>,
    count_max: usize,
    bytes_max: usize,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    view: View,
    messages: Vec<Message>,
    bytes: usize,
}

/// What is held of what was said too early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Most messages of one sender.
    pub messages: usize,
    /// Most bytes of one sender.
    pub bytes: usize,
}

impl Early {
    pub(super) fn held(&self) -> Held {
        let messages = self.by.iter().map(|kept| kept.messages.len()).max();
        let bytes = self.by.iter().map(|kept| kept.bytes).max();
        Held { messages: messages.unwrap_or(0), bytes: bytes.unwrap_or(0) }
    }

    /// For `n` senders with at most `numbers` numbers each under way.
    pub(super) fn new(n: u16, numbers: usize) -> Early {
        let bytes_max = EARLY_BYTES_MAX / usize::from(n);
        Early { by: vec![Kept::default(); usize::from(n)], count_max: 3 * numbers, bytes_max }
    }

    /// Keeps `message`, which `from` said in `view`, if there is room.
    pub(super) fn keep(&mut self, from: ReplicaId, view: View, message: Message) {
        let Some(kept) = self.by.get_mut(usize::from(from.0)) else { return };
        if view > kept.view {
            *kept = Kept { view, ..Kept::default() };
        }
        let bytes = kept.bytes + message.encoded_len_max();
        if view == kept.view && kept.messages.len() < self.count_max && bytes <= self.bytes_max {
            kept.bytes = bytes;
            kept.messages.push(message);
        }
    }

    /// Takes out what was said in `view`, and forgets what was said in views below.
    pub(super) fn take(&mut self, view: View) -> Vec<(ReplicaId, Message)> {
        let mut taken = Vec::new();
        for (from, kept) in (0..).map(ReplicaId).zip(&mut self.by) {
            if kept.view <= view {
                let Kept { view: said, messages, .. } = core::mem::take(kept);
                kept.view = view;
                if said == view {
                    taken.extend(messages.into_iter().map(|message| (from, message)));
                }
            }
        }
        taken
    }

    pub(super) fn check(&self) {
        for kept in &self.by {
            assert!(kept.messages.len() <= self.count_max && kept.bytes <= self.bytes_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pbft::msg::Vote;
    use base::{Digest, Seq};

    fn vote(view: u64, seq: u64) -> Message {
        Message::Commit(Vote { view: View(view), seq: Seq(seq), digest: Digest([1; 32]) })
    }

    #[test]
    fn a_flood_pushes_out_nobody_else_and_a_higher_view_only_ones_own() {
        let mut early = Early::new(4, 2);
        early.keep(ReplicaId(1), View(1), vote(1, 1));
        (0..1000).for_each(|seq| early.keep(ReplicaId(2), View(1), vote(1, seq)));
        early.keep(ReplicaId(3), View(1), vote(1, 1));
        early.keep(ReplicaId(3), View(9), vote(9, 1));
        early.keep(ReplicaId(3), View(1), vote(1, 2));
        early.keep(ReplicaId(200), View(1), vote(1, 2));
        early.check();
        let froms: Vec<u16> = early.take(View(1)).iter().map(|(from, _)| from.0).collect();
        assert_eq!(froms, [1, 2, 2, 2, 2, 2, 2]);
        assert!(early.take(View(1)).is_empty());
        assert_eq!(early.take(View(9)), [(ReplicaId(3), vote(9, 1))]);
    }
}
