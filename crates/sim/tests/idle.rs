//! Idle pillars that run ahead, over whole groups in one thread and in one lane.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::coverage::Sight;
use sim::scenarios::check;

#[test]
fn idle_pillars_run_ahead_of_busy_ones() {
    let met = check("idle_pillars_run_ahead_of_busy_ones");
    assert!(met.count(Sight::NullRun) > 0, "no pillar ran ahead");
}

#[test]
fn a_run_says_what_it_is_short_for() {
    check("a_run_says_what_it_is_short_for");
}
