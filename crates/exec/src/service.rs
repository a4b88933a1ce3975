//! The service trait: what a deterministic service must offer to be replicated.
//!
//! A simple service implements three methods: [`Service::execute`], [`Service::get`] and
//! [`Service::put`]. Everything else has a default that is right, if not fast.
//!
//! The rules, which nobody can check for you: the result and the state after `execute` depend on
//! the state before, the operation and the [`Context`] alone. No clock, no random number, no
//! thread, no address, no iteration over a randomly seeded map. Ids are derived from
//! (sequence number, index), never counted up in execution order.
//!
//! # Parallel execution
//!
//! A service takes two steps to have independent operations executed at the same time, on any
//! number of threads, with the replies and the state that one after the other would give:
//!
//! 1. [`Service::footprint`] says what an operation reads and writes, in classes that the service
//!    chooses: a key's hash, an account's number. Two operations depend on each other when one
//!    writes a class that the other reads or writes; they then execute in the agreed order. What
//!    is not known is a barrier, which waits for everything before it and holds everything after
//!    it. A service that knows its operations by name and argument rather than by what they
//!    touch offers [`Service::operators`] instead.
//! 2. [`Service::parallel`] hands out the state behind locks, as a [`ParallelService`].
//!
//! The rules beyond those above:
//!
//! - a footprint names everything that the operation *might* read or write, whatever the state
//!   turns out to be. The surest way is to make it a function of the operation's bytes alone. It
//!   may be narrower where the service knows more: footprints are asked for in the total order,
//!   each once, before the operation executes, while some of those before it are done and others
//!   are not. A service that relies on what the state is *then* has to count in what the others
//!   may make of it (ADR 16);
//! - operations that may write the same object have a class in common that they write. Let
//!   classes be objects, or be coarser, and it is so;
//! - an operation that may bring [`Service::deadline`] forward, or that moves what it is about
//!   from one place to another, says so ([`Footprint::schedules`]);
//! - whatever is counted or collected over the whole state (a number of keys, a list of all) is
//!   read by barriers only, or belongs to a class of its own;
//! - locks are taken in one order, so that no two threads wait for each other, and are gone when
//!   the operation ends.
//!
//! # Reads without an order
//!
//! In a group that wants it so, operations which only read need no agreement: each replica
//! answers them out of its own state, and the client compares. A service takes part by
//! [`Service::read`], and says there what an answer depends on, see [`crate::read`].
//!
//! [`crate::testing::Harness`] holds the declarations against what operations touch, as far as
//! the service tells with [`Context::reads`] and [`Context::writes`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::digest::Domain;
use base::{AgreedTime, ClientId, Digest, FrameId, Malformed, Seq, SessionId};

use crate::frozen::has;
use crate::parallel::Operators;
use crate::read::{ReadContext, Stamps};
use crate::tree::ObjectTree;

/// Whether an operation's result is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// The reply holds the result.
    Done,
    /// The result comes later: the stage asks [`Service::poll`] with this ticket until it is
    /// there, and executes nothing else meanwhile.
    Later(u64),
}

/// What an operation touches, in terms of the service's own conflict classes. Over-approximate:
/// too much costs parallelism, too little costs correctness. Nothing at all is the footprint of
/// an operation that depends on its bytes and its context alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Conflicts with every other operation.
    pub barrier: bool,
    /// Classes that are read. In any order; a class may be named more than once.
    pub reads: Vec<u64>,
    /// Classes that are written, or read and written.
    pub writes: Vec<u64>,
    /// Whether [`Service::deadline`] may be earlier after the operation than before. Counts for
    /// barriers, too.
    pub schedules: bool,
}

impl Footprint {
    /// Makes it the footprint of an operation that touches nothing, keeping its memory.
    pub fn clear(&mut self) {
        (self.barrier, self.schedules) = (false, false);
        self.reads.clear();
        self.writes.clear();
    }

    /// Whether operations with these footprints have to execute in the agreed order.
    #[must_use]
    pub fn conflicts(&self, other: &Footprint) -> bool {
        let meet = |a: &[u64], b: &[u64]| a.iter().any(|class| b.contains(class));
        self.barrier
            || other.barrier
            || meet(&self.writes, &other.writes)
            || meet(&self.writes, &other.reads)
            || meet(&self.reads, &other.writes)
    }
}

/// What an operation produces beyond its reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Something waits in the service's state for a client that may not ask by itself (watches,
    /// publish and subscribe): it is told to ask. What it is told is no part of any vote; what it
    /// then asks for is.
    Nudge {
        /// The principal.
        client: ClientId,
        /// Its session.
        session: SessionId,
    },
}

/// What is known about an operation apart from its bytes. The same at every replica.
pub struct Context<'a> {
    /// The number of the batch in the total order.
    pub seq: Seq,
    /// The position of the operation in the batch, from 1; 0 is [`Service::wake`]. (seq, index)
    /// is unique and totally ordered, but operations that were refused leave holes.
    pub index: u32,
    /// The agreed time: the only clock a service may look at.
    pub time: AgreedTime,
    /// The frame the operation came in: principal, session, stream.
    pub frame: FrameId,
    marks: Marks<'a>,
    outputs: &'a mut Vec<Output>,
    /// What the service tells about what it touches, where somebody wants to know.
    touched: Option<&'a mut Vec<Touch>>,
}

/// Where announcements of writes go.
enum Marks<'a> {
    /// Into the tree, on the stage's own thread; and when, where somebody wants to know.
    Tree(&'a mut ObjectTree, Option<&'a mut Stamps>),
    /// Into a list that the stage takes over once the operation is done.
    Apart(&'a mut Writes),
    /// Nowhere: it is a read.
    Nowhere,
}

/// What an operation that executes apart from the stage announced to write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Writes {
    /// Whether bytes from before the write are wanted.
    pub(crate) saves: bool,
    /// One bit per object: whether its digest from before the write is wanted.
    pub(crate) frozen: Option<Arc<Vec<u64>>>,
    pub(crate) objects: Vec<Written>,
    /// The digest that was given last.
    given: Option<(u32, Digest)>,
}

/// An object that was announced to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) object: u32,
    /// Who wrote it last.
    pub(crate) seq: Seq,
    /// What it was before, if that is wanted.
    pub(crate) bytes: Vec<u8>,
    /// Its digest from before, if that is wanted and was given.
    pub(crate) digest: Option<Digest>,
}

/// A class that an operation touched, and whether it wrote there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Touch {
    pub(crate) class: u64,
    pub(crate) written: bool,
}

impl<'a> Context<'a> {
    /// A context; made by the execution stage, and by tests of services.
    pub fn new(
        seq: Seq,
        index: u32,
        time: AgreedTime,
        frame: FrameId,
        tree: &'a mut ObjectTree,
        outputs: &'a mut Vec<Output>,
    ) -> Context<'a> {
        let marks = Marks::Tree(tree, None);
        Context { seq, index, time, frame, marks, outputs, touched: None }
    }

    /// The same where it is to be known when which object was written.
    pub(crate) fn stamped(self, stamps: Option<&'a mut Stamps>) -> Context<'a> {
        match self.marks {
            Marks::Tree(tree, _) => Context { marks: Marks::Tree(tree, stamps), ..self },
            _ => self,
        }
    }

    /// A context for a read, for services whose reads go the way of all other operations. The
    /// number is that of the last executed batch, and the time its agreed time: a service whose
    /// answer depends on either says so with [`ReadContext::time`]. Nothing may be announced to
    /// be written, and what is emitted is lost.
    pub fn of_read(ctx: &ReadContext<'_>, outputs: &'a mut Vec<Output>) -> Context<'a> {
        let (seq, index, time) = (ctx.executed(), 0, ctx.glance_at_time());
        let (frame, marks) = (ctx.frame, Marks::Nowhere);
        Context { seq, index, time, frame, marks, outputs, touched: None }
    }

    /// A context for an operation that executes apart from the stage.
    pub(crate) fn apart(
        (seq, index): (Seq, u32),
        time: AgreedTime,
        frame: FrameId,
        writes: &'a mut Writes,
        outputs: &'a mut Vec<Output>,
    ) -> Context<'a> {
        Context { seq, index, time, frame, marks: Marks::Apart(writes), outputs, touched: None }
    }

    /// The same with somebody who wants to know what is touched.
    pub(crate) fn watched(self, touched: &'a mut Vec<Touch>) -> Context<'a> {
        Context { touched: Some(touched), ..self }
    }

    /// The principal that asked.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.frame.client
    }

    /// Announces that `object` is about to be written. **Must** come before the write:
    /// `save` appends the object's bytes as [`Service::get`] would, and is called only when a
    /// checkpoint that is still needed would otherwise lose them, or the write may have to be
    /// taken back.
    ///
    /// # Panics
    /// When there is no such object, or in a read.
    #[inline]
    pub fn modify(&mut self, object: u32, save: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.marks {
            Marks::Tree(tree, stamps) => {
                tree.modify(object, save);
                if let Some(stamps) = stamps {
                    stamps.written(object, self.seq);
                }
            }
            Marks::Apart(writes) => writes.modify(object, self.seq, save),
            Marks::Nowhere => panic!("a read writes object {object}"),
        }
    }

    /// Whether a checkpoint that is being made needs the digest that `object` has now, before it
    /// is written. Who has it at less than the cost of its bytes gives it then, with
    /// [`Context::digest`], before [`Context::modify`]; nobody has to.
    ///
    /// # Panics
    /// When there is no such object.
    #[inline]
    #[must_use]
    pub fn wants_digest(&self, object: u32) -> bool {
        match &self.marks {
            Marks::Tree(tree, _) => tree.wants_digest(object),
            Marks::Apart(writes) => writes.wants_digest(object),
            Marks::Nowhere => false,
        }
    }

    /// Gives what [`Service::digest`] says of `object`, which is about to be written, as it is
    /// now. Counts only where [`Context::wants_digest`] says so.
    pub fn digest(&mut self, object: u32, digest: Digest) {
        match &mut self.marks {
            Marks::Tree(tree, _) => tree.has_digest(object, digest),
            Marks::Apart(writes) => writes.given = Some((object, digest)),
            Marks::Nowhere => {}
        }
    }

    /// Tells that the operation reads `class`. For tests, which hold it against the footprint;
    /// elsewhere it costs next to nothing and does nothing.
    pub fn reads(&mut self, class: u64) {
        self.touch(class, false);
    }

    /// Tells that the operation writes `class`, like [`Context::reads`].
    pub fn writes(&mut self, class: u64) {
        self.touch(class, true);
    }

    /// Whether anybody wants to be told what is touched.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.touched.is_some()
    }

    fn touch(&mut self, class: u64, written: bool) {
        if let Some(touched) = &mut self.touched {
            touched.push(Touch { class, written });
        }
    }

    /// Produces something beyond the reply.
    pub fn emit(&mut self, output: Output) {
        self.outputs.push(output);
    }
}

/// How many of the objects that were announced last are known again.
const RECENT: usize = 8;

impl Writes {
    pub(crate) fn new(saves: bool, frozen: Option<Arc<Vec<u64>>>) -> Writes {
        Writes { saves, frozen, objects: Vec::new(), given: None }
    }

    fn modify(&mut self, object: u32, seq: Seq, save: impl FnOnce(&mut Vec<u8>)) {
        // The first bytes, the first digest and the last number count, so a second entry harms
        // nobody.
        let mut recent = self.objects.iter_mut().rev().take(RECENT);
        if let Some(known) = recent.find(|known| known.object == object) {
            known.seq = seq.max(known.seq);
            return;
        }
        let digest = self.given.take().filter(|(known, _)| *known == object);
        let digest = digest.map(|(_, digest)| digest);
        let mut bytes = Vec::new();
        if self.saves || (digest.is_none() && self.is_frozen(object)) {
            save(&mut bytes);
        }
        self.objects.push(Written { object, seq, bytes, digest });
    }

    fn wants_digest(&self, object: u32) -> bool {
        let mut recent = self.objects.iter().rev().take(RECENT);
        self.is_frozen(object) && recent.all(|known| known.object != object)
    }

    fn is_frozen(&self, object: u32) -> bool {
        self.frozen.as_ref().is_some_and(|frozen| has(frozen, object))
    }
}

/// How a service takes back what was executed tentatively.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undo {
    /// By the objects that were written: their bytes from before are put back
    /// ([`Service::put`]). Right for every service whose whole state is in its objects.
    Objects,
    /// The service keeps what it needs itself, from [`Tentative::Begin`] on, and costs nobody a
    /// copy of its objects.
    Itself,
    /// Not at all: what it does has effects outside. A group of it cannot execute tentatively.
    Never,
}

/// What becomes of operations that were executed tentatively.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tentative {
    /// What executes from now on may be taken back, all of it together.
    Begin,
    /// What was executed since then stays.
    Commit,
    /// What was executed since then never was. With [`Undo::Objects`] the objects that were
    /// written are put back after this.
    RollBack,
}

/// A deterministic service.
pub trait Service: Send {
    /// Executes one operation and appends its result to `reply`. Bytes that are no operation of
    /// this service get a result that says so: they come from clients and are never a reason to
    /// panic.
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion;

    /// Appends the canonical bytes of `object`: equal states give equal bytes.
    fn get(&self, object: u32, out: &mut Vec<u8>);

    /// Replaces `object` by what [`Service::get`] wrote at another replica.
    ///
    /// # Errors
    /// When the bytes are no such object; it stays as it was then. Bytes from other replicas are
    /// verified before they come here, so for them an error means a broken service, and the fetch
    /// fails; bytes from this replica's disk are verified afterwards.
    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed>;

    /// Number of abstract objects, fixed for the life of the group, `1..=OBJECTS_MAX`. The state
    /// is cut into objects so that each is small: a write costs a digest of its object. An object
    /// that may grow has a bound of its own, and the service refuses what would pass it: above
    /// [`crate::transfer::OBJECT_BYTES_MAX`] no replica can be given the object any more.
    fn objects(&self) -> u32 {
        1
    }

    /// The digest of `object`. The default hashes [`Service::get`]; a service with large objects
    /// keeps digests of their parts instead, and gives the digest of an object before it is
    /// written where that is wanted ([`Context::wants_digest`]). It is asked for between
    /// operations, also between tentative ones, of objects that were not written since the
    /// checkpoint.
    fn digest(&mut self, object: u32) -> Digest {
        let mut bytes = Vec::new();
        self.get(object, &mut bytes);
        Digest::of(Domain::Service, &bytes)
    }

    /// The digest that `object` would have if it had these bytes, which come from another replica
    /// and are not believed yet, or were this one's at a checkpoint. Whoever overrides
    /// [`Service::digest`] overrides this, too.
    ///
    /// # Errors
    /// When the bytes are no such object.
    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        let _ = object;
        Ok(Digest::of(Domain::Service, bytes))
    }

    /// Replaces `object` by these bytes, which come from another replica, if `is_right` says so of
    /// the digest that it would have then; returns whether it does. The default is
    /// [`Service::digest_of`], then [`Service::put`]; a service that keeps digests of its parts
    /// spares itself to read and to hash everything twice.
    ///
    /// # Errors
    /// When the bytes are no such object. It stays as it was then, and when they are not right.
    fn put_if(
        &mut self,
        object: u32,
        bytes: &[u8],
        is_right: &mut dyn FnMut(Digest) -> bool,
    ) -> Result<bool, Malformed> {
        let right = is_right(self.digest_of(object, bytes)?);
        if right {
            // A service that refuses what it has just given a digest for is found out when the
            // whole is compared.
            let _ = self.put(object, bytes);
        }
        Ok(right)
    }

    /// Answers an operation that only reads, out of the state as it is, and says in `ctx` what
    /// the answer depends on. False when it is no such operation: it is ordered then, and what
    /// was appended to `reply` is dropped. What it answers is what [`Service::execute`] would.
    ///
    /// It is asked whenever the group answers reads without an order and a client wants that;
    /// bounded work and short results are the service's to see to, since nothing is agreed on
    /// before. The default knows no reads.
    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        let _ = (op, ctx, reply);
        false
    }

    /// What `op` touches, added to `out`, which is empty. The default conflicts with everything,
    /// which is always right.
    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        let _ = op;
        (out.barrier, out.schedules) = (true, true);
    }

    /// The rules by which operations depend on each other, where they are told by function and
    /// arguments (CBASE §5.2). They then count instead of [`Service::footprint`].
    fn operators(&self) -> Option<Arc<dyn Operators>> {
        None
    }

    /// The state for several threads to execute on: from now on, until all copies of the handle
    /// are gone, operations that do not depend on each other are executed through it, at the
    /// same time, and nothing else of the service is called but what takes `&self`. All copies
    /// are gone whenever anything that takes `&mut self` is called, and it is asked for again
    /// afterwards: once per checkpoint interval or oftener.
    ///
    /// The default says that the service executes one operation after the other. A service that
    /// has this never answers [`Completion::Later`].
    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        None
    }

    /// The agreed time at which [`Service::wake`] is wanted, if any: an idle group orders a tick
    /// for it.
    fn deadline(&self) -> Option<AgreedTime> {
        None
    }

    /// Called, in the total order, with the first batch whose time is at or past the deadline,
    /// before its operations. Does a bounded amount of work and sets a new deadline.
    fn wake(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// Asks for a result that was announced as [`Completion::Later`]; true when it is in `reply`.
    fn poll(&mut self, ticket: u64, reply: &mut Vec<u8>) -> bool {
        let _ = (ticket, reply);
        true
    }

    /// How what was executed tentatively is taken back. Always the same.
    fn undo(&self) -> Undo {
        Undo::Objects
    }

    /// What was executed tentatively begins, stays or goes, in turn. Only a service that takes it
    /// back itself need listen.
    fn tentative(&mut self, step: Tentative) {
        let _ = step;
    }

    /// The part of the service that runs in the pillars, outside the total order (COP §4.3.1).
    fn offload(&self) -> Option<Arc<dyn Offload>> {
        None
    }
}

/// A service's state as several threads execute on it: see [`Service::parallel`].
pub trait ParallelService: Send + Sync {
    /// Executes one operation, which is no barrier, and appends its result to `reply`, exactly
    /// as [`Service::execute`] would at its place in the total order. Operations that it
    /// conflicts with are done, or have not begun.
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>);
}

/// The part of a service that runs in the pillars: parsing and checking before, building replies
/// after. Has no access to the state, and like it depends on its arguments alone.
pub trait Offload: Send + Sync {
    /// Looks at an operation before it is executed; an error is its result, and the operation
    /// does not reach the service.
    ///
    /// # Errors
    /// The result with which the operation is answered instead.
    fn before(&self, op: &[u8]) -> Result<(), Vec<u8>>;

    /// Turns the result of `execute` into the bytes for the client.
    fn after(&self, op: &[u8], result: &[u8], reply: &mut Vec<u8>);
}
