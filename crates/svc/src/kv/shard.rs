//! The pieces that the key space is handed to several threads in: 256 buckets each.
//!
//! An operation that executes beside others gets the shards of its keys for itself, as values:
//! they are moved out from behind their locks, and back when it is done. So everything that
//! works on the key space works on a part of it just the same, and what is not there cannot be
//! touched. Two operations whose buckets differ wait for each other only if they share a shard,
//! and not for long.
//!
//! Not here: what is in a bucket (`db`), and who may execute when (`exec`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use exec::{Context, Footprint, ParallelService};

use super::bucket::Bucket;
use super::db::{BUCKETS, Db, NEVER};
use super::{info, service};

/// Buckets of a shard.
pub(super) const SHARD_BUCKETS: usize = 256;
/// Number of shards.
pub(super) const SHARDS: usize = BUCKETS as usize / SHARD_BUCKETS;

/// Some buckets, and what is known of them together.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) buckets: Vec<Bucket>,
    /// One bit per bucket that has slots.
    pub(super) occupied: [u64; SHARD_BUCKETS / 64],
    /// (when, key) of everything that expires.
    pub(super) expiries: BTreeSet<(u64, Box<[u8]>)>,
    /// Number of slots, expired ones included.
    pub(super) slots: usize,
}

impl Default for Shard {
    fn default() -> Shard {
        let buckets = vec![Bucket::default(); SHARD_BUCKETS];
        let occupied = [0; SHARD_BUCKETS / 64];
        Shard { buckets, occupied, expiries: BTreeSet::new(), slots: 0 }
    }
}

impl Shard {
    /// When the next key expires.
    pub(super) fn soonest(&self) -> u64 {
        self.expiries.first().map_or(NEVER, |(when, _)| *when)
    }

    /// Number of keys whose time has passed.
    pub(super) fn expired(&self, now_ms: u64) -> usize {
        self.expiries.iter().take_while(|(when, _)| *when < now_ms).count()
    }

    /// The first bucket from `from` on that has slots.
    pub(super) fn next_occupied(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// The shards that a key space has at hand.
#[derive(Debug)]
pub(super) enum Shards {
    /// All of them, in order.
    All(Vec<Shard>),
    /// Some, with their numbers.
    Some(Vec<(usize, Shard)>),
}

impl Shards {
    pub(super) fn get(&self, shard: usize) -> &Shard {
        match self {
            Shards::All(all) => &all[shard],
            Shards::Some(some) => match some.iter().find(|(number, _)| *number == shard) {
                Some((_, shard)) => shard,
                None => missing(shard),
            },
        }
    }

    pub(super) fn get_mut(&mut self, shard: usize) -> &mut Shard {
        match self {
            Shards::All(all) => &mut all[shard],
            Shards::Some(some) => match some.iter_mut().find(|(number, _)| *number == shard) {
                Some((_, shard)) => shard,
                None => missing(shard),
            },
        }
    }

    /// All of them.
    ///
    /// # Panics
    /// When some are elsewhere: who needs all executes alone.
    pub(super) fn all(&self) -> &[Shard] {
        match self {
            Shards::All(all) => all,
            Shards::Some(_) => panic!("a command looks at all keys without having said so"),
        }
    }
}

fn missing(shard: usize) -> ! {
    panic!("a command touches a key of shard {shard} that it has not declared")
}

/// The key space while several threads execute on it.
pub(super) struct Space {
    shards: Vec<Mutex<Option<Shard>>>,
    /// When the next key of each shard expires: read without a lock.
    soonest: Vec<AtomicU64>,
    /// Bytes with which a bucket is full.
    full: usize,
    /// Steps of an operation.
    steps: usize,
}

impl Space {
    pub(super) fn new(all: Vec<Shard>, full: usize, steps: usize) -> Space {
        let soonest = all.iter().map(|shard| AtomicU64::new(shard.soonest())).collect();
        let shards = all.into_iter().map(|shard| Mutex::new(Some(shard))).collect();
        Space { shards, soonest, full, steps }
    }

    /// The whole key space again, once nobody else has any of it.
    pub(super) fn into_db(self) -> Db {
        let shards = self.shards.into_iter();
        let inner = shards.map(|shard| shard.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut db = Db::of(Shards::All(inner.map(|shard| shard.expect(HOME)).collect()));
        (db.full, db.work.max) = (self.full, self.steps);
        db
    }

    /// When the next key expires.
    pub(super) fn soonest(&self) -> u64 {
        let each = self.soonest.iter().map(|when| when.load(Ordering::Acquire));
        each.min().unwrap_or(NEVER)
    }

    /// Looks at a bucket.
    pub(super) fn with_bucket<R>(&self, bucket: usize, look: impl FnOnce(&Bucket) -> R) -> R {
        let shard = self.lock(bucket / SHARD_BUCKETS);
        look(&shard.as_ref().expect(HOME).buckets[bucket % SHARD_BUCKETS])
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Option<Shard>> {
        // A thread that panics with a shard ends the replica.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a shard is there.
const HOME: &str = "a shard is away only while its lock is held";

impl ParallelService for Space {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        self.with_keys(op, |db| service::execute(db, op, ctx, reply));
    }
}

impl Space {
    /// Does something with the part of the key space that an operation declares.
    pub(super) fn with_keys<R>(&self, op: &[u8], act: impl FnOnce(&mut Db) -> R) -> R {
        let mut footprint = Footprint::default();
        info::footprint(op, &mut footprint);
        let classes = footprint.writes.iter().chain(&footprint.reads);
        let mut numbers: Vec<usize> = classes.map(|c| *c as usize / SHARD_BUCKETS).collect();
        // One order for everybody, so that nobody waits for whom he holds up.
        numbers.sort_unstable();
        numbers.dedup();
        let mut locked: Vec<_> = numbers.iter().map(|shard| self.lock(*shard)).collect();
        let taken = locked.iter_mut().map(|shard| shard.take().expect(HOME));
        let mut db = Db::of(Shards::Some(numbers.iter().copied().zip(taken).collect()));
        (db.full, db.work.max) = (self.full, self.steps);
        let result = act(&mut db);
        let Shards::Some(some) = db.shards else { return result };
        for ((number, shard), home) in some.into_iter().zip(&mut locked) {
            self.soonest[number].store(shard.soonest(), Ordering::Release);
            **home = Some(shard);
        }
        result
    }
}

/// What changes from operation to operation, and what is remembered of one.
#[derive(Debug)]
pub(super) struct Notes {
    /// When the next key expires; none when that has to be looked up.
    pub(super) soonest: Cell<Option<u64>>,
    /// Whether a key that expires was seen since somebody wanted to know.
    pub(super) timed: Cell<bool>,
    /// Buckets that were looked at, where somebody wants to know.
    pub(super) touched: RefCell<Vec<usize>>,
    pub(super) watched: bool,
}

impl Default for Notes {
    fn default() -> Notes {
        let (soonest, timed) = (Cell::new(None), Cell::new(false));
        Notes { soonest, timed, touched: RefCell::default(), watched: false }
    }
}
