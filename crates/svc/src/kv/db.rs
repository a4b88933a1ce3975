//! The key space: 65,536 buckets, which are the service's abstract objects.
//!
//! A key's bucket is the first 16 bits of its hash. A bucket is a vector sorted by (hash, key):
//! equal contents are laid out equally everywhere, a look-up compares numbers, and SCAN has an
//! order that no change disturbs.
//!
//! Invariants:
//! 1. a bucket is announced to the context *before* it is written (modify-before-write);
//! 2. a write gives the slot the operation's version; values drop their own cached digests;
//! 3. nothing that can be asked about the key space shows a key whose time has passed, whether
//!    or not it has been removed yet, so when it is removed is not observable;
//! 4. no collection in the key space is empty ([`Db::drop_if_empty`]).
//!
//! Versions are for WATCH: a number that grows with the total order, of the key's last write, or
//! of the last deletion in the bucket where there is no such key.

use exec::{Context, ReadContext};

use super::bucket::{Bucket, Key, SLOT_BYTES, Slot, find};
use super::call::{Fail, Outcome};
use super::room::{BUCKET_BYTES_MAX, Writing};
use super::shard::{Notes, SHARD_BUCKETS, SHARDS, Shard, Shards};
use super::siphash;
use super::value::{Kind, Value};
use super::work::{self, Work};

/// Number of buckets.
pub const BUCKETS: u32 = 1 << 16;

/// Operations of a batch that have versions of their own: more than a batch of a leader that does
/// as it should. Whatever comes behind them is not executed.
pub(super) const NUMBERED: u32 = 1 << 23;

/// "Does not expire".
pub(super) const NEVER: u64 = u64::MAX;

/// What a key holds, and until when.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Milliseconds since the Unix epoch, or [`NEVER`].
    pub(super) expires_at: u64,
    /// Version of the last write.
    pub(super) version: u64,
}

impl Entry {
    /// When the key expires, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at != NEVER).then_some(self.expires_at)
    }
}

/// What becomes of a key's expiry when its value is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// The key does not expire any more.
    Clear,
    /// It stays as it is.
    Keep,
    /// It expires at this time, in milliseconds since the Unix epoch.
    At(u64),
}

/// The key space, or the part of it that an operation has declared.
pub struct Db {
    pub(super) shards: Shards,
    notes: Notes,
    now_ms: u64,
    version: u64,
    /// What a handler may be changing in place.
    pub(super) writing: Option<Writing>,
    /// Bytes with which a bucket is full: [`BUCKET_BYTES_MAX`] but in tests.
    pub(super) full: usize,
    /// What the operation may still do.
    pub work: Work,
}

/// Where a key is, or would be.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) bucket: usize,
    hash: u64,
    pub(super) at: Result<usize, usize>,
}

impl Default for Db {
    fn default() -> Db {
        Db::new()
    }
}

impl Db {
    /// An empty key space.
    #[must_use]
    pub fn new() -> Db {
        Db::of(Shards::All((0..SHARDS).map(|_| Shard::default()).collect()))
    }

    /// The key space of these shards.
    pub(super) fn of(shards: Shards) -> Db {
        let (notes, full) = (Notes::default(), BUCKET_BYTES_MAX);
        Db { shards, notes, now_ms: 0, version: 0, writing: None, full, work: Work::default() }
    }

    /// A bucket, whoever wants it.
    pub(super) fn bucket(&self, bucket: usize) -> &Bucket {
        &self.shards.get(bucket / SHARD_BUCKETS).buckets[bucket % SHARD_BUCKETS]
    }

    pub(super) fn bucket_mut(&mut self, bucket: usize) -> &mut Bucket {
        &mut self.shards.get_mut(bucket / SHARD_BUCKETS).buckets[bucket % SHARD_BUCKETS]
    }

    /// Starts an operation: its agreed time decides what has expired, its place in the total
    /// order is the version of what it writes.
    pub fn begin(&mut self, ctx: &Context<'_>) {
        self.now_ms = ctx.time.as_millis();
        // Room for 2^40 batches once WATCH adds its bit.
        self.version = ctx.seq.0 << 23 | u64::from(ctx.index % NUMBERED);
        self.notes.watched = ctx.is_watched();
        self.work.begin();
    }

    /// Ends an operation: tells what it looked at, if somebody wants to know.
    pub fn end(&mut self, ctx: &mut Context<'_>) {
        self.settle();
        if self.notes.watched {
            self.notes.touched.take().into_iter().for_each(|bucket| ctx.reads(bucket as u64));
        }
    }

    /// Starts a read like [`Db::begin`], and notes what it looks at.
    pub(super) fn begin_read(&mut self, ctx: &Context<'_>) {
        self.begin(ctx);
        self.notes.watched = true;
        self.notes.timed.set(false);
    }

    /// Ends a read: tells what its answer depends on. Whether it depends on the time is known
    /// once a key was seen that expires.
    pub(super) fn end_read(&mut self, ctx: &mut ReadContext<'_>) {
        self.notes.watched = false;
        ctx.looks_nowhere();
        self.notes.touched.take().into_iter().for_each(|bucket| ctx.looks_at(bucket as u32));
        if self.notes.timed.get() {
            ctx.time();
        }
    }

    /// Agreed time in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        // Bounded by what active expiry has not caught up with.
        let shards = self.shards.all().iter();
        let expired: usize = shards.clone().map(|shard| shard.expired(self.now_ms)).sum();
        self.work.pass(expired);
        shards.map(|shard| shard.slots).sum::<usize>() - expired
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of `key`.
    #[must_use]
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let place = self.locate(key);
        let entry = &self.bucket(place.bucket).slots[place.at.ok()?].entry;
        self.alive(entry).then_some(entry)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.entry(key).is_some()
    }

    /// The value of `key`, for reading.
    ///
    /// # Errors
    /// [`Fail::WRONG_TYPE`] when it is of another type.
    pub fn read<T: Kind>(&self, key: &[u8]) -> Result<Option<&T>, Fail> {
        match self.entry(key) {
            None => Ok(None),
            Some(entry) => T::of(&entry.value).map(Some).ok_or(Fail::WRONG_TYPE),
        }
    }

    /// The value of `key`, for writing. Counts as a write, so first make sure that there is
    /// something to change; and call [`Db::drop_if_empty`] after taking elements away. Before
    /// adding any, ask [`Db::room`].
    ///
    /// # Errors
    /// [`Fail::WRONG_TYPE`] when it is of another type.
    pub fn write<T: Kind>(
        &mut self,
        ctx: &mut Context<'_>,
        key: &[u8],
    ) -> Result<Option<&mut T>, Fail> {
        let place = self.locate(key);
        let Some(at) = self.live_index(place) else { return Ok(None) };
        self.write_at(ctx, place.bucket, at).map(Some)
    }

    /// The value of `key`, for writing; an empty one if there is none. The caller makes it
    /// non-empty.
    ///
    /// # Errors
    /// [`Fail::WRONG_TYPE`] when it is of another type, [`Fail::FULL`] when its bucket takes
    /// nothing more.
    pub fn write_or_new<T: Kind>(
        &mut self,
        ctx: &mut Context<'_>,
        key: &[u8],
    ) -> Result<&mut T, Fail> {
        let place = self.locate(key);
        self.room_in(place.bucket, 0)?;
        let at = match self.live_index(place) {
            Some(at) => at,
            None => self.store(ctx, place, key, T::empty().into(), Expiry::Clear),
        };
        self.write_at(ctx, place.bucket, at)
    }

    /// Makes `key` hold `value`, whatever it held before.
    ///
    /// # Errors
    /// [`Fail::FULL`] when its bucket does not take as much; nothing is changed then.
    pub fn put(
        &mut self,
        ctx: &mut Context<'_>,
        key: &[u8],
        value: Value,
        expiry: Expiry,
    ) -> Outcome {
        let place = self.locate(key);
        let new = SLOT_BYTES + key.len() + value.encoded_len();
        self.room_for(place.bucket, self.slot_bytes(place), new)?;
        self.store(ctx, place, key, value, expiry);
        Ok(())
    }

    /// Overwrites the string that `key` holds, using its memory again. False, and nothing is
    /// changed, when it holds no string.
    ///
    /// # Errors
    /// [`Fail::FULL`] when its bucket does not take as much; nothing is changed then.
    pub fn overwrite(
        &mut self,
        ctx: &mut Context<'_>,
        key: &[u8],
        bytes: &[u8],
        expiry: Expiry,
    ) -> Result<bool, Fail> {
        let place = self.locate(key);
        let Some(at) = self.live_index(place) else { return Ok(false) };
        let Value::String(text) = &self.bucket(place.bucket).slots[at].entry.value else {
            return Ok(false);
        };
        let old = text.len();
        self.room_for(place.bucket, old, bytes.len())?;
        self.announce(ctx, place.bucket);
        let version = self.version;
        let bucket = self.bucket_mut(place.bucket);
        bucket.bytes = bucket.bytes - old + bytes.len();
        let entry = &mut bucket.slots[at].entry;
        let Value::String(text) = &mut entry.value else { unreachable!("just checked") };
        text.set(bytes);
        entry.version = version;
        let old = entry.expires_at;
        let new = match expiry {
            Expiry::At(when) => when,
            Expiry::Clear => NEVER,
            Expiry::Keep => old,
        };
        entry.expires_at = new;
        self.reschedule(key, old, new);
        Ok(true)
    }

    /// Removes `key` and returns what it was.
    pub fn remove(&mut self, ctx: &mut Context<'_>, key: &[u8]) -> Option<Entry> {
        let place = self.locate(key);
        let at = self.live_index(place)?;
        self.announce(ctx, place.bucket);
        let version = self.version;
        self.bucket_mut(place.bucket).deleted = version;
        Some(self.take(place.bucket, at).entry)
    }

    /// Removes `key` if it is a collection without elements. True when it was.
    pub fn drop_if_empty(&mut self, ctx: &mut Context<'_>, key: &[u8]) -> bool {
        let empty = self.entry(key).is_some_and(|entry| entry.value.is_empty_collection());
        empty && self.remove(ctx, key).is_some()
    }

    /// Sets or clears the expiry of `key`. False when there is no such key.
    pub fn set_expiry(&mut self, ctx: &mut Context<'_>, key: &[u8], when: Option<u64>) -> bool {
        let place = self.locate(key);
        let Some(at) = self.live_index(place) else { return false };
        self.announce(ctx, place.bucket);
        let version = self.version;
        let slot = &mut self.bucket_mut(place.bucket).slots[at];
        slot.entry.version = version;
        let old = std::mem::replace(&mut slot.entry.expires_at, when.unwrap_or(NEVER));
        let new = slot.entry.expires_at;
        self.reschedule(key, old, new);
        true
    }

    /// The version that WATCH remembers: differs from an earlier one if the key was written,
    /// created, deleted or expired in between, and sometimes when it was not: for a key that
    /// does not exist, when another key of its bucket was deleted.
    #[must_use]
    pub fn watch_version(&self, key: &[u8]) -> u64 {
        let place = self.locate(key);
        let bucket = self.bucket(place.bucket);
        match place.at.ok().map(|at| &bucket.slots[at].entry) {
            Some(entry) if self.alive(entry) => entry.version << 1 | 1,
            // Expired: what `deleted` will be once the slot is removed.
            Some(entry) => entry.version.max(bucket.deleted) << 1,
            None => bucket.deleted << 1,
        }
    }

    /// Removes everything.
    pub fn clear(&mut self, ctx: &mut Context<'_>) {
        for bucket in 0..BUCKETS as usize {
            if !self.bucket(bucket).slots.is_empty() {
                self.announce(ctx, bucket);
                let deleted = self.version;
                *self.bucket_mut(bucket) = Bucket { deleted, ..Bucket::default() };
            }
        }
        for number in 0..SHARDS {
            let shard = self.shards.get_mut(number);
            shard.occupied.fill(0);
            shard.expiries.clear();
            shard.slots = 0;
        }
        self.notes.soonest.set(None);
    }

    /// The keys and entries from the place `from` on, in the order of their hashes; `from` is one.
    pub fn iter_from(&self, from: u64) -> impl Iterator<Item = (u64, &[u8], &Entry)> {
        let first = (from >> 48) as usize;
        let mut next = self.next_occupied(first);
        std::iter::from_fn(move || {
            let bucket = next?;
            next = self.next_occupied(bucket + 1);
            Some(&self.bucket(bucket).slots[..])
        })
        .flatten()
        .inspect(|_| self.work.pass(1))
        .filter(move |slot| slot.hash >= from && self.alive(&slot.entry))
        .map(|slot| (slot.hash, &*slot.key, &slot.entry))
    }

    /// Removes up to `max` keys whose time has passed: the buckets' first.
    pub fn expire(&mut self, ctx: &mut Context<'_>, max: usize) {
        let mut left = max;
        for number in 0..SHARDS {
            while left > 0 && self.shards.get(number).soonest() < self.now_ms {
                self.expire_first(ctx, number);
                left -= 1;
            }
        }
    }

    fn expire_first(&mut self, ctx: &mut Context<'_>, shard: usize) {
        let first = self.shards.get(shard).expiries.first();
        let (_, key) = first.expect("somebody has seen it").clone();
        let place = self.locate(&key);
        let at = place.at.expect("every expiry belongs to a slot");
        self.announce(ctx, place.bucket);
        let slot = self.take(place.bucket, at);
        let deleted = &mut self.bucket_mut(place.bucket).deleted;
        *deleted = slot.entry.version.max(*deleted);
    }

    /// When the next key expires, in milliseconds since the Unix epoch: it is gone from the
    /// millisecond after it.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        let look = || self.shards.all().iter().map(|shard| shard.soonest()).min();
        let soonest = self.notes.soonest.get().unwrap_or_else(|| look().unwrap_or(NEVER));
        self.notes.soonest.set(Some(soonest));
        (soonest != NEVER).then_some(soonest)
    }

    fn alive(&self, entry: &Entry) -> bool {
        if entry.expires_at != NEVER {
            self.notes.timed.set(true);
        }
        self.now_ms <= entry.expires_at
    }

    pub(super) fn locate(&self, key: &[u8]) -> Place {
        let hash = siphash::hash(key);
        let bucket = (hash >> 48) as usize;
        if self.notes.watched {
            self.notes.touched.borrow_mut().push(bucket);
        }
        let at = find(&self.bucket(bucket).slots, hash, key);
        Place { bucket, hash, at }
    }

    fn live_index(&self, place: Place) -> Option<usize> {
        let at = place.at.ok()?;
        self.alive(&self.bucket(place.bucket).slots[at].entry).then_some(at)
    }

    fn announce(&mut self, ctx: &mut Context<'_>, bucket: usize) {
        self.settle();
        ctx.writes(bucket as u64);
        if ctx.wants_digest(bucket as u32) {
            // Its values remember theirs, so this costs less than its bytes.
            ctx.digest(bucket as u32, self.digest_bucket(bucket as u32));
        }
        ctx.modify(bucket as u32, |out| self.bucket(bucket).encode(out));
    }

    fn write_at<T: Kind>(
        &mut self,
        ctx: &mut Context<'_>,
        bucket: usize,
        at: usize,
    ) -> Result<&mut T, Fail> {
        if T::of(&self.bucket(bucket).slots[at].entry.value).is_none() {
            return Err(Fail::WRONG_TYPE);
        }
        self.announce(ctx, bucket);
        let before = self.bucket(bucket).slots[at].entry.value.encoded_len();
        self.writing = Some(Writing { bucket, at, before });
        let version = self.version;
        let entry = &mut self.bucket_mut(bucket).slots[at].entry;
        entry.version = version;
        Ok(T::of_mut(&mut entry.value).expect("just checked"))
    }

    /// Writes a whole entry and returns its index in the bucket.
    fn store(
        &mut self,
        ctx: &mut Context<'_>,
        place: Place,
        key: &[u8],
        value: Value,
        expiry: Expiry,
    ) -> usize {
        self.announce(ctx, place.bucket);
        let version = self.version;
        let wanted = match expiry {
            Expiry::At(when) => when,
            Expiry::Clear | Expiry::Keep => NEVER,
        };
        let keep = expiry == Expiry::Keep && self.live_index(place).is_some();
        match place.at {
            Ok(at) => {
                let bucket = self.bucket_mut(place.bucket);
                let entry = &mut bucket.slots[at].entry;
                bucket.bytes = bucket.bytes - entry.value.encoded_len() + value.encoded_len();
                let old = entry.expires_at;
                let expires_at = if keep { old } else { wanted };
                *entry = Entry { value, expires_at, version };
                self.reschedule(key, old, expires_at);
                at
            }
            Err(at) => {
                let entry = Entry { value, expires_at: wanted, version };
                self.reschedule(key, NEVER, wanted);
                let slot = Slot { hash: place.hash, key: Key::from_slice(key), entry };
                self.work.pass(work::moved(self.bucket(place.bucket).slots.len() - at));
                let bucket = self.bucket_mut(place.bucket);
                bucket.bytes += slot.encoded_len();
                bucket.slots.insert(at, slot);
                let within = place.bucket % SHARD_BUCKETS;
                let shard = self.shards.get_mut(place.bucket / SHARD_BUCKETS);
                shard.occupied[within / 64] |= 1 << (within % 64);
                shard.slots += 1;
                at
            }
        }
    }

    fn take(&mut self, bucket: usize, at: usize) -> Slot {
        let shard = self.shards.get_mut(bucket / SHARD_BUCKETS);
        let within = bucket % SHARD_BUCKETS;
        let Bucket { slots, bytes, .. } = &mut shard.buckets[within];
        self.work.pass(work::moved(slots.len() - at));
        let slot = slots.remove(at);
        *bytes -= slot.encoded_len();
        if slots.is_empty() {
            *slots = Vec::new();
            shard.occupied[within / 64] &= !(1 << (within % 64));
        }
        shard.slots -= 1;
        self.reschedule(&slot.key, slot.entry.expires_at, NEVER);
        slot
    }

    fn reschedule(&mut self, key: &[u8], old: u64, new: u64) {
        if old == new {
            return;
        }
        let bucket = (siphash::hash(key) >> 48) as usize;
        let Shard { expiries, .. } = self.shards.get_mut(bucket / SHARD_BUCKETS);
        if old != NEVER {
            expiries.remove(&(old, key.into()) as &(u64, Box<[u8]>));
        }
        if new != NEVER {
            expiries.insert((new, key.into()));
        }
        let soonest = self.notes.soonest.get();
        self.notes.soonest.set(soonest.filter(|soonest| *soonest != old).map(|s| s.min(new)));
    }

    fn next_occupied(&self, from: usize) -> Option<usize> {
        let first = from / SHARD_BUCKETS;
        (first..SHARDS).find_map(|number| {
            let begin = if number == first { from % SHARD_BUCKETS } else { 0 };
            let bucket = self.shards.all()[number].next_occupied(begin)?;
            Some(number * SHARD_BUCKETS + bucket)
        })
    }

    /// Exchanges a whole bucket, as state transfer does.
    pub(super) fn replace_bucket(&mut self, at: usize, new: Bucket) {
        let old = std::mem::take(self.bucket_mut(at));
        for slot in &old.slots {
            self.reschedule(&slot.key, slot.entry.expires_at, NEVER);
        }
        for slot in &new.slots {
            self.reschedule(&slot.key, NEVER, slot.entry.expires_at);
        }
        let shard = self.shards.get_mut(at / SHARD_BUCKETS);
        shard.slots = shard.slots - old.slots.len() + new.slots.len();
        let within = at % SHARD_BUCKETS;
        let bit = 1 << (within % 64);
        shard.occupied[within / 64] &= !bit;
        if !new.slots.is_empty() {
            shard.occupied[within / 64] |= bit;
        }
        shard.buckets[within] = new;
    }
}
