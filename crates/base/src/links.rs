//! What the parts of one replica tell each other: pillars and the execution stage are message
//! peers, never callers of one another, so that the links between them can be simulated like
//! network links.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::batch::{Batch, BatchEntry};
use crate::crypto::Signature;
use crate::digest::Digest;
use crate::frame::FrameId;
use crate::id::{PillarId, ReplicaId, Seq, View};
use crate::time::AgreedTime;

/// From a pillar to the execution stage.
#[derive(Clone, Debug)]
pub enum ToStage {
    /// `batch` is committed at `seq`.
    Deliver {
        /// The batch's number.
        seq: Seq,
        /// The batch with its bodies.
        batch: Arc<Batch>,
    },
    /// A client sent a frame again that was already executed: answer it once more from the
    /// reply cache, through `pillar`.
    Resend {
        /// The pillar that holds the client's connection.
        pillar: PillarId,
        /// The frame.
        frame: FrameId,
    },
    /// The checkpoint is stable: its predecessors may go.
    Stable(StableCheckpoint),
}

/// From the execution stage to one pillar or, where it says so, to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromStage {
    /// To all: how far execution has come.
    Executed(Progress),
    /// To all: execution waits for `missing` while `highest` is already delivered. The pillar
    /// that owns `missing` fills its numbers up to `highest`.
    Blocked {
        /// The lowest number not yet delivered.
        missing: Seq,
        /// The highest number delivered.
        highest: Seq,
    },
    /// To the pillar in charge: agree on this checkpoint.
    Checkpoint {
        /// The number after whose execution it was taken.
        seq: Seq,
        /// The digest of the whole state.
        digest: Digest,
    },
    /// To the pillar that ordered it, before it is told that `seq` is executed: this frame was
    /// ordered before its predecessor and refused. It is to be ordered again as soon as the
    /// client sends it again.
    Refused {
        /// The batch's number.
        seq: Seq,
        /// The frame.
        entry: BatchEntry,
    },
    /// To one pillar: send this reply to the client.
    Reply {
        /// The frame that is answered; names the client and session.
        frame: FrameId,
        /// The encoded reply, as clients vote on it.
        content: Arc<Vec<u8>>,
    },
}

/// How far execution has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Every number up to this one is executed.
    pub executed: Seq,
    /// The agreed time after it.
    pub time: AgreedTime,
    /// When the service next wants to be woken, in agreed time.
    pub deadline: Option<AgreedTime>,
}

/// From one pillar to its siblings in the same replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sibling {
    /// This replica, as leader, has proposed `seq`: siblings fill their own lower numbers.
    Proposed(Seq),
    /// The checkpoint is stable: all pillars move their low mark.
    Stable(StableCheckpoint),
}

/// A checkpoint with its certificate: a quorum of signatures of distinct replicas. The default
/// is the beginning of the group's history, number 0, which needs no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StableCheckpoint {
    /// The number after whose execution it was taken.
    pub seq: Seq,
    /// The digest of the whole state.
    pub digest: Digest,
    /// The signatures, in ascending order of replica.
    pub proof: Arc<Vec<(ReplicaId, Signature)>>,
}

/// What a replica tells about itself to whoever may ask. Plain numbers, copied out by the
/// driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PillarReport {
    /// The view this pillar is in.
    pub view: View,
    /// Low mark: the last stable checkpoint.
    pub stable: Seq,
    /// Digest of the last stable checkpoint.
    pub stable_digest: Digest,
    /// Highest number that this pillar delivered without a gap in its own stripe.
    pub delivered: Seq,
    /// Frames that wait for their order.
    pub pending_frames: u64,
    /// Instances proposed and not yet delivered.
    pub in_flight: u64,
    /// Messages of peers that were dropped as stale.
    pub stale: u64,
    /// Messages of peers that no correct replica sends.
    pub misbehaviour: u64,
}
