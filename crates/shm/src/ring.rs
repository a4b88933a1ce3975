//! One direction: a ring of bytes with one writer and one reader, in words of shared memory.
//!
//! Indices count bytes from the beginning and never go back. The writer publishes `head`, the
//! reader `tail`; each keeps its own privately and believes of the other's only what can be.
//! The word that `head` is in is never the one that `tail` is in, of another round: so the
//! writer may store a word that is not full yet, and store it again with more bytes.
//!
//! No wake-up is lost. Who is about to sleep sets its flag, *then* looks at the other's index once
//! more; the other one publishes its index, *then* looks at the flag. Both have a sequentially
//! consistent fence in between, so at least one of them sees what the other did. `models` tries
//! all orders.
//!
//! Not here: where the words are (`region`), how a bell rings (`channel`).

use crate::sync::{Ordering, Word, fence};

/// Words before the bytes of a ring: its indices and flags, far enough from each other that no
/// two share a line of the cache.
pub(crate) const CONTROL_WORDS: usize = 64;
const HEAD: usize = 0;
const TAIL: usize = 16;
const READER_SLEEPS: usize = 32;
const WRITER_WAITS: usize = 48;
const WORD: usize = size_of::<u64>();

/// Shared words.
pub trait Memory {
    /// All of them; always the same ones.
    fn words(&self) -> &[Word];
}

/// The other end has written what no correct one writes. The connection is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the other end wrote an index that cannot be")]
pub struct Broken;

/// Where in the memory a ring is.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Its first word.
    first: usize,
    /// Words of bytes: a power of two.
    words: usize,
}

impl Place {
    /// # Panics
    /// When the memory is too small, or the number of words no power of two.
    fn new(memory: &impl Memory, first: usize, words: usize) -> Place {
        assert!(words.is_power_of_two() && words > 1, "a ring's words are a power of two");
        assert!(memory.words().len() >= first + CONTROL_WORDS + words, "a ring fits its memory");
        Place { first, words }
    }

    fn control<'a>(&self, memory: &'a impl Memory, which: usize) -> &'a Word {
        &memory.words()[self.first + which]
    }

    fn bytes<'a>(&self, memory: &'a impl Memory) -> &'a [Word] {
        let first = self.first + CONTROL_WORDS;
        &memory.words()[first..first + self.words]
    }

    /// Most bytes that may be in the ring.
    fn capacity(&self) -> u64 {
        ((self.words - 1) * WORD) as u64
    }

    fn word_of(&self, index: u64) -> usize {
        // Truncation is what the mask would do.
        (index / WORD as u64) as usize & (self.words - 1)
    }
}

/// Sets a flag before one sleeps. The other's index is to be looked at after this.
fn arm(flag: &Word) {
    // An exchange, so that it comes after the exchange that has found the last one set.
    flag.swap(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// After an index was published: whether the other one sleeps, and has to be woken. True once.
fn rouse(flag: &Word) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    place: Place,
    head: u64,
    /// The other's index as it was seen last.
    tail: u64,
    /// The bytes of the word that `head` is in, before it.
    partial: u64,
}

impl<M: Memory> Producer<M> {
    /// The writing end of the fresh ring that begins at word `first`.
    pub(crate) fn new(memory: M, first: usize, words: usize) -> Producer<M> {
        let place = Place::new(&memory, first, words);
        Producer { memory, place, head: 0, tail: 0, partial: 0 }
    }

    /// Writes as many of `bytes` as there is room for; how many.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if self.room() < bytes.len() as u64 {
            self.look()?;
        }
        let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return Ok(0);
        }
        self.store(bytes);
        self.place.control(&self.memory, HEAD).store(self.head, Ordering::Release);
        Ok(bytes.len())
    }

    /// After writing: whether the reader sleeps and is to be woken.
    pub(crate) fn rouse(&self) -> bool {
        rouse(self.place.control(&self.memory, READER_SLEEPS))
    }

    /// Asks the reader to ring once there is room. False when there is some already.
    pub(crate) fn await_room(&mut self) -> Result<bool, Broken> {
        let flag = self.place.control(&self.memory, WRITER_WAITS);
        arm(flag);
        self.look()?;
        if self.room() == 0 {
            return Ok(true);
        }
        self.place.control(&self.memory, WRITER_WAITS).store(0, Ordering::Relaxed);
        Ok(false)
    }

    fn room(&self) -> u64 {
        self.place.capacity() - (self.head - self.tail)
    }

    /// Looks how far the reader is.
    fn look(&mut self) -> Result<(), Broken> {
        let tail = self.place.control(&self.memory, TAIL).load(Ordering::Acquire);
        if tail < self.tail || tail > self.head {
            return Err(Broken);
        }
        self.tail = tail;
        Ok(())
    }

    fn store(&mut self, mut bytes: &[u8]) {
        let words = self.place.bytes(&self.memory);
        let within = (self.head % WORD as u64) as usize;
        if within > 0 {
            let (some, rest) = bytes.split_at(bytes.len().min(WORD - within));
            self.partial |= word(some) << (8 * within);
            words[self.place.word_of(self.head)].store(self.partial, Ordering::Relaxed);
            self.head += some.len() as u64;
            bytes = rest;
        }
        let (whole, rest) = bytes.as_chunks::<WORD>();
        let at = self.place.word_of(self.head);
        let (first, second) = whole.split_at(whole.len().min(words.len() - at));
        for (into, chunk) in words[at..].iter().zip(first).chain(words.iter().zip(second)) {
            into.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        self.head += (whole.len() * WORD) as u64;
        if !rest.is_empty() {
            self.partial = word(rest);
            words[self.place.word_of(self.head)].store(self.partial, Ordering::Relaxed);
            self.head += rest.len() as u64;
        } else if self.head.is_multiple_of(WORD as u64) {
            self.partial = 0;
        }
    }
}

/// Up to a word of bytes, with zeros behind them.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    place: Place,
    tail: u64,
    /// The other's index as it was seen last.
    head: u64,
}

impl<M: Memory> Consumer<M> {
    /// The reading end of the fresh ring that begins at word `first`.
    pub(crate) fn new(memory: M, first: usize, words: usize) -> Consumer<M> {
        let place = Place::new(&memory, first, words);
        Consumer { memory, place, tail: 0, head: 0 }
    }

    /// Copies out as many bytes as there are and as fit; how many.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Broken> {
        if self.head - self.tail < into.len() as u64 {
            self.look()?;
        }
        let there = usize::try_from(self.head - self.tail).unwrap_or(usize::MAX);
        let len = into.len().min(there);
        if len == 0 {
            return Ok(0);
        }
        self.load(&mut into[..len]);
        self.place.control(&self.memory, TAIL).store(self.tail, Ordering::Release);
        Ok(len)
    }

    /// After reading: whether the writer waits for room and is to be woken.
    pub(crate) fn rouse(&self) -> bool {
        rouse(self.place.control(&self.memory, WRITER_WAITS))
    }

    /// Whether there is nothing to read, as far as a look without any order can tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
            && self.place.control(&self.memory, HEAD).load(Ordering::Relaxed) == self.tail
    }

    /// Asks the writer to ring once there is something. False when there is something already.
    pub(crate) fn doze(&mut self) -> Result<bool, Broken> {
        arm(self.place.control(&self.memory, READER_SLEEPS));
        self.look()?;
        if self.head == self.tail {
            return Ok(true);
        }
        self.awake();
        Ok(false)
    }

    /// It looks by itself from now on.
    pub(crate) fn awake(&self) {
        self.place.control(&self.memory, READER_SLEEPS).store(0, Ordering::Relaxed);
    }

    /// Looks how far the writer is.
    fn look(&mut self) -> Result<(), Broken> {
        let head = self.place.control(&self.memory, HEAD).load(Ordering::Acquire);
        let beyond = head.checked_sub(self.tail).is_none_or(|len| len > self.place.capacity());
        if head < self.head || beyond {
            return Err(Broken);
        }
        self.head = head;
        Ok(())
    }

    fn load(&mut self, mut into: &mut [u8]) {
        let words = self.place.bytes(&self.memory);
        let within = (self.tail % WORD as u64) as usize;
        if within > 0 {
            let len = into.len().min(WORD - within);
            let (some, rest) = into.split_at_mut(len);
            let word = words[self.place.word_of(self.tail)].load(Ordering::Relaxed);
            some.copy_from_slice(&word.to_le_bytes()[within..within + len]);
            self.tail += len as u64;
            into = rest;
        }
        let (whole, rest) = into.as_chunks_mut::<WORD>();
        let at = self.place.word_of(self.tail);
        let (first, second) = whole.split_at_mut(whole.len().min(words.len() - at));
        let (first_len, second_len) = (first.len(), second.len());
        for (from, chunk) in words[at..].iter().zip(first).chain(words.iter().zip(second)) {
            *chunk = from.load(Ordering::Relaxed).to_le_bytes();
        }
        self.tail += ((first_len + second_len) * WORD) as u64;
        if !rest.is_empty() {
            let word = words[self.place.word_of(self.tail)].load(Ordering::Relaxed);
            rest.copy_from_slice(&word.to_le_bytes()[..rest.len()]);
            self.tail += rest.len() as u64;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Plain(Vec<Word>);

    impl Memory for Arc<Plain> {
        fn words(&self) -> &[Word] {
            &self.0
        }
    }

    const WORDS: usize = 8;

    fn ring() -> (Arc<Plain>, Producer<Arc<Plain>>, Consumer<Arc<Plain>>) {
        let words = (0..CONTROL_WORDS + WORDS).map(|_| Word::new(0)).collect();
        let plain = Arc::new(Plain(words));
        let (one, other) = (Arc::clone(&plain), Arc::clone(&plain));
        (plain, Producer::new(one, 0, WORDS), Consumer::new(other, 0, WORDS))
    }

    /// Writes and reads of all lengths, at all offsets, against a queue.
    #[test]
    fn what_goes_in_comes_out_in_order_whatever_the_lengths() {
        let (_, mut tx, mut rx) = ring();
        let mut queue = std::collections::VecDeque::new();
        let (mut next, mut mix) = (0u8, 1u64);
        for _ in 0..20_000 {
            mix = mix.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = (mix >> 33) as usize % 70;
            if mix >> 63 == 0 {
                let bytes: Vec<u8> = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                let wrote = tx.write(&bytes).expect("sound");
                assert_eq!(wrote, len.min((WORDS - 1) * WORD - queue.len()));
                next = next.wrapping_add(wrote as u8);
                queue.extend(&bytes[..wrote]);
            } else {
                let mut bytes = vec![0; len];
                let read = rx.read(&mut bytes).expect("sound");
                assert_eq!(read, len.min(queue.len()));
                let expected: Vec<u8> = queue.drain(..read).collect();
                assert_eq!(bytes[..read], expected);
            }
        }
    }

    #[test]
    fn a_bell_rings_for_who_sleeps_and_once() {
        let (_, mut tx, mut rx) = ring();
        assert_eq!(tx.write(b"a"), Ok(1));
        assert!(!tx.rouse(), "nobody sleeps");
        assert_eq!(rx.doze(), Ok(false), "there is something");
        assert_eq!(rx.read(&mut [0; 8]), Ok(1));
        assert_eq!(rx.doze(), Ok(true));
        assert_eq!(tx.write(&[0; 99]), Ok(56));
        assert!(tx.rouse() && !tx.rouse());
        assert_eq!(tx.write(&[0; 9]), Ok(0));
        assert_eq!(tx.await_room(), Ok(true));
        assert_eq!(rx.read(&mut [0; 8]), Ok(8));
        assert!(rx.rouse() && !rx.rouse());
        assert_eq!(tx.await_room(), Ok(false));
    }

    /// Every index that the other end could write, and that cannot be, is found out, and none
    /// leads beyond the ring.
    #[test]
    fn indices_that_cannot_be_are_found_out() {
        let capacity = ((WORDS - 1) * WORD) as u64;
        for forged in [10 + capacity + 1, u64::MAX, 1 << 32, u64::MAX - capacity, 3] {
            let (plain, mut tx, mut rx) = ring();
            assert_eq!(tx.write(&[7; 20]), Ok(20));
            assert_eq!(rx.read(&mut [0; 10]), Ok(10));
            plain.0[HEAD].store(forged, Ordering::Relaxed);
            assert_eq!(rx.read(&mut [0; 64]), Err(Broken), "head {forged}");
            assert_eq!(rx.doze(), Err(Broken));
        }
        for forged in [21, u64::MAX, 1 << 32, 9] {
            let (plain, mut tx, mut rx) = ring();
            assert_eq!(tx.write(&[7; 20]), Ok(20));
            assert_eq!(rx.read(&mut [0; 10]), Ok(10));
            assert_eq!(tx.await_room(), Ok(false));
            plain.0[TAIL].store(forged, Ordering::Relaxed);
            assert_eq!(tx.write(&[0; 64]), Err(Broken), "tail {forged}");
            assert_eq!(tx.await_room(), Err(Broken));
        }
    }

    /// Anything at all in the shared words: an error or bytes, and never a panic.
    #[test]
    fn garbage_everywhere_is_borne() {
        let mut mix = 7u64;
        for _ in 0..2_000 {
            let (plain, mut tx, mut rx) = ring();
            for _ in 0..20 {
                mix = mix.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(3);
                let at = (mix >> 40) as usize % plain.0.len();
                let value = if mix & 1 == 0 { mix >> 58 } else { mix };
                plain.0[at].store(value, Ordering::Relaxed);
                let _ = tx.write(&[1; 13]).map(|_| tx.rouse());
                let _ = rx.read(&mut [0; 17]).map(|_| rx.rouse());
                let _ = (tx.await_room(), rx.doze(), rx.is_empty());
            }
        }
    }

    #[test]
    fn two_threads_see_each_others_bytes() {
        let (_, mut tx, mut rx) = ring();
        let total = if cfg!(miri) { 2_000 } else { 2_000_000 };
        let writer = std::thread::spawn(move || {
            let mut at = 0u64;
            while at < total {
                let len = (at % 23 + 1).min(total - at);
                let bytes: Vec<u8> = (at..at + len).map(|i| (i % 251) as u8).collect();
                let mut sent = 0;
                while sent < bytes.len() {
                    sent += tx.write(&bytes[sent..]).expect("sound");
                    std::hint::spin_loop();
                }
                at += len;
            }
        });
        let (mut at, mut bytes) = (0u64, [0; 31]);
        while at < total {
            let read = rx.read(&mut bytes).expect("sound");
            for byte in &bytes[..read] {
                assert_eq!(*byte, (at % 251) as u8, "byte {at}");
                at += 1;
            }
            if read == 0 {
                std::thread::yield_now();
            }
        }
        writer.join().expect("ends");
    }
}
