//! What a service sees: a wrapper that writes down every execution, for the oracles.
//!
//! It stands between the stage and the service, so it sees what is executed, not what replies
//! say. Not here: what must hold of it (`oracles::executions`).

use std::hash::Hasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use base::{AgreedTime, Digest, FrameId, Malformed, Seq};
use exec::parallel::Operators;
use exec::service::{
    Completion, Context, Footprint, Offload, ParallelService, Service, Tentative, Undo,
};
use exec::{ReadContext, WAKE_INDEX};

/// One execution of an operation, or one wake of the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Execution {
    /// The batch.
    pub seq: Seq,
    /// The position in it, from 1; 0 is a wake.
    pub index: u32,
    /// The agreed time.
    pub time: AgreedTime,
    /// The frame that the operation came in; nobody's for a wake.
    pub frame: FrameId,
    /// The [`mark`] of the operation; 0 for a wake.
    pub op: u64,
    /// The [`mark`] of the result; 0 for a wake.
    pub result: u64,
}

/// A short mark of some bytes: equal bytes have equal marks, others hardly ever.
#[must_use]
pub fn mark(bytes: &[u8]) -> u64 {
    // Its keys are fixed: the same in every run.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Where a wrapper writes.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Seen>);

/// What was executed, and from where on tentatively.
#[derive(Debug, Default)]
struct Seen {
    list: Vec<Execution>,
    tentative: Option<usize>,
}

impl Notes {
    /// Everything up to `executed` since the last time, in the total order. What is tentative,
    /// or was executed ahead of something that is not done, comes later, or never was.
    pub(crate) fn take(&self, executed: Seq) -> Vec<Execution> {
        let mut seen = self.seen();
        let certain = seen.tentative.unwrap_or(seen.list.len());
        let tentative = seen.list.split_off(certain);
        let all = std::mem::take(&mut seen.list);
        let (mut now, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|e| e.seq <= executed);
        // Workers may have been done in another order.
        now.sort_by_key(|one| (one.seq, one.index));
        seen.tentative = seen.tentative.map(|_| later.len());
        seen.list = [later, tentative].concat();
        now
    }

    /// The state that all of it was part of is given up.
    pub(crate) fn forget(&self) {
        *self.seen() = Seen::default();
    }

    fn note(&self, execution: Execution) {
        self.seen().list.push(execution);
    }

    fn tentative(&self, step: Tentative) {
        let mut seen = self.seen();
        match step {
            Tentative::Begin => seen.tentative = Some(seen.list.len()),
            Tentative::Commit => seen.tentative = None,
            Tentative::RollBack => {
                let certain = seen.tentative.take().expect("what is taken back was begun");
                seen.list.truncate(certain);
            }
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a service that is looked at, for several threads.
struct ObservedApart {
    inner: Arc<dyn ParallelService>,
    notes: Arc<Notes>,
}

impl ParallelService for ObservedApart {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        let (seq, index, time, frame) = (ctx.seq, ctx.index, ctx.time, ctx.frame);
        let start = reply.len();
        self.inner.execute(op, ctx, reply);
        let result = mark(&reply[start..]);
        self.notes.note(Execution { seq, index, time, frame, op: mark(op), result });
    }
}

/// A service that is looked at.
pub(crate) struct Observed {
    inner: Box<dyn Service>,
    notes: Arc<Notes>,
    /// The operation whose result comes later.
    pending: Option<Execution>,
}

impl Observed {
    pub(crate) fn new(inner: Box<dyn Service>, notes: Arc<Notes>) -> Observed {
        Observed { inner, notes, pending: None }
    }
}

impl Service for Observed {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let (seq, index, time, frame) = (ctx.seq, ctx.index, ctx.time, ctx.frame);
        let start = reply.len();
        let completion = self.inner.execute(op, ctx, reply);
        let result = mark(&reply[start..]);
        let execution = Execution { seq, index, time, frame, op: mark(op), result };
        match completion {
            Completion::Done => self.notes.note(execution),
            Completion::Later(_) => self.pending = Some(execution),
        }
        completion
    }

    fn poll(&mut self, ticket: u64, reply: &mut Vec<u8>) -> bool {
        let start = reply.len();
        let done = self.inner.poll(ticket, reply);
        if done && let Some(execution) = self.pending.take() {
            self.notes.note(Execution { result: mark(&reply[start..]), ..execution });
        }
        done
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        let (seq, time, frame) = (ctx.seq, ctx.time, ctx.frame);
        self.inner.wake(ctx);
        self.notes.note(Execution { seq, index: WAKE_INDEX, time, frame, op: 0, result: 0 });
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
        let inner = self.inner.parallel()?;
        Some(Arc::new(ObservedApart { inner, notes: Arc::clone(&self.notes) }))
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        self.inner.footprint(op, out);
    }

    fn deadline(&self) -> Option<AgreedTime> {
        self.inner.deadline()
    }

    fn undo(&self) -> Undo {
        self.inner.undo()
    }

    fn tentative(&mut self, step: Tentative) {
        self.notes.tentative(step);
        self.inner.tentative(step);
    }

    fn offload(&self) -> Option<Arc<dyn Offload>> {
        self.inner.offload()
    }
}
