//! Whole groups in one thread: the production cores on virtual time, driven by one seed.
//!
//! A [`World`] holds every lane, execution stage and client core of a group and carries the
//! messages between them through an event queue: links between replicas and clients, and just
//! the same the links between the pillars and the stage of one replica. The same seed gives the
//! same run. Never shipped; the only owner of a random number generator.
//!
//! Not here: sockets, threads and keys (`rt` and `auth` have their own tests).

#![forbid(unsafe_code)]

pub mod adversary;
pub mod check;
pub mod counters;
pub mod options;
pub mod prng;
pub mod world;

pub use options::{Net, Options};
pub use prng::{Prng, Ratio};
pub use world::World;
