//! Runs the operations of one frame on the service.
//!
//! What an operation's result depends on is the service's state and the position in the total
//! order, nothing else; a frame's positions follow from the batch alone, whatever becomes of the
//! frames before it. So operations that do not depend on each other may as well execute on
//! several threads, through a second handle on the service's state ([`Engine::shared`]); that
//! handle is gone whenever the service itself is used for more than looking at it.
//!
//! [`Offload`] belongs into the pillars, outside the total order; until it moves there, its two
//! calls stand in [`Engine::execute`], around the service's.
//!
//! Not here: sessions, the merge, checkpoints.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{AgreedTime, ClientId, Digest, Frame, FrameId, Malformed, Seq, SessionId};

use crate::read::{ReadContext, Stamps};
use crate::reply::ReplyBuilder;
use crate::service::{
    Completion, Context, Footprint, Offload, Output, ParallelService, Service, Tentative, Undo,
    Writes, Written,
};
use crate::tree::ObjectTree;

/// Most sessions that one batch nudges.
pub const NUDGES_MAX: usize = 4096;

/// The position in a batch that [`Service::wake`] has; operations count from 1.
pub const WAKE_INDEX: u32 = 0;

/// The state for several threads, and what runs around each operation.
pub(crate) type Shared = (Arc<dyn ParallelService>, Option<Arc<dyn Offload>>);

/// The service and what belongs to its state.
pub(crate) struct Engine {
    service: Box<dyn Service>,
    /// The state for several threads, while it is handed out.
    shared: Option<Arc<dyn ParallelService>>,
    offload: Option<Arc<dyn Offload>>,
    tree: ObjectTree,
    /// When which object was written, where reads are answered without an order.
    stamps: Option<Stamps>,
    /// The result of an operation that still goes through [`Offload::after`].
    result: Vec<u8>,
    /// How large results were in the frame before, on the mean: room for the next ones.
    result_bytes: usize,
    emitted: Vec<Output>,
    /// Whom the batch in execution has nudged.
    nudged: BTreeSet<(ClientId, SessionId)>,
    pub(crate) nudges: u64,
    pub(crate) nudges_dropped: u64,
    pub(crate) ops: u64,
}

/// What a tentative batch counts on from: what is put back with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    nudges: u64,
    nudges_dropped: u64,
    ops: u64,
    /// When the service wanted to be woken.
    pub(crate) deadline: Option<AgreedTime>,
}

/// A frame in execution.
#[derive(Debug)]
pub(crate) struct Running {
    reply: ReplyBuilder,
    /// Operations that are done, and their bytes.
    done: usize,
    bytes: usize,
    /// The result that is waited for.
    ticket: Option<u64>,
}

/// Where a frame stands in the total order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The batch.
    pub(crate) seq: Seq,
    /// Its agreed time.
    pub(crate) time: AgreedTime,
    /// The index of the frame's first operation.
    pub(crate) first: u32,
}

/// How far a frame came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advance {
    /// All operations are done.
    Finished,
    /// The budget is used up.
    Paused,
    /// The service has not got a result yet.
    Waiting,
    /// Nothing can be done before a worker is done.
    Blocked,
}

impl Engine {
    pub(crate) fn new(service: Box<dyn Service>) -> Engine {
        Engine {
            offload: service.offload(),
            tree: ObjectTree::new(service.objects()),
            stamps: None,
            service,
            shared: None,
            result: Vec::new(),
            result_bytes: 0,
            emitted: Vec::new(),
            nudged: BTreeSet::new(),
            nudges: 0,
            nudges_dropped: 0,
            ops: 0,
        }
    }

    /// Starts to execute `frame`, which was ordered at `seq`.
    pub(crate) fn start(&self, frame: &Frame, seq: Seq) -> Running {
        let reply = ReplyBuilder::new(frame.id(), seq, frame.op_count(), self.result_bytes);
        Running { reply, done: 0, bytes: 0, ticket: None }
    }

    /// The reply to a frame whose operations are done.
    pub(crate) fn finish(&mut self, running: Running) -> Arc<Vec<u8>> {
        self.result_bytes = running.reply.mean_bytes();
        running.reply.finish()
    }

    /// Executes operations of `frame` until it ends, waits, or `budget` is used up.
    pub(crate) fn advance(
        &mut self,
        at: Position,
        frame: &Frame,
        running: &mut Running,
        budget: &mut usize,
    ) -> Advance {
        if let Some(ticket) = running.ticket {
            if !self.poll(ticket, frame, running) {
                return Advance::Waiting;
            }
            running.ticket = None;
            running.done += 1;
        }
        for op in frame.ops_from(running.done, running.bytes) {
            if *budget == 0 {
                return Advance::Paused;
            }
            *budget -= 1;
            self.ops += 1;
            let done = u32::try_from(running.done).expect("limits keep operations below 2^32");
            let index = at.first + done;
            running.bytes += op.len();
            match self.execute(at, index, frame.id(), op, running) {
                Completion::Done => running.done += 1,
                Completion::Later(ticket) => {
                    running.ticket = Some(ticket);
                    return Advance::Waiting;
                }
            }
        }
        Advance::Finished
    }

    fn execute(
        &mut self,
        at: Position,
        index: u32,
        frame: FrameId,
        op: &[u8],
        running: &mut Running,
    ) -> Completion {
        self.shared = None;
        let reply = running.reply.begin();
        if let Some(Err(refusal)) = self.offload.as_ref().map(|offload| offload.before(op)) {
            reply.extend_from_slice(&refusal);
            running.reply.end();
            return Completion::Done;
        }
        self.result.clear();
        let out = if self.offload.is_some() { &mut self.result } else { reply };
        let (tree, emitted) = (&mut self.tree, &mut self.emitted);
        let ctx = Context::new(at.seq, index, at.time, frame, tree, emitted);
        let mut ctx = ctx.stamped(self.stamps.as_mut());
        let completion = self.service.execute(op, &mut ctx, out);
        self.collect_outputs();
        match completion {
            Completion::Done => self.end_result(op, running),
            Completion::Later(_) => running.reply.rewind(),
        }
        completion
    }

    /// The state for several threads, and what runs around each operation. `None` when the
    /// service executes one operation after the other.
    pub(crate) fn shared(&mut self) -> Option<Shared> {
        if self.shared.is_none() {
            self.shared = self.service.parallel();
        }
        self.shared.clone().map(|shared| (shared, self.offload.clone()))
    }

    /// Whether bytes of objects are wanted before they are written.
    pub(crate) fn saves(&self) -> bool {
        !self.tree.pins().is_empty()
    }

    /// Takes over what operations that executed apart from here announced to write.
    pub(crate) fn announced(&mut self, writes: &Writes) {
        for Written { object, seq, bytes, digest } in &writes.objects {
            if let Some(digest) = digest {
                self.tree.has_digest(*object, *digest);
            }
            self.tree.modify(*object, |out| out.extend_from_slice(bytes));
            if let Some(stamps) = &mut self.stamps {
                stamps.written(*object, *seq);
            }
        }
    }

    /// Notes from now on when which object is written; also after the state was replaced, as it
    /// is not known then.
    pub(crate) fn keep_stamps(&mut self, executed: Seq) {
        self.stamps = Some(Stamps::new(self.tree.objects(), executed));
    }

    pub(crate) fn stamps(&self) -> Option<&Stamps> {
        self.stamps.as_ref()
    }

    /// Answers a read out of the state after `executed`, and says since when the answer is so.
    /// `None` when it is no read.
    pub(crate) fn read(
        &self,
        op: &[u8],
        frame: FrameId,
        executed: (Seq, AgreedTime),
        out: &mut Vec<u8>,
    ) -> Option<Seq> {
        let Some(offload) = &self.offload else {
            let mut ctx = ReadContext::new(frame, executed, self.stamps.as_ref()?);
            return self.service.read(op, &mut ctx, out).then(|| ctx.since());
        };
        if let Err(refusal) = offload.before(op) {
            // Depends on the operation alone.
            out.extend_from_slice(&refusal);
            return Some(Seq(0));
        }
        let mut ctx = ReadContext::new(frame, executed, self.stamps.as_ref()?);
        let mut result = Vec::new();
        let is_read = self.service.read(op, &mut ctx, &mut result);
        offload.after(op, &result, out);
        is_read.then(|| ctx.since())
    }

    /// Takes over what they produced beyond replies.
    pub(crate) fn emitted(&mut self, outputs: impl Iterator<Item = Output>) {
        self.emitted.extend(outputs);
        self.collect_outputs();
    }

    /// Executes one operation that nothing else executes beside; its result is appended to
    /// `out`.
    pub(crate) fn alone(
        &mut self,
        (at, index): (Position, u32),
        frame: FrameId,
        op: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.shared = None;
        self.ops += 1;
        if let Some(Err(refusal)) = self.offload.as_ref().map(|offload| offload.before(op)) {
            return out.extend_from_slice(&refusal);
        }
        self.result.clear();
        let result = if self.offload.is_some() { &mut self.result } else { &mut *out };
        let (tree, emitted) = (&mut self.tree, &mut self.emitted);
        let ctx = Context::new(at.seq, index, at.time, frame, tree, emitted);
        let mut ctx = ctx.stamped(self.stamps.as_mut());
        let completion = self.service.execute(op, &mut ctx, result);
        assert_eq!(completion, Completion::Done, "a parallel service never answers later");
        if let Some(offload) = &self.offload {
            offload.after(op, &self.result, out);
        }
    }

    /// What is produced beyond replies by what executes from here on is kept back.
    pub(crate) fn take_emitted(&mut self) -> Vec<Output> {
        core::mem::take(&mut self.emitted)
    }

    /// What an operation touches.
    pub(crate) fn footprint(&self, op: &[u8], out: &mut Footprint) {
        self.service.footprint(op, out);
    }

    /// Asks the service for the result that `running` waits for.
    fn poll(&mut self, ticket: u64, frame: &Frame, running: &mut Running) -> bool {
        self.result.clear();
        let offloaded = self.offload.is_some();
        let out = if offloaded { &mut self.result } else { running.reply.current() };
        if !self.service.poll(ticket, out) {
            running.reply.rewind();
            return false;
        }
        let op = frame.ops().nth(running.done).expect("it was executed from this frame");
        self.end_result(op, running);
        true
    }

    fn end_result(&mut self, op: &[u8], running: &mut Running) {
        if let Some(offload) = &self.offload {
            offload.after(op, &self.result, running.reply.current());
        }
        running.reply.end();
    }

    /// Wakes the service if its deadline has come.
    pub(crate) fn wake(&mut self, seq: Seq, time: AgreedTime) {
        let due = self.service.deadline().is_some_and(|deadline| deadline <= time);
        if due {
            self.shared = None;
            let nobody = FrameId { client: ClientId(0), session: SessionId(0), stream: 0, id: 0 };
            let (tree, emitted) = (&mut self.tree, &mut self.emitted);
            let ctx = Context::new(seq, WAKE_INDEX, time, nobody, tree, emitted);
            self.service.wake(&mut ctx.stamped(self.stamps.as_mut()));
            self.collect_outputs();
        }
    }

    /// A deliberate bug: the null batch is taken for a request without content.
    #[cfg(feature = "mutants")]
    pub(crate) fn execute_null(&mut self, seq: Seq, time: AgreedTime) {
        self.shared = None;
        let nobody = FrameId { client: ClientId(0), session: SessionId(0), stream: 0, id: 0 };
        let (tree, emitted) = (&mut self.tree, &mut self.emitted);
        let mut ctx = Context::new(seq, 1, time, nobody, tree, emitted);
        let _ = self.service.execute(&[], &mut ctx, &mut Vec::new());
    }

    pub(crate) fn deadline(&self) -> Option<AgreedTime> {
        self.service.deadline()
    }

    /// The root over the service's objects; asks for the digests of those that were written.
    pub(crate) fn root(&mut self) -> Digest {
        self.shared = None;
        let Engine { service, tree, .. } = self;
        tree.refresh(|object| service.digest(object))
    }

    /// Goes on with a refresh of the tree, see [`ObjectTree::proceed`].
    ///
    /// # Panics
    /// When the service refuses an object that it gave.
    pub(crate) fn proceed(&mut self, budget: &mut usize) -> bool {
        if !self.tree.frozen.is_on() {
            return true;
        }
        self.shared = None;
        let Engine { service, tree, .. } = self;
        tree.unshare();
        tree.proceed(budget, |object, bytes| match bytes {
            None => service.digest(object),
            Some(bytes) => {
                let digest = service.digest_of(object, bytes);
                digest.expect("a service takes the bytes of its own object")
            }
        })
    }

    /// The root as it would be if every object were asked for.
    pub(crate) fn root_from_scratch(&mut self) -> Digest {
        self.shared = None;
        let service = &mut self.service;
        ObjectTree::new(service.objects()).refresh(|object| service.digest(object))
    }

    pub(crate) fn tree(&self) -> &ObjectTree {
        &self.tree
    }

    pub(crate) fn tree_mut(&mut self) -> &mut ObjectTree {
        &mut self.tree
    }

    /// Replaces an object by certified bytes.
    pub(crate) fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.shared = None;
        let Engine { service, tree, .. } = self;
        tree.modify(object, |out| service.get(object, out));
        service.put(object, bytes)
    }

    /// Replaces an object by bytes that nobody believes yet, if `is_right` says so of the digest
    /// that it would have; returns whether it does.
    pub(crate) fn put_if(
        &mut self,
        object: u32,
        bytes: &[u8],
        is_right: &mut dyn FnMut(Digest) -> bool,
    ) -> Result<bool, Malformed> {
        self.shared = None;
        let Engine { service, tree, .. } = self;
        tree.modify(object, |out| service.get(object, out));
        service.put_if(object, bytes, is_right)
    }

    /// What executes from now on may have to be taken back.
    pub(crate) fn begin(&mut self) -> Counted {
        self.shared = None;
        if self.service.undo() == Undo::Objects {
            self.tree.begin();
        }
        self.service.tentative(Tentative::Begin);
        let Engine { nudges, nudges_dropped, ops, .. } = *self;
        Counted { nudges, nudges_dropped, ops, deadline: self.deadline() }
    }

    /// What was executed since the beginning stays.
    pub(crate) fn commit(&mut self) {
        self.shared = None;
        self.tree.before().end();
        self.service.tentative(Tentative::Commit);
    }

    /// What was executed since the beginning never was.
    ///
    /// # Panics
    /// When the service refuses an object that it gave: its state cannot be trusted any more.
    pub(crate) fn roll_back(&mut self, before: Counted) {
        self.shared = None;
        self.service.tentative(Tentative::RollBack);
        let forgets = base::mutant!(RollBackForgetsObjects);
        for (object, bytes) in self.tree.before().objects().filter(|_| !forgets) {
            let put = self.service.put(object, bytes);
            put.expect("a service takes back the bytes of its own object");
        }
        self.tree.before().end();
        self.nudged.clear();
        let Counted { nudges, nudges_dropped, ops, .. } = before;
        (self.nudges, self.nudges_dropped, self.ops) = (nudges, nudges_dropped, ops);
    }

    pub(crate) fn into_service(self) -> Box<dyn Service> {
        self.service
    }

    pub(crate) fn service(&self) -> &dyn Service {
        &*self.service
    }

    /// Whom to nudge, once each.
    pub(crate) fn take_nudges(&mut self) -> BTreeSet<(ClientId, SessionId)> {
        core::mem::take(&mut self.nudged)
    }

    fn collect_outputs(&mut self) {
        for Output::Nudge { client, session } in self.emitted.drain(..) {
            let known = self.nudged.contains(&(client, session));
            if known || self.nudged.len() < NUDGES_MAX {
                self.nudges += u64::from(self.nudged.insert((client, session)));
            } else {
                self.nudges_dropped += 1;
            }
        }
    }
}
