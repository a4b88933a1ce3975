//! What the parts of one replica tell each other: pillars and the execution stage are message
//! peers, never callers of one another, so that the links between them can be simulated like
//! network links.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::batch::{Batch, BatchEntry};
use crate::crypto::Signature;
use crate::digest::Digest;
use crate::frame::{Frame, FrameId};
use crate::id::{ClientId, PillarId, ReplicaId, Seq, SessionId, View};
use crate::time::{AgreedTime, Time};
use crate::transfer::{SnapshotReader, StateMessage};

/// From a pillar, or the coordinator, to the execution stage.
#[derive(Clone, Debug)]
pub enum ToStage {
    /// `batch` is committed at `seq`.
    Deliver {
        /// The batch's number.
        seq: Seq,
        /// The batch with its bodies.
        batch: Arc<Batch>,
    },
    /// `batch` is prepared at `seq` in `view`: in a group that executes tentatively it may be
    /// executed before it is committed, and taken back when another one is.
    Tentative {
        /// The batch's number.
        seq: Seq,
        /// The view in which it is prepared.
        view: View,
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
    /// A client wants reads answered, without an order, through `pillar`.
    Read {
        /// The pillar that holds the client's connection.
        pillar: PillarId,
        /// The frame.
        frame: Arc<Frame>,
        /// Only out of a state at or beyond this number: an earlier life of this replica may
        /// have shown a client what is up to there.
        from: Seq,
    },
    /// The checkpoint is stable: its predecessors may go.
    Stable(StableCheckpoint),
    /// Keep the checkpoint at `seq`, which is yet to be executed, readable for `reader` until
    /// [`ToStage::Unpin`]. One per reader; another number replaces it.
    Pin {
        /// A multiple of the checkpoint interval, or whatever is executed now.
        seq: Seq,
        /// For whom.
        reader: SnapshotReader,
    },
    /// `reader` needs its checkpoint no more.
    Unpin(SnapshotReader),
    /// Stop executing and fetch this checkpoint from `sources`: at least a weak quorum's
    /// signatures over it were verified.
    /// Another target replaces the one before; what is there already and still fits is kept.
    Fetch {
        /// The target.
        checkpoint: StableCheckpoint,
        /// Replicas that hold it readable, as they say.
        sources: Vec<ReplicaId>,
    },
    /// Another replica's stage says something.
    State {
        /// The sender, as the link proves it.
        from: ReplicaId,
        /// What it says.
        message: StateMessage,
    },
    /// The monotonic clock, while a fetch is under way or others are answered: the stage has no
    /// other, and says when it wants to be told.
    Tick(Time),
}

/// From the execution stage to one pillar, the coordinator or, where it says so, to all.
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
        /// The view in which what it says is prepared, where that is not committed yet.
        tentative: Option<View>,
        /// The client asks again: it is answered in full, by everybody.
        in_full: bool,
    },
    /// To one pillar: tell the client that something waits for it in the service's state.
    Nudge {
        /// The principal.
        client: ClientId,
        /// Its session.
        session: SessionId,
        /// The batch since which it waits.
        seq: Seq,
    },
    /// To the coordinator: the checkpoint is executed, has this digest, and stays readable.
    Pinned {
        /// For whom.
        reader: SnapshotReader,
        /// The checkpoint.
        seq: Seq,
        /// Its digest, as executed here.
        digest: Digest,
    },
    /// To the coordinator: the checkpoint cannot be kept, since execution is past it.
    PinMissed {
        /// For whom.
        reader: SnapshotReader,
        /// The checkpoint.
        seq: Seq,
        /// Every number up to this one is executed.
        executed: Seq,
    },
    /// To the coordinator, which sends it: for the stage of another replica.
    State {
        /// The replica.
        to: ReplicaId,
        /// What.
        message: StateMessage,
    },
    /// To all pillars and the coordinator: the state is now that of this checkpoint, whatever
    /// was executed before. Everything at or below it counts as delivered and executed. With
    /// fewer signatures than a quorum's it is no stable checkpoint.
    Fetched {
        /// The checkpoint.
        checkpoint: StableCheckpoint,
        /// How far execution has come by that.
        progress: Progress,
        /// It is not what execution had come to by itself.
        replaced: bool,
    },
    /// To the coordinator: no source holds the target any more; name a newer one.
    FetchFailed {
        /// The target.
        seq: Seq,
    },
    /// To the coordinator: `source` is asked for nothing of the target any more, for it does not
    /// hold it, or says nothing.
    LostSource {
        /// The target.
        seq: Seq,
        /// Who.
        source: ReplicaId,
    },
    /// To the coordinator: `source` said something about a checkpoint that does not verify.
    /// Local knowledge, a suspicion.
    LyingSource {
        /// Who.
        source: ReplicaId,
    },
    /// To the coordinator: a quorum certifies another state than was executed here. Execution
    /// stands still until a [`ToStage::Fetch`].
    Diverged {
        /// The certificate.
        certified: StableCheckpoint,
        /// The digest here.
        ours: Digest,
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
    /// This replica, as leader, has proposed `seq`, or has frames for it and it lies beyond the
    /// high mark: siblings fill their own lower numbers.
    Proposed(Seq),
    /// The checkpoint is stable: all pillars move their low mark.
    Stable(StableCheckpoint),
    /// A quorum has certified this one. It is part of a state that this replica has fetched on the
    /// word of fewer: pillars that know of that state move their low mark, and the others will.
    Certified(StableCheckpoint),
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

impl StableCheckpoint {
    /// Whether it is signed by too few, of a group with quorums of `quorum`, to be stable. The
    /// state is right all the same if they are a weak quorum. Never so for the beginning.
    #[must_use]
    pub fn is_weak(&self, quorum: usize) -> bool {
        self.seq > Seq(0) && self.proof.len() < quorum
    }
}

/// What a replica tells about itself to whoever may ask. Plain numbers, copied out by the
/// driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PillarReport {
    /// The view this pillar is in.
    pub view: View,
    /// Who leads the numbers that come next, in turn if they are several: bit r for replica r.
    pub leaders: u64,
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
