//! What a pool holds, counted.

use super::Pool;
use crate::pbft::holdings::HeldFrames;

impl Pool {
    /// What it holds.
    pub(in crate::pbft) fn held(&self) -> HeldFrames {
        let (mut frames, mut bytes) = (0, 0);
        for (of_one, bytes_of_one) in self.quota.values() {
            (frames, bytes) = (frames.max(*of_one), bytes.max(*bytes_of_one));
        }
        HeldFrames {
            names: self.entries.len(),
            of_one_client: frames,
            bytes_of_one_client: bytes,
            of_one_peer: self.vouched_only.values().copied().max().unwrap_or(0),
            wants: self.wants,
            queued: self.eligible.len() + self.bodyless.len(),
            recent: self.recent.len(),
        }
    }
}
