//! A bucket: some keys with what they hold, as one abstract object of the service.
//!
//! Its canonical bytes are what state transfer carries; how many there are is known without
//! writing them, see `room`.

use std::cmp::Ordering;

use base::digest::Domain;
use base::{Digest, Malformed, Reader, Writer, limits};
use smallvec::SmallVec;

use super::db::Entry;
use super::siphash;
use super::value::Value;

/// Bytes of a bucket as it is encoded, besides its slots.
pub(super) const HEAD_BYTES: usize = 12;

/// Bytes of a slot as it is encoded, besides its key and its value.
pub(super) const SLOT_BYTES: usize = 20;

/// Longest string that stands in its bucket's digest itself, in bytes.
const INLINE_MAX: usize = 64;

/// A key. Most are short and stand in their slot: whoever looks one up, or digests a bucket, then
/// waits for memory once less.
pub(super) type Key = SmallVec<[u8; 24]>;

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) key: Key,
    pub(super) entry: Entry,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    /// Sorted by (hash, key).
    pub(super) slots: Vec<Slot>,
    /// Version of the last deletion.
    pub(super) deleted: u64,
    /// Bytes of the slots as they are encoded, without the change that is under way (`room`).
    pub(super) bytes: usize,
}

impl Bucket {
    /// Appends the canonical bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out).u64(self.deleted).count(self.slots.len());
        for slot in &self.slots {
            let entry = &slot.entry;
            Writer::new(out).sized(&slot.key).u64(entry.expires_at).u64(entry.version);
            entry.value.encode(out);
        }
    }

    /// Short strings stand in the digest themselves, everything else by its own digest.
    pub(super) fn digest(&mut self) -> Digest {
        let mut bytes = Vec::with_capacity(12 + self.slots.len() * 128);
        Writer::new(&mut bytes).u64(self.deleted).count(self.slots.len());
        for slot in &mut self.slots {
            let entry = &mut slot.entry;
            let mut writer = Writer::new(&mut bytes);
            writer.sized(&slot.key).u64(entry.expires_at).u64(entry.version);
            writer.u8(entry.value.tag());
            if let Value::String(text) = &entry.value
                && text.len() <= INLINE_MAX
            {
                writer.sized(text.bytes());
                continue;
            }
            writer.u32(u32::MAX).digest(entry.value.digest());
        }
        Digest::of(Domain::Service, &bytes)
    }

    /// Reads what [`Bucket::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such bucket.
    pub(super) fn decode(bucket: u32, bytes: &[u8]) -> Result<Bucket, Malformed> {
        let mut reader = Reader::new(bytes);
        let deleted = reader.u64("version of the last deletion")?;
        let count = reader.count(usize::MAX, 21, "keys of a bucket")?;
        let mut slots: Vec<Slot> = Vec::new();
        for _ in 0..count {
            let slot = Slot::decode(&mut reader)?;
            let ordered = slots.last().is_none_or(|last| last.place() < slot.place());
            if !ordered || (slot.hash >> 48) as u32 != bucket {
                return Err(Malformed("order of the keys of a bucket"));
            }
            slots.push(slot);
        }
        reader.finish("bucket")?;
        let bytes = slots.iter().map(Slot::encoded_len).sum();
        Ok(Bucket { slots, deleted, bytes })
    }
}

/// Where (hash, key) is in the slots of its bucket, or would be. Hashes are spread evenly, so the
/// search begins where the hash says and doubles its step from there: a slot or two are touched
/// where halving would touch several, each of them a cache miss. Keys that were chosen to be
/// close make it a binary search again.
pub(super) fn find(slots: &[Slot], hash: u64, key: &[u8]) -> Result<usize, usize> {
    let compare = |slot: &Slot| slot.hash.cmp(&hash).then_with(|| slot.key[..].cmp(key));
    let guess = ((u128::from(hash << 16) * slots.len() as u128) >> 64) as usize;
    let (mut low, mut high, mut step) = (0, slots.len(), 1);
    match slots.get(guess).map(compare) {
        None => return Err(0),
        Some(Ordering::Equal) => return Ok(guess),
        Some(Ordering::Less) => {
            low = guess + 1;
            while let Some(slot) = slots.get(guess + step) {
                if compare(slot) != Ordering::Less {
                    high = guess + step + 1;
                    break;
                }
                low = guess + step + 1;
                step *= 2;
            }
        }
        Some(Ordering::Greater) => {
            high = guess;
            while let Some(at) = guess.checked_sub(step) {
                if compare(&slots[at]) != Ordering::Greater {
                    low = at;
                    break;
                }
                high = at;
                step *= 2;
            }
        }
    }
    let found = slots[low..high].binary_search_by(compare);
    found.map(|at| low + at).map_err(|at| low + at)
}

impl Slot {
    /// Bytes of the slot as it is encoded, without a walk over its value.
    pub(super) fn encoded_len(&self) -> usize {
        SLOT_BYTES + self.key.len() + self.entry.value.encoded_len()
    }

    /// What slots are sorted by.
    pub(super) fn place(&self) -> (u64, &[u8]) {
        (self.hash, &self.key)
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Slot, Malformed> {
        let key = reader.sized(limits::OP_BYTES_MAX, "key")?;
        let (expires_at, version) = (reader.u64("expiry")?, reader.u64("version")?);
        let value = Value::decode(reader)?;
        if value.is_empty_collection() {
            return Err(Malformed("collection without elements"));
        }
        let entry = Entry { value, expires_at, version };
        Ok(Slot { hash: siphash::hash(key), key: Key::from_slice(key), entry })
    }
}
