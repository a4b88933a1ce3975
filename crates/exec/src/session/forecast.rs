//! Which frames the table will certainly let through, before those ahead of them are done.
//!
//! The table decides about a frame when everything before it is executed and recorded, and so it
//! stays: deciding and recording happen in the total order, as if one frame executed after the
//! other. But a frame may *execute* earlier where the decision is certain: nothing that is under
//! way can change it. All other frames wait until they are the next.
//!
//! What can happen between now and the decision about a frame: the frames under way, all of them
//! let through, are entered and acknowledge others, each in its own stream. No session is opened,
//! closed or evicted, and replies that are recorded decide nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::limits::STREAMS_PER_SESSION_MAX;
use base::{ClientId, Frame, FrameId, FrameKind, SessionId};

use super::Sessions;
use crate::window::Stream;

/// The frames that are let through and not yet decided about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    sessions: BTreeMap<(ClientId, SessionId), BTreeMap<u32, Waiting>>,
}

/// Those of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    /// Their ids, in the total order.
    pub(crate) ids: Vec<u64>,
    /// The highest id that the stream will have taken as acknowledged.
    pub(crate) acked: u64,
    /// Whether the table does not have the stream yet.
    is_new: bool,
}

impl Pending {
    /// Enters a frame that is let through.
    pub(crate) fn enter(&mut self, frame: &Frame, ordered: bool, is_new: bool) {
        let id = frame.id();
        let streams = self.sessions.entry((id.client, id.session)).or_default();
        let waiting =
            streams.entry(id.stream).or_insert_with(|| Waiting { is_new, ..Waiting::default() });
        waiting.ids.push(id.id);
        // An ordered stream ignores acknowledgements of what is not executed.
        let acked = if ordered { frame.ack().min(id.id - 1) } else { frame.ack() };
        waiting.acked = waiting.acked.max(acked);
    }

    /// Takes out a frame that the table has decided about.
    pub(crate) fn leave(&mut self, frame: FrameId) {
        let key = (frame.client, frame.session);
        let Some(streams) = self.sessions.get_mut(&key) else { return };
        if let Some(waiting) = streams.get_mut(&frame.stream) {
            waiting.ids.retain(|id| *id != frame.id);
            waiting.is_new = false;
            if waiting.ids.is_empty() {
                streams.remove(&frame.stream);
            }
        }
        if streams.is_empty() {
            self.sessions.remove(&key);
        }
    }
}

impl Sessions {
    /// Whether `frame`, which is next in the total order after those that are `pending`, is
    /// certain to be let through; if so it is pending, too, from now on.
    pub(crate) fn foresee(&self, frame: &Frame, pending: &mut Pending) -> bool {
        let id = frame.id();
        if frame.kind() != FrameKind::Request {
            return false;
        }
        let Some(session) = self.session(id) else { return false };
        let streams = pending.sessions.get(&(id.client, id.session));
        let waiting = streams.and_then(|streams| streams.get(&id.stream));
        let known = session.streams.get(&id.stream);
        let fresh = Stream::new(id.stream);
        let stream = known.unwrap_or(&fresh);
        let is_new = known.is_none() && waiting.is_none();
        let coming = streams.map_or(0, |streams| streams.values().filter(|w| w.is_new).count());
        let room = session.streams.len() + coming < STREAMS_PER_SESSION_MAX;
        if (is_new && !room) || !stream.takes(id.id, frame.ack(), waiting) {
            return false;
        }
        pending.enter(frame, stream.is_ordered(), is_new);
        true
    }
}
