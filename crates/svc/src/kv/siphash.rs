//! Which bucket a key is in: SipHash-1-3 with a fixed key.
//!
//! The hash must be the same at every replica, on every machine and for ever, since buckets are
//! the objects of the replicated state: hence our own few lines and not the standard library's,
//! whose algorithm is not promised. It costs some ten nanoseconds for a short key. The key of
//! the hash is public, so who wants to can find keys of one bucket; they make that bucket slow
//! in proportion to their number and nothing else wrong.

const KEY: (u64, u64) = (0x7374_796c_6974_652d, 0x6b65_7973_7061_6365);

/// The hash of `bytes`.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    keyed(KEY, bytes)
}

fn keyed(key: (u64, u64), bytes: &[u8]) -> u64 {
    let mut state = State {
        v0: key.0 ^ 0x736f_6d65_7073_6575,
        v1: key.1 ^ 0x646f_7261_6e64_6f6d,
        v2: key.0 ^ 0x6c79_6765_6e65_7261,
        v3: key.1 ^ 0x7465_6462_7974_6573,
    };
    let (words, tail) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| state.absorb(u64::from_le_bytes(*word)));
    let mut last = [0u8; 8];
    last[..tail.len()].copy_from_slice(tail);
    last[7] = bytes.len() as u8;
    state.absorb(u64::from_le_bytes(last));
    state.v2 ^= 0xff;
    (0..3).for_each(|_| state.round());
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library has the same algorithm, today and with the key zero.
    #[test]
    fn the_algorithm_is_siphash_1_3() {
        use std::hash::{DefaultHasher, Hasher};
        for len in 0..100u8 {
            let bytes: Vec<u8> = (0..len).collect();
            let mut theirs = DefaultHasher::new();
            theirs.write(&bytes);
            assert_eq!(keyed((0, 0), &bytes), theirs.finish(), "{len}");
        }
    }

    /// A change of this number moves every key to another bucket: old states become unreadable.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b"key"), 8_097_969_762_036_807_320);
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let mut counts = vec![0u32; 1 << 16];
        for i in 0..1_000_000 {
            counts[(hash(format!("key:{i}").as_bytes()) >> 48) as usize] += 1;
        }
        // 15.3 keys a bucket on average; a standard deviation of 3.9.
        assert!(counts.iter().all(|count| *count < 48), "{:?}", counts.iter().max());
        assert!(counts.iter().filter(|count| **count == 0).count() < 8);
    }
}
