//! What speaks against other replicas: proofs, which convince anybody, and suspicions, which are
//! this replica's own.
//!
//! Proofs are kept as files beside the replica's state, one per accused and kind, so that they
//! outlive it. Nothing depends on those files: the vote log has the proofs, too. So they have a
//! directory of their own, made at the start: others choose when a proof is written, and whoever
//! syncs the replica's directory beside its log may hear in the log's place that it failed.
//!
//! Not here: what is a proof (`proto::group::evidence`). Depends on `serde` for reports.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{AgreedTime, ReplicaId};
use proto::group::SuspicionKind;
use proto::group::evidence::Proof;
use proto::group::link::Grievance;
use serde::{Deserialize, Serialize};
use store::{Dir, StoreError};

/// A proof that a replica is faulty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceRow {
    /// Who is faulty.
    pub accused: u16,
    /// What it did.
    pub kind: String,
    /// The proof's bytes in hexadecimal; empty when they are more than 64 KiB, or do not fit into
    /// an answer with the shorter ones, and then they are only in the file.
    pub proof: String,
}

/// What makes a replica seem faulty, seen from one other. Not a fact unless f + 1 say the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SuspicionRow {
    /// Who is suspected.
    pub accused: u16,
    /// Of what.
    pub kind: String,
    /// How often that was seen since the start.
    pub count: u64,
    /// When it was seen first, in nanoseconds since the Unix epoch.
    pub since: u64,
}

/// The name of packets that mean nothing, and of messages that contradict themselves.
pub(crate) const GARBAGE: &str = "garbage";

/// The longest proof that reports carry.
pub(crate) const SHOWN_BYTES_MAX: usize = 64 << 10;

/// Everything that speaks against others. Bounded by replicas and kinds.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Where proofs are kept as files.
    dir: Option<PathBuf>,
    proofs: BTreeMap<(u16, &'static str), EvidenceRow>,
    suspicions: BTreeMap<(u16, &'static str), SuspicionRow>,
    /// What reports show; made anew when anything changes.
    rows: Arc<EvidenceRows>,
}

/// What reports show.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct EvidenceRows {
    pub(crate) proofs: Vec<EvidenceRow>,
    pub(crate) suspicions: Vec<SuspicionRow>,
}

impl Evidence {
    /// Nothing so far; proofs go to files in a directory in `state`.
    ///
    /// # Errors
    /// When that cannot be made.
    pub(crate) fn new(state: Option<&Dir>) -> Result<Evidence, StoreError> {
        let dir = state.map(|state| state.subdirectory("evidence")).transpose()?;
        Ok(Evidence { dir, ..Evidence::default() })
    }

    /// A proof is known: kept, unless there is one against this replica for the same already.
    pub(crate) fn proved(&mut self, accused: ReplicaId, proof: &Proof) {
        let kind = proof.kind().name();
        if self.proofs.contains_key(&(accused.0, kind)) {
            return;
        }
        let mut bytes = Vec::new();
        proof.encode(&mut bytes);
        tracing::error!(%accused, kind, bytes = bytes.len(), "a replica is proved to be faulty");
        let short = bytes.len() <= SHOWN_BYTES_MAX;
        let shown = if short { crate::report::hex(&bytes) } else { String::new() };
        let row = EvidenceRow { accused: accused.0, kind: kind.to_owned(), proof: shown };
        self.proofs.insert((accused.0, kind), row);
        self.refresh();
        if let Some(dir) = self.dir.clone() {
            let name = format!("replica-{accused}-{kind}.proof");
            let write = move || {
                if let Err(error) = keep(&dir, &name, &bytes) {
                    tracing::warn!(dir = %dir.display(), name, %error, "cannot keep a proof");
                }
            };
            // Nobody waits for it, and the event loop must not wait for a disk.
            if let Err(error) = std::thread::Builder::new().name("evidence".to_owned()).spawn(write)
            {
                tracing::warn!(%error, "cannot start a thread to keep a proof");
            }
        }
    }

    /// A suspicion was raised.
    pub(crate) fn suspected(&mut self, accused: ReplicaId, kind: SuspicionKind, now: AgreedTime) {
        let name = name(kind);
        let row = self.suspicions.entry((accused.0, name)).or_insert_with(|| {
            tracing::warn!(%accused, kind = name, "a replica is suspected");
            SuspicionRow { accused: accused.0, kind: name.to_owned(), count: 0, since: now.0 }
        });
        row.count += 1;
        self.refresh();
    }

    /// What reports show.
    pub(crate) fn rows(&self) -> Arc<EvidenceRows> {
        Arc::clone(&self.rows)
    }

    fn refresh(&mut self) {
        self.rows = Arc::new(EvidenceRows {
            proofs: self.proofs.values().cloned().collect(),
            suspicions: self.suspicions.values().cloned().collect(),
        });
    }
}

/// Whole or not at all: what has its name is a proof, also after a loss of power.
fn keep(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, draft) = (dir.join(name), dir.join(format!("{name}.draft")));
    // Only where somebody has cleared it away since the start.
    std::fs::create_dir_all(dir)?;
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, &path)?;
    // Its name. That of its directory is durable since the start.
    File::open(dir)?.sync_all()
}

/// Adds to `rows` that `count` packets of `accused` meant nothing, the first one `since` then.
pub(crate) fn add_garbage(
    rows: &mut Vec<SuspicionRow>,
    accused: u16,
    (count, since): (u64, AgreedTime),
) {
    if count == 0 {
        return;
    }
    let known = rows.iter_mut().find(|row| row.accused == accused && row.kind == GARBAGE);
    if let Some(row) = known {
        row.count += count;
        row.since = row.since.min(since.0);
    } else {
        let kind = GARBAGE.to_owned();
        rows.push(SuspicionRow { accused, kind, count, since: since.0 });
    }
}

/// The names by which people know suspicions.
fn name(kind: SuspicionKind) -> &'static str {
    match kind {
        SuspicionKind::Leader(Grievance::Stalled) => "stalled-leader",
        SuspicionKind::Leader(Grievance::Starved) => "starving-leader",
        SuspicionKind::Leader(Grievance::Slow) => "slow-leader",
        SuspicionKind::Leader(Grievance::Equivocates) => "equivocating-leader",
        SuspicionKind::Leader(Grievance::Forges) => "forging-leader",
        SuspicionKind::NoNewView => "no-new-view",
        SuspicionKind::Garbage => GARBAGE,
        SuspicionKind::LyingSource => "lying-source",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicions_are_counted_from_the_first_on_and_bounded_by_kinds() {
        let mut evidence = Evidence::default();
        let slow = SuspicionKind::Leader(Grievance::Slow);
        for i in 0..100 {
            evidence.suspected(ReplicaId(2), slow, AgreedTime(7 + i));
        }
        evidence.suspected(ReplicaId(1), SuspicionKind::Garbage, AgreedTime(3));
        let rows = evidence.rows();
        let seen: Vec<_> =
            rows.suspicions.iter().map(|r| (r.accused, &*r.kind, r.count, r.since)).collect();
        assert_eq!(seen, [(1, "garbage", 1, 3), (2, "slow-leader", 100, 7)]);
    }

    #[test]
    fn a_proof_is_kept_whole_and_leaves_no_draft() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("evidence");
        keep(&dir, "replica-2-garbage.proof", b"bytes").expect("kept");
        keep(&dir, "replica-2-garbage.proof", b"other bytes").expect("kept again");
        let kept: Vec<_> = std::fs::read_dir(&dir).expect("there").flatten().collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(std::fs::read(kept[0].path()).expect("readable"), b"other bytes");
        let file = place.path().join("a file");
        std::fs::write(&file, b"").expect("written");
        assert!(keep(&file, "replica-1-garbage.proof", b"bytes").is_err());
    }

    /// What syncs that names of votes wait for is the log's to hear of.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_proof_is_kept_without_a_sync_of_the_replica_s_directory() {
        use std::os::fd::AsRawFd as _;
        let place = tempfile::tempdir().expect("a directory");
        let open = File::open(place.path()).expect("it is there");
        // The same directory, in one that the system does not sync.
        let dir = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let above = dir.parent().expect("it has one");
        assert!(File::open(above).expect("opens").sync_all().is_err(), "or this shows nothing");
        keep(&dir, "replica-2-garbage.proof", b"bytes").expect("kept");
    }

    #[test]
    fn packets_that_mean_nothing_join_what_is_known_of_their_sender() {
        let mut rows = Vec::new();
        add_garbage(&mut rows, 1, (0, AgreedTime(0)));
        assert!(rows.is_empty(), "nobody is suspected of nothing");
        add_garbage(&mut rows, 1, (2, AgreedTime(9)));
        add_garbage(&mut rows, 1, (3, AgreedTime(7)));
        add_garbage(&mut rows, 1, (0, AgreedTime(0)));
        let seen: Vec<_> = rows.iter().map(|r| (r.accused, &*r.kind, r.count, r.since)).collect();
        assert_eq!(seen, [(1, GARBAGE, 5, 7)]);
    }
}
