//! What a run leaves behind for whoever ran it, violation or not.
//!
//! Scenarios make their worlds themselves and may panic in them; so each world hands in what it
//! knows when it goes, to the thread that it lived on.

use std::cell::{Cell, RefCell};

use crate::adversary::Deeds;
use crate::coverage::Coverage;
use crate::measures::Measures;

/// What the worlds of one run leave behind.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// A digest of everything that happened: the same seed gives the same.
    pub trace: u64,
    /// Events that happened.
    pub events: u64,
    /// What was met.
    pub coverage: Coverage,
    /// How slow it was, and how much it did at rest.
    pub measures: Measures,
    /// What adversaries did.
    pub deeds: Deeds,
    /// What happened, for people, if somebody wants to read it.
    pub story: Vec<String>,
}

thread_local! {
    static OUTCOME: RefCell<Outcome> = RefCell::default();
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// Whether worlds that this thread makes from now on write their stories.
pub fn tell_stories(wanted: bool) {
    TELLS.with(|tells| tells.set(wanted));
}

/// Whether they do.
#[must_use]
pub fn tells_stories() -> bool {
    TELLS.with(Cell::get)
}

/// Takes what the worlds of this thread have left behind so far.
#[must_use]
pub fn take() -> Outcome {
    OUTCOME.with(RefCell::take)
}

/// A world goes.
pub(crate) fn hand_in(world: Outcome) {
    OUTCOME.with(|outcome| {
        let mut all = outcome.borrow_mut();
        all.trace = all.trace.rotate_left(9) ^ world.trace;
        all.events += world.events;
        all.coverage.add(&world.coverage);
        all.measures.add(&world.measures);
        all.deeds.add(&world.deeds);
        all.story.extend(world.story);
    });
}
