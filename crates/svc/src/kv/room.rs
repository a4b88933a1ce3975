//! How much a bucket takes.
//!
//! A bucket is carried to another replica as one object, and an object above
//! [`exec::transfer::OBJECT_BYTES_MAX`] is not carried at all: the replica that needs it would
//! never have the state. So whatever would make a bucket larger than that is refused.
//!
//! Every bucket knows how many bytes it has as it is encoded, without a walk: values keep count
//! of their own, and a write counts for the difference that it makes. The count is a function of
//! the bucket's bytes, so a replica that fetched them refuses the same as one that made them.
//!
//! What a handler puts in whole (SET, RENAME, SUNIONSTORE) is measured first. What it changes in
//! place (RPUSH, SETRANGE, HSET) is counted afterwards, since then it cannot be taken back:
//! a bucket that is not full takes one more such change, and there is room for any.

use base::limits::OP_BYTES_MAX;
use exec::transfer::OBJECT_BYTES_MAX;

use super::bucket::{HEAD_BYTES, SLOT_BYTES};
use super::call::{Fail, Outcome};
use super::db::{Db, Place};

/// Bytes of keys and values, as they are encoded, above which a bucket takes nothing more.
pub const BUCKET_BYTES_MAX: usize = 768 << 20;

/// Most bytes that one command adds to a bucket by changing a value in place. A string becomes
/// [`super::VALUE_BYTES_MAX`] at most. An element of a collection takes at least 4 bytes in the
/// operation besides its own. In the encoding it takes 4 besides its own and 8 for a score, and
/// in a list it may need a node of 4 bytes at each of at most 13 heights.
const GROWTH_BYTES_MAX: usize = 16 * OP_BYTES_MAX;

const _: () = assert!(super::VALUE_BYTES_MAX <= OP_BYTES_MAX);
const _: () = assert!(
    (HEAD_BYTES + SLOT_BYTES + BUCKET_BYTES_MAX + GROWTH_BYTES_MAX) as u64 <= OBJECT_BYTES_MAX
);

/// A value that a handler may be changing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    pub(super) bucket: usize,
    /// Its index among the slots.
    pub(super) at: usize,
    /// Its bytes before.
    pub(super) before: usize,
}

impl Db {
    /// Counts what has become of the value that was written last. Called before anything else is
    /// done with the key space that asks for a bucket's bytes or changes its slots.
    pub(super) fn settle(&mut self) {
        if let Some(Writing { bucket, at, before }) = self.writing.take() {
            let bucket = self.bucket_mut(bucket);
            let after = bucket.slots[at].entry.value.encoded_len();
            bucket.bytes = bucket.bytes - before + after;
        }
    }

    /// Whether the bucket of `key` takes another change in place, or `more` bytes of whole values.
    ///
    /// # Errors
    /// [`Fail::FULL`] when it does not.
    pub fn room(&mut self, key: &[u8], more: usize) -> Outcome {
        let bucket = self.locate(key).bucket;
        self.room_in(bucket, more)
    }

    /// Whether the bucket of `key` takes a value of so many bytes as it is encoded.
    ///
    /// # Errors
    /// [`Fail::FULL`] when it does not.
    pub(super) fn room_to_put(&mut self, key: &[u8], value: usize) -> Outcome {
        let place = self.locate(key);
        self.room_for(place.bucket, self.slot_bytes(place), SLOT_BYTES + key.len() + value)
    }

    pub(super) fn slot_bytes(&self, place: Place) -> usize {
        place.at.map_or(0, |at| self.bucket(place.bucket).slots[at].encoded_len())
    }

    pub(super) fn room_in(&mut self, bucket: usize, more: usize) -> Outcome {
        self.room_for(bucket, 0, more.max(1))
    }

    /// Whether a bucket takes `new` bytes in the place of `old`. What becomes smaller is always
    /// taken.
    pub(super) fn room_for(&mut self, bucket: usize, old: usize, new: usize) -> Outcome {
        self.settle();
        let takes = new <= old || self.bucket(bucket).bytes - old + new <= self.full;
        if takes { Ok(()) } else { Err(Fail::FULL) }
    }
}
