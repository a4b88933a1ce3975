//! A replica's directory: whose it is, what is found in it, and how a life begins and ends.
//!
//! Invariants:
//! 1. one process at a time: a lock is held as long as the [`Dir`] lives;
//! 2. nothing that another group, another replica or a newer version wrote is touched;
//! 3. a life file that says "recovered" or "not recovering" is never on disk beside a log that
//!    was emptied: it is written last when a whole life begins, first when a forgetful one does.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base::{Incarnation, Seq};

use crate::Identity;
use crate::begin::{Beginning, Voice};
use crate::checkpoint::{self, CheckpointHead, Checkpoints};
use crate::error::{StoreError, io};
use crate::life::{self, BootId, Durability, Life, LifeFile, SharedLife};
use crate::log::{Log, LogOptions};
use crate::place::Place;
use crate::scan::{self, FoundLog};
use crate::storage::{FinalNames, Lock, Storage, lock};

/// A replica's directory, locked.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    identity: Identity,
    storage: Arc<dyn Storage>,
    tail: scan::Tail,
    life: SharedLife,
    _lock: Lock,
}

/// A directory and what is in it.
#[derive(Debug)]
pub struct Opened {
    /// The directory.
    pub dir: Dir,
    /// What was found.
    pub found: Found,
}

/// What a directory holds at a start.
#[derive(Debug)]
pub struct Found {
    /// The directory.
    pub path: PathBuf,
    /// The life file.
    pub life: LifeFound,
    /// The machine's present boot.
    pub boot: BootId,
    /// The checkpoint files whose heads check, newest first. Certificates are not verified.
    pub checkpoints: Vec<CheckpointHead>,
    /// The log. Its records are the owner's to take.
    pub log: FoundLog,
}

/// What the life file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifeFound {
    /// There is none.
    None,
    /// There is one, and no copy of it checks.
    Damaged,
    /// The last life.
    Good(Life),
}

impl Found {
    /// The incarnation for the next life: `proposed`, usually the clock's, or the one after the
    /// last life where the clock does not run ahead of that.
    #[must_use]
    pub fn incarnation(&self, proposed: Incarnation) -> Incarnation {
        match &self.life {
            LifeFound::Good(life) => proposed.max(Incarnation(life.incarnation.0 + 1)),
            LifeFound::None | LifeFound::Damaged => proposed,
        }
    }

    /// Up to which number records may have been cut off the log.
    #[must_use]
    pub fn cut(&self) -> Seq {
        match &self.life {
            LifeFound::Good(life) => life.cut,
            LifeFound::None | LifeFound::Damaged => Seq(0),
        }
    }
}

impl Dir {
    /// Opens a replica's directory and reads what is in it: the life file, the heads of the
    /// checkpoint files, all of the log. Makes the directory when there is none, removes what an
    /// interrupted writer left, and gives back the names that an interrupted start was about to
    /// give; changes nothing else.
    ///
    /// # Errors
    /// When another process has it, when it is another group's or replica's or a newer
    /// version's, or when the storage fails. Damage is no error: it is in what was found.
    pub fn open(
        path: &Path,
        identity: Identity,
        storage: Arc<dyn Storage>,
    ) -> Result<Opened, StoreError> {
        storage.create_dir(path).map_err(|e| io(path, "create the directory", e))?;
        // The threads that write to the directory share it, and with it what became of its syncs.
        let storage: Arc<dyn Storage> = Arc::new(FinalNames::over(storage));
        let held = take_lock(&*storage, path)?;
        let copies = life::read(&*storage, path, &identity)?;
        checkpoint::give_back_names(&*storage, path)?;
        let checkpoints = checkpoint::heads(&*storage, path, &identity.group)?;
        let ends = copies.newest.map(|(_, life)| (life.first, life.last));
        let (log, tail) = scan::scan(&*storage, path, &identity, ends.unwrap_or_default())?;
        remove_leftovers(&*storage, path)?;
        let life = match (copies.newest, copies.damaged) {
            (Some((_, life)), _) => LifeFound::Good(life),
            (None, 0) => LifeFound::None,
            (None, _) => LifeFound::Damaged,
        };
        let boot = storage.boot();
        let found = Found { path: path.to_path_buf(), life, boot, checkpoints, log };
        let path = path.to_path_buf();
        let file = LifeFile::new(Arc::clone(&storage), path.clone(), identity, copies.newest);
        let life = Arc::new(Mutex::new(file));
        let dir = Dir { path, identity, storage, tail, life, _lock: held };
        Ok(Opened { dir, found })
    }

    /// Begins a life: makes durable that it began, and hands out the log to write to, emptied
    /// when the life begins forgetful; none with durability `memory`. The replica may say
    /// something to others, and take away the mark of `init`, once this returned; not before.
    ///
    /// # Errors
    /// When the incarnation is not above the last one, when a log in doubt is to be continued,
    /// or when the storage fails.
    pub fn begin(
        &mut self,
        beginning: &Beginning,
        incarnation: Incarnation,
        durability: Durability,
        options: LogOptions,
    ) -> Result<Option<Log>, StoreError> {
        let last = self.life();
        if let Some(last) = last.filter(|last| last.incarnation >= incarnation) {
            let (found, wanted) = (last.incarnation.0, incarnation.0);
            return Err(StoreError::OldIncarnation { found, wanted });
        }
        // Durable with the life: what is said to others may rest on what was found.
        checkpoint::name_anew(&*self.storage, &self.path)?;
        let recovering = beginning.voice == Voice::Forgetful;
        let boot = self.storage.boot();
        let keeps_log = !recovering && durability != Durability::Memory;
        let cut = last.filter(|_| keeps_log).map_or(Seq(0), |last| last.cut);
        let (clean, first, last) = (false, 0, 0);
        let life = Life { incarnation, durability, boot, clean, recovering, cut, first, last };
        let (storage, identity) = (Arc::clone(&self.storage), self.identity);
        let strict = durability == Durability::Sync;
        let place = Place { storage, dir: self.path.clone(), identity, strict };
        let mut tail = std::mem::take(&mut self.tail);
        if durability == Durability::Memory {
            lock(&self.life).write(life)?;
            place.clear(&tail)?;
            return Ok(None);
        }
        if recovering {
            lock(&self.life).write(life)?;
            let mut log = Log::anew(place, &tail, options)?;
            log.keep_named(&self.life);
            return Ok(Some(log));
        }
        let gone = std::mem::take(&mut tail.gone);
        let mut log = Log::resume(place.clone(), tail, options)?;
        let (first, last) = log.ends();
        lock(&self.life).write(Life { first, last, ..life })?;
        log.keep_named(&self.life);
        // Only now: the life file that names none of them may have been one that a sync failed to
        // write, and the one behind it names them.
        gone.iter().try_for_each(|number| place.remove(*number))?;
        Ok(Some(log))
    }

    /// Makes durable that this life, which began forgetful, has recovered and may vote.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn recovered(&mut self) -> Result<(), StoreError> {
        lock(&self.life).change(|life| life.recovering = false)
    }

    /// Makes durable that records about numbers up to `seq` may be missing from the log from now
    /// on. To be called before [`Log::trim`] takes them away: a log without its beginning that
    /// did not say so would pass for whole, should no checkpoint be readable any more.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn cut(&mut self, seq: Seq) -> Result<(), StoreError> {
        lock(&self.life).change(|life| life.cut = life.cut.max(seq))
    }

    /// Makes durable that this life ends in order. The log's last commit was with `sync`, and
    /// nothing is said to others after this.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn end(&mut self) -> Result<(), StoreError> {
        lock(&self.life).change(|life| life.clean = true)
    }

    /// The life that was begun last.
    #[must_use]
    pub fn life(&self) -> Option<Life> {
        lock(&self.life).life
    }

    /// Its checkpoint files: to be read, written and counted by whatever thread does it.
    #[must_use]
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(Arc::clone(&self.storage), self.path.clone(), self.identity.group)
    }

    /// Makes a directory in this one, durably, for files that are not the store's; it may exist.
    /// Whoever writes to it syncs it alone, never the one that it is in. To be called before the
    /// log has a thread of its own.
    ///
    /// # Errors
    /// When the storage fails: final, like every failure to make names durable.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.path.join(name);
        let made = self.storage.create_dir(&path);
        made.map_err(|e| io(&path, "create the directory", e))?;
        Ok(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

const LOCK: &str = "lock";

fn take_lock(storage: &dyn Storage, dir: &Path) -> Result<Lock, StoreError> {
    let path = dir.join(LOCK);
    storage.lock(&path, &format!("{}\n", std::process::id())).map_err(|error| {
        if error.kind() != ErrorKind::WouldBlock {
            return io(&path, "lock the directory", error);
        }
        let mut text = [0; 16];
        let read = storage.open(&path).and_then(|file| file.read_at(0, &mut text)).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..read]).trim().to_owned();
        let holder = Some(text).filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
        StoreError::Locked { path: dir.to_path_buf(), holder }
    })
}

/// Removes what was not finished: such files were never durable under a name that counts.
fn remove_leftovers(storage: &dyn Storage, dir: &Path) -> Result<(), StoreError> {
    for name in storage.list(dir).map_err(|e| io(dir, "list the directory", e))? {
        if life::is_leftover(&name) || scan::is_leftover(&name) || checkpoint::is_leftover(&name) {
            let path = dir.join(name);
            storage.remove(&path).map_err(|e| io(&path, "remove the unfinished file", e))?;
        }
    }
    Ok(())
}
