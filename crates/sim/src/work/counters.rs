//! Counters: every answer depends on everything before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::Reader;
use exec::ReadContext;
use exec::service::{Completion, Context, Footprint, ParallelService, Service};

use super::{Judged, STREAMS};
use crate::history::Ask;
use crate::oracles::reads::Read;

/// Streams of each client that only it counts in.
const OWN_STREAMS: u64 = 6;
/// Of so many operations of such a stream one reads: whatever way it goes, it has its place
/// between the others.
const OWN_READ: u64 = 5;
/// Counters that all clients share.
const SHARED: u64 = 2;

/// What stands for "add nothing, and say only whether the count is odd": an answer that comes back
/// again and again, so that two equal ones may be of different states.
const PARITY: u8 = 2;

/// A service whose every answer depends on everything before it in the stream: counts the
/// operations of each stream of each client, and answers with the count so far. The last two
/// streams of every client add to and read counters that all clients share.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Arc<Counts>,
}

/// The counts, behind a lock that is held for a moment.
#[derive(Debug, Default)]
struct Counts(Mutex<BTreeMap<u32, u64>>);

/// Objects of the state; each has the counters of one residue.
const OBJECTS: u32 = 16;

/// The counter of an operation, and what is to be done with it.
fn parse(op: &[u8]) -> Option<(u32, u8)> {
    let mut r = Reader::new(op);
    let parsed = (r.u32("counter").ok()?, r.u8("add").ok()?);
    r.u64("token").ok()?;
    Some(parsed)
}

impl Counts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, counter: u32) -> u64 {
        self.all().get(&counter).copied().unwrap_or(0)
    }

    fn answer(&self, counter: u32, add: u8, reply: &mut Vec<u8>) {
        let count = self.count(counter);
        let answer = if add == PARITY { count % 2 } else { count };
        reply.extend_from_slice(&answer.to_le_bytes());
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        for (counter, count) in self.all().iter().filter(|(c, _)| **c % OBJECTS == object) {
            base::Writer::new(out).u32(*counter).u64(*count);
        }
    }
}

impl ParallelService for Counts {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        let Some((counter, add)) = parse(op) else { return };
        self.answer(counter, add, reply);
        if add == 1 {
            ctx.modify(counter % OBJECTS, |out| self.get(counter % OBJECTS, out));
            *self.all().entry(counter).or_default() += 1;
        }
    }
}

impl Service for Counters {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ParallelService::execute(&*self.counts, op, ctx, reply);
        Completion::Done
    }

    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        let Some((counter, add)) = parse(op) else { return false };
        ctx.looks_at(counter % OBJECTS);
        self.counts.answer(counter, add, reply);
        add != 1
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        // Counters of one object depend on each other: whoever writes it shares a class.
        match parse(op) {
            Some((counter, 1)) => out.writes.push(u64::from(counter % OBJECTS)),
            Some((counter, _)) => out.reads.push(u64::from(counter % OBJECTS)),
            None => {}
        }
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::clone(&self.counts) as Arc<dyn ParallelService>)
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        self.counts.get(object, out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), base::Malformed> {
        let mut counts = self.counts.all();
        counts.retain(|counter, _| counter % OBJECTS != object);
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            counts.insert(r.u32("stream")?, r.u64("count")?);
        }
        Ok(())
    }

    fn objects(&self) -> u32 {
        OBJECTS
    }
}

/// What a client asks with its `token`-th operation.
pub(crate) struct Question {
    pub(crate) counter: u32,
    pub(crate) ask: Ask,
    /// A read asks only whether the count is odd.
    parity: bool,
    /// The answer, where nobody else has a say in it.
    pub(crate) expected: Option<u64>,
}

impl Question {
    pub(crate) fn new(client: usize, token: u64) -> Question {
        let (stream, round) = (token % STREAMS, token / STREAMS);
        let own = stream < OWN_STREAMS;
        let number = match own {
            true => SHARED + client as u64 * STREAMS + stream,
            false => round % SHARED,
        };
        let reads = if own { (round + 1).is_multiple_of(OWN_READ) } else { stream + 1 == STREAMS };
        Question {
            counter: u32::try_from(number).expect("few clients"),
            ask: if reads { Ask::Read } else { Ask::Add },
            parity: !own && (round / SHARED) % 2 == 1,
            expected: own.then_some(round - round / OWN_READ),
        }
    }

    /// The operation's bytes.
    pub(crate) fn operation(&self, token: u64) -> Vec<u8> {
        let mut op = Vec::new();
        let add = match self.ask {
            Ask::Add => 1,
            Ask::Read if self.parity => PARITY,
            Ask::Read => 0,
        };
        base::Writer::new(&mut op).u32(self.counter).u8(add).u64(token);
        op
    }

    /// What was read.
    pub(crate) fn read(&self, result: &[u8]) -> Option<Read> {
        let value = u64::from_le_bytes(result.try_into().ok()?);
        let (counter, parity) = (self.counter, self.parity);
        (self.ask == Ask::Read).then_some(Read { counter, parity, value })
    }

    /// The counter to which an operation adds.
    pub(crate) fn added_to(op: &[u8]) -> Option<u32> {
        let mut r = Reader::new(op);
        let counter = r.u32("counter").ok()?;
        (r.u8("add") == Ok(1) && r.u64("token").is_ok()).then_some(counter)
    }

    /// # Errors
    /// When it is not the right count.
    pub(crate) fn judge(&self, result: &[u8]) -> Judged {
        let count = result.try_into().map_err(|_| format!("no count: {result:?}"))?;
        let value = u64::from_le_bytes(count);
        match self.expected {
            Some(expected) if expected != value => Err(format!("{value}, and not {expected}")),
            Some(_) => Ok(None),
            None if self.ask == Ask::Read && self.parity => Ok(None),
            None => Ok(Some((self.counter, self.ask, value))),
        }
    }
}
