//! The seam between a lane's effects and durability: what may be carried out now, and what has
//! to wait for the disk.
//!
//! Durability `memory` is the only one here: records are dropped, promises leave at once, and a
//! replica that restarts has forgotten its votes. A vote log is another [`Journal`], which keeps
//! promises back until the records before them are written. Depends on `proto` alone.

use proto::{Effect, When};

/// Decides when effects may be carried out. One per lane.
pub(crate) trait Journal: Send {
    /// Takes an effect. Returns it when it may be carried out now; keeps it, or consumes it when
    /// it is a record, otherwise.
    fn admit(&mut self, effect: Effect) -> Option<Effect>;

    /// The next effect that was kept and may be carried out by now.
    fn released(&mut self) -> Option<Effect>;
}

/// Durability `memory`: nothing is written, nothing waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory;

impl Journal for Memory {
    fn admit(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Persist(_) => None,
            // Both the same: in this mode no record ever becomes more durable than it is.
            Effect::Send { when: When::Now | When::Durable, .. } => Some(effect),
            Effect::Stage(_) | Effect::Siblings(_) | Effect::Fact(_) => Some(effect),
        }
    }

    fn released(&mut self) -> Option<Effect> {
        None
    }
}
