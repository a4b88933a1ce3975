//! The echo service: "empty operations" for microbenchmarks.
//!
//! An operation is a `u32` (little-endian), the length of the wanted result, and any payload;
//! its result is that many zero bytes. A malformed operation, or one that wants more than
//! [`RESULT_BYTES_MAX`], has an empty result. The state is one object: how many operations were
//! executed and a running mix of them, so that replicas that execute differently have different
//! digests. With the bit [`READ`] in the length it is a read: it has the same result, and leaves
//! no trace in the state.

use base::{Malformed, Reader, Writer};
use exec::{Completion, Context, ReadContext, Service};

/// Largest result, in bytes.
pub const RESULT_BYTES_MAX: usize = 1 << 20;

/// The bit of the length that makes an operation a read.
pub const READ: u32 = 1 << 31;

/// The echo service.
#[derive(Clone, Debug, Default)]
pub struct EchoService {
    count: u64,
    mix: u64,
}

impl EchoService {
    /// A service that has executed nothing.
    #[must_use]
    pub fn new() -> EchoService {
        EchoService::default()
    }

    /// Number of operations executed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl Service for EchoService {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let word = Reader::new(op).u32("length of the result").unwrap_or(0);
        let wanted = (word & !READ) as usize;
        if wanted <= RESULT_BYTES_MAX {
            reply.resize(reply.len() + wanted, 0);
        }
        if word & READ != 0 {
            return Completion::Done;
        }
        ctx.modify(0, |out| self.get(0, out));
        self.count += 1;
        let place = mix(ctx.seq.0, u64::from(ctx.index) << 32 | op.len() as u64);
        self.mix = mix(self.mix, fold(place, op));
        Completion::Done
    }

    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        let word = Reader::new(op).u32("length of the result").unwrap_or(0);
        let wanted = (word & !READ) as usize;
        if wanted <= RESULT_BYTES_MAX {
            reply.resize(reply.len() + wanted, 0);
        }
        ctx.looks_nowhere();
        word & READ != 0
    }

    fn get(&self, _object: u32, out: &mut Vec<u8>) {
        Writer::new(out).u64(self.count).u64(self.mix);
    }

    fn put(&mut self, _object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(bytes);
        let (count, mix) = (reader.u64("count")?, reader.u64("mix")?);
        reader.finish("state of the echo service")?;
        (self.count, self.mix) = (count, mix);
        Ok(())
    }
}

/// Folds a word into a running mix. No cryptography: the digest over it is made at checkpoints.
fn mix(state: u64, word: u64) -> u64 {
    let product =
        u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xa076_1d64_78bd_642f);
    (product >> 64) as u64 ^ product as u64 ^ state.rotate_left(23)
}

/// A mix of all of `bytes`, whose number has gone into `state` already. Four at a time do not wait
/// for each other, and none waits for the operation before: an empty operation is to cost next to
/// nothing, and one with a payload a pass over it.
fn fold(state: u64, bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0, 1, 2, 3].map(|lane| state ^ lane);
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let (words, tail) = rest.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let state = match blocks {
        [] => state,
        _ => lanes.into_iter().fold(state, mix),
    };
    let state = words.iter().fold(state, |state, word| mix(state, u64::from_le_bytes(*word)));
    mix(state, u64::from_le_bytes(last))
}

/// The operation that asks for `reply` bytes and carries `payload`.
#[must_use]
pub fn encode(reply: u32, payload: &[u8]) -> Vec<u8> {
    [&reply.to_le_bytes()[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Runner;

    #[test]
    fn results_have_the_length_that_was_asked_for() {
        let mut runner = Runner::new(EchoService::new());
        assert_eq!(runner.run(&encode(5, b"payload")), vec![0; 5]);
        assert_eq!(runner.run(&encode(0, b"")), b"");
        assert_eq!(runner.run(&encode(READ - 1, b"")), b"");
        assert_eq!(runner.run(b"abc"), b"");
        assert_eq!(runner.service.count(), 4);
    }

    #[test]
    fn reads_have_their_results_and_leave_no_trace() {
        let mut harness = exec::testing::Harness::new(EchoService::new());
        harness.run(&encode(0, b"x"));
        let root = harness.root();
        let op = encode(3 | READ, b"payload");
        assert_eq!(harness.read(&op), Some((vec![0; 3], base::Seq(0))));
        assert_eq!(harness.run(&op), vec![0; 3]);
        assert_eq!(harness.root(), root);
        for op in [&encode(3, b"")[..], b"abc"] {
            assert_eq!(harness.read(op), None);
        }
    }

    #[test]
    fn digests_tell_executions_apart() {
        let root = |ops: &[&[u8]]| {
            let mut runner = Runner::new(EchoService::new());
            ops.iter().for_each(|op| drop(runner.run(op)));
            runner.root()
        };
        assert_eq!(root(&[b"0000a", b"0000b"]), root(&[b"0000a", b"0000b"]));
        assert_ne!(root(&[b"0000a", b"0000b"]), root(&[b"0000b", b"0000a"]));
        assert_ne!(root(&[b"0000a"]), root(&[b"0000a", b"0000a"]));
        assert_ne!(root(&[b"0000a"]), root(&[b"0000"]));
    }

    #[test]
    fn every_byte_and_every_place_counts() {
        for length in [0, 1, 3, 7, 8, 9, 31, 32, 33, 64, 100] {
            let bytes: Vec<u8> = (0..length).collect();
            let whole = fold(7, &bytes);
            assert_ne!(fold(8, &bytes), whole, "{length}");
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert_ne!(fold(7, &other), whole, "{length}, {at}");
                let mut swapped = bytes.clone();
                swapped.rotate_left(at);
                assert!(at == 0 || fold(7, &swapped) != whole, "{length}, {at}");
            }
        }
    }

    #[test]
    fn the_state_moves() {
        let mut runner = Runner::new(EchoService::new());
        runner.run(&encode(1, b"x"));
        let mut other = Runner::new(EchoService::new());
        other.load(&runner.service);
        assert_eq!(runner.root(), other.root());
    }
}
