//! What the members of a group have agreed to do alike, apart from who they are.

use base::{Span, limits};

/// Settings of the whole group. Part of the group's identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// K: sequence numbers between two checkpoints, at least the number of pillars,
    /// at most [`CHECKPOINT_INTERVAL_MAX`].
    pub checkpoint_interval: u64,
    /// L: sequence numbers above the low mark that may be in agreement. A multiple of K, at
    /// least 2K, at most [`WINDOW_MAX`].
    pub window: u64,
    /// How far a fresh proposal's clock may be off a backup's, 1 ms to 1 h.
    pub clock_skew_max: Span,
    /// How leaders make batches.
    pub batching: Batching,
    /// Whether replicas obey orders to misbehave, for drills. Never in production.
    pub drills: bool,
}

/// How leaders make batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batching {
    /// Most frames in a batch, `1..=BATCH_FRAMES_MAX`.
    pub frames_max: usize,
    /// Most bytes of frames in a batch, 1 KiB to `BATCH_BYTES_MAX`; one frame always fits.
    pub bytes_max: usize,
    /// How long a batch that is not full may wait for more frames, 0 to 1 s.
    pub delay: Span,
    /// Instances that a pillar keeps in agreement before it lets frames gather, from 1 to the
    /// pillar's share of the window.
    pub in_flight_max: usize,
    /// One frame per batch, whatever the other limits say.
    pub unbatched: bool,
}

/// Largest checkpoint interval.
pub const CHECKPOINT_INTERVAL_MAX: u64 = 1 << 16;
/// Largest window.
pub const WINDOW_MAX: u64 = 1 << 18;
/// Largest clock skew, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 3_600_000;
/// Longest delay of a batch, in microseconds.
pub const BATCH_DELAY_US_MAX: u64 = 1_000_000;
/// Smallest bound on the bytes of a batch.
pub const BATCH_BYTES_MIN: usize = 1 << 10;

impl Batching {
    /// Most frames in a batch, once [`Batching::unbatched`] is taken into account.
    #[must_use]
    pub fn frames_limit(&self) -> usize {
        if self.unbatched { 1 } else { self.frames_max }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            checkpoint_interval: 128,
            window: 8192,
            clock_skew_max: Span::millis(5_000),
            batching: Batching::default(),
            drills: false,
        }
    }
}

impl Default for Batching {
    fn default() -> Batching {
        // A batch waits for nothing by default: frames gather by themselves while the
        // instances before it are in flight, so its size follows the load.
        Batching {
            frames_max: 256,
            bytes_max: 1 << 20,
            delay: Span(0),
            in_flight_max: 8,
            unbatched: false,
        }
    }
}

const _: () = assert!(BATCH_BYTES_MIN <= limits::BATCH_BYTES_MAX);
