//! ZooKeeper's protocol from the client's side, and what may be seen through it.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod crowd;
pub mod wake;
pub mod watches;

pub use client::{Client, Failure, NO_NODE, NODE_EXISTS, Reply, Stat, Told, Way, jute};
pub use crowd::{Crowd, LIVE, WRITERS};
pub use wake::Deaths;
pub use watches::{Change, History, Tally, check};
