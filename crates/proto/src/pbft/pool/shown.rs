//! Frames whose signature this replica has checked, where bodies travel with proposals.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Frame, Time};

use super::{Key, Pool};

impl Pool {
    /// Whether `key` is here and checked, or was executed of late. One that was refused, and has
    /// not come since, is as good as unknown: a backup that shows it says that it came there.
    pub(in crate::pbft) fn has_checked(&self, key: &Key) -> bool {
        let dormant = self.entries.get(key).is_some_and(|entry| entry.dormant);
        (self.is_here(key) && !dormant) || self.recent.was_executed(key)
    }

    /// The same for a copy that its client shows. What was executed of late is no answer to one
    /// that would be ordered once more: this copy is then proposed, and its authenticator, which
    /// the digest does not cover, may be another than the one that was checked.
    pub(in crate::pbft) fn needs_no_check(&self, now: Time, key: &Key) -> bool {
        self.is_here(key) || (self.recent.contains(key) && !self.recent.orders_again(now, key))
    }

    fn is_here(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|e| e.own && e.frame.is_some())
    }

    /// A peer was shown this frame, and its signature is genuine. False beyond its principal's
    /// quota.
    pub(in crate::pbft) fn forwarded(&mut self, now: Time, frame: &Arc<Frame>) -> bool {
        let key = (frame.id(), frame.digest());
        let here = self.entries.get(&key).is_some_and(|entry| entry.frame.is_some());
        if !here && !self.charge(frame) {
            return false;
        }
        let entry = self.put_body(now, key, frame);
        (entry.own, entry.dormant, entry.pending_since) = (true, false, now);
        true
    }

    /// Small frames that this replica has checked and nobody has proposed, of about so many bytes.
    pub(in crate::pbft) fn waiting(&self, bytes: usize) -> Vec<Arc<Frame>> {
        let mut left = bytes;
        let waits = self.entries.values().filter(|entry| entry.is_awaited() && !entry.ordered);
        let frames = waits.filter_map(|entry| entry.frame.clone()).filter(|frame| frame.is_small());
        let fits = |frame: &Arc<Frame>| {
            let fits = frame.weight() <= left;
            left = left.saturating_sub(frame.weight());
            fits
        };
        frames.take_while(fits).collect()
    }
}
