//! Disks that fail: machines that stop at every operation of a disk, and disks that rot and lie.

use sim::scenarios::check;

#[test]
fn a_machine_may_stop_at_every_operation_of_its_disk() {
    check("a_machine_may_stop_at_every_operation_of_its_disk");
}

#[test]
fn what_a_disk_does_to_votes_is_found_out() {
    check("what_a_disk_does_to_votes_is_found_out");
}

#[test]
fn what_was_written_last_rots() {
    check("what_was_written_last_rots");
}

#[test]
fn a_write_that_was_lost_is_missed() {
    check("a_write_that_was_lost_is_missed");
}

#[test]
fn syncs_fail_everywhere() {
    check("syncs_fail_everywhere");
}

#[test]
fn the_newest_checkpoint_rots_everywhere() {
    check("the_newest_checkpoint_rots_everywhere");
}
