//! Adversaries with a plan.

use sim::scenarios::check;

#[test]
fn twins() {
    check("twins");
}
