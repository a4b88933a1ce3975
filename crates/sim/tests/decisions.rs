//! What views begin with, and what single cores take, keep and refuse.

use sim::scenarios::check;

#[test]
fn choices_of_new_views_lose_nothing() {
    check("choices_of_new_views_lose_nothing");
}

#[test]
fn no_forged_view_begins() {
    check("no_forged_view_begins");
}

#[test]
fn no_single_word_is_taken() {
    check("no_single_word_is_taken");
}

#[test]
fn who_forgot_waits_for_a_quorum_that_did_not() {
    check("who_forgot_waits_for_a_quorum_that_did_not");
}

#[test]
fn views_are_left_and_found_by_the_rules() {
    check("views_are_left_and_found_by_the_rules");
}

#[test]
fn no_lie_moves_a_lane() {
    check("no_lie_moves_a_lane");
}

#[test]
fn a_lane_remembers_its_latest_promises() {
    check("a_lane_remembers_its_latest_promises");
}

#[test]
fn client_tables_are_the_same_whatever_a_process_has_seen() {
    check("client_tables_are_the_same_whatever_a_process_has_seen");
}
