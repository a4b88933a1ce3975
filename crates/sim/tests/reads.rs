//! Reads without an order, over whole groups in one thread.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::scenarios::check;

#[test]
fn reads_without_an_order_are_linearizable() {
    check("reads_without_an_order_are_linearizable");
}

#[test]
fn replicas_in_the_dark_block_no_client() {
    check("replicas_in_the_dark_block_no_client");
}

#[test]
fn a_client_believes_no_read_that_is_too_old() {
    check("a_client_believes_no_read_that_is_too_old");
}

#[test]
fn reads_see_what_is_committed_and_whole() {
    check("reads_see_what_is_committed_and_whole");
}
