//! What views begin with, and what a coordinator among liars takes.

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
