//! Deterministic execution: what happens to a batch once it has its place in the total order.
//!
//! The total-order merge over the pillars, exactly-once, the reply cache, the [`Service`] and
//! the digest tree over its state; checkpoints that stay readable, and their transfer to replicas
//! that need them. Not here: agreement (`proto`), threads, sockets and clocks
//! (`rt`), and the services themselves (`svc`).
//!
//! Pure zone: `no_std` + `alloc`. Depends on `base` alone; `exec` and `proto` do not know each
//! other.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod before;
mod engine;
mod frozen;
mod job;
pub mod merge;
pub mod parallel;
mod pins;
pub mod read;
pub mod reply;
pub mod service;
pub mod session;
mod snapshots;
pub mod stage;
mod state;
pub mod testing;
pub mod transfer;
pub mod tree;
mod window;

pub use engine::{NUDGES_MAX, WAKE_INDEX};
pub use job::{Finished, Job};
pub use merge::{Merge, Undeliverable};
pub use parallel::{Invocation, Matrices, Operators, Parallelizer};
pub use read::ReadContext;
pub use service::{
    Completion, Context, Footprint, Offload, Output, ParallelService, Service, Tentative, Undo,
};
pub use session::{Decision, SessionCounts, Sessions};
pub use stage::{
    Damaged, ReadReport, Stage, StageBuilder, StageConfig, StageOutbox, StageReject, StageReport,
    Target, TentativeReport, TransferReport, Turn, WrongState,
};
pub use tree::ObjectTree;
