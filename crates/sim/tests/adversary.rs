//! Adversaries with a plan.

use sim::scenarios::check;

#[test]
fn twins() {
    check("twins");
}

#[test]
fn mutations() {
    check("mutations");
}

#[test]
fn byzzfuzz() {
    check("byzzfuzz");
}

#[test]
fn a_leader_that_proposes_nulls_censors_nobody() {
    check("a_leader_that_proposes_nulls_censors_nobody");
}

#[test]
fn a_leader_just_under_its_time_is_replaced() {
    check("a_leader_just_under_its_time_is_replaced");
}

#[test]
fn wrong_checkpoints_are_proven() {
    check("wrong_checkpoints_are_proven");
}

#[test]
fn stale_certificates_hold_nobody_up() {
    check("stale_certificates_hold_nobody_up");
}

#[test]
fn sources_without_end_cost_time_only() {
    check("sources_without_end_cost_time_only");
}

#[test]
fn amnesia_that_is_not_confessed_divides_nobody() {
    check("amnesia_that_is_not_confessed_divides_nobody");
}

#[test]
fn wrong_replies_reach_no_client() {
    check("wrong_replies_reach_no_client");
}

#[test]
fn a_storm_of_view_changes_moves_nobody() {
    check("a_storm_of_view_changes_moves_nobody");
}

#[test]
fn two_tongues_in_view_changes_divide_nobody() {
    check("two_tongues_in_view_changes_divide_nobody");
}

#[test]
fn hostile_clients_cost_others_nothing() {
    check("hostile_clients_cost_others_nothing");
}
