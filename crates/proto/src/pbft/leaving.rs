//! What leaves a lane at the end of a turn rather than at once: vouches, which share one message,
//! COMMITs that wait for company (`piggyback`), and frames that are forwarded unless somebody
//! proposes them (`inline`).

use alloc::vec::Vec;

use base::{BatchEntry, Frame, Time, limits};

use super::Lane;
use super::inline::Forwards;
use super::msg::Message;
use super::piggyback::Piggyback;
use crate::outbox::Outbox;

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
        let (leader, executed) = (self.vouched_to(), self.progress.executed);
        for chunk in self.leaving.vouches.chunks(limits::BATCH_FRAMES_MAX) {
            out.send(leader, Message::Vouch { executed, entries: chunk.to_vec() });
        }
        self.leaving.vouches.clear();
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
