//! Adversaries with a plan: copies with one key, and what else no correct replica would do.

use base::{ReplicaId, Span};
use proto::pbft::{Bodies, Idle};

use super::Scenario;
use crate::adversary::Fuzz;
use crate::options::Travel;
use crate::scenario::{settle, world};
use crate::twins::Twins;
use crate::{Behaviour, Durability, Options, World};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "twins",
        claim: "P-02, K-08: up to f replicas run twice with one key, in a plan of partitions, \
                leaders and copies. Nobody is divided, and everybody is answered when the last \
                partition ends.",
        ci_seeds: 60,
        full_seeds: 20_000,
        run: twins,
    },
    Scenario {
        name: "mutations",
        claim: "P-03, P-05, P-12, X-01: f replicas change one field of every so many messages, \
                of every kind, and sign them again. Nobody is divided, nobody correct accused, \
                and everybody answered.",
        ci_seeds: 30,
        full_seeds: 5_000,
        run: mutations,
    },
    Scenario {
        name: "byzzfuzz",
        claim: "P-03: at up to three moments the network is divided, at up to three others a \
                replica changes what it says to some. Nobody is divided, and everybody is \
                answered.",
        ci_seeds: 100,
        full_seeds: 100_000,
        run: byzzfuzz,
    },
];

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

/// A group in which everything is said that can be: views change, replicas come back with
/// nothing, and some are left behind.
fn mutated(seed: u64) -> World {
    let (n, f) = [(4, 1), (7, 2), (4, 1)][seed as usize % 3];
    let options = Options {
        seed,
        n,
        f,
        pillars: [1, 2, 4][seed as usize / 3 % 3],
        durability: [Durability::Memory, Durability::Sync][seed as usize % 2],
        unbatched: seed % 4 < 2,
        travel: Travel {
            bodies: [Bodies::Separate, Bodies::Inline][seed as usize / 4 % 2],
            idle: [Idle::Fill, Idle::Ahead][seed as usize / 7 % 2],
            ..Travel::default()
        },
        window: [32, 64][seed as usize / 2 % 2],
        ops_per_client: 250,
        pace_us: 400,
        view_timeout: Span::millis(100),
        ..Options::default()
    };
    let mut world = world(options);
    let first = seed as u16 / 2 % n;
    let one_in = [2, 8, 32][seed as usize / 5 % 3];
    for faulty in (0..f).map(|i| ReplicaId((first + i) % n)) {
        world.misbehave(faulty, Behaviour::Mutate { one_in });
    }
    // One that is correct is away for a while, so that there is a gap to be filled; it is the
    // leader now and then.
    let away = ReplicaId((first + f + seed as u16 % (n - f)) % n);
    world.run_for(Span::millis(20), |_| false);
    world.stop(away);
    world.run_for(Span::millis(60), |_| false);
    world.resume(away);
    world.run_for(Span::millis(40), |_| false);
    world
}

fn mutations(seed: u64) {
    let mut world = mutated(seed);
    settle(&mut world, 20);
}

fn byzzfuzz(seed: u64) {
    let (n, f) = [(4, 1), (4, 1), (7, 2)][seed as usize % 3];
    let options = Options {
        seed,
        n,
        f,
        pillars: [1, 2][seed as usize / 3 % 2],
        unbatched: seed.is_multiple_of(2),
        ops_per_client: 24,
        pace_us: 300,
        view_timeout: Span::millis(50),
        ..Options::default()
    };
    let mut world = world(options);
    world.fuzz(Fuzz::new(&options));
    for _ in 0..seed % 3 {
        world.run_for(Span::millis(3), |_| false);
        world.lose_patience();
    }
    world.run_for(Span::millis(30), |_| false);
    settle(&mut world, 6);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::mutated;
    use crate::adversary::all_fields;

    /// P-03: no field of no message is left alone.
    #[test]
    fn every_field_of_every_message_is_changed_in_some_run() {
        let mut table = BTreeMap::new();
        for seed in 0..24 {
            for (field, count) in &mutated(seed).deeds().mutations {
                *table.entry(*field).or_insert(0u64) += count;
            }
        }
        for (kind, field) in all_fields() {
            let count = table.remove(&(kind, field)).unwrap_or(0);
            assert!(count > 0, "{field} of {} is never changed", kind.name());
        }
        assert!(table.is_empty(), "unknown fields: {table:?}");
    }
}
