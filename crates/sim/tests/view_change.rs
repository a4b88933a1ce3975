//! Leaders that fail in every way, over whole groups in one thread.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::scenarios::check;

#[test]
fn the_group_goes_on_when_its_leader_ends() {
    check("the_group_goes_on_when_its_leader_ends");
}

#[test]
fn leaders_that_fail_in_a_row_are_all_passed() {
    check("leaders_that_fail_in_a_row_are_all_passed");
}

#[test]
fn a_leader_that_plays_favourites_starves_nobody() {
    check("a_leader_that_plays_favourites_starves_nobody");
}

#[test]
fn a_leader_that_equivocates_divides_nobody() {
    check("a_leader_that_equivocates_divides_nobody");
}

#[test]
fn a_leader_that_confides_in_few_and_ends_stops_nobody() {
    check("a_leader_that_confides_in_few_and_ends_stops_nobody");
}

#[test]
fn a_replica_alone_in_its_departure_is_followed() {
    check("a_replica_alone_in_its_departure_is_followed");
}

#[test]
fn forged_view_changes_lose_nothing() {
    check("forged_view_changes_lose_nothing");
}

#[test]
fn values_of_old_views_do_not_come_back() {
    check("values_of_old_views_do_not_come_back");
}

#[test]
fn no_pillar_votes_in_a_view_that_its_replica_has_left() {
    check("no_pillar_votes_in_a_view_that_its_replica_has_left");
}

#[test]
fn idle_pillars_fill_their_gaps_over_view_changes() {
    check("idle_pillars_fill_their_gaps_over_view_changes");
}

#[test]
fn a_replica_alone_finds_back() {
    check("a_replica_alone_finds_back");
}

#[test]
fn partitions_of_every_kind_heal() {
    check("partitions_of_every_kind_heal");
}

#[test]
fn a_one_way_link_to_or_from_the_leader_is_lived_with() {
    check("a_one_way_link_to_or_from_the_leader_is_lived_with");
}

#[test]
fn wishes_and_old_view_changes_of_f_replicas_move_nobody() {
    check("wishes_and_old_view_changes_of_f_replicas_move_nobody");
}

#[test]
fn view_changes_one_after_another_leave_nothing_behind() {
    check("view_changes_one_after_another_leave_nothing_behind");
}

#[test]
fn a_pause_is_survived() {
    check("a_pause_is_survived");
}

#[test]
fn a_client_that_speaks_to_some_only_changes_no_view() {
    check("a_client_that_speaks_to_some_only_changes_no_view");
}
