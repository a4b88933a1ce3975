//! A disk that loses whatever was not synced.
//!
//! The page cache outlives a process, so killing one shows nothing about a missing sync. This
//! storage is the page cache of the process itself: what was not synced is in memory only, and
//! goes with the process, or with [`Volatile::crash`]. Names are kept back likewise until their
//! directory is synced; a file whose name was not is on the storage below under a hidden one.
//!
//! It can also be told to fail, see [`Faults`], and to lie: then a sync does nothing and says it
//! was done. That is for proving that a test would notice.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::memory::lock;
use super::{File, Lock, SECTOR_BYTES, Storage, not_found};

/// A disk that loses whatever was not synced. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Volatile(Arc<Inner>);

/// What is to go wrong. The counts begin at 1 and are of this storage's whole life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Every operation that changes something fails after this many: as if the machine had
    /// stopped. To be followed by [`Volatile::crash`].
    pub stop_after: Option<u64>,
    /// This sync, of a file or directory, fails once, and what it was to write is lost: content, or
    /// changes of names.
    pub fail_sync: Option<u64>,
    /// From this write on there is no space for files to grow.
    pub full_from_write: Option<u64>,
}

#[derive(Debug)]
struct Inner {
    base: Arc<dyn Storage>,
    lying: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What a process sees.
    names: BTreeMap<PathBuf, Arc<Inode>>,
    /// Directories whose names were read from below.
    known: Vec<PathBuf>,
    /// Changes of names that are not durable, in order.
    changes: Vec<Change>,
    /// Files whose first name was dropped by a sync that failed.
    nameless: Vec<Arc<Inode>>,
    hidden: u64,
    faults: Faults,
    changed: u64,
    syncs: u64,
    writes: u64,
    stopped: bool,
}

#[derive(Debug)]
enum Change {
    Create(PathBuf, Arc<Inode>),
    Rename(PathBuf, PathBuf, Arc<Inode>),
    Remove(PathBuf),
}

#[derive(Debug)]
struct Inode {
    below: Box<dyn File>,
    /// Its name on the storage below: a hidden one until one that it was given is durable.
    name: Mutex<PathBuf>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// Not synced, in order.
    dirty: Vec<(u64, Vec<u8>)>,
    /// Dropped by a sync that failed: seen until the crash, and never written.
    doomed: Vec<(u64, Vec<u8>)>,
}

const HIDDEN: &str = ".unsynced-";

impl Volatile {
    /// Over `base`, whose content counts as durable.
    #[must_use]
    pub fn over(base: Arc<dyn Storage>) -> Volatile {
        Volatile::new(base, false)
    }

    /// Over `base`, with syncs that do nothing.
    #[must_use]
    pub fn lying(base: Arc<dyn Storage>) -> Volatile {
        Volatile::new(base, true)
    }

    fn new(base: Arc<dyn Storage>, lying: bool) -> Volatile {
        Volatile(Arc::new(Inner { base, lying, state: Mutex::default() }))
    }

    /// Sets what is to go wrong.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.0.state).faults = faults;
    }

    /// Operations so far that changed something: creations, writes, syncs, renamings, removals.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.0.state).changed
    }

    /// Syncs so far, of files and directories.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        lock(&self.0.state).syncs
    }

    /// Writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        lock(&self.0.state).writes
    }

    /// Forgets all that was not synced. Files that are open are of no use any more.
    ///
    /// # Errors
    /// What the storage below says.
    pub fn crash(&self) -> io::Result<()> {
        self.crash_but(0, &mut |_, _| false)
    }

    /// The same, but the first `names` changes of names that were not synced happened to reach
    /// the disk, and `keep` is asked for every sector of 512 bytes that was written and not
    /// synced, by file and number of the sector, whether it did.
    ///
    /// # Errors
    /// What the storage below says.
    pub fn crash_but(
        &self,
        names: usize,
        keep: &mut dyn FnMut(&Path, u64) -> bool,
    ) -> io::Result<()> {
        let mut state = lock(&self.0.state);
        for (path, inode) in &state.names {
            let written = std::mem::take(&mut *lock(&inode.written));
            for (offset, bytes) in written.dirty {
                for (from, piece) in sectors(offset, &bytes) {
                    if keep(path, from / SECTOR_BYTES as u64) {
                        inode.below.write_at(from, piece)?;
                    }
                }
            }
        }
        let mut changes = std::mem::take(&mut state.changes).into_iter();
        for change in changes.by_ref().take(names) {
            self.0.apply(&change)?;
        }
        let created = changes.filter_map(|change| match change {
            Change::Create(_, inode) => Some(inode),
            Change::Rename(..) | Change::Remove(_) => None,
        });
        for inode in created.chain(std::mem::take(&mut state.nameless)) {
            let name = lock(&inode.name);
            if is_hidden(&name) {
                gone(self.0.base.remove(&name))?;
            }
        }
        *state = State::default();
        Ok(())
    }
}

/// Cuts what was written into sectors.
fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let sector = SECTOR_BYTES as u64;
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = offset + at as u64;
        let count = usize::try_from(sector - from % sector).ok()?.min(bytes.len() - at);
        let piece = &bytes[at..at + count];
        at += count;
        (count > 0).then_some((from, piece))
    })
}

impl State {
    /// Counts an operation that changes something, and fails it when the machine has stopped.
    fn change(&mut self) -> io::Result<()> {
        let stop = self.faults.stop_after.is_some_and(|after| self.changed >= after);
        if stop || self.stopped {
            self.stopped = true;
            return Err(io::Error::other("the machine has stopped"));
        }
        self.changed += 1;
        Ok(())
    }

    /// Counts a sync. Whether it is to fail.
    fn sync(&mut self) -> io::Result<bool> {
        self.change()?;
        self.syncs += 1;
        Ok(self.faults.fail_sync == Some(self.syncs))
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Change::Create(path, _) | Change::Rename(path, ..) | Change::Remove(path) => path,
        }
    }
}

impl Inode {
    fn new(below: Box<dyn File>, name: PathBuf) -> Arc<Inode> {
        Arc::new(Inode { below, name: Mutex::new(name), written: Mutex::default() })
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(HIDDEN))
}

/// What has no name below needs none taken away: a sync that failed dropped it.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

impl Inner {
    /// Makes a change of names durable.
    fn apply(&self, change: &Change) -> io::Result<()> {
        match change {
            Change::Create(to, inode) | Change::Rename(_, to, inode) => {
                let mut name = lock(&inode.name);
                self.base.rename(&name, to)?;
                name.clone_from(to);
                Ok(())
            }
            Change::Remove(path) => gone(self.base.remove(path)),
        }
    }

    /// The state, with the names of `dir` in it.
    fn with_dir(&self, dir: &Path) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = lock(&self.state);
        if !state.known.iter().any(|known| known == dir) {
            for name in self.base.list(dir)? {
                let path = dir.join(&name);
                if name.starts_with(HIDDEN) {
                    // An earlier process was killed before it synced the name.
                    self.base.remove(&path)?;
                    continue;
                }
                let below = self.base.open(&path)?;
                state.names.insert(path.clone(), Inode::new(below, path));
            }
            state.known.push(dir.to_path_buf());
        }
        Ok(state)
    }

    fn with_parent(&self, path: &Path) -> io::Result<std::sync::MutexGuard<'_, State>> {
        self.with_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn handle(self: &Arc<Inner>, inode: &Arc<Inode>) -> Box<dyn File> {
        Box::new(Open { storage: Arc::clone(self), inode: Arc::clone(inode) })
    }
}

impl Storage for Volatile {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.base.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.0.with_parent(path)?;
        state.change()?;
        if state.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.hidden += 1;
        let hidden = path.with_file_name(format!("{HIDDEN}{}", state.hidden));
        let below = self.0.base.create(&hidden)?;
        let inode = Inode::new(below, hidden);
        state.names.insert(path.to_path_buf(), Arc::clone(&inode));
        state.changes.push(Change::Create(path.to_path_buf(), Arc::clone(&inode)));
        Ok(self.0.handle(&inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.0.with_parent(path)?;
        let inode = state.names.get(path).ok_or_else(not_found)?;
        Ok(self.0.handle(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.with_parent(from)?;
        state.change()?;
        let inode = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_path_buf(), Arc::clone(&inode));
        state.changes.push(Change::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.with_parent(path)?;
        state.change()?;
        state.names.remove(path).ok_or_else(not_found)?;
        state.changes.push(Change::Remove(path.to_path_buf()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.with_dir(dir)?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.with_dir(dir)?;
        let fails = state.sync()?;
        if self.0.lying && !fails {
            return Ok(());
        }
        for change in std::mem::take(&mut state.changes) {
            if change.path().parent() != Some(dir) {
                state.changes.push(change);
            } else if !fails {
                self.0.apply(&change)?;
            } else if let Change::Create(_, inode) = change {
                // As with the content of files: seen until the crash, and never written.
                state.nameless.push(inode);
            }
        }
        if fails { Err(io::Error::other("the sync was made to fail")) } else { Ok(()) }
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        self.0.base.lock(path, note)
    }
}

#[derive(Debug)]
struct Open {
    storage: Arc<Inner>,
    inode: Arc<Inode>,
}

impl File for Open {
    fn len(&self) -> io::Result<u64> {
        let written = lock(&self.inode.written);
        let ends = written.doomed.iter().chain(&written.dirty).map(|(at, b)| at + b.len() as u64);
        Ok(ends.max().unwrap_or(0).max(self.inode.below.len()?))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let end = self.len()?;
        let count = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = count.min(into.len());
        let into = &mut into[..count];
        into.fill(0);
        self.inode.below.read_at(offset, into)?;
        let written = lock(&self.inode.written);
        for (at, bytes) in written.doomed.iter().chain(&written.dirty) {
            let from = offset.max(*at);
            let to = (offset + count as u64).min(at + bytes.len() as u64);
            if from < to {
                let place = |x: u64, base: u64| usize::try_from(x - base).unwrap_or(usize::MAX);
                let source = &bytes[place(from, *at)..place(to, *at)];
                into[place(from, offset)..place(to, offset)].copy_from_slice(source);
            }
        }
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let grows = offset + bytes.len() as u64 > self.len()?;
        let mut state = lock(&self.storage.state);
        state.change()?;
        state.writes += 1;
        if grows && state.faults.full_from_write.is_some_and(|from| state.writes >= from) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        drop(state);
        lock(&self.inode.written).dirty.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let fails = lock(&self.storage.state).sync()?;
        let mut written = lock(&self.inode.written);
        if fails {
            // As Linux does it: the pages count as clean, though nothing was written.
            let lost = std::mem::take(&mut written.dirty);
            written.doomed.extend(lost);
            return Err(io::Error::other("the sync was made to fail"));
        }
        if !self.storage.lying {
            for (offset, bytes) in std::mem::take(&mut written.dirty) {
                self.inode.below.write_at(offset, &bytes)?;
            }
        }
        Ok(())
    }
}
