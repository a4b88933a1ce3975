//! Everything at once: each seed picks a few kinds of faults and lets them happen at random
//! times. What must always hold is checked at every step; when the faults are over, everybody
//! gets an answer and all correct replicas have one state.

use super::Scenario;
use crate::Work;
use crate::plan::Plan;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[SWARM, STORE];

const SWARM: Scenario = Scenario {
    name: "swarm",
    claim: "A few kinds of faults at random times, among all that there are. Then either \
            everything is mended, or first a core of n - f correct replicas while the others \
            stay as they are; in both cases every client gets its answers in time.",
    ci_seeds: 200,
    full_seeds: 50_000,
    run: swarm,
};

const STORE: Scenario = Scenario {
    name: "the_store_keeps_its_transactions",
    claim: "The same with the key-value service: MULTI, WATCH and expiry, by clients that see \
            whether a transaction was done by half.",
    ci_seeds: 12,
    full_seeds: 3_000,
    run: the_store_keeps_its_transactions,
};

fn swarm(seed: u64) {
    Plan::new(seed).run();
}

fn the_store_keeps_its_transactions(seed: u64) {
    let mut plan = Plan::new(seed);
    plan.options.work = Some(Work::Redis);
    plan.run();
}
