//! Adversaries with a plan.

use sim::scenarios::check;

#[test]
fn twins() {
    check("twins");
}

#[test]
fn mutations() {
    check("mutations");
}

#[test]
fn byzzfuzz() {
    check("byzzfuzz");
}
