//! What a stage tells about itself.

use base::{AgreedTime, Digest, Seq};

use crate::session::SessionCounts;

/// What the stage tells about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageReport {
    /// Every number up to this one is executed.
    pub executed: Seq,
    /// The agreed time after it.
    pub time: AgreedTime,
    /// The highest number delivered.
    pub highest: Seq,
    /// Operations executed.
    pub ops: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Decisions of the session table.
    pub decisions: SessionCounts,
    /// Deliveries refused.
    pub undeliverable: u64,
    /// Checkpoints taken: their digests are made and told.
    pub checkpoints: u64,
    /// The number of the last checkpoint taken.
    pub checkpoint: Seq,
    /// Its digest.
    pub checkpoint_digest: Digest,
    /// The service's root at that checkpoint.
    pub state_root: Digest,
    /// Objects whose digest the last checkpoint needs, also one that is not taken yet.
    pub objects_rehashed: u64,
    /// The last checkpoint known to be right.
    pub stable: Seq,
    /// Stable checkpoints with another digest than ours.
    pub diverged: u64,
    /// Sessions that were told to ask for what waits for them, once per batch.
    pub nudges: u64,
    /// Sessions that were not told because a batch had too many.
    pub nudges_dropped: u64,
    /// Whether the service has not got a result yet.
    pub waiting: bool,
    /// Whether execution stands still until a checkpoint is fetched: the own state is known to
    /// be wrong, or half another one.
    pub halted: bool,
    /// What is carried over from and to other replicas.
    pub transfer: TransferReport,
}

/// What the stage tells about state transfer and readable checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransferReport {
    /// The checkpoint that is being fetched, if any.
    pub target: Option<Seq>,
    /// Objects fetched since the start of the process, verified and in place.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that are known to be missing and not asked for yet.
    pub missing: u64,
    /// Bytes answered to other replicas since the start of the process.
    pub served_bytes: u64,
    /// Requests of other replicas that were dropped: too many, or for what does not exist.
    pub dropped: u64,
    /// Bytes of memory in copies of objects that keep older checkpoints readable.
    pub saved_bytes: u64,
    /// Bytes of memory that large objects in the making may come to take.
    pub buffered_bytes: u64,
}
