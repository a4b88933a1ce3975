//! Rotating leaders, over whole groups in one thread.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::scenarios::check;

#[test]
fn leaders_take_turns() {
    check("leaders_take_turns");
}

#[test]
fn a_rotating_leader_that_fails_is_left_out() {
    check("a_rotating_leader_that_fails_is_left_out");
}

#[test]
fn nobody_is_excluded_on_the_word_of_few() {
    check("nobody_is_excluded_on_the_word_of_few");
}
