//! A storage that makes no name durable any more once it failed to.
//!
//! The log, the life file and the checkpoint files lie in one directory, and more than one thread
//! syncs it. Linux tells of a failure once: whoever syncs next succeeds, though what the first was
//! to write is lost, the names of others included. So the failure counts for all, and the lock
//! leaves no time in which another sync passes before it is known.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::memory::lock;
use super::{File, Lock, Storage};
use crate::life::BootId;

/// Why a sync of names fails: that one, or an earlier one, did.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LostNames(String);

/// Over another storage: after [`Storage::sync_dir`] failed, it always fails; so it does after
/// [`Storage::create_dir`] failed, which syncs the directory above.
#[derive(Debug)]
pub(crate) struct FinalNames {
    base: Arc<dyn Storage>,
    /// Why the first one failed. Held while the system syncs.
    failed: Mutex<Option<String>>,
}

impl FinalNames {
    pub(crate) fn over(base: Arc<dyn Storage>) -> FinalNames {
        FinalNames { base, failed: Mutex::default() }
    }

    /// Does what syncs names, unless that failed before.
    fn sync(&self, names: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut failed = lock(&self.failed);
        if let Some(why) = &*failed {
            let why = format!("an earlier sync of it failed: {why}");
            return Err(io::Error::other(LostNames(why)));
        }
        names().map_err(|error| {
            let why = error.to_string();
            *failed = Some(why.clone());
            io::Error::new(error.kind(), LostNames(why))
        })
    }
}

impl Storage for FinalNames {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync(|| self.base.create_dir(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.base.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.base.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.base.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.base.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.base.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync(|| self.base.sync_dir(dir))
    }

    fn boot(&self) -> BootId {
        self.base.boot()
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        self.base.lock(path, note)
    }
}
