//! A service whose state changes by itself, once: for the drill `corrupt-state`.

use std::sync::Arc;

use base::{AgreedTime, Digest, Malformed};
use exec::{Completion, Context, Footprint, Offload, Service, Tentative, Undo};

use super::Drill;

/// Operations until the state changes: few enough for a try by hand.
const CORRUPT_AFTER: u64 = 20;
/// How many bytes of an object are tried, from its end, until a change of one makes sense to
/// the service.
const TRIES: usize = 64;

/// The service as `drill` wants it.
pub(crate) fn sabotage(service: Box<dyn Service>, drill: Option<Drill>) -> Box<dyn Service> {
    match drill {
        Some(Drill::CorruptState) => Box::new(Corrupt { service, left: Some(CORRUPT_AFTER) }),
        _ => service,
    }
}

struct Corrupt {
    service: Box<dyn Service>,
    /// Operations until the state is to change; `None` once it has.
    left: Option<u64>,
}

impl Corrupt {
    /// Flips a bit in the first object that bears it.
    fn corrupt(&mut self, ctx: &mut Context<'_>) -> bool {
        let mut bytes = Vec::new();
        for object in 0..self.service.objects() {
            bytes.clear();
            self.service.get(object, &mut bytes);
            for at in (0..bytes.len()).rev().take(TRIES) {
                let before = bytes.clone();
                bytes[at] ^= 1;
                if self.service.digest_of(object, &bytes).is_ok() {
                    ctx.modify(object, |out| out.extend_from_slice(&before));
                    return self.service.put(object, &bytes).is_ok();
                }
                bytes[at] ^= 1;
            }
        }
        false
    }
}

impl Service for Corrupt {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let completion = self.service.execute(op, ctx, reply);
        match self.left {
            Some(0) => {
                if self.corrupt(ctx) {
                    tracing::warn!("drill: the service's state is corrupt now");
                    self.left = None;
                } else {
                    // Nothing to corrupt yet: later.
                    self.left = Some(CORRUPT_AFTER);
                }
            }
            left => self.left = left.map(|left| left - 1),
        }
        completion
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        self.service.get(object, out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.service.put(object, bytes)
    }

    fn objects(&self) -> u32 {
        self.service.objects()
    }

    fn digest(&mut self, object: u32) -> Digest {
        self.service.digest(object)
    }

    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        self.service.digest_of(object, bytes)
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        self.service.footprint(op, out);
    }

    fn deadline(&self) -> Option<AgreedTime> {
        self.service.deadline()
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        self.service.wake(ctx);
    }

    fn poll(&mut self, ticket: u64, reply: &mut Vec<u8>) -> bool {
        self.service.poll(ticket, reply)
    }

    fn undo(&self) -> Undo {
        self.service.undo()
    }

    fn tentative(&mut self, step: Tentative) {
        self.service.tentative(step);
    }

    fn offload(&self) -> Option<Arc<dyn Offload>> {
        self.service.offload()
    }
}
