//! Tentative execution, over whole groups in one thread.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::coverage::Sight;
use sim::scenarios::check;

#[test]
fn what_one_executes_tentatively_is_taken_back() {
    let met = check("what_one_executes_tentatively_is_taken_back");
    let rolled_back = met.count(Sight::RolledBack);
    assert!(rolled_back > 0, "nothing was taken back, of {}", met.count(Sight::Tentative));
}

#[test]
fn views_change_under_tentative_batches() {
    check("views_change_under_tentative_batches");
}

#[test]
fn few_tentative_replies_convince_nobody() {
    check("few_tentative_replies_convince_nobody");
}
