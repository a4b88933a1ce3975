//! The mark of a replica that has never been started: whoever may have forgotten a vote must
//! not vote.
//!
//! `init` leaves one file per replica, `state/replica-I.virgin` beside the configuration. The
//! first start takes it away, durably, before the replica says anything to anybody; a start
//! that does not find it is refused. In a group that keeps its state in memory, this is what
//! tells a first start from one that has forgotten everything.
//!
//! Invariant: when [`take`] returns, no later call for the same replica succeeds, even when the
//! machine loses power in between.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base::{GroupId, ReplicaId};
use genesis::Group;

/// The directory of the marks, beside the configuration.
const STATE_DIR: &str = "state";
const HEAD: &str = "This replica has never been started. Its first start removes this file.\n\
    Never restore it: a replica that has forgotten its votes must not vote again.\n";

/// Leaves a mark for every replica of a group that has just been founded.
///
/// # Errors
/// When there are marks already, or they cannot be written.
pub fn leave(group: &Group) -> Result<()> {
    let dir = dir(group);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.with_context(|| format!("{}: cannot create the directory", dir.display()))?;
    for entry in group.replicas() {
        let path = path(group, entry.id);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(content(&group.id(), entry.id).as_bytes())?;
            file.sync_all()
        });
        written.with_context(|| format!("{}: cannot create the mark", path.display()))?;
    }
    sync(&dir)?;
    dir.parent().map_or(Ok(()), sync)
}

/// Whether every replica of the group can still have its first start.
///
/// # Errors
/// When one of them has been started before.
pub fn check_all(group: &Group) -> Result<()> {
    group.replicas().iter().try_for_each(|entry| check(group, entry.id).map(drop))
}

/// Takes a replica's mark away, durably.
///
/// # Errors
/// When there is none: the replica was started before. When it is of another group, or cannot
/// be removed.
pub fn take(group: &Group, id: ReplicaId) -> Result<()> {
    let path = check(group, id)?;
    fs::remove_file(&path).with_context(|| format!("{}: cannot remove it", path.display()))?;
    sync(&dir(group))
}

/// Where a replica's mark is, once it has been found to be there and its own.
fn check(group: &Group, id: ReplicaId) -> Result<PathBuf> {
    let path = path(group, id);
    let found = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "replica {id} has been started before: its mark {} is gone. It kept its votes in \
             memory, so it has forgotten them; if it voted again, it could contradict them, and \
             a few such replicas can make the group lose acknowledged operations. Recovering a \
             replica is not part of this version. {} To have all replicas again, stop those \
             that still run and found a new group with `stylite init` in another directory; \
             the state of this one is lost then",
            path.display(),
            if id == ReplicaId(0) {
                "It is the leader, which this version cannot replace: without it the others \
                 execute nothing."
            } else {
                "Others that still run go on without it, but the group tolerates one fault less."
            }
        ),
        other => other.with_context(|| format!("{}: cannot read the mark", path.display()))?,
    };
    if found != content(&group.id(), id) {
        bail!(
            "{}: this is the mark of another group or replica. Restore the directory as \
             `stylite init` wrote it, or found a new group",
            path.display()
        );
    }
    Ok(path)
}

fn dir(group: &Group) -> PathBuf {
    let here = Path::new(".");
    let beside = group.path().parent().filter(|parent| !parent.as_os_str().is_empty());
    beside.unwrap_or(here).join(STATE_DIR)
}

fn path(group: &Group, id: ReplicaId) -> PathBuf {
    dir(group).join(format!("replica-{id}.virgin"))
}

fn content(group: &GroupId, id: ReplicaId) -> String {
    let hex: String = group.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HEAD}group = {hex}\nreplica = {id}\n")
}

fn sync(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("{}: cannot make the directory durable", dir.display()))
}
