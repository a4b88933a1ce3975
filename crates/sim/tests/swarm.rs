//! Everything at once.

use sim::scenarios::check;

#[test]
fn swarm() {
    check("swarm");
}
