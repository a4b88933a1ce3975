//! Changes inputs: blindly, and with an eye for what formats are made of.
//!
//! Lengths and counts are numbers of 1, 2, 4 or 8 bytes in either order, or decimal digits; what
//! breaks decoders is such a number that lies. So besides bits and bytes the mutator edits
//! numbers, moves pieces within an input and between inputs, and drops in the words of the
//! format. Deterministic: everything follows from the generator.

use crate::prng::Prng;

/// Numbers at which something may turn.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    3,
    4,
    16,
    63,
    64,
    65,
    127,
    255,
    1024,
    0x7fff,
    0xffff,
    0x00ff_ffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    u64::MAX >> 1,
    u64::MAX,
];

/// Numbers as text at which something may turn.
const TEXT_EDGES: [&str; 12] = [
    "0",
    "-1",
    "1",
    "-0",
    "+1",
    "01",
    "1000000000",
    "2147483648",
    "4294967295",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
];

/// What the mutator draws from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// Inputs worth starting from.
    pub corpus: &'a [Vec<u8>],
    /// The words of the format.
    pub words: &'a [&'a [u8]],
    /// Most bytes of an input.
    pub bytes_max: usize,
}

/// An input: one of the corpus with a few changes, or now and then something made up.
pub fn mutated(prng: &mut Prng, from: Material<'_>) -> Vec<u8> {
    let mut bytes = match from.corpus.is_empty() || prng.one_in(200) {
        true => (0..prng.below(64)).map(|_| byte(prng)).collect(),
        false => prng.pick(from.corpus).clone(),
    };
    // Mostly few changes: each one is a chance to be refused at the door.
    let changes = 1 + if prng.one_in(4) { prng.below(12) } else { prng.below(3) };
    for _ in 0..changes {
        change(prng, from, &mut bytes);
        bytes.truncate(from.bytes_max);
    }
    bytes
}

fn byte(prng: &mut Prng) -> u8 {
    prng.draw().to_le_bytes()[3]
}

fn change(prng: &mut Prng, from: Material<'_>, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    match prng.below(14) {
        0 | 1 if len > 0 => bytes[prng.below(len)] ^= 1 << prng.below(8),
        2 if len > 0 => bytes[prng.below(len)] = byte(prng),
        3 => {
            let at = prng.below(len + 1);
            let piece: Vec<u8> = (0..1 + prng.below(8)).map(|_| byte(prng)).collect();
            bytes.splice(at..at, piece);
        }
        4 if len > 0 => {
            let piece = piece(prng, len);
            bytes.drain(piece);
        }
        5 => bytes.truncate(prng.below(len + 1)),
        6 | 7 if len > 0 => number(prng, bytes),
        8 if len > 0 => digits(prng, bytes),
        9 if len > 0 => {
            let again = bytes[piece(prng, len)].to_vec();
            let at = prng.below(len + 1);
            let times = if prng.one_in(10) { 64 } else { 3 };
            for _ in 0..1 + prng.below(times) {
                bytes.splice(at..at, again.iter().copied());
            }
        }
        10 | 11 if !from.corpus.is_empty() => {
            let other = prng.pick(from.corpus);
            let (at, cut) = (prng.below(len + 1), prng.below(other.len() + 1));
            let end = (at + prng.below(64)).min(len);
            match prng.one_in(2) {
                true => bytes.truncate(at),
                // In the middle: the tail stays.
                false => return drop(bytes.splice(at..end, other[cut..].iter().copied().take(64))),
            }
            bytes.extend_from_slice(&other[cut..]);
        }
        12 if !from.words.is_empty() => {
            let word = *prng.pick(from.words);
            let at = prng.below(len + 1);
            let end = if prng.one_in(2) { at } else { (at + word.len()).min(len) };
            bytes.splice(at..end, word.iter().copied());
        }
        13 if len > 0 => {
            let value = *prng.pick(&[0u8, 1, 0x7f, 0x80, 0xff, b'\r', b'\n']);
            bytes[piece(prng, len)].fill(value);
        }
        _ => bytes.push(byte(prng)),
    }
}

/// A range that is not empty.
fn piece(prng: &mut Prng, len: usize) -> std::ops::Range<usize> {
    let start = prng.below(len);
    let most = if prng.one_in(3) { len - start } else { 16.min(len - start) };
    start..start + 1 + prng.below(most)
}

/// Treats some bytes as a number, and gives it a value at which something may turn: an edge, a
/// neighbour, how much there is, or how much is left.
fn number(prng: &mut Prng, bytes: &mut [u8]) {
    let width = *prng.pick(&[1usize, 2, 4, 4, 8]);
    let Some(last) = bytes.len().checked_sub(width) else { return };
    let at = prng.below(last + 1);
    let mut old = [0; 8];
    old[..width].copy_from_slice(&bytes[at..at + width]);
    let (big, old) = (prng.one_in(4), u64::from_le_bytes(old));
    let left = (bytes.len() - at - width) as u64;
    let new = match prng.below(7) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => left,
        3 => left.wrapping_add(1),
        4 => old.wrapping_mul(2),
        _ => *prng.pick(&EDGES),
    };
    let mut new = new.to_le_bytes();
    if big {
        new[..width].reverse();
    }
    bytes[at..at + width].copy_from_slice(&new[..width]);
}

/// The same for a number in decimal digits.
fn digits(prng: &mut Prng, bytes: &mut Vec<u8>) {
    let start = prng.below(bytes.len());
    let Some(first) = bytes[start..].iter().position(u8::is_ascii_digit).map(|i| start + i) else {
        return;
    };
    let count = bytes[first..].iter().take_while(|b| b.is_ascii_digit()).count();
    bytes.splice(first..first + count, prng.pick(&TEXT_EDGES).bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_they_differ() {
        let corpus = [b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".to_vec(), vec![7; 40]];
        let words: [&[u8]; 2] = [b"SET", b"$-1\r\n"];
        let from = Material { corpus: &corpus, words: &words, bytes_max: 256 };
        let all = |seed| -> Vec<Vec<u8>> {
            let mut prng = Prng::new(seed);
            (0..2_000).map(|_| mutated(&mut prng, from)).collect()
        };
        let first = all(1);
        assert_eq!(first, all(1));
        assert_ne!(first, all(2));
        assert!(first.iter().all(|bytes| bytes.len() <= 256));
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(distinct.len() > 1_500, "{}", distinct.len());
        assert!(first.iter().any(|bytes| bytes.windows(3).any(|w| w == b"SET")));
        assert!(first.iter().any(|bytes| bytes.windows(10).any(|w| w == b"2147483648")));
    }
}
