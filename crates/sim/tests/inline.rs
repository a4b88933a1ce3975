//! Bodies that travel with their proposals, over whole groups in one thread and in one lane.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::scenarios::check;

#[test]
fn bodies_travel_with_their_proposals() {
    check("bodies_travel_with_their_proposals");
}

#[test]
fn no_signature_of_a_client_changes_a_view() {
    check("no_signature_of_a_client_changes_a_view");
}

#[test]
fn nobody_takes_anothers_word_for_a_signature() {
    check("nobody_takes_anothers_word_for_a_signature");
}
