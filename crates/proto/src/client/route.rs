//! To whom a frame goes: to all replicas, or, where bodies travel with proposals and it is small,
//! to the leader alone.
//!
//! Who leads is a hint, from the views in replies. A replica that does not lead forwards what it
//! is shown, and a frame that is not answered in time goes to all: a wrong hint costs time only.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::limits::INLINE_BYTES_MAX;
use base::{Frame, ReplicaId, View};

use super::line::{Flight, Line};
use super::{ClientCore, Effect, SendTo};

/// One frame in so many goes to all replicas at once: they judge by it how soon the leader orders
/// what is shown to it.
const SAMPLE: u64 = 32;

impl<T> ClientCore<T> {
    /// Whether `frame` is one that the leader alone is shown.
    fn is_for_leader(&self, frame: &Frame) -> bool {
        self.config.inline && frame.is_small() && !frame.id().id.is_multiple_of(SAMPLE)
    }

    /// To whom `frame` goes at first.
    pub(super) fn shown_to(&self, frame: &Frame) -> SendTo {
        if self.is_for_leader(frame) { SendTo::One(self.leader) } else { SendTo::All }
    }

    /// Whether a frame in flight is for `replica`, to which there is a link by now.
    pub(super) fn is_for(&self, replica: ReplicaId, flight: &Flight<T>) -> bool {
        let alone = self.is_for_leader(&flight.frame) && flight.timer.attempts == 0;
        !alone || replica == self.leader
    }

    /// Whether the oldest draft would overtake a frame of its line that takes the longer way: it
    /// would be ordered first, and refused.
    pub(super) fn overtakes(&self, line: &Line<T>) -> bool {
        let small = |draft: &super::Draft<T>| draft.builder.bytes() <= INLINE_BYTES_MAX;
        let large = |flight: &Flight<T>| flight.outcome.is_none() && !flight.frame.is_small();
        self.config.inline
            && line.drafts.front().is_some_and(small)
            && line.flying.iter().any(large)
    }

    /// A replica names another view than before. A weak quorum names that of the leader or a
    /// later one, so that f liars send nobody on; what the last leader was shown is shown to the
    /// next.
    pub(super) fn look_for_leader(&mut self) {
        let mut views: Vec<View> = self.replicas.iter().map(|standing| standing.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        let view = views.get(self.config.quorums.weak() - 1).copied().unwrap_or_default();
        let leader = view.leader(self.config.quorums.n());
        if core::mem::replace(&mut self.leader, leader) == leader || !self.config.inline {
            return;
        }
        for line in &self.lines {
            for flight in line.flying.iter().filter(|flight| flight.outcome.is_none()) {
                let (pillar, to) = (line.pillar, SendTo::One(leader));
                let frame = Arc::clone(&flight.frame);
                self.effects.push(Effect::Send { pillar, to, frame });
            }
        }
    }
}
