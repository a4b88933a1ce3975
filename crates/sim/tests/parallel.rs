//! Parallel execution, by itself and in whole groups, under many schedules.

use sim::scenarios::check;

#[test]
fn a_log_gives_the_same_with_any_workers_and_schedule() {
    check("a_log_gives_the_same_with_any_workers_and_schedule");
}

#[test]
fn a_fetch_waits_for_the_workers() {
    check("a_fetch_waits_for_the_workers");
}

#[test]
fn groups_execute_with_workers() {
    let met = check("groups_execute_with_workers");
    let missing: Vec<&str> = met.missing().filter(|text| text.contains("workers")).collect();
    // One seed alone does not meet everything.
    let alone = std::env::var(sim::scenario::SEED_VARIABLE).is_ok();
    assert!(alone || missing.is_empty(), "never met: {missing:?}");
}
