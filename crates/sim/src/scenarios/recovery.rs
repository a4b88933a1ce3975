//! Crashes, restarts, forgotten votes and lost disks, over whole groups in one thread.

use super::Scenario;
use crate::scenario::{finish, reach, settle, world};
use crate::{Behaviour, Durability, Fault, Net, Options, World};
use base::{ReplicaId, Span};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "everything_acknowledged_survives_the_loss_of_all_power",
        claim: "D-10: every replica loses its power at one moment, with every record that was \
                not flushed. What was acknowledged is there, and the group goes on by itself.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: everything_acknowledged_survives_the_loss_of_all_power,
    },
    Scenario {
        name: "replicas_restart_one_after_another_under_load",
        claim: "A replica at a time ends and starts again, three times around, in the modes \
                that survive the end of a process.",
        ci_seeds: 12,
        full_seeds: 600,
        run: replicas_restart_one_after_another_under_load,
    },
    Scenario {
        name: "a_restart_in_the_middle_of_a_view_change_breaks_no_promise",
        claim: "A replica crashes in the middle of a view change, after it has left a view and \
                before it has come to the next one, and goes on from there (trap 14: its old \
                VIEW-CHANGE stays true).",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: a_restart_in_the_middle_of_a_view_change_breaks_no_promise,
    },
    Scenario {
        name: "amnesia_is_not_equivocation",
        claim: "Trap 12: a replica that restarts without its votes could contradict them; it \
                votes again only beyond everything that it may have forgotten. The checker \
                compares its votes with those of its earlier lives.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: amnesia_is_not_equivocation,
    },
    Scenario {
        name: "a_lost_disk_is_survived",
        claim: "D-08: a disk is lost for good; its replica joins as one that has forgotten, \
                while the group has a load, a bad network, or another faulty replica.",
        ci_seeds: 16,
        full_seeds: 1_000,
        run: a_lost_disk_is_survived,
    },
    Scenario {
        name: "more_forgetful_replicas_than_faults_stop_the_group_with_a_clear_word",
        claim: "Nobody can tell what was agreed once more than f have forgotten: the group \
                says so, and does not go on by itself.",
        ci_seeds: 6,
        full_seeds: 60,
        run: more_forgetful_replicas_than_faults_stop_the_group_with_a_clear_word,
    },
    Scenario {
        name: "forgetting_again_while_recovering_costs_only_time",
        claim: "A replica forgets its votes, by a loss of its disk, of its machine or of its \
                process, and ends again and again while it recovers, or forgets again, and the \
                leader changes meanwhile. It is not whole before it has recovered.",
        ci_seeds: 12,
        full_seeds: 600,
        run: forgetting_again_while_recovering_costs_only_time,
    },
];

/// A group of some shape under a load that lasts.
fn options(seed: u64) -> Options {
    let (n, f) = [(4, 1), (7, 2)][seed as usize % 2];
    Options {
        seed,
        n,
        f,
        pillars: [1, 2, 3][seed as usize % 3],
        window: 64,
        ops_per_client: 150,
        pace_us: 2_000,
        ..Options::default()
    }
}

/// All replicas of a group.
fn all(world: &World) -> Vec<ReplicaId> {
    (0..world.options().n).map(ReplicaId).collect()
}

fn everything_acknowledged_survives_the_loss_of_all_power(seed: u64) {
    let mut world = world(Options { durability: Durability::Sync, ..options(seed) });
    for round in 0..3 {
        world.run_for(Span::micros(20_000 + (seed * 7919 + round * 104_729) % 60_000), |_| false);
        for replica in all(&world) {
            world.fault(Fault::PowerFails(replica));
        }
        world.run_for(Span::millis(10), |_| false);
        for replica in all(&world) {
            world.fault(Fault::Restart(replica));
        }
    }
    settle(&mut world, 20);
}

fn replicas_restart_one_after_another_under_load(seed: u64) {
    let durability = [Durability::Sync, Durability::Async][seed as usize / 2 % 2];
    let mut world = world(Options { durability, ..options(seed) });
    for round in 0..3 {
        for replica in all(&world) {
            world.run_for(Span::micros(10_000 + seed * 977 % 20_000), |_| false);
            world.fault(Fault::Crash(replica));
            world.run_for(Span::micros(500 + (seed + round) * 7_001 % 400_000), |_| false);
            world.fault(Fault::Restart(replica));
        }
    }
    settle(&mut world, 20);
}

fn a_restart_in_the_middle_of_a_view_change_breaks_no_promise(seed: u64) {
    let mut world = world(Options { durability: Durability::Sync, ..options(seed) });
    world.run_for(Span::millis(50), |_| false);
    world.stop(ReplicaId(0));
    let victim = ReplicaId(1 + (seed % 3) as u16);
    world.run_for(Span::micros(180_000 + seed * 7_919 % 60_000), |_| false);
    world.fault(Fault::PowerFails(victim));
    world.run_for(Span::micros(1 + seed * 104_729 % 300_000), |_| false);
    world.fault(Fault::Restart(victim));
    world.run_for(Span::millis(seed % 40), |_| false);
    world.resume(ReplicaId(0));
    settle(&mut world, 20);
}

fn amnesia_is_not_equivocation(seed: u64) {
    let mut world = world(options(seed));
    for round in 0..3u64 {
        world.run_for(Span::micros(20_000 + seed * 7_919 % 50_000), |_| false);
        let victim = ReplicaId(((seed + round) % u64::from(world.options().n)) as u16);
        world.fault(Fault::Crash(victim));
        world.run_for(Span::micros(seed * 104_729 % 100_000), |_| false);
        world.fault(Fault::Restart(victim));
        let recovered = world.checker().counts().recovered;
        let limit = Span::secs(60);
        let back = |w: &World| w.checker().counts().recovered > recovered;
        reach(&mut world, limit, "it recovers", back);
    }
    settle(&mut world, 20);
}

fn a_lost_disk_is_survived(seed: u64) {
    let mut world = world(Options { durability: Durability::Sync, ..options(seed) });
    if world.options().f > 1 {
        world.misbehave(ReplicaId(6), Behaviour::Random);
    }
    world.run_for(Span::millis(60), |_| false);
    let victim = ReplicaId((seed / 2 % 3) as u16);
    world.fault(Fault::Crash(victim));
    world.fault(Fault::LoseDisk(victim));
    if seed.is_multiple_of(4) {
        world.fault(Fault::Weather(Net::BAD));
    }
    world.run_for(Span::millis(seed * 31 % 500), |_| false);
    world.fault(Fault::Restart(victim));
    world.run_for(Span::millis(500), |_| false);
    settle(&mut world, 20);
    let back = |w: &World| w.checker().counts().recovered == 1;
    reach(&mut world, Span::secs(60), "it recovers", back);
}

fn more_forgetful_replicas_than_faults_stop_the_group_with_a_clear_word(seed: u64) {
    let mut world = world(options(seed));
    world.run_for(Span::millis(60), |_| false);
    let f = world.options().f;
    for replica in (0..=f).map(ReplicaId) {
        world.fault(Fault::Crash(replica));
    }
    for replica in (0..=f).map(ReplicaId) {
        world.fault(Fault::Restart(replica));
    }
    let told = |w: &World| w.checker().counts().too_many_forgetful > 0;
    assert!(world.run_for(Span::secs(60), told), "{}", world.describe());
    world.run_for(Span::secs(10), |_| false);
    assert_eq!(world.checker().counts().recovered, 0, "{}", world.describe());
}

fn forgetting_again_while_recovering_costs_only_time(seed: u64) {
    let durability = [Durability::Sync, Durability::Async, Durability::Memory][seed as usize % 3];
    let mut world = world(Options { durability, ..options(seed) });
    world.run_for(Span::millis(60), |_| false);
    let victim = ReplicaId((seed % 4) as u16);
    for round in 0..4u64 {
        match (durability, round) {
            (Durability::Async, 0 | 3) => world.fault(Fault::PowerFails(victim)),
            _ => world.fault(Fault::Crash(victim)),
        }
        if durability == Durability::Sync && round == 0 {
            world.fault(Fault::LoseDisk(victim));
        }
        world.run_for(Span::micros(seed * 7_919 % 20_000), |_| false);
        world.fault(Fault::Restart(victim));
        world.run_for(Span::micros((seed + round) * 104_729 % 250_000), |_| false);
    }
    finish(&mut world, Span::secs(120));
    settle(&mut world, 20);
}
