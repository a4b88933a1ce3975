//! Replicas and clients with a plan of their own. Whatever it is, correct replicas agree, nobody
//! correct is accused, and correct clients get their answers.

use base::{ReplicaId, Span, View};

use super::Scenario;
use crate::adversary::Hostile;
use crate::scenario::{check_memory, finish, leader, reach, settle, world};
use crate::{Behaviour, Durability, Fault, Options, World};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "a_leader_that_proposes_nulls_censors_nobody",
        claim: "L-04: a leader fills its numbers with null batches, so that it never stalls. \
                Clients are served all the same, by another leader.",
        ci_seeds: 12,
        full_seeds: 2_000,
        run: a_leader_that_proposes_nulls_censors_nobody,
    },
    Scenario {
        name: "a_leader_just_under_its_time_is_replaced",
        claim: "L-03: a leader delays every proposal by a fifth of the timeout, or more, up \
                to just under it. It is replaced although it never stands still.",
        ci_seeds: 8,
        full_seeds: 400,
        run: a_leader_just_under_its_time_is_replaced,
    },
    Scenario {
        name: "wrong_checkpoints_are_proven",
        claim: "f replicas sign CHECKPOINTs of a state that they have not. They hold nothing up, \
                and are proven faulty.",
        ci_seeds: 12,
        full_seeds: 2_000,
        run: wrong_checkpoints_are_proven,
    },
    Scenario {
        name: "stale_certificates_hold_nobody_up",
        claim: "f replicas show the oldest certificate that they know for the newest, in \
                VIEW-CHANGEs and to those who fetch.",
        ci_seeds: 16,
        full_seeds: 2_000,
        run: stale_certificates_hold_nobody_up,
    },
    Scenario {
        name: "sources_without_end_cost_time_only",
        claim: "X-01: f sources send objects that never end, or those of another checkpoint.",
        ci_seeds: 8,
        full_seeds: 1_000,
        run: sources_without_end_cost_time_only,
    },
    Scenario {
        name: "amnesia_that_is_not_confessed_divides_nobody",
        claim: "f replicas come back with nothing, in the same life or in a new one, and vote as \
                if they had never voted.",
        ci_seeds: 16,
        full_seeds: 2_000,
        run: amnesia_that_is_not_confessed_divides_nobody,
    },
    Scenario {
        name: "wrong_replies_reach_no_client",
        claim: "f replicas tell every client the same wrong answers.",
        ci_seeds: 8,
        full_seeds: 1_000,
        run: wrong_replies_reach_no_client,
    },
    Scenario {
        name: "a_storm_of_view_changes_moves_nobody",
        claim: "L-07: f replicas sign VIEW-CHANGEs for views up to a million ahead, with whole \
                windows of lies, and ask for NEW-VIEWs all the time. No view changes, nothing \
                grows; and when one has to change, it does.",
        ci_seeds: 12,
        full_seeds: 1_000,
        run: a_storm_of_view_changes_moves_nobody,
    },
    Scenario {
        name: "two_tongues_in_view_changes_divide_nobody",
        claim: "P-05, P-06: replicas sign one VIEW-CHANGE, or NEW-VIEW, for some and another \
                one for the others, while leaders come and go.",
        ci_seeds: 24,
        full_seeds: 4_000,
        run: two_tongues_in_view_changes_divide_nobody,
    },
    Scenario {
        name: "hostile_clients_cost_others_nothing",
        claim: "C-01 to C-08: a client sends two bodies under one id, authenticators that are \
                good for some, everything again, ids from everywhere, floods, or sessions \
                without end. No view changes, and the others are answered.",
        ci_seeds: 28,
        full_seeds: 7_000,
        run: hostile_clients_cost_others_nothing,
    },
];

fn options(seed: u64) -> Options {
    let (n, f) = [(4, 1), (7, 2)][seed as usize % 2];
    Options {
        seed,
        n,
        f,
        pillars: [1, 2, 4][seed as usize % 3],
        durability: [Durability::Memory, Durability::Sync][seed as usize / 2 % 2],
        window: 64,
        ops_per_client: 150,
        pace_us: 2_000,
        ..Options::default()
    }
}

/// The last f replicas, which lead no early view.
fn last(world: &World) -> impl Iterator<Item = ReplicaId> + use<> {
    let Options { n, f, .. } = world.options();
    (n - f..n).map(ReplicaId)
}

fn corrupt_last(world: &mut World, behaviour: Behaviour) {
    for faulty in last(world) {
        world.misbehave(faulty, behaviour);
    }
}

fn highest_view(world: &World) -> View {
    world.correct().into_iter().map(|replica| world.view(replica)).max().unwrap_or_default()
}

/// Takes `replica` away until the others' logs no longer reach back to it.
fn leave_behind(world: &mut World, replica: ReplicaId) {
    world.stop(replica);
    let far = world.executed(ReplicaId(0)).0 + 3 * world.options().window;
    reach(world, Span::secs(60), "others go on", |w| w.executed(ReplicaId(0)).0 > far);
    world.resume(replica);
}

/// The leader is cut off, until there is another one.
fn depose(world: &mut World) {
    let (old, before) = (leader(world), highest_view(world));
    world.stop(old);
    reach(world, Span::secs(60), "the view changes", |w| highest_view(w) > before);
    world.resume(old);
}

fn a_leader_that_proposes_nulls_censors_nobody(seed: u64) {
    let mut world = world(options(seed));
    world.misbehave(ReplicaId(0), Behaviour::NullLeader);
    finish(&mut world, Span::secs(120));
    assert!(highest_view(&world) > View(0), "{}", world.describe());
    settle(&mut world, 20);
}

fn a_leader_just_under_its_time_is_replaced(seed: u64) {
    let options = Options { ops_per_client: u64::MAX >> 1, ..options(seed) };
    let mut world = world(options);
    let us = options.view_timeout.0 / 1_000 * (20 + seed * 7 % 76) / 100;
    world.misbehave(ReplicaId(0), Behaviour::SlowLeader(us));
    let replaced = |w: &World| highest_view(w) > View(0);
    reach(&mut world, Span::secs(60), "the slow leader is replaced", replaced);
    world.stop_asking();
    finish(&mut world, Span::secs(60));
}

fn wrong_checkpoints_are_proven(seed: u64) {
    let mut world = world(options(seed));
    corrupt_last(&mut world, Behaviour::WrongCheckpoints);
    finish(&mut world, Span::secs(60));
    settle(&mut world, 20);
    for faulty in last(&world) {
        assert!(world.checker().counts().accused.contains(&faulty), "{}", world.describe());
    }
}

fn stale_certificates_hold_nobody_up(seed: u64) {
    let options = Options { unbatched: true, pace_us: 400, ..options(seed) };
    let mut world = world(Options { window: 32, ops_per_client: 400, ..options });
    corrupt_last(&mut world, Behaviour::StaleCertificates);
    world.run_for(Span::millis(20), |_| false);
    leave_behind(&mut world, ReplicaId(1 + seed as u16 / 2 % 2));
    depose(&mut world);
    settle(&mut world, 20);
}

fn sources_without_end_cost_time_only(seed: u64) {
    let options = Options { unbatched: true, pace_us: 500, ..options(seed) };
    let mut world = world(Options { window: 32, ops_per_client: 300, ..options });
    let how = [Behaviour::EndlessSource, Behaviour::OtherCheckpoint];
    corrupt_last(&mut world, how[seed as usize / 2 % 2]);
    world.run_for(Span::millis(20), |_| false);
    for _ in 0..2 {
        leave_behind(&mut world, ReplicaId(1));
        world.run_for(Span::millis(300), |_| false);
        world.ask_more(200);
    }
    settle(&mut world, 20);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
}

fn amnesia_that_is_not_confessed_divides_nobody(seed: u64) {
    let mut world = world(options(seed));
    // The first ones, who lead, or the last ones.
    let Options { n, f, .. } = world.options();
    let first = if seed % 4 < 2 { 0 } else { n - f };
    let faulty: Vec<ReplicaId> = (first..first + f).map(ReplicaId).collect();
    for replica in &faulty {
        world.misbehave(*replica, Behaviour::Twin);
    }
    for round in 0..4 {
        world.run_for(Span::millis(10 + seed * 7 % 40), |_| false);
        for replica in &faulty {
            world.forget(*replica, (seed + round).is_multiple_of(3));
        }
        if round % 2 == seed % 2 {
            let old = leader(&world);
            world.stop(old);
            world.run_for(Span::millis(500), |_| false);
            world.resume(old);
        }
    }
    settle(&mut world, 20);
}

fn wrong_replies_reach_no_client(seed: u64) {
    let mut world = world(options(seed));
    corrupt_last(&mut world, Behaviour::WrongReplies);
    finish(&mut world, Span::secs(60));
    // Without one more, there are no more right answers than are needed.
    world.stop(ReplicaId(1));
    world.ask_more(30);
    finish(&mut world, Span::secs(120));
}

fn a_storm_of_view_changes_moves_nobody(seed: u64) {
    let mut world = world(options(seed));
    corrupt_last(&mut world, Behaviour::ViewChangeStorm);
    finish(&mut world, Span::secs(60));
    assert_eq!(highest_view(&world), View(0), "{}", world.describe());
    check_memory(&mut world);
    world.ask_more(50);
    depose(&mut world);
    settle(&mut world, 20);
    assert!(highest_view(&world) < View(20), "{}", world.describe());
}

fn two_tongues_in_view_changes_divide_nobody(seed: u64) {
    let mut world = world(Options { view_timeout: Span::millis(60), ..options(seed) });
    let Options { n, f, .. } = world.options();
    let how = [Behaviour::TwoViewChanges, Behaviour::TwoNewViews];
    for i in 0..f {
        let faulty = ReplicaId(1 + i + seed as u16 / 4 % 2);
        world.misbehave(faulty, how[(seed as usize / 2 + usize::from(i)) % 2]);
    }
    for round in 0..5 {
        world.run_for(Span::millis(15 + seed * 13 % 50), |_| false);
        // Nobody but the leader, or nobody at all, has to hear the rest.
        let old = leader(&world);
        for peer in (0..n).filter(|peer| (seed >> ((peer + round) % 16)) & 1 == 0) {
            world.fault(Fault::Cut(old, ReplicaId(peer)));
        }
        world.lose_patience();
        world.run_for(Span::millis(100), |_| false);
        world.fault(Fault::Heal);
    }
    settle(&mut world, 20);
}

fn hostile_clients_cost_others_nothing(seed: u64) {
    let mut world = world(options(seed));
    world.harass_with(Hostile::ALL[seed as usize / 4 % Hostile::ALL.len()], 600);
    finish(&mut world, Span::secs(60));
    world.ask_more(50);
    finish(&mut world, Span::secs(60));
    assert_eq!(highest_view(&world), View(0), "{}", world.describe());
    check_memory(&mut world);
    settle(&mut world, 20);
}
