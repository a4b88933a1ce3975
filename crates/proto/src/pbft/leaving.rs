//! What leaves a lane at the end of a turn rather than at once: vouches, which share one message,
//! and COMMITs that wait for company (`piggyback`).

use alloc::vec::Vec;

use base::{BatchEntry, limits};

use super::Lane;
use super::msg::Message;
use super::piggyback::Piggyback;
use crate::outbox::Outbox;

/// What is to leave.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving {
    /// Frames to vouch for, to go to the leader with this turn's votes.
    pub(super) vouches: Vec<BatchEntry>,
    pub(super) commits: Piggyback,
}

impl Lane {
    /// Vouches for what has come in this turn.
    pub(super) fn send_vouches(&mut self, out: &mut Outbox) {
        let leader = self.vouched_to();
        for chunk in self.leaving.vouches.chunks(limits::BATCH_FRAMES_MAX) {
            out.send(leader, Message::Vouch(chunk.to_vec()));
        }
        self.leaving.vouches.clear();
    }
}
