//! A simulated disk under the real `store`: what a process sees, and what the platter holds.
//!
//! What was written and not synced is seen by the process and, if the machine loses its power,
//! reaches the platter or not, sector by sector; names likewise, in the order of the changes.
//! Every operation that changes something is a boundary at which the machine can stop: whoever
//! asks for it then gets an error, and so does everybody until the machine is started again.
//!
//! It fails and lies to order, see [`DiskFault`]. What it did to bytes that had been reported
//! durable is remembered as a `Wound`, so that the world knows what must be found out.
//!
//! Not here: when something breaks (`faults`), and what a replica makes of it (`store`).

mod platter;
mod wounds;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::storage::Lock;
use store::{BootId, File, Storage};

use crate::prng::Prng;
use platter::Platter;
pub use wounds::{DiskFault, Place};
pub(crate) use wounds::{Harm, Wound};

/// Bytes of a sector.
const SECTOR: usize = store::storage::SECTOR_BYTES;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimStorage(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    platter: Platter,
    /// Handles and locks of earlier processes are of no use.
    process: u64,
    /// The machine's boot.
    boot: u64,
    locks: BTreeSet<(u64, PathBuf)>,
    prng: Prng,
    /// Operations that changed something so far.
    operations: u64,
    /// The machine stops after this many.
    stop_after: Option<u64>,
    stopped: bool,
    /// What the next syncs, reads and power failures will do.
    armed: Vec<DiskFault>,
    /// What happened to bytes that were reported durable, and is there still.
    wounds: Vec<Wound>,
    /// A sync of names has failed since the power failed last: some may be gone with it.
    dropped: bool,
    /// A sector was written in part when the power failed last, or names were gone: a log in which
    /// it lies, or which lacks a segment, is in doubt.
    torn: bool,
    /// Counts syncs of the log that wrote something.
    log_syncs: u64,
    /// The last of them of each file: of no use to anybody if that has no name.
    synced: BTreeMap<u64, u64>,
    done: Vec<DiskFault>,
}

impl SimStorage {
    pub(crate) fn new(seed: u64) -> SimStorage {
        SimStorage(Arc::new(Mutex::new(State {
            platter: Platter::default(),
            process: 0,
            boot: 0,
            locks: BTreeSet::new(),
            prng: Prng::new(seed),
            operations: 0,
            stop_after: None,
            stopped: false,
            armed: Vec::new(),
            wounds: Vec::new(),
            dropped: false,
            torn: false,
            log_syncs: 0,
            synced: BTreeMap::new(),
            done: Vec::new(),
        })))
    }

    /// The process ends: what it handed to the system is still there.
    pub(crate) fn process_ends(&self) {
        let mut state = self.state();
        state.process += 1;
        state.locks.clear();
    }

    /// The machine loses its power, and may be started again: of what was not synced some is
    /// there.
    pub(crate) fn power_fails(&self) {
        self.process_ends();
        let state = &mut *self.state();
        state.boot += 1;
        (state.stopped, state.stop_after) = (false, None);
        let torn = state.take(|fault| matches!(fault, DiskFault::Tear)).is_some();
        // Often nothing or everything: what lies between is the rest.
        let (nothing, everything) = (state.prng.below(4) == 0, state.prng.below(4) == 0);
        let mut keep = |prng: &mut Prng| !nothing && (everything || prng.below(2) == 0);
        let tore = state.platter.lose_power(&mut state.prng, &mut keep, torn);
        state.torn = tore | std::mem::take(&mut state.dropped);
        if tore {
            state.done.push(DiskFault::Tear);
        }
    }

    /// Everything on it is gone.
    pub(crate) fn lose(&self) {
        let mut state = self.state();
        state.platter = Platter::default();
        state.wounds.clear();
        (state.dropped, state.torn) = (false, false);
    }

    /// Whether the machine has stopped.
    pub(crate) fn has_stopped(&self) -> bool {
        self.state().stopped
    }

    /// The machine stops after so many more operations that change something.
    pub(crate) fn stop_after(&self, more: u64) {
        let mut state = self.state();
        state.stop_after = Some(state.operations + more);
    }

    /// It was not the machine that stopped, but the process.
    pub(crate) fn go_on(&self) {
        let mut state = self.state();
        (state.stopped, state.stop_after) = (false, None);
        state.done.retain(|fault| !matches!(fault, DiskFault::StopAfter(_)));
    }

    /// Lets `fault` happen, at once or at the next occasion.
    pub(crate) fn suffer(&self, fault: DiskFault) {
        let state = &mut *self.state();
        match fault {
            DiskFault::Rot(place) => state.rot(place),
            DiskFault::StopAfter(more) => state.stop_after = Some(state.operations + more),
            DiskFault::FailSync
            | DiskFault::LoseWrite
            | DiskFault::CorruptWrite
            | DiskFault::MisdirectWrite
            | DiskFault::MisdirectRead
            | DiskFault::Tear => state.armed.push(fault),
        }
    }

    /// Nothing more is about to go wrong. What was done stays.
    pub(crate) fn calm_down(&self) {
        let mut state = self.state();
        state.armed.clear();
        state.stop_after = None;
    }

    /// What became of the faults: those that have happened.
    pub(crate) fn take_done(&self) -> Vec<DiskFault> {
        std::mem::take(&mut self.state().done)
    }

    /// Whether something is wrong, or is about to go wrong.
    pub(crate) fn may_forget(&self) -> bool {
        let state = self.state();
        !state.wounds.is_empty() || !state.armed.is_empty() || state.dropped || state.torn
    }

    /// Whether the platter holds all that was written to the log, as far as the disk says.
    pub(crate) fn log_is_durable(&self) -> bool {
        self.state().log_is_durable()
    }

    /// What is wrong with the files that are there, by name.
    pub(crate) fn harms(&self) -> Vec<(String, Harm)> {
        self.state().harms()
    }

    /// What was done to files of these that are still there.
    pub(crate) fn harms_left(&self, harms: Vec<(String, Harm)>) -> Vec<Harm> {
        let state = self.state();
        let is_there = |of: &str| state.platter.files().any(|(name, _)| name == of);
        harms.into_iter().filter(|(name, _)| is_there(name)).map(|(_, harm)| harm).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_as(&self, inode: u64, process: u64) -> Box<dyn File> {
        Box::new(Open { storage: self.clone(), inode, process })
    }
}

impl State {
    /// Counts an operation that changes something, unless the machine has stopped.
    fn change(&mut self, process: u64) -> io::Result<()> {
        self.look(process)?;
        if self.stop_after.is_some_and(|after| self.operations >= after) {
            self.stopped = true;
            self.done.push(DiskFault::StopAfter(self.operations));
            return Err(io::Error::other("the machine has stopped"));
        }
        self.operations += 1;
        Ok(())
    }

    fn look(&self, process: u64) -> io::Result<()> {
        if self.stopped || process != self.process {
            return Err(io::Error::other("the process has ended"));
        }
        Ok(())
    }

    fn take(&mut self, what: impl Fn(&DiskFault) -> bool) -> Option<DiskFault> {
        let at = self.armed.iter().position(what)?;
        Some(self.armed.remove(at))
    }

    /// Takes a sync that is to fail. Whether there is one.
    fn fails(&mut self) -> bool {
        let fails = self.take(|fault| matches!(fault, DiskFault::FailSync));
        self.done.extend(fails);
        fails.is_some()
    }
}

impl Storage for SimStorage {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        let process = state.process;
        state.change(process)?;
        let inode = state.platter.create(path)?;
        Ok(self.open_as(inode, process))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.look(state.process)?;
        Ok(self.open_as(state.platter.find(path)?, state.process))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let process = state.process;
        state.change(process)?;
        state.platter.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let process = state.process;
        state.change(process)?;
        state.platter.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.look(state.process)?;
        Ok(state.platter.list(dir))
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let process = state.process;
        state.change(process)?;
        if state.fails() {
            // As with the content of files: seen until the power fails, and never written.
            state.platter.drop_names();
            state.dropped = true;
            return Err(io::Error::other("the sync was made to fail"));
        }
        state.platter.sync_names();
        Ok(())
    }

    fn boot(&self) -> BootId {
        let mut text = [b'0'; 36];
        let number = format!("{:016x}", self.state().boot + 1);
        text[..number.len()].copy_from_slice(number.as_bytes());
        BootId(text)
    }

    fn lock(&self, path: &Path, _note: &str) -> io::Result<Lock> {
        let mut state = self.state();
        let key = (state.process, path.to_path_buf());
        if !state.locks.insert(key.clone()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        drop(state);
        Ok(Lock::new(Held(self.clone(), key)))
    }
}

struct Held(SimStorage, (u64, PathBuf));

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

#[derive(Debug)]
struct Open {
    storage: SimStorage,
    inode: u64,
    process: u64,
}

impl File for Open {
    fn len(&self) -> io::Result<u64> {
        let state = self.storage.state();
        state.look(self.process)?;
        Ok(state.platter.inode(self.inode)?.seen.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.storage.state();
        state.look(self.process)?;
        let seen = &state.platter.inode(self.inode)?.seen;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
        let count = into.len().min(seen.len() - from);
        into[..count].copy_from_slice(&seen[from..from + count]);
        state.misread(&mut into[..count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.storage.state();
        state.change(self.process)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        state.platter.inode_mut(self.inode)?.write(from, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.storage.state();
        state.change(self.process)?;
        if state.fails() {
            // As Linux does it: the pages count as clean, though nothing was written.
            state.platter.inode_mut(self.inode)?.dirty.clear();
            return Err(io::Error::other("the sync was made to fail"));
        }
        state.sync(self.inode)
    }
}
