//! How much one operation may do.
//!
//! An operation of a few megabytes can ask for work without end: an intersection that names a
//! large set a million times, or a transaction of thousands of searches through a long list. It
//! is ordered and logged, so every replica does it, and does it again after a restart, with
//! nothing else in between. So an operation has a number of *steps*, which a transaction shares
//! out among its commands, and a command for which too few are left is refused.
//!
//! A step is an element that is passed, or some bytes that are looked at; what takes longer counts
//! for several. On a slow machine it takes some tenths of a microsecond, so that an operation ends
//! within seconds. What counts is the request and the replicated state alone, so all replicas
//! refuse the same.
//!
//! What is bounded otherwise costs no steps:
//! - work in proportion to the bytes of the request (each argument looked up, each one stored);
//! - what is written to the reply, which ends at [`super::reply::REPLY_MAX`] for all commands of
//!   a transaction together (one that is too large alone is thrown away, and costs steps);
//! - what is taken out of the state (`LPOP`, `DEL`), since it had to be put there.
//!
//! A command *takes* its steps before it begins, and is refused with nothing done when there are
//! fewer ([`Work::take`]). Where only the work itself shows what it costs, as in a search, the
//! steps are *counted* as it goes ([`Work::count`]), before anything is written. When none are
//! left, every further command of the operation is refused.

use std::cell::Cell;

use super::call::{Fail, Outcome};
use super::db::Db;

/// Steps of an operation.
pub const WORK_MAX: usize = 1 << 25;

/// Steps of looking an element up in a collection.
pub const LOOK_UP: usize = 2;

/// Steps of putting an element into a new collection.
pub const INSERT: usize = 4;

/// Bytes that are copied, cleared or counted in one step.
pub const COPIED: usize = 64;

/// Bytes that are looked at one by one in one step.
pub const LOOKED_AT: usize = 16;

/// Bytes that BITOP combines in one step: it takes 256 MiB in one operation.
pub const COMBINED: usize = 8;

/// Characters that are compared with a pattern in one step.
pub const COMPARED: usize = 4;

/// Slots of a bucket that are moved aside in one step.
const MOVED: usize = 32;

/// Up to so many keys are deleted or written without a look at how crowded their buckets are.
const FEW_KEYS: usize = 64;

/// The steps that are left to an operation.
#[derive(Clone, Debug)]
pub struct Work {
    left: Cell<usize>,
    /// How many there are at the beginning: [`WORK_MAX`] but in tests.
    pub(super) max: usize,
}

impl Default for Work {
    fn default() -> Work {
        Work { left: Cell::new(WORK_MAX), max: WORK_MAX }
    }
}

impl Work {
    /// Begins an operation.
    pub(super) fn begin(&self) {
        self.left.set(self.max);
    }

    /// Takes `steps` for work that is about to be done.
    ///
    /// # Errors
    /// [`Fail::TOO_MUCH_WORK`] when fewer are left; these stay.
    pub fn take(&self, steps: usize) -> Outcome {
        let left = self.left.get().checked_sub(steps).ok_or(Fail::TOO_MUCH_WORK)?;
        self.left.set(left);
        Ok(())
    }

    /// Counts `steps` of work that was done.
    ///
    /// # Errors
    /// [`Fail::TOO_MUCH_WORK`] when fewer were left; none are then.
    pub fn count(&self, steps: usize) -> Outcome {
        let enough = steps <= self.left.get();
        self.pass(steps);
        if enough { Ok(()) } else { Err(Fail::TOO_MUCH_WORK) }
    }

    /// As [`Work::count`], for what is not to be interrupted.
    pub(super) fn pass(&self, steps: usize) {
        self.left.set(self.left.get().saturating_sub(steps));
    }

    /// How many steps are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.get()
    }

    /// How many the operation has used up.
    #[cfg(test)]
    pub(super) fn spent(&self) -> usize {
        self.max - self.left.get()
    }

    /// Whether none are left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }
}

impl Db {
    /// Takes steps for adding or deleting many keys: each moves what stands behind it in its
    /// bucket, and keys may have been chosen to share one.
    pub(super) fn take_moves<'k>(&self, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Outcome {
        if keys.len() <= FEW_KEYS {
            return Ok(());
        }
        let mut buckets: Vec<usize> = keys.map(|key| self.locate(key).bucket).collect();
        buckets.sort_unstable();
        let own = buckets.chunk_by(|a, b| a == b);
        let steps =
            own.map(|same| same.len() * moved(self.bucket(same[0]).slots.len() + same.len()));
        self.work.take(steps.sum())
    }
}

/// Steps of moving so many slots of a bucket.
pub(super) fn moved(slots: usize) -> usize {
    slots / MOVED
}
