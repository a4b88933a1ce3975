//! What leaves a lane at the end of a turn rather than at once: vouches, which share one message,
//! COMMITs that wait for company (`piggyback`), and frames that are forwarded unless somebody
//! proposes them (`inline`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::{BatchEntry, Frame, Seq, Time, limits};

use super::inline::Forwards;
use super::msg::Message;
use super::piggyback::Piggyback;
use super::{Lane, pool};
use crate::outbox::{Outbox, Target};

/// What is to leave.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving {
    /// Frames to vouch for, to go to the leader with this turn's votes.
    pub(super) vouches: Vec<BatchEntry>,
    pub(super) commits: Piggyback,
    pub(super) forwards: Forwards,
}

impl Lane {
    /// Vouches for what has come in this turn.
    pub(super) fn send_vouches(&mut self, out: &mut Outbox) {
        let mut entries = core::mem::take(&mut self.leaving.vouches);
        self.vouch_for(self.vouched_to(), &entries, out);
        entries.clear();
        self.leaving.vouches = entries;
    }

    /// Nothing up to here will ever be executed by a replica that waits for a state.
    pub(super) fn floor(&self) -> Seq {
        if self.floats() { self.low() } else { Seq(0) }
    }

    /// Vouches for what of this is held here, and says for how long.
    pub(super) fn vouch_for(&self, to: Target, entries: &[BatchEntry], out: &mut Outbox) {
        let executed = self.progress.executed.max(self.floor());
        let mut held: BTreeMap<Seq, Vec<BatchEntry>> = BTreeMap::new();
        for entry in entries {
            if let Some(beyond) = self.pool.holds_beyond(&pool::key_of(entry), executed) {
                held.entry(beyond).or_default().push(*entry);
            }
        }
        for (executed, entries) in held {
            for chunk in entries.chunks(limits::BATCH_FRAMES_MAX) {
                out.send(to, Message::Vouch { executed, entries: chunk.to_vec() });
            }
        }
    }

    /// What came from its client is made known to the leader.
    pub(super) fn announce(&mut self, now: Time, frame: &Frame) {
        let entry = BatchEntry { id: frame.id(), digest: frame.digest() };
        let leads = self.is_leader() && !self.views.roles.rotate();
        if self.inline() && frame.is_small() {
            if !leads {
                self.leaving.forwards.plan(now, (entry.id, entry.digest));
            }
        } else if self.is_active() && !leads {
            self.leaving.vouches.push(entry);
        }
    }
}
