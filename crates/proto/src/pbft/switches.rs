//! Which ways of doing the same thing a group has chosen, as far as a lane is concerned. Not here:
//! which there are and which go together (`genesis::switches`).

use super::{Bodies, Commits, Leaders};

/// Ways of doing the same thing, alike in the whole group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Switches {
    /// Who leads in a view.
    pub leaders: Leaders,
    /// Whether execution is told what is prepared before it is committed.
    pub tentative: bool,
    /// When COMMITs leave.
    pub commits: Commits,
    /// How the bodies of frames get to the replicas.
    pub bodies: Bodies,
    /// Whether reads are passed on to execution without an order.
    pub reads: bool,
}
