//! What `init` leaves for the replicas of a group, and where each keeps its state.
//!
//! `init` leaves one mark per replica, `state/replica-I.virgin` beside the configuration (where
//! there are several partitions, `state/replica-I.partition-K.virgin` for each): proof
//! that the replica was never started. The first start takes it away, after it has made durable
//! in the replica's directory that a life has begun, and before anybody could have relied on a
//! second one. A directory without a life and without the mark is a lost disk, and a plain start
//! on it is refused: whoever may have forgotten a vote must not vote (`store::beginning`
//! decides).
//!
//! Not here: what is in a replica's directory (`store`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base::{GroupId, ReplicaId};
use genesis::Group;

/// The directory of the marks and of the replicas' own directories, beside the configuration.
const STATE_DIR: &str = "state";
const HEAD: &str = "This replica has never been started. Its first start removes this file.\n\
    Never restore it: a replica that has forgotten its votes must not vote again.\n";

/// Leaves a mark for every replica of a group that has just been founded, in each of its
/// partitions.
///
/// # Errors
/// When there are marks already, or they cannot be written.
pub fn leave(group: &Group) -> Result<()> {
    let dir = state_dir(group);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.with_context(|| format!("{}: cannot create the directory", dir.display()))?;
    for part in group.parts() {
        part.replicas().iter().try_for_each(|entry| leave_one(&part, entry.id))?;
    }
    sync(&dir)?;
    dir.parent().map_or(Ok(()), sync)
}

fn leave_one(group: &Group, id: ReplicaId) -> Result<()> {
    let path = path(group, id);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| {
        file.write_all(content(&group.id(), id).as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("{}: cannot create the mark", path.display()))
}

/// Whether a replica's mark is there.
///
/// # Errors
/// When it is of another group or replica, or cannot be read.
pub fn is_there(group: &Group, id: ReplicaId) -> Result<bool> {
    let path = path(group, id);
    let found = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.with_context(|| format!("{}: cannot read the mark", path.display()))?,
    };
    if found != content(&group.id(), id) {
        bail!(
            "{}: this is the mark of another group or replica. Restore the directory as \
             `stylite init` wrote it, or found a new group",
            path.display()
        );
    }
    Ok(true)
}

/// Takes a replica's mark away, durably. Nothing happens when there is none.
///
/// # Errors
/// When it cannot be removed.
pub fn take(group: &Group, id: ReplicaId) -> Result<()> {
    let path = path(group, id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("{}: cannot remove it", path.display()))?,
    }
    sync(&state_dir(group))
}

/// Where a replica keeps its state, unless told otherwise. Of a partition: that partition's.
#[must_use]
pub fn replica_dir(group: &Group, id: ReplicaId) -> PathBuf {
    within(group, state_dir(group).join(format!("replica-{id}")))
}

/// Where in its directory a replica keeps the state of this group: all of it, or that of a
/// partition.
#[must_use]
pub fn within(group: &Group, dir: PathBuf) -> PathBuf {
    match group.partition() {
        None => dir,
        Some(number) => dir.join(format!("partition-{number}")),
    }
}

/// The snapshot that a group was founded from.
#[must_use]
pub fn initial_snapshot(group: &Group) -> PathBuf {
    state_dir(group).join("initial.snapshot")
}

/// The directory of everything that replicas write.
#[must_use]
pub fn state_dir(group: &Group) -> PathBuf {
    group.dir().join(STATE_DIR)
}

fn path(group: &Group, id: ReplicaId) -> PathBuf {
    let partition = group.partition().map(|number| format!(".partition-{number}"));
    state_dir(group).join(format!("replica-{id}{}.virgin", partition.unwrap_or_default()))
}

fn content(group: &GroupId, id: ReplicaId) -> String {
    let hex: String = group.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HEAD}group = {hex}\nreplica = {id}\n")
}

fn sync(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("{}: cannot make the directory durable", dir.display()))
}

#[cfg(test)]
mod tests {
    use genesis::InitOptions;

    use super::*;

    #[test]
    fn a_mark_is_for_one_replica_of_one_group_and_goes_once() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let found = |dir: &tempfile::TempDir| {
            let group = genesis::init(&dir.path().join("g"), &InitOptions::default());
            let group = group.expect("legal options");
            leave(&group).expect("an empty directory");
            group
        };
        let [one, other] = dirs.each_ref().map(found);
        assert!(is_there(&one, ReplicaId(3)).expect("its own"));
        fs::copy(path(&other, ReplicaId(1)), path(&one, ReplicaId(1))).expect("own files");
        let told = is_there(&one, ReplicaId(1)).expect_err("another group's").to_string();
        assert!(told.contains("another group"), "{told}");
        take(&one, ReplicaId(3)).expect("it is there");
        take(&one, ReplicaId(3)).expect("nothing happens");
        assert!(!is_there(&one, ReplicaId(3)).expect("gone"));
        assert!(is_there(&one, ReplicaId(2)).expect("its own"));
    }
}
