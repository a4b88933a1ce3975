//! Answers by digests and of a quorum, over whole groups in one thread.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::scenarios::check;

#[test]
fn nobody_asks_twice_while_nobody_fails() {
    check("nobody_asks_twice_while_nobody_fails");
}

#[test]
fn a_replica_that_does_not_answer_is_passed_over() {
    check("a_replica_that_does_not_answer_is_passed_over");
}

#[test]
fn a_designated_replica_that_lies_is_found_out() {
    check("a_designated_replica_that_lies_is_found_out");
}

#[test]
fn answers_in_part_survive_a_bad_network() {
    check("answers_in_part_survive_a_bad_network");
}
