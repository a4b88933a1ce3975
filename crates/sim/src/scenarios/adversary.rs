//! Adversaries with a plan: copies with one key, and what else no correct replica would do.

use base::Span;

use super::Scenario;
use crate::scenario::{settle, world};
use crate::twins::Twins;
use crate::{Durability, Options};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "twins",
    claim: "P-02, K-08: up to f replicas run twice with one key, in a plan of partitions, \
            leaders and copies. Nobody is divided, and everybody is answered when the last \
            partition ends.",
    ci_seeds: 60,
    full_seeds: 20_000,
    run: twins,
}];

fn twins(seed: u64) {
    let (n, f) = [(4, 1), (4, 1), (7, 2)][seed as usize % 3];
    let options = Options {
        seed,
        n,
        f,
        pillars: [1, 2, 4][seed as usize / 3 % 3],
        durability: [Durability::Memory, Durability::Sync][seed as usize % 2],
        ops_per_client: 60,
        pace_us: 700,
        view_timeout: Span::millis(50),
        ..Options::default()
    };
    let mut world = world(options);
    world.play(&Twins::new(&options));
    settle(&mut world, 10);
    assert!(world.deeds().twin_messages > 0, "{}", world.describe());
}
