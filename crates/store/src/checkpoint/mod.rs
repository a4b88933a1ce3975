//! Checkpoint files: all objects of a certified state, one after the other. Also the format of
//! snapshots.
//!
//! A file is written under another name by whoever feeds it, object by object, at its own pace;
//! it gets its name when it is whole and durable. Every object has a checksum of its own and can
//! be found behind damaged ones, so that what rotted is fetched from others and the rest is used.
//! The head stands at both ends of the file. Byte map: `docs/format.md`.
//!
//! Not here: whether the certificate is right, and whether objects fit its digest: that needs
//! keys and the digest tree. Checksums find rot, not lies.

mod format;
mod reader;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::transfer::Manifest;
use base::{GroupId, Seq, StableCheckpoint};

pub use reader::{CheckpointReader, Item, Summary};
pub use writer::CheckpointWriter;

use crate::error::{StoreError, io};
use crate::storage::Storage;

/// What a checkpoint file says about itself. Not verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointHead {
    /// The file.
    pub path: PathBuf,
    /// The group whose state it is.
    pub group: GroupId,
    /// What the digest is made of. Its digest is that of the certificate.
    pub manifest: Manifest,
    /// The quorum's signatures, yet to be verified.
    pub certificate: StableCheckpoint,
    /// How many objects it holds of the service.
    pub service_objects: u64,
    /// How many objects it holds of the session table.
    pub session_objects: u64,
    /// Bytes of all objects.
    pub object_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// The checkpoint files of a replica's directory. Clones may be on several threads; at most one
/// file is written at a time.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    group: GroupId,
}

const PREFIX: &str = "checkpoint-";
/// What a file has behind its name while that is given to it anew.
const ANEW: &str = ".anew";

impl Checkpoints {
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: PathBuf, group: GroupId) -> Checkpoints {
        Checkpoints { storage, dir, group }
    }

    /// Begins the file of the checkpoint at `seq`.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn write(&self, seq: Seq) -> Result<CheckpointWriter, StoreError> {
        let path = self.dir.join(format!("{PREFIX}{:016x}", seq.0));
        CheckpointWriter::create(Arc::clone(&self.storage), &path, self.group)
    }

    /// Finishes a file: when this returns it is durable, and of the files before it only the
    /// newest good one is left.
    ///
    /// # Errors
    /// Those of [`CheckpointWriter::finish`]; or when older files cannot be removed.
    pub fn finish(
        &self,
        writer: CheckpointWriter,
        manifest: &Manifest,
        certificate: &StableCheckpoint,
    ) -> Result<CheckpointHead, StoreError> {
        let new = writer.finish(manifest, certificate)?;
        let heads = heads(&*self.storage, &self.dir, &self.group)?;
        let previous = heads.into_iter().map(|head| head.path).find(|path| *path != new.path);
        for (path, _) in files(&*self.storage, &self.dir)? {
            if path != new.path && Some(&path) != previous.as_ref() {
                let removed = self.storage.remove(&path);
                removed.map_err(|e| io(&path, "remove the old checkpoint", e))?;
            }
        }
        Ok(new)
    }

    /// The files whose heads check, newest first.
    ///
    /// # Errors
    /// When the storage fails, or a file is of another group or a newer version.
    pub fn heads(&self) -> Result<Vec<CheckpointHead>, StoreError> {
        heads(&*self.storage, &self.dir, &self.group)
    }

    /// Opens one of the files for reading.
    ///
    /// # Errors
    /// Those of [`CheckpointReader::open`].
    pub fn read(&self, head: &CheckpointHead) -> Result<CheckpointReader, StoreError> {
        CheckpointReader::open(&*self.storage, &head.path)
    }

    /// Removes a file that turned out to be unusable: it must not stand in the place of the
    /// previous one that [`Checkpoints::finish`] keeps.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn discard(&self, head: &CheckpointHead) -> Result<(), StoreError> {
        let removed = self.storage.remove(&head.path);
        removed.map_err(|e| io(&head.path, "remove the damaged checkpoint", e))?;
        let synced = self.storage.sync_dir(&self.dir);
        synced.map_err(|e| io(&self.dir, "make the directory durable", e))
    }

    /// Bytes on disk, a file in the making included.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let names = self.storage.list(&self.dir);
        let names = names.map_err(|e| io(&self.dir, "list the directory", e))?;
        let mut sum = 0;
        for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
            let path = self.dir.join(name);
            let len = self.storage.open(&path).and_then(|file| file.len());
            sum += match len {
                // Another thread may have finished or removed it since.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
                other => other.map_err(|e| io(&path, "examine the checkpoint", e))?,
            };
        }
        Ok(sum)
    }
}

/// Least growth of the log that makes another checkpoint file worth its writing.
pub const CHECKPOINT_LOG_BYTES: u64 = 64 << 20;

/// Whether it is time for another checkpoint file: the log has grown by `grown` bytes since the
/// last one, whose file has `last` bytes (0: none). So writing checkpoints at most doubles what
/// is written, and the log stays as small as the state, or 64 MiB.
#[must_use]
pub fn checkpoint_due(grown: u64, last: u64) -> bool {
    grown >= last.max(CHECKPOINT_LOG_BYTES)
}

/// Whether the name is one that an unfinished file left behind.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(writer::SUFFIX)
}

/// Gives all files their names once more, durably with the next sync of `dir`. A name may be one
/// that a sync failed to write: the system goes on showing it, and would not write it with the next
/// one. No bytes are copied for that. A link that is renamed over the file would not do: between
/// two names of one file that changes nothing.
pub(crate) fn name_anew(storage: &dyn Storage, dir: &Path) -> Result<(), StoreError> {
    for (path, _) in files(storage, dir)? {
        let mut anew = path.clone().into_os_string();
        anew.push(ANEW);
        let anew = PathBuf::from(anew);
        let named = storage.rename(&path, &anew).and_then(|()| storage.rename(&anew, &path));
        named.map_err(|e| io(&path, "name the checkpoint anew", e))?;
    }
    Ok(())
}

/// Gives back the names that [`name_anew`] was about to give when it was interrupted.
pub(crate) fn give_back_names(storage: &dyn Storage, dir: &Path) -> Result<(), StoreError> {
    for name in storage.list(dir).map_err(|e| io(dir, "list the directory", e))? {
        if let Some(of) = name.strip_suffix(ANEW).filter(|of| of.starts_with(PREFIX)) {
            let path = dir.join(of);
            let named = storage.rename(&dir.join(&name), &path);
            named.map_err(|e| io(&path, "name the checkpoint", e))?;
        }
    }
    Ok(())
}

/// The checkpoint files in `dir` whose heads check, newest first.
pub(crate) fn heads(
    storage: &dyn Storage,
    dir: &Path,
    group: &GroupId,
) -> Result<Vec<CheckpointHead>, StoreError> {
    let mut heads = vec![];
    for (path, seq) in files(storage, dir)? {
        let head = match CheckpointReader::open(storage, &path) {
            Ok(reader) => reader.head().clone(),
            Err(StoreError::NoCheckpoint { path, what }) => {
                tracing::warn!(path = %path.display(), what, "a checkpoint file is damaged");
                continue;
            }
            Err(error) => return Err(error),
        };
        if head.group != *group {
            let (found, wanted) = (head.group, *group);
            return Err(StoreError::OtherGroup { path, found, wanted });
        }
        if head.manifest.seq == seq {
            heads.push(head);
        }
    }
    heads.sort_by_key(|head| std::cmp::Reverse(head.manifest.seq));
    Ok(heads)
}

fn files(storage: &dyn Storage, dir: &Path) -> Result<Vec<(PathBuf, Seq)>, StoreError> {
    let names = storage.list(dir).map_err(|e| io(dir, "list the directory", e))?;
    let seq = |name: &str| {
        let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(Seq)
    };
    Ok(names.iter().filter_map(|name| Some((dir.join(name), seq(name)?))).collect())
}
