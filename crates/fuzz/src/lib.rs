//! Fuzzing: a function for every decoder and for a session on every port, and the machine that
//! feeds them.
//!
//! The machine is our own, so that it runs wherever the workspace builds: a deterministic mutator
//! that knows what formats are made of, guided by the reasons for which inputs are refused. The
//! same functions are driven by `cargo fuzz`, with coverage, where a nightly toolchain is: see
//! `fuzz/` in the repository. What is fuzzed, and the commands: `docs/testing.md`.
//!
//! What it is not: part of the product. No crate depends on it; it may depend on all but `sim`
//! and `xtask`.
//!
//! | module | topic |
//! |---|---|
//! | `registry` | all targets |
//! | `decoders` | functions from bytes to nothing wrong |
//! | `sessions` | rows of messages against live state machines, and against open ports |
//! | `engine` | running inputs, watching memory and time, making failing inputs small |
//! | `mutate`, `prng` | new inputs from old ones |
//! | `corpus` | the committed inputs, as text |
//! | `samples` | valid values: what inputs begin as |

#![forbid(unsafe_code)]

pub mod corpus;
pub mod decoders;
pub mod engine;
pub mod mutate;
mod panics;
pub mod prng;
pub mod registry;
pub mod samples;
pub mod sessions;
pub mod target;

pub use engine::{Failure, Fuzzer, Tally, Wrong};
pub use target::{Outcome, Target};

/// Counts what is taken from the allocator, in every program that this crate is linked into.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
