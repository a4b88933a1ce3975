//! Which ways of doing the same thing a group has chosen, as far as a lane is concerned. Not here:
//! which there are and which go together (`genesis::switches`).

use super::{Bodies, Commits, Leaders};

/// How an idle pillar fills its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// With a null batch each, once siblings have moved past it.
    #[default]
    Fill,
    /// Ahead of its siblings, many at a time.
    Ahead,
}

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
    /// How an idle pillar fills its numbers.
    pub idle: Idle,
    /// Whether reads are passed on to execution without an order.
    pub reads: bool,
}
