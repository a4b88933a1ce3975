//! The service that simulated groups run.

use std::collections::BTreeMap;

use base::Reader;
use exec::service::Service;

/// A service whose every answer depends on everything before it in the stream: counts the
/// operations of each of eight streams of each client, and answers with the count so far.
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
        let (Ok(base), Ok(token)) = (r.u32("client"), r.u64("token")) else {
            return exec::Completion::Done;
        };
        let stream = base.wrapping_add(u32::try_from(token % 8).expect("below 8"));
        ctx.modify(stream % self.objects(), |out| self.get(stream % self.objects(), out));
        let count = self.counts.entry(stream).or_default();
        reply.extend_from_slice(&count.to_le_bytes());
        *count += 1;
        exec::Completion::Done
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

/// What a client asks: "remember that my stream is at this token, and tell what you had".
pub(crate) fn operation(client: usize, token: u64) -> Vec<u8> {
    let mut op = Vec::new();
    base::Writer::new(&mut op).u32(u32::try_from(client * 8).expect("few clients")).u64(token);
    op
}

/// The number of operations of this client's stream that come before `token`'s.
pub(crate) fn expected(_client: usize, token: u64) -> Vec<u8> {
    (token / 8).to_le_bytes().to_vec()
}
