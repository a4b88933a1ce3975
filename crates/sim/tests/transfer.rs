//! Replicas that are so far behind, or so wrong, that they fetch a checkpoint.

use sim::scenarios::check;

#[test]
fn a_replica_that_was_left_behind_fetches_a_checkpoint() {
    check("a_replica_that_was_left_behind_fetches_a_checkpoint");
}

#[test]
fn lying_sources_cost_time_only() {
    check("lying_sources_cost_time_only");
}

#[test]
fn sources_that_go_away_are_replaced() {
    check("sources_that_go_away_are_replaced");
}

#[test]
fn a_target_that_crashes_begins_again() {
    check("a_target_that_crashes_begins_again");
}

#[test]
fn a_view_that_changes_while_a_replica_fetches_is_activated() {
    check("a_view_that_changes_while_a_replica_fetches_is_activated");
}

#[test]
fn several_laggards_fetch_at_once() {
    check("several_laggards_fetch_at_once");
}

#[test]
fn a_group_that_cannot_do_without_its_laggards_brings_them_back() {
    check("a_group_that_cannot_do_without_its_laggards_brings_them_back");
}

#[test]
fn a_group_that_needs_its_laggard_stands_for_moments() {
    check("a_group_that_needs_its_laggard_stands_for_moments");
}

#[test]
fn what_a_laggard_has_fetched_outlives_an_outage() {
    check("what_a_laggard_has_fetched_outlives_an_outage");
}

#[test]
fn a_replica_whose_state_is_spoilt_is_repaired() {
    check("a_replica_whose_state_is_spoilt_is_repaired");
}
