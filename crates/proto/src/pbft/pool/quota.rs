//! How much one principal may have here.
//!
//! What it sends counts up to its quota. What is fetched, since a proposal names it or others hold
//! it, may come to [`FETCHED_FACTOR`] times that. A client and f liars can fill that at a leader
//! with frames of which each is held by one correct replica, and which so are never proposed. What
//! a quorum endorses must not be kept out by those, or the leader would starve it, and be replaced
//! for it. So such a frame has [`ENDORSED_FACTOR`] times the quota, and has what is above the first
//! bound leave the pool unless it is under way or endorsed itself: all that it can be kept out by
//! are others of its principal that are proposed, or are to be proposed at once.
//!
//! What a quorum endorses a weak quorum of correct replicas holds, and none of these holds more
//! than the first bound allows, so that less than twice that is endorsed at a time: the second
//! bound. A frame is endorsed for one view; what is left of an earlier one counts like all
//! else, and makes way like it.

use alloc::vec::Vec;

use base::{ClientId, Digest, Frame, FrameId, SessionId, limits};

use super::{Key, Pool};

/// How far what is fetched may exceed a principal's quota.
const FETCHED_FACTOR: usize = 4;
/// And what a quorum endorses.
const ENDORSED_FACTOR: usize = 2 * FETCHED_FACTOR;

impl Pool {
    /// Counts a frame that came over its principal's link, or that somebody forwards, if it is
    /// within the quota.
    pub(super) fn charge(&mut self, frame: &Frame) -> bool {
        let (frames, bytes) = self.counted(frame.id().client);
        let fits = frames < limits::PENDING_FRAMES_PER_CLIENT_MAX
            && bytes + frame.weight() <= limits::PENDING_BYTES_PER_CLIENT_MAX;
        if fits {
            self.count(frame);
        }
        fits
    }

    /// Counts a frame that is put into the pool.
    pub(super) fn count(&mut self, frame: &Frame) {
        let (frames, bytes) = self.quota.entry(frame.id().client).or_default();
        *frames += 1;
        *bytes += frame.weight();
    }

    /// A frame leaves the pool.
    pub(super) fn uncount(&mut self, frame: &Frame) {
        let client = frame.id().client;
        if let Some((frames, bytes)) = self.quota.get_mut(&client) {
            *frames = frames.saturating_sub(1);
            *bytes = bytes.saturating_sub(frame.weight());
            if *frames == 0 {
                self.quota.remove(&client);
            }
        }
    }

    /// Whether a frame of `client` that is fetched may be kept. `endorsed`: by a quorum, and this
    /// replica, which leads, is to propose it.
    pub(super) fn has_room_for(&mut self, client: ClientId, endorsed: bool) -> bool {
        if self.is_within(client, FETCHED_FACTOR) {
            return true;
        }
        if endorsed {
            self.make_room(client);
        }
        endorsed && self.is_within(client, ENDORSED_FACTOR)
    }

    /// Lets go of what `client` has here and nothing waits for. Who holds it says so again.
    fn make_room(&mut self, client: ClientId) {
        let first = FrameId { client, session: SessionId(0), stream: 0, id: 0 };
        let last = FrameId { client, session: SessionId(u64::MAX), stream: u32::MAX, id: u64::MAX };
        let all = (first, Digest([0; 32]))..=(last, Digest([0xff; 32]));
        let idle: Vec<Key> = self
            .entries
            .range(all)
            .filter(|(_, e)| e.frame.is_some() && !e.ordered && !e.is_urgent() && !e.is_wanted())
            .filter(|(_, e)| e.kept_at.is_none())
            .map(|(key, _)| *key)
            .collect();
        idle.iter().for_each(|key| drop(self.remove(key)));
    }

    fn is_within(&self, client: ClientId, factor: usize) -> bool {
        let (frames, bytes) = self.counted(client);
        frames < factor * limits::PENDING_FRAMES_PER_CLIENT_MAX
            && bytes < factor * limits::PENDING_BYTES_PER_CLIENT_MAX
    }

    fn counted(&self, client: ClientId) -> (usize, usize) {
        self.quota.get(&client).copied().unwrap_or_default()
    }
}
