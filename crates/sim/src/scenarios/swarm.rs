//! Everything at once: each seed picks a few kinds of faults and lets them happen at random
//! times. What must always hold is checked at every step; when the faults are over, everybody
//! gets an answer and all correct replicas have one state.

use base::Span;

use super::Scenario;
use crate::scenario::{settle, world};
use crate::{Durability, Net, Options, Swarm, World};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "swarm",
    claim: "A few kinds of faults at random times, among all that there are; some logs are so \
            short that replicas are left behind all the time, also such as the others cannot do \
            without.",
    ci_seeds: 80,
    full_seeds: 30_000,
    run: swarm,
}];

fn options(seed: u64) -> Options {
    let (n, f) = [(4, 1), (7, 2), (4, 1), (5, 1)][seed as usize % 4];
    Options {
        seed,
        n,
        f,
        pillars: [1, 2, 3][seed as usize % 3],
        durability: [Durability::Memory, Durability::Async, Durability::Sync]
            [seed as usize / 3 % 3],
        net: if seed % 5 == 4 { Net::BAD } else { Net::CALM },
        unbatched: seed % 7 < 3,
        ops_per_client: 150,
        pace_us: [500, 5_000, 20_000][seed as usize / 4 % 3],
        window: [32, 64, 1024][seed as usize / 9 % 3],
        ..Options::default()
    }
}

/// Runs the faults of a seed, and stops them.
fn storm(options: Options) -> World {
    let swarm = Swarm::new(&options, Span::secs(4));
    let mut world = world(options);
    world.unleash(&swarm);
    if options.seed % 4 == 1 {
        world.harass(200);
    }
    world.run_for(Span::secs(4), |_| false);
    world
}

fn swarm(seed: u64) {
    let mut world = storm(options(seed));
    settle(&mut world, 40);
}
