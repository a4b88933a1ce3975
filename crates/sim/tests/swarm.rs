//! Everything at once.

use sim::scenarios::check;

/// What plans avoid, for a group does not survive it, and what one swarm in hundreds meets:
/// scenarios of their own do them.
const NOT_ASKED_FOR: [&str; 4] = [
    "more than f replicas may have forgotten",
    "a disk has lost votes and nobody can know",
    "a replica starts with a damaged checkpoint",
    "a state is given up while workers execute on it",
];

/// Nothing breaks, and nothing that there is to meet stays away.
#[test]
fn swarm() {
    let met = check("swarm");
    let missing: Vec<&str> = met.missing().filter(|text| !NOT_ASKED_FOR.contains(text)).collect();
    // One seed alone does not meet everything.
    let alone = std::env::var(sim::scenario::SEED_VARIABLE).is_ok();
    assert!(alone || missing.is_empty(), "never met: {missing:?}");
}

#[test]
fn the_store_keeps_its_transactions() {
    check("the_store_keeps_its_transactions");
}
