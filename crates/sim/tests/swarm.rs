//! Everything at once.

use sim::scenarios::check;

#[test]
fn swarm() {
    check("swarm");
}

#[test]
fn the_store_keeps_its_transactions() {
    check("the_store_keeps_its_transactions");
}
