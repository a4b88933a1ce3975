//! A service whose memory can be spoilt behind its back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{AgreedTime, Digest, Malformed, Seq};
use exec::ReadContext;
use exec::parallel::Operators;
use exec::service::{
    Completion, Context, Footprint, Offload, ParallelService, Service, Tentative, Undo,
};

use crate::work::Work;

/// The order to lose an object, and what came of it.
#[derive(Debug, Default)]
pub struct Spoil {
    ordered: AtomicBool,
    last: AtomicU64,
}

impl Spoil {
    /// An object is to be lost as soon as there is one.
    pub fn order(&self) {
        self.ordered.store(true, Ordering::Relaxed);
    }

    /// Whether an object is yet to be lost: by an operation that executes alone, for nothing
    /// that the state's copies for several threads can do changes it behind their backs.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.ordered.load(Ordering::Relaxed)
    }

    /// Whether the state after number `seq` is to show everything that is lost.
    #[must_use]
    pub fn is_done_by(&self, seq: Seq) -> bool {
        !self.ordered.load(Ordering::Relaxed) && self.last.load(Ordering::Relaxed) <= seq.0
    }
}

/// A service that loses one object as soon as it is told to.
pub struct Spoilable {
    inner: Box<dyn Service>,
    work: Work,
    spoil: Arc<Spoil>,
}

impl Spoilable {
    /// The service of `work`, until `spoil` is ordered.
    #[must_use]
    pub fn new(work: Work, spoil: Arc<Spoil>) -> Spoilable {
        Spoilable { inner: work.service(), work, spoil }
    }

    /// The first object in which something was written, and what it was before.
    fn written(&self) -> Option<(u32, Vec<u8>)> {
        let fresh = self.work.service();
        let bytes = |service: &dyn Service, object: u32| {
            let mut bytes = Vec::new();
            service.get(object, &mut bytes);
            bytes
        };
        let mut all = (0..fresh.objects()).map(|object| (object, bytes(&*fresh, object)));
        all.find(|(object, before)| bytes(&*self.inner, *object) != *before)
    }
}

impl Service for Spoilable {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        if self.spoil.ordered.load(Ordering::Relaxed) {
            // Nothing to lose yet: the next operation tries again.
            if let Some((object, before)) = self.written() {
                self.spoil.ordered.store(false, Ordering::Relaxed);
                self.spoil.last.store(ctx.seq.0, Ordering::Relaxed);
                ctx.modify(object, |out| self.inner.get(object, out));
                self.inner.put(object, &before).expect("a service reads what it wrote");
            }
        }
        self.inner.execute(op, ctx, reply)
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

    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        self.inner.read(op, ctx, reply)
    }

    fn operators(&self) -> Option<Arc<dyn Operators>> {
        self.inner.operators()
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        self.inner.parallel()
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        self.inner.footprint(op, out);
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
