//! Crashes, restarts, forgotten votes and lost disks, over whole groups in one thread.

use sim::scenarios::check;

#[test]
fn everything_acknowledged_survives_the_loss_of_all_power() {
    check("everything_acknowledged_survives_the_loss_of_all_power");
}

#[test]
fn replicas_restart_one_after_another_under_load() {
    check("replicas_restart_one_after_another_under_load");
}

#[test]
fn a_restart_in_the_middle_of_a_view_change_breaks_no_promise() {
    check("a_restart_in_the_middle_of_a_view_change_breaks_no_promise");
}

#[test]
fn amnesia_is_not_equivocation() {
    check("amnesia_is_not_equivocation");
}

#[test]
fn a_lost_disk_is_survived() {
    check("a_lost_disk_is_survived");
}

#[test]
fn more_forgetful_replicas_than_faults_stop_the_group_with_a_clear_word() {
    check("more_forgetful_replicas_than_faults_stop_the_group_with_a_clear_word");
}

#[test]
fn forgetting_again_while_recovering_costs_only_time() {
    check("forgetting_again_while_recovering_costs_only_time");
}
