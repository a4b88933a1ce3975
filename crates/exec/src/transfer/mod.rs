//! State transfer between the stages of two replicas, about one pinned checkpoint.
//!
//! A source answers whoever asks, at a rate that leaves execution undisturbed. A fetch
//! asks several sources at once and believes nothing that the certified digest does not cover:
//! the manifest against the digest, nodes against their parents, objects against their leaves,
//! each before it is used (design §3.8). What equals the own state already is never asked for.
//!
//! Not here: who fetches what from whom and when (the coordinator decides), and what becomes of
//! the stage meanwhile (`stage`). No clock: time comes in as ticks.

mod fetch;
mod large;
mod pace;
mod peer;
mod source;
mod wanted;

pub use large::{BUFFER_BYTES_MAX, OBJECT_BYTES_MAX};
pub use pace::{BUSY, BUSY_OPS_PER_S, BUSY_SHARE_MIN, HASTE_FORGOTTEN_AFTER, IDLE, Pacing};
pub use peer::{ASKED_BYTES_MAX, PATIENCE, SLOW, STRIKES_MAX};
pub use source::ASKS_MAX;

pub(crate) use fetch::{Fetch, Outcome};
pub(crate) use source::{Served, Source};

use base::Span;

/// How often a stage with a transfer under way wants to know the time.
pub(crate) const TICK: Span = Span::millis(20);
