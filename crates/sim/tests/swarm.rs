//! Everything at once.

use sim::scenarios::check;

/// What plans avoid, for a group does not survive it; a scenario of its own does it.
const NOT_IN_PLANS: &str = "more than f replicas may have forgotten";

/// Nothing breaks, and nothing that there is to meet stays away.
#[test]
fn swarm() {
    let met = check("swarm");
    let missing: Vec<&str> = met.missing().filter(|text| *text != NOT_IN_PLANS).collect();
    // One seed alone does not meet everything.
    let alone = std::env::var(sim::scenario::SEED_VARIABLE).is_ok();
    assert!(alone || missing.is_empty(), "never met: {missing:?}");
}

#[test]
fn the_store_keeps_its_transactions() {
    check("the_store_keeps_its_transactions");
}
