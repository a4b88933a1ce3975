//! Writing a checkpoint file, object by object.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::transfer::{Manifest, Part};
use base::{GroupId, StableCheckpoint};

use super::CheckpointHead;
use super::format::{self, HEAD_BYTES, Section};
use crate::error::{StoreError, io};
use crate::storage::{File, Storage};

/// What a file that is not finished has behind its name.
pub(super) const SUFFIX: &str = ".new";

/// A checkpoint file in the making. Dropping it unfinished removes it.
#[derive(Debug)]
pub struct CheckpointWriter {
    storage: Arc<dyn Storage>,
    file: Box<dyn File>,
    path: PathBuf,
    new: PathBuf,
    group: GroupId,
    buffer: Vec<u8>,
    /// Bytes in the file, without the buffer.
    written: u64,
    synced: u64,
    counts: [u64; 2],
    object_bytes: u64,
    failed: Option<StoreError>,
    finished: bool,
}

const BUFFER_BYTES: usize = 1 << 20;
/// Synced bit by bit, so that the end does not keep the disk busy for long while the log waits.
const SYNC_BYTES: u64 = 8 << 20;

impl CheckpointWriter {
    /// Begins a file that will have the name `path`, in a directory that exists.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn create(
        storage: Arc<dyn Storage>,
        path: &Path,
        group: GroupId,
    ) -> Result<CheckpointWriter, StoreError> {
        let mut name = path.file_name().map(OsString::from).unwrap_or_default();
        name.push(SUFFIX);
        let new = path.with_file_name(name);
        let file = storage.create(&new).map_err(|e| io(&new, "create the checkpoint", e))?;
        Ok(CheckpointWriter {
            storage,
            file,
            path: path.to_path_buf(),
            new,
            group,
            buffer: vec![],
            written: HEAD_BYTES as u64,
            synced: 0,
            counts: [0; 2],
            object_bytes: 0,
            failed: None,
            finished: false,
        })
    }

    /// Adds an object. Each is added once; in which order does not matter.
    ///
    /// # Errors
    /// When the storage fails: final, every later call says the same.
    pub fn object(&mut self, part: Part, number: u32, bytes: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        let offset = self.written + self.buffer.len() as u64;
        let section = Section { part, number, len: bytes.len() as u64, sum: crc32c::crc32c(bytes) };
        format::encode_section(&section, offset, &mut self.buffer);
        self.counts[usize::from(part == Part::Sessions)] += 1;
        self.object_bytes += bytes.len() as u64;
        let done = if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush().and_then(|()| self.put(bytes))
        } else {
            self.buffer.extend_from_slice(bytes);
            Ok(())
        };
        self.note(done)
    }

    /// Bytes that were added, with their checksums.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Ends the file with what certifies it, and gives it its name: it is durable when this
    /// returns, and replaces a file of the same name.
    ///
    /// # Errors
    /// When the certificate is not the manifest's, or the storage fails.
    pub fn finish(
        mut self,
        manifest: &Manifest,
        certificate: &StableCheckpoint,
    ) -> Result<CheckpointHead, StoreError> {
        self.check()?;
        let head = CheckpointHead {
            path: self.path.clone(),
            group: self.group,
            manifest: *manifest,
            certificate: certificate.clone(),
            service_objects: self.counts[0],
            session_objects: self.counts[1],
            object_bytes: self.object_bytes,
            file_bytes: self.bytes() + HEAD_BYTES as u64,
        };
        format::agrees(&head)?;
        self.flush()?;
        let bytes = format::encode_head(&head);
        self.put(&bytes)?;
        self.file.write_at(0, &bytes).map_err(|e| io(&self.new, "write the checkpoint", e))?;
        if !base::mutant!(CheckpointNamedUnsynced) {
            self.sync()?;
        }
        let named = self.storage.rename(&self.new, &self.path);
        named.map_err(|e| io(&self.path, "name the checkpoint", e))?;
        self.finished = true;
        let dir = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = self.storage.sync_dir(dir);
        synced.map_err(|e| io(dir, "make the directory durable", e))?;
        Ok(head)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.put(&buffer)?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write_at(self.written, bytes);
        written.map_err(|e| io(&self.new, "write the checkpoint", e))?;
        self.written += bytes.len() as u64;
        if self.written - self.synced >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file.sync().map_err(|e| io(&self.new, "make the checkpoint durable", e))?;
        self.synced = self.written;
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error) = &done {
            self.failed = Some(error.clone());
        }
        done
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what is left is removed at the next start.
            let _ = self.storage.remove(&self.new);
        }
    }
}
