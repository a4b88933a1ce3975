//! The client window and the client table: exactly once, over a network that repeats, reorders
//! and loses.

use models::explore::explore;
use models::window::{Bug, Window};

const SCOPE: Window = Window { bug: Bug::None, ops: 2, copies: 2, steps: 6, evicts: false };
const EVICTED: Window = Window { ops: 1, evicts: true, ..SCOPE };

#[test]
fn operations_are_executed_once_and_in_order_whatever_the_network_does() {
    let explored = explore(&SCOPE, 5_000_000).unwrap_or_else(|violation| panic!("{violation:?}"));
    println!("two operations: {explored}");
    assert!(explored.states > 1_000, "{explored}");
}

#[test]
fn an_evicted_session_is_never_executed_in_again() {
    let explored = explore(&EVICTED, 5_000_000).unwrap_or_else(|violation| panic!("{violation:?}"));
    println!("one operation, and an eviction: {explored}");
    assert!(explored.states > 500, "{explored}");
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [
        Window { bug: Bug::TableForgotten, ..EVICTED },
        Window { bug: Bug::NoCache, ..SCOPE },
        Window { bug: Bug::AnyOrder, ..SCOPE },
    ];
    for scope in bugs {
        let found = explore(&scope, 5_000_000).expect_err("is not found");
        println!("{:?}: {} after {:?}", scope.bug, found.what, found.way);
    }
}
