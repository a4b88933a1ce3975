//! The work service: operations that take as long as they are told, for measurements of parallel
//! execution (CBASE §6.1).
//!
//! An operation is a kind, a time in nanoseconds (`u32`, little-endian) and a key, whatever bytes
//! follow. It does nothing at all, sleeps like somebody who waits for a disk, or keeps a processor
//! busy; its result is empty. Operations that do something and have the same key depend on each
//! other. They are counted in one of [`CELLS`] cells, with a mix of their places in the total
//! order, so that replicas that execute dependent operations differently have different digests.
//!
//! How long an operation takes is nothing that a result or the state depends on; this is the one
//! service that looks at a clock, to know when to stop.

use std::hint;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base::{Malformed, Reader, Writer};
use exec::{Completion, Context, Footprint, ParallelService, Service};

/// Cells of the state, each an object.
pub const CELLS: u32 = 1 << 16;
/// The longest that an operation takes.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing, and touches nothing.
    Nothing,
    /// Sleeps.
    Sleep,
    /// Computes.
    Spin,
}

/// How many operations a cell has seen, and a mix of their places.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cell {
    count: u64,
    mix: u64,
}

/// The work service.
pub struct WorkService {
    cells: Arc<Cells>,
}

struct Cells(Vec<Mutex<Cell>>);

impl Default for WorkService {
    fn default() -> WorkService {
        WorkService::new()
    }
}

impl WorkService {
    /// A service that has executed nothing.
    #[must_use]
    pub fn new() -> WorkService {
        WorkService { cells: Arc::new(Cells((0..CELLS).map(|_| Mutex::default()).collect())) }
    }
}

/// Encodes an operation.
#[must_use]
pub fn encode(kind: Kind, time: Duration, key: &[u8]) -> Vec<u8> {
    let nanos = u32::try_from(time.min(TIME_MAX).as_nanos()).expect("a second fits");
    let mut op = Vec::new();
    Writer::new(&mut op).u8(kind as u8).u32(nanos).bytes(key);
    op
}

/// What an operation does, for how long, and its key; nothing of what is no operation.
fn decode(op: &[u8]) -> Option<(Kind, Duration, &[u8])> {
    let (head, key) = op.split_at_checked(5)?;
    let kind = match head[0] {
        1 => Kind::Sleep,
        2 => Kind::Spin,
        _ => return None,
    };
    let nanos = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    Some((kind, Duration::from_nanos(nanos.into()).min(TIME_MAX), key))
}

/// A key's cell, which is its class, too. Keys that end in different numbers, close to each other,
/// have different ones.
fn cell(key: &[u8]) -> u32 {
    let fold = |sum: u32, byte: &u8| sum.wrapping_mul(10).wrapping_add(u32::from(*byte));
    key.iter().fold(0, fold) % CELLS
}

impl Cells {
    fn lock(&self, cell: u32) -> MutexGuard<'_, Cell> {
        self.0[cell as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ParallelService for Cells {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, _: &mut Vec<u8>) {
        let Some((kind, time, key)) = decode(op) else { return };
        match kind {
            Kind::Nothing => {}
            Kind::Sleep => thread::sleep(time),
            Kind::Spin => {
                let began = Instant::now();
                while began.elapsed() < time {
                    hint::spin_loop();
                }
            }
        }
        let number = cell(key);
        let mut one = self.lock(number);
        ctx.writes(number.into());
        ctx.modify(number, |out| encode_cell(*one, out));
        one.count += 1;
        let place = ctx.seq.0 << 32 | u64::from(ctx.index);
        one.mix = (one.mix ^ place).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

fn encode_cell(cell: Cell, out: &mut Vec<u8>) {
    Writer::new(out).u64(cell.count).u64(cell.mix);
}

impl Service for WorkService {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ParallelService::execute(&*self.cells, op, ctx, reply);
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        encode_cell(*self.cells.lock(object), out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(bytes);
        let cell = Cell { count: reader.u64("count")?, mix: reader.u64("mix")? };
        reader.finish("cell")?;
        *self.cells.lock(object) = cell;
        Ok(())
    }

    fn objects(&self) -> u32 {
        CELLS
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        if let Some((_, _, key)) = decode(op) {
            out.writes.push(cell(key).into());
        }
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::clone(&self.cells) as Arc<dyn ParallelService>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exec::testing::Harness;

    #[test]
    fn operations_touch_their_key_and_nothing_else() {
        let mut harness = Harness::new(WorkService::new()).checking_declarations();
        let empty = harness.root();
        harness.run(&encode(Kind::Nothing, Duration::ZERO, b"a"));
        harness.run(b"");
        assert_eq!(harness.root(), empty);
        for key in [b"a", b"b", b"a"] {
            for kind in [Kind::Sleep, Kind::Spin] {
                let began = Instant::now();
                harness.run(&encode(kind, Duration::from_micros(300), key));
                assert!(began.elapsed() >= Duration::from_micros(300));
            }
        }
        assert_ne!(harness.root(), empty);
        harness.transfer(WorkService::new());
    }
}
