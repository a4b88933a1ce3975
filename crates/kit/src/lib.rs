//! The service kit: write a deterministic service, replicate it, call it.
//!
//! A service is a value that turns operations into results ([`Service`]). Stylite runs n = 3f + 1
//! copies of it, agrees on the order of operations, and answers as one service that is right as
//! long as at most f of the copies fail, in whatever way.
//!
//! ```
//! use kit::{Completion, Context, LocalGroup, Malformed, Reader, Service};
//!
//! #[derive(Default)]
//! struct Register(u64);
//!
//! impl Service for Register {
//!     fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
//!         if let Ok(value) = op.try_into().map(u64::from_le_bytes) {
//!             ctx.modify(0, |out| self.get(0, out));
//!             self.0 = value;
//!         }
//!         reply.extend_from_slice(&self.0.to_le_bytes());
//!         Completion::Done
//!     }
//!
//!     fn get(&self, _: u32, out: &mut Vec<u8>) {
//!         out.extend_from_slice(&self.0.to_le_bytes());
//!     }
//!
//!     fn put(&mut self, _: u32, bytes: &[u8]) -> Result<(), Malformed> {
//!         self.0 = Reader::new(bytes).u64("register")?;
//!         Ok(())
//!     }
//! }
//!
//! let group = LocalGroup::builder(Register::default).replicas(4).start()?;
//! let client = group.blocking_client()?;
//! client.call(7u64.to_le_bytes())?;
//! assert_eq!(client.call(b"")?, 7u64.to_le_bytes());
//! drop(client);
//! group.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The rules of a deterministic service
//!
//! Nobody can check these for you, and a service that breaks one lets its copies drift apart,
//! which ends in replicas that report a diverged state and fetch that of the others, over and
//! over.
//!
//! 1. Result and new state depend on the old state, the operation and the [`Context`] alone.
//! 2. No clock: the time is [`Context`]`::time`, which all copies agree on. It always goes
//!    forward, and a leader that lies can push it ahead by a bounded amount.
//! 3. No random numbers, environment, files, threads, addresses or pointers that are compared.
//! 4. No iteration over a `HashMap` or `HashSet` with a random seed: use a `BTreeMap`.
//! 5. Names for new things come from ([`Context`]`::seq`, `index`), not from counting calls.
//! 6. Floating point only with operations whose result is the same on every processor you use:
//!    `+ - * /` and `sqrt` are, `sin` and its like are not.
//! 7. An operation is bytes from somebody you may not trust. Malformed bytes get a result that
//!    says so. A panic stops the replica, and all its copies with it, since they execute the
//!    same operation.
//! 8. Before an object is written, [`Context::modify`] is called for it. Equal states have equal
//!    bytes in [`Service::get`], and [`Service::put`] takes exactly those.
//! 9. Work per operation is bounded: everybody waits for it.
//!
//! Large states are cut into many objects ([`Service::objects`]), so that a checkpoint costs as
//! much as was written since the last one.
//!
//! # Operations that execute at the same time
//!
//! A service executes one operation after the other unless it takes two steps:
//! [`Service::footprint`] says which conflict classes an operation reads and writes, and
//! [`Service::parallel`] hands out the state behind locks. Replicas with workers
//! ([`LocalGroupBuilder::workers`], [`RunOptions`]) then execute operations that do not depend on
//! each other on several threads; replies and state are those of one after the other. Operations
//! that are cheaper than a hand-off stay on one thread by themselves. `examples/bank.rs` says how
//! to declare, step by step, and its test proves that no schedule makes or loses money. The rules
//! are in the documentation of the trait's module, `exec::service`; services that know operations
//! by function and argument declare with [`Operators`] and [`Matrices`] instead.
//!
//! # Operations that only read
//!
//! In a group with `reads = "unordered"` replicas answer operations that only read without
//! agreement, where the service knows such: [`Service::read`], which says in its [`ReadContext`]
//! which objects the answer depends on, and the time if it does. Programs call
//! [`Client::read`]; everything else of that group waits for a quorum of replies.
//! `examples/counter.rs` has a read.
//!
//! # From a test to a group of machines
//!
//! | stage | with |
//! |---|---|
//! | one process, for tests and first tries | [`LocalGroup`] |
//! | one process per replica | [`init`] once, [`run_replica`] in a binary of your own |
//! | clients | [`Client`], [`blocking::Client`], [`ClientOptions`] |
//!
//! What it is not: it adds nothing of its own to the parts that it hands on. It may depend on
//! everything below it.

#![forbid(unsafe_code)]

mod error;
mod local;
mod run;

pub use auth::{Peer, Secret};
pub use base::{
    AgreedTime, ClientId, Digest, FrameId, Malformed, PillarId, Reader, ReplicaId, Seq, Writer,
};
pub use client::{
    Batch, Call, CallError, Client, ClientOptions, ClientStats, Completion as Completed,
    CompletionSink, Completions, ConnectError, OpResult, StatusError, Submitter, blocking,
};
pub use error::KitError;
pub use exec::{
    Completion, Context, Footprint, Invocation, Matrices, ObjectTree, Offload, Operators, Output,
    ParallelService, ReadContext, Service, Tentative, Undo,
};
pub use genesis::{GenesisError, Group, InitOptions, Settings};
pub use local::{LocalGroup, LocalGroupBuilder};
pub use rt::{Drill, Durability, Replica, ReplicaOptions, ReplicaReport, ReplicaState, StartError};
pub use run::{RunOptions, init, run_replica};
