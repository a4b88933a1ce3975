//! What can go wrong with a replica's directory, in words that name cause and remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{GroupId, ReplicaId};

use crate::storage::LostNames;

/// An operation on a replica's directory failed. Cheap to clone: a failure of the log is final,
/// and every later call reports it again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{path}: cannot {doing}: {source}{}", remedy(.source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// Another process has the directory.
    #[error(
        "{path}: in use by another process{}: a directory serves one replica process; stop the \
         other one first",
        .holder.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id that the other process left, when it can be read.
        holder: Option<String>,
    },
    /// The directory belongs to another group.
    #[error(
        "{path}: belongs to group {}, not to group {}: name the directory of this group's \
         replica, or another, empty one", hex(.found), hex(.wanted)
    )]
    OtherGroup {
        /// The file that says so.
        path: PathBuf,
        /// The group that it names.
        found: GroupId,
        /// The group that was to be served.
        wanted: GroupId,
    },
    /// The directory belongs to another replica.
    #[error(
        "{path}: belongs to replica {found}, not to replica {wanted}: each replica has a \
         directory of its own; name that of replica {wanted}"
    )]
    OtherReplica {
        /// The file that says so.
        path: PathBuf,
        /// The replica that it names.
        found: ReplicaId,
        /// The replica that was to be started.
        wanted: ReplicaId,
    },
    /// A newer version of the program wrote the file.
    #[error(
        "{path}: is of format version {found}, and this version of stylite reads up to \
         {supported}: start the newer version that wrote it"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest one known here.
        supported: u16,
    },
    /// The incarnation does not grow.
    #[error(
        "incarnation {wanted} is not above {found}, the last one of this replica: the machine's \
         clock was set back; set it right"
    )]
    OldIncarnation {
        /// The last one.
        found: u64,
        /// The one to be begun.
        wanted: u64,
    },
    /// A log that is not trusted was to be continued.
    #[error("the log cannot be continued: {0}")]
    Doubtful(String),
    /// A record is beyond the limit.
    #[error("a record of {len} bytes is above the limit of {max}")]
    RecordTooLarge {
        /// Its bytes.
        len: usize,
        /// The most.
        max: usize,
    },
    /// A checkpoint file or snapshot that cannot be read at all.
    #[error("{path}: not a usable checkpoint file: {what}")]
    NoCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A checkpoint that contradicts itself was to be written.
    #[error("the checkpoint cannot be written: {0}")]
    BadCheckpoint(&'static str),
}

impl StoreError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if full(source))
    }

    /// Whether names in the directory could not be made durable. That is final for all that write
    /// to it, so that a replica that relies on the directory had better end.
    #[must_use]
    pub fn lost_names(&self) -> bool {
        let StoreError::Io { source, .. } = self else { return false };
        source.get_ref().is_some_and(|why| why.is::<LostNames>())
    }
}

pub(crate) fn io(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_path_buf(), doing, source: Arc::new(source) }
}

fn full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn remedy(error: &io::Error) -> &'static str {
    if full(error) { "; free some space" } else { "" }
}

fn hex(group: &GroupId) -> String {
    group.0[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>() + ".."
}
