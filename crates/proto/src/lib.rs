//! The agreement and client cores of Stylite, sans-IO.
//!
//! A core is a value that its owner steps: time and messages go in, effects come out. Nothing
//! in here reads a clock, opens a socket, starts a thread or draws a random number; the same
//! code runs in production and under the simulator. Not here: execution (`exec`), which learns
//! of agreed batches as messages, and cryptography (`auth`), which is reached through the
//! [`base::Keyring`] trait.
//!
//! Pure zone: `no_std` + `alloc`. Depends on `base` alone.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod client;
pub mod group;
pub mod outbox;
pub mod pbft;
pub mod record;
pub mod solo;

pub use outbox::{Effect, Fact, Outbox, Record, Target, When};
