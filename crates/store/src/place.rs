//! The place of a log: its files and their names, and what of them a new life can rely on.
//!
//! Not here: what is written to the segments (`log`), and whether it is whole (`scan`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Identity;
use crate::block::BLOCK_BYTES;
use crate::error::{StoreError, io};
use crate::scan::{self, Segment, Tail, Whole};
use crate::storage::{File, Storage};

/// Bytes that are written anew at a time.
const ANEW_BYTES: usize = 1 << 20;
pub(crate) static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where a log lies, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub storage: Arc<dyn Storage>,
    pub dir: PathBuf,
    pub identity: Identity,
    /// A segment gets its name only when it is durable, whatever its commit asks for: otherwise
    /// a name may reach the disk before what it names, and the log is in doubt after a power
    /// cut, although nothing that counts is lost.
    pub strict: bool,
}

impl Place {
    /// Removes all segments, the oldest first.
    pub fn clear(&self, tail: &Tail) -> Result<(), StoreError> {
        tail.numbers.iter().try_for_each(|number| self.remove(*number))
    }

    /// Removes a segment, durably: so that there never is a gap.
    pub fn remove(&self, number: u32) -> Result<(), StoreError> {
        let path = scan::segment_path(&self.dir, number);
        self.storage.remove(&path).map_err(|e| io(&path, "remove the log segment", e))?;
        self.sync_dir()
    }

    /// Makes durable what was found of a segment; of the last one, up to where it is torn.
    pub fn rely_on(
        &self,
        segment: &Segment,
        whole: Whole,
        torn_until: Option<u32>,
    ) -> Result<Box<dyn File>, StoreError> {
        let path = scan::segment_path(&self.dir, segment.number);
        let file = self.storage.open(&path).map_err(|e| io(&path, "open the log segment", e))?;
        if !whole.named {
            return self.name_anew(segment, &*file, whole.blocks, &path);
        }
        if let Some(until) = torn_until.filter(|until| *until > whole.blocks) {
            // What is torn would be taken for rot behind the commits that follow.
            let blank = vec![0; (until - whole.blocks) as usize * BLOCK_BYTES];
            let cut = file.write_at(u64::from(whole.blocks) * BLOCK_BYTES as u64, &blank);
            cut.map_err(|e| io(&path, "cut off the torn end of the log", e))?;
        }
        if torn_until.is_some() || !whole.durable {
            write_anew(&*file, &*file, whole.blocks, &path)?;
        }
        file.sync().map_err(|e| io(&path, "make the log durable", e))?;
        Ok(file)
    }

    /// Puts a copy in the place of a segment. Its name may be one that a sync failed to write: the
    /// system goes on showing it, and would not write it with the next one.
    fn name_anew(
        &self,
        segment: &Segment,
        old: &dyn File,
        blocks: u32,
        path: &Path,
    ) -> Result<Box<dyn File>, StoreError> {
        let new = scan::spare_path(&self.dir);
        let file = self.storage.create(&new).map_err(|e| io(&new, "create the log segment", e))?;
        write_anew(old, &*file, blocks, &new)?;
        let mut at = u64::from(blocks) * BLOCK_BYTES as u64;
        while at < segment.bytes {
            let count = (segment.bytes - at).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..usize::try_from(count).expect("is at most the array")];
            file.write_at(at, zeros).map_err(|e| io(&new, "prepare the log segment", e))?;
            at += count;
        }
        file.sync().map_err(|e| io(&new, "make the log durable", e))?;
        let named = self.storage.rename(&new, path);
        named.map_err(|e| io(path, "name the log segment", e))?;
        Ok(file)
    }

    pub fn sync_dir(&self) -> Result<(), StoreError> {
        let synced = self.storage.sync_dir(&self.dir);
        synced.map_err(|e| io(&self.dir, "make the directory durable", e))
    }
}

/// Writes the first blocks once more as they are. After a sync that failed the system goes on
/// showing what it has not written and will not write: the sync that follows must not be one
/// of nothing.
fn write_anew(
    from: &dyn File,
    into: &dyn File,
    blocks: u32,
    path: &Path,
) -> Result<(), StoreError> {
    let end = u64::from(blocks) * BLOCK_BYTES as u64;
    let mut piece = vec![0; ANEW_BYTES];
    let mut at = 0;
    while at < end {
        let count = usize::try_from(end - at).map_or(ANEW_BYTES, |left| left.min(ANEW_BYTES));
        let piece = &mut piece[..count];
        let read = from.read_at(at, piece).map_err(|e| io(path, "read the log segment", e))?;
        let written = into.write_at(at, &piece[..read]);
        written.map_err(|e| io(path, "write the log anew", e))?;
        at += count as u64;
    }
    Ok(())
}
