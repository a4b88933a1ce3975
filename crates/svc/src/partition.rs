//! A service as one partition of a group executes it: an operation that belongs elsewhere is not
//! executed, whoever sent it.
//!
//! Clients find partitions by the same function, so this is for those that do not: another version,
//! or a faulty one. Without it the same key could be in two partitions with two values. Not here:
//! the function, which is each service's.

use std::sync::Arc;

use base::{AgreedTime, Digest, Malformed, Routing};
use exec::{
    Completion, Context, Footprint, Offload, Operators, ParallelService, ReadContext, Service,
    Tentative, Undo,
};

/// A partition of a service.
pub struct Partition<S> {
    inner: S,
    guard: Guard,
}

/// Which operations are executed.
#[derive(Clone, Copy)]
struct Guard {
    routing: Routing,
    own: u16,
    partitions: u16,
}

impl Guard {
    fn refusal(&self, op: &[u8]) -> Option<&'static [u8]> {
        self.routing.refusal(op, self.own, self.partitions)
    }
}

impl<S: Service> Partition<S> {
    /// Partition `own` of `partitions` of a service that is routed like this.
    pub fn new(inner: S, routing: Routing, (own, partitions): (u16, u16)) -> Partition<S> {
        Partition { inner, guard: Guard { routing, own, partitions } }
    }
}

impl<S: Service> Service for Partition<S> {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        match self.guard.refusal(op) {
            None => self.inner.execute(op, ctx, reply),
            Some(result) => {
                reply.extend_from_slice(result);
                Completion::Done
            }
        }
    }

    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        // What is refused is ordered first: there is no hurry.
        self.guard.refusal(op).is_none() && self.inner.read(op, ctx, reply)
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        let (inner, guard) = (self.inner.parallel()?, self.guard);
        Some(Arc::new(Shared { inner, guard }))
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        self.inner.get(object, out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.inner.put(object, bytes)
    }

    fn objects(&self) -> u32 {
        self.inner.objects()
    }

    fn digest(&mut self, object: u32) -> Digest {
        self.inner.digest(object)
    }

    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        self.inner.digest_of(object, bytes)
    }

    fn put_if(
        &mut self,
        object: u32,
        bytes: &[u8],
        is_right: &mut dyn FnMut(Digest) -> bool,
    ) -> Result<bool, Malformed> {
        self.inner.put_if(object, bytes, is_right)
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        self.inner.footprint(op, out);
    }

    fn operators(&self) -> Option<Arc<dyn Operators>> {
        self.inner.operators()
    }

    fn deadline(&self) -> Option<AgreedTime> {
        self.inner.deadline()
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        self.inner.wake(ctx);
    }

    fn poll(&mut self, ticket: u64, reply: &mut Vec<u8>) -> bool {
        self.inner.poll(ticket, reply)
    }

    fn undo(&self) -> Undo {
        self.inner.undo()
    }

    fn tentative(&mut self, step: Tentative) {
        self.inner.tentative(step);
    }

    fn offload(&self) -> Option<Arc<dyn Offload>> {
        self.inner.offload()
    }
}

/// The same for several threads.
struct Shared {
    inner: Arc<dyn ParallelService>,
    guard: Guard,
}

impl ParallelService for Shared {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        match self.guard.refusal(op) {
            None => self.inner.execute(op, ctx, reply),
            Some(result) => reply.extend_from_slice(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{ClientId, FrameId, Seq, SessionId};
    use exec::ObjectTree;

    use super::*;
    use crate::kv::{KvService, op, reply, slot};
    use crate::testing::Runner;

    fn command(line: &str) -> Vec<u8> {
        let args: Vec<&str> = line.split(' ').collect();
        let mut bytes = vec![];
        op::encode_command(reply::Protocol::Resp2, &args, &mut bytes);
        bytes
    }

    #[test]
    fn keys_of_other_partitions_are_left_alone() {
        let kv = Partition::new(KvService::new(), slot::ROUTING, (slot::of(b"foo") % 2, 2));
        assert_ne!(slot::of(b"foo") % 2, slot::of(b"bar") % 2);
        let mut runner = Runner::new(kv);
        assert_eq!(runner.run(&command("set foo 1")), b"+OK\r\n");
        let root = runner.root();
        for line in ["set bar 1", "del bar", "mset foo 2 bar 2", "flushall"] {
            assert!(runner.run(&command(line)).starts_with(b"-"), "{line}");
        }
        assert_eq!(runner.root(), root);
        assert_eq!(runner.run(&command("get foo")), b"$1\r\n1\r\n");
        assert!(runner.run(&command("get bar")).starts_with(b"-ERR this key is in another"));
    }

    #[test]
    fn several_threads_leave_them_alone_as_well() {
        let own = slot::of(b"foo") % 2;
        let mut kv = Partition::new(KvService::new(), slot::ROUTING, (own, 2));
        let (mut tree, mut outputs) = (ObjectTree::new(kv.objects()), vec![]);
        tree.refresh(|object| kv.digest(object));
        let shared = kv.parallel().expect("made for it");
        let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
        let mut run = |line: &str| {
            let time = AgreedTime(1);
            let mut ctx = Context::new(Seq(1), 1, time, frame, &mut tree, &mut outputs);
            let mut reply = vec![];
            shared.execute(&command(line), &mut ctx, &mut reply);
            reply
        };
        assert!(run("set bar 1").starts_with(b"-ERR this key"));
        assert_eq!(run("set foo 1"), b"+OK\r\n");
        assert_eq!(tree.marked(), 1);
    }
}
