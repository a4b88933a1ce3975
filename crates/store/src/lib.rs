//! What a replica keeps on disk, so that it never contradicts what it said before a crash.
//!
//! Three kinds of files in one directory: the *log* of what the replica has promised (records are
//! opaque bytes here), *checkpoint files* with the state up to a number, which is also the format
//! of snapshots, and the *life file*, which says how the replica's last life was lived and ended.
//! All of them lie on a [`Storage`], which tests replace by one that forgets and rots.
//!
//! The way of a start: [`Dir::open`] finds what is there, [`beginning`] decides whether the
//! replica may vote, [`Dir::begin`] makes the decision durable and hands out the [`Log`]; only
//! then may anything be said to others. It ends with [`Dir::end`].
//!
//! What it is not: the meaning of records (`proto::record`), the threads that write (`rt`), nor
//! the verification of certificates, which needs keys. It may depend on `base`.
//!
//! Invariants:
//! 1. a record is there, unchanged and in its place, after every crash that follows a
//!    [`Log::commit`] with `sync` that returned; else the log is in doubt, and says so;
//! 2. what is read back was appended, by this replica of this group, in this order: bytes that
//!    rotted, that were written to the wrong place or that come from another log are never
//!    taken for records;
//! 3. a torn end is cut off only where it provably never was durable;
//! 4. an error of the log is final: nothing is tried again, every later call says the same; so is
//!    a failure to make the directory's names durable, whoever met it, for all that write to it;
//! 5. disk space is bounded by what lies above the last checkpoint and two checkpoint files.

#![forbid(unsafe_code)]

mod begin;
mod block;
pub mod checkpoint;
mod dir;
mod error;
mod life;
mod log;
mod place;
mod scan;
pub mod storage;

pub use begin::{Beginning, Refusal, Voice, beginning, may_forget};
pub use checkpoint::{
    CheckpointReader, CheckpointWriter, Checkpoints, Item, Summary, checkpoint_due,
};
pub use dir::{Dir, Found, LifeFound, Opened};
pub use error::StoreError;
pub use life::{BootId, Durability, Life};
pub use log::{Log, LogOptions, RECORD_BYTES_MAX};
pub use scan::{FoundLog, LogRecord, Verdict};
pub use storage::{Faults, File, Full, Memory, Real, Storage, Volatile};

use base::{GroupId, ReplicaId};

/// Whose directory it is. Bound into every block and file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
}

/// The newest version of the files that is known here, and the one that is written.
pub const FORMAT_VERSION: u16 = 1;
