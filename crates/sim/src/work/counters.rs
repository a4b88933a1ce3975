//! Counters: every answer depends on everything before it.

use std::collections::BTreeMap;

use base::Reader;
use exec::service::Service;

use super::{Judged, STREAMS};
use crate::history::Ask;
use crate::oracles::reads::Read;

/// Streams of each client that only it counts in.
const OWN_STREAMS: u64 = 6;
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
    counts: BTreeMap<u32, u64>,
}

impl Service for Counters {
    fn execute(
        &mut self,
        op: &[u8],
        ctx: &mut exec::Context<'_>,
        reply: &mut Vec<u8>,
    ) -> exec::Completion {
        let mut r = Reader::new(op);
        let (Ok(counter), Ok(add), Ok(_)) = (r.u32("counter"), r.u8("add"), r.u64("token")) else {
            return exec::Completion::Done;
        };
        let count = self.counts.get(&counter).copied().unwrap_or(0);
        let answer = if add == PARITY { count % 2 } else { count };
        reply.extend_from_slice(&answer.to_le_bytes());
        if add == 1 {
            let object = counter % self.objects();
            ctx.modify(object, |out| self.get(object, out));
            self.counts.insert(counter, count + 1);
        }
        exec::Completion::Done
    }

    fn read(&self, op: &[u8], ctx: &mut exec::ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        let mut r = Reader::new(op);
        let (Ok(counter), Ok(add), Ok(_)) = (r.u32("counter"), r.u8("add"), r.u64("token")) else {
            return false;
        };
        ctx.looks_at(counter % self.objects());
        let count = self.counts.get(&counter).copied().unwrap_or(0);
        let answer = if add == PARITY { count % 2 } else { count };
        reply.extend_from_slice(&answer.to_le_bytes());
        add != 1
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        for (stream, count) in self.counts.iter().filter(|(s, _)| **s % self.objects() == object) {
            base::Writer::new(out).u32(*stream).u64(*count);
        }
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), base::Malformed> {
        let objects = self.objects();
        self.counts.retain(|stream, _| stream % objects != object);
        let mut r = Reader::new(bytes);
        while !r.is_empty() {
            self.counts.insert(r.u32("stream")?, r.u64("count")?);
        }
        Ok(())
    }

    fn objects(&self) -> u32 {
        16
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
        Question {
            counter: u32::try_from(number).expect("few clients"),
            ask: if stream + 1 == STREAMS { Ask::Read } else { Ask::Add },
            parity: !own && (round / SHARED) % 2 == 1,
            expected: own.then_some(round),
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
