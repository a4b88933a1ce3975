//! The service trait: what a deterministic service must offer to be replicated.
//!
//! A simple service implements three methods: [`Service::execute`], [`Service::get`] and
//! [`Service::put`]. Everything else has a default that is right, if not fast.
//!
//! The rules, which nobody can check for you: the result and the state after `execute` depend on
//! the state before, the operation and the [`Context`] alone. No clock, no random number, no
//! thread, no address, no iteration over a randomly seeded map. Ids are derived from
//! (sequence number, index), never counted up in execution order.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::digest::Domain;
use base::{AgreedTime, ClientId, Digest, FrameId, Malformed, Seq};

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
/// too much costs parallelism, too little costs correctness.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Conflicts with every other operation.
    pub barrier: bool,
    /// Classes that are read.
    pub reads: Vec<u64>,
    /// Classes that are written.
    pub writes: Vec<u64>,
}

/// What an operation produces beyond its reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// An event for another session (watches, publish and subscribe).
    Event {
        /// Principal and session, with stream and id of the frame that subscribed.
        to: FrameId,
        /// The service's own bytes.
        bytes: Vec<u8>,
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
    tree: &'a mut ObjectTree,
    outputs: &'a mut Vec<Output>,
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
        Context { seq, index, time, frame, tree, outputs }
    }

    /// The principal that asked.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.frame.client
    }

    /// Announces that `object` is about to be written. **Must** come before the write:
    /// `save` writes the object's bytes as [`Service::get`] would, and is called only when a
    /// checkpoint that is still needed would otherwise lose them.
    ///
    /// # Panics
    /// When there is no such object.
    pub fn modify(&mut self, object: u32, save: impl FnOnce(&mut Vec<u8>)) {
        self.tree.modify(object, save);
    }

    /// Produces something beyond the reply.
    pub fn emit(&mut self, output: Output) {
        self.outputs.push(output);
    }
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
    /// is cut into objects so that each is small: a write costs a digest of its object.
    fn objects(&self) -> u32 {
        1
    }

    /// The digest of `object`. The default hashes [`Service::get`]; a service with large objects
    /// keeps digests of their parts instead.
    fn digest(&mut self, object: u32) -> Digest {
        let mut bytes = Vec::new();
        self.get(object, &mut bytes);
        Digest::of(Domain::Service, &bytes)
    }

    /// The digest that `object` would have if it had these bytes, which come from another replica
    /// and are not believed yet. Whoever overrides [`Service::digest`] overrides this, too.
    ///
    /// # Errors
    /// When the bytes are no such object.
    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        let _ = object;
        Ok(Digest::of(Domain::Service, bytes))
    }

    /// What `op` touches. The default conflicts with everything, which is always right.
    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        let _ = op;
        out.barrier = true;
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

    /// The part of the service that runs in the pillars, outside the total order (COP §4.3.1).
    fn offload(&self) -> Option<Arc<dyn Offload>> {
        None
    }
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
