//! The pillar barrier: every order in which lanes and coordinator can hear things.

use models::barrier::{Barrier, Bug};
use models::explore::explore;

#[test]
fn no_vote_below_a_view_follows_a_promise_for_it_in_any_order() {
    let explored = explore(&Barrier { bug: Bug::None }, 2_000_000);
    let explored = explored.unwrap_or_else(|violation| panic!("{violation:?}"));
    println!("{explored}");
    assert!(explored.states > 1_000, "{explored}");
}

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::FirstAnswerCounts, Bug::AnsweredForIt, Bug::SliceForgotten] {
        let found = explore(&Barrier { bug }, 2_000_000);
        let found = found.expect_err("is not found");
        println!("{bug:?}: {} after {:?}", found.what, found.way);
    }
}
