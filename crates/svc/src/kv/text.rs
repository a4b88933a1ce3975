//! The string type: bytes, with digests per chunk once it is long.
//!
//! A string of up to 64 KiB is hashed whole. A longer one keeps a digest per
//! 4 KiB chunk, so that APPEND, SETRANGE and SETBIT on megabytes cost a chunk or two and a pass
//! over the chunks' digests. Which of the two applies depends on the length alone.

use base::digest::{Domain, Hasher};
use base::{Digest, Malformed, Reader, Writer};
use smallvec::SmallVec;

/// Longest string that is hashed as a whole, in bytes.
const PLAIN_MAX: usize = 64 << 10;
/// Bytes of a chunk.
const CHUNK: usize = 4 << 10;

/// A byte string.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// In place as long as they are few, so that whoever has the entry need not wait for them.
    bytes: SmallVec<[u8; 16]>,
    /// What is known of the digest. In a box, since most strings are short and never have one.
    known: Option<Box<Known>>,
}

/// Digests of a string and its parts; zero where not known.
#[derive(Clone, Debug, Default)]
struct Known {
    whole: Digest,
    chunks: Vec<Digest>,
}

impl Text {
    /// The empty string.
    #[must_use]
    pub fn new() -> Text {
        Text::default()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Replaces the contents; the allocation is used again.
    pub fn set(&mut self, bytes: &[u8]) {
        self.known = None;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        // A long value that became short would otherwise hold its memory for ever.
        if self.bytes.capacity() / 4 > self.bytes.len().max(64) {
            self.bytes.shrink_to_fit();
        }
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.forget(from, self.bytes.len());
    }

    /// The bytes `at..at + len` for writing; the string grows by zeroes to hold them.
    pub fn slice_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        let old = self.bytes.len();
        if old < at + len {
            self.bytes.resize(at + len, 0);
        }
        self.forget(at.min(old), at + len);
        &mut self.bytes[at..at + len]
    }

    /// The digest of the contents, kept until they change.
    pub fn digest(&mut self) -> Digest {
        let known = self.known.get_or_insert_default();
        if known.whole != Digest::ZERO {
            return known.whole;
        }
        let mut hasher = Hasher::new(Domain::Service);
        hasher.update_u64(self.bytes.len() as u64);
        if self.bytes.len() <= PLAIN_MAX {
            hasher.update(&self.bytes);
        } else {
            known.chunks.resize(self.bytes.len().div_ceil(CHUNK), Digest::ZERO);
            for (digest, bytes) in known.chunks.iter_mut().zip(self.bytes.chunks(CHUNK)) {
                if *digest == Digest::ZERO {
                    *digest = Digest::of(Domain::Service, bytes);
                }
                hasher.update(&digest.0);
            }
        }
        known.whole = hasher.finish();
        known.whole
    }

    /// Bytes that [`Text::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        4 + self.bytes.len()
    }

    /// Appends the canonical bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Writer::new(out).sized(&self.bytes);
    }

    /// Reads what [`Text::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no string.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Text, Malformed> {
        Ok(Text::from(reader.sized(super::VALUE_BYTES_MAX, "string")?))
    }

    /// Drops the digest, and those of the chunks that hold the bytes `from..to`.
    fn forget(&mut self, from: usize, to: usize) {
        if let Some(known) = &mut self.known {
            known.whole = Digest::ZERO;
            let len = known.chunks.len();
            known.chunks[(from / CHUNK).min(len)..to.div_ceil(CHUNK).min(len)].fill(Digest::ZERO);
        }
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Text {
        Text { bytes: SmallVec::from_slice(bytes), known: None }
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Text {
        Text { bytes: bytes.into(), known: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_after_changes_equal_digests_of_the_same_bytes() {
        let mut text = Text::new();
        let mut seed = 1u64;
        let mut next = |bound: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            (seed >> 33) as usize % bound
        };
        for round in 0..300 {
            match next(6) {
                0 | 1 => text.append(&vec![round as u8; next(9000)]),
                2 | 3 => {
                    let (at, len) = (next(200_000), next(9000) + 1);
                    text.slice_mut(at, len).fill(next(256) as u8);
                }
                4 => text.slice_mut(next(70_000), 1)[0] ^= 1,
                _ if next(8) == 0 => text.set(&vec![7; next(100_000)]),
                _ => {}
            }
            if next(3) > 0 {
                assert_eq!(text.digest(), Text::from(text.bytes()).digest(), "round {round}");
            }
        }
    }

    #[test]
    fn encoding_is_read_back() {
        for len in [0, 1, PLAIN_MAX, PLAIN_MAX + 1] {
            let mut text = Text::from(vec![3; len]);
            let mut out = vec![];
            text.encode(&mut out);
            let mut back = Text::decode(&mut Reader::new(&out)).expect("what was written");
            assert_eq!(back.bytes(), text.bytes());
            assert_eq!(back.digest(), text.digest());
        }
    }
}
