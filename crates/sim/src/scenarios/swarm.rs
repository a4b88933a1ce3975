//! Everything at once: each seed picks a few kinds of faults and lets them happen at random
//! times. What must always hold is checked at every step; when the faults are over, everybody
//! gets an answer and all correct replicas have one state.

use super::Scenario;
use crate::plan::Plan;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "swarm",
    claim: "A few kinds of faults at random times, among all that there are. Then either \
            everything is mended, or first a core of n - f correct replicas while the others \
            stay as they are; in both cases every client gets its answers in time.",
    ci_seeds: 200,
    full_seeds: 50_000,
    run: swarm,
}];

fn swarm(seed: u64) {
    Plan::new(seed).run();
}
