//! The normal case over whole groups in one thread: many seeds, shapes and networks.

use sim::scenarios::check;

#[test]
fn every_shape_of_group_answers_everything_on_a_calm_network() {
    check("every_shape_of_group_answers_everything_on_a_calm_network");
}

#[test]
fn loss_duplication_and_reordering_cost_time_and_nothing_else() {
    check("loss_duplication_and_reordering_cost_time_and_nothing_else");
}

#[test]
fn any_f_backups_may_be_down_from_the_start() {
    check("any_f_backups_may_be_down_from_the_start");
}

#[test]
fn what_a_laggard_was_told_and_has_lost_is_told_again() {
    check("what_a_laggard_was_told_and_has_lost_is_told_again");
}

#[test]
fn a_backup_that_was_cut_off_for_less_than_a_window_catches_up() {
    check("a_backup_that_was_cut_off_for_less_than_a_window_catches_up");
}

#[test]
fn checkpoints_become_stable_and_logs_are_cut() {
    check("checkpoints_become_stable_and_logs_are_cut");
}

#[test]
fn an_idle_group_rests_and_holds_nothing() {
    check("an_idle_group_rests_and_holds_nothing");
}

#[test]
fn a_faulty_backup_and_a_faulty_client_stop_nobody() {
    check("a_faulty_backup_and_a_faulty_client_stop_nobody");
}

#[test]
fn an_outage_longer_than_clocks_may_differ_is_survived() {
    check("an_outage_longer_than_clocks_may_differ_is_survived");
}

#[test]
fn a_faulty_leader_gets_no_two_replicas_to_disagree() {
    check("a_faulty_leader_gets_no_two_replicas_to_disagree");
}
