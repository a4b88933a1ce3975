//! Batches: what one consensus instance agrees on.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::digest::{Digest, Domain, Hasher};
use crate::frame::{Frame, FrameId};
use crate::id::{GroupId, Seq};
use crate::time::AgreedTime;

/// A frame as a proposal names it: bodies travel apart (separate request transmission).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchEntry {
    /// Whose frame.
    pub id: FrameId,
    /// Which content.
    pub digest: Digest,
}

/// An agreed batch with its bodies, on its way to execution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Batch {
    /// The agreed null: fills a number, touches no client table, carries no time.
    Null,
    /// Frames in the order in which they execute. No frames at all is a *tick*: it only moves
    /// agreed time on.
    Frames {
        /// The clock that the leader proposed.
        time: AgreedTime,
        /// The bodies.
        frames: Vec<Arc<Frame>>,
    },
}

/// The digest of the batch that proposes `entries` at `time` for `seq`. Binds the group and the
/// number, not the view: a view change carries it over unchanged.
#[must_use]
pub fn batch_digest(group: GroupId, seq: Seq, time: AgreedTime, entries: &[BatchEntry]) -> Digest {
    let mut hasher = Hasher::new(Domain::Batch);
    let time = if crate::mutant!(DigestWithoutTime) { 0 } else { time.0 };
    hasher.update(&group.0).update_u64(seq.0).update_u64(time);
    hasher.update_u64(entries.len() as u64);
    // Collected first: the hasher is several times faster on long inputs than on many short ones.
    let mut bytes = Vec::with_capacity(entries.len() * 56);
    for entry in entries {
        bytes.extend_from_slice(&entry.id.client.0.to_le_bytes());
        bytes.extend_from_slice(&entry.id.session.0.to_le_bytes());
        bytes.extend_from_slice(&entry.id.stream.to_le_bytes());
        bytes.extend_from_slice(&entry.id.id.to_le_bytes());
        bytes.extend_from_slice(&entry.digest.0);
    }
    hasher.update(&bytes);
    hasher.finish()
}

/// The digest of the null batch at `seq`. In a domain of its own.
#[must_use]
pub fn null_digest(group: GroupId, seq: Seq) -> Digest {
    let mut hasher = Hasher::new(Domain::NullBatch);
    hasher.update(&group.0).update_u64(seq.0);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_tick_and_number_are_told_apart() {
        let g = GroupId([1; 32]);
        let tick = batch_digest(g, Seq(1), AgreedTime(0), &[]);
        assert_ne!(tick, null_digest(g, Seq(1)));
        assert_ne!(tick, batch_digest(g, Seq(2), AgreedTime(0), &[]));
        assert_ne!(tick, batch_digest(g, Seq(1), AgreedTime(1), &[]));
        assert_ne!(tick, batch_digest(GroupId([2; 32]), Seq(1), AgreedTime(0), &[]));
    }
}
