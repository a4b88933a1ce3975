//! The normal case over whole groups in one thread: many seeds, shapes and networks.

use super::Scenario;
use crate::scenario::world;
use crate::{Fault, Net, Options, World};
use base::{ReplicaId, Span};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "every_shape_of_group_answers_everything_on_a_calm_network",
        claim: "Groups of every shape answer everything on a calm network.",
        ci_seeds: 30,
        full_seeds: 30,
        run: every_shape_of_group_answers_everything_on_a_calm_network,
    },
    Scenario {
        name: "loss_duplication_and_reordering_cost_time_and_nothing_else",
        claim: "A tenth of the messages is lost, a tenth comes twice, all overtake each other.",
        ci_seeds: 60,
        full_seeds: 2000,
        run: loss_duplication_and_reordering_cost_time_and_nothing_else,
    },
    Scenario {
        name: "any_f_backups_may_be_down_from_the_start",
        claim: "Any f backups are down from the start, and nobody notices.",
        ci_seeds: 20,
        full_seeds: 20,
        run: any_f_backups_may_be_down_from_the_start,
    },
    Scenario {
        name: "a_backup_that_was_cut_off_for_less_than_a_window_catches_up",
        claim: "A backup that was cut off for less than a window catches up from the logs.",
        ci_seeds: 20,
        full_seeds: 20,
        run: a_backup_that_was_cut_off_for_less_than_a_window_catches_up,
    },
    Scenario {
        name: "what_a_laggard_was_told_and_has_lost_is_told_again",
        claim: "L12: a backup of a group at rest asks for what it missed, and does not hear the \
                first answers.",
        ci_seeds: 6,
        full_seeds: 60,
        run: what_a_laggard_was_told_and_has_lost_is_told_again,
    },
    Scenario {
        name: "checkpoints_become_stable_and_logs_are_cut",
        claim: "Checkpoints become stable, and the logs behind them are cut.",
        ci_seeds: 2,
        full_seeds: 2,
        run: checkpoints_become_stable_and_logs_are_cut,
    },
    Scenario {
        name: "an_idle_group_rests_and_holds_nothing",
        claim: "An idle group holds nothing and wakes up for heartbeats only.",
        ci_seeds: 3,
        full_seeds: 3,
        run: an_idle_group_rests_and_holds_nothing,
    },
    Scenario {
        name: "a_faulty_backup_and_a_faulty_client_stop_nobody",
        claim: "A backup that says anything and a client that sends anything stop nobody.",
        ci_seeds: 24,
        full_seeds: 600,
        run: a_faulty_backup_and_a_faulty_client_stop_nobody,
    },
    Scenario {
        name: "an_outage_longer_than_clocks_may_differ_is_survived",
        claim: "One backup is down for good and everybody else is needed; what was proposed before \
                an outage is old when it ends.",
        ci_seeds: 12,
        full_seeds: 100,
        run: an_outage_longer_than_clocks_may_differ_is_survived,
    },
    Scenario {
        name: "a_faulty_leader_gets_no_two_replicas_to_disagree",
        claim: "A leader that says anything gets no two replicas to disagree.",
        ci_seeds: 16,
        full_seeds: 400,
        run: a_faulty_leader_gets_no_two_replicas_to_disagree,
    },
];

/// Runs to the end and looks at what every run must have reached.
fn finish(mut world: World, limit: Span) -> World {
    let done = world.run_until(limit, World::clients_are_done);
    assert!(done, "{} done at {:?}:\n{}", world.completed(), world.now(), world.describe());
    let settled = world.run_until(Span(limit.0 * 2), World::replicas_agree);
    assert!(settled, "replicas did not get to the same number:\n{}", world.describe());
    let digests = world.state_digests();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "states differ");
    world
}

fn every_shape_of_group_answers_everything_on_a_calm_network(seed: u64) {
    let (n, f) = [(1, 0), (4, 1), (5, 1), (7, 2), (10, 3)][seed as usize % 5];
    let pillars = [1, 2, 4][seed as usize / 5 % 3];
    let unbatched = seed / 15 % 2 == 1;
    finish(world(Options { seed, n, f, pillars, unbatched, ..Options::default() }), Span::secs(20));
}

fn loss_duplication_and_reordering_cost_time_and_nothing_else(seed: u64) {
    let pillars = [1, 2, 3, 4][seed as usize % 4];
    let options = Options {
        seed,
        pillars,
        net: Net::BAD,
        unbatched: seed.is_multiple_of(3),
        // Wide enough that nobody is left behind: there is no transfer of state here.
        window: 1024,
        ..Options::default()
    };
    finish(world(options), Span::secs(200));
}

fn any_f_backups_may_be_down_from_the_start(seed: u64) {
    let (n, f) = [(4u16, 1u16), (7, 2)][seed as usize % 2];
    let pillars = 1 + (seed / 2 % 4) as u16;
    let mut world = world(Options { seed, n, f, pillars, ..Options::default() });
    for i in 0..u64::from(f) {
        let backup = 1 + (seed / 2 + i) % u64::from(n - 1);
        world.stop(ReplicaId(backup as u16));
    }
    finish(world, Span::secs(60));
}

fn a_backup_that_was_cut_off_for_less_than_a_window_catches_up(seed: u64) {
    let options = Options {
        seed,
        pillars: 1 + (seed % 3) as u16,
        ops_per_client: 200,
        checkpoint_interval: 64,
        window: 256,
        ..Options::default()
    };
    let mut world = world(options);
    world.run_until(Span::secs(20), |w| w.completed() > 50);
    world.stop(ReplicaId(2));
    world.run_until(Span::secs(20), |w| w.completed() > 120);
    world.resume(ReplicaId(2));
    finish(world, Span::secs(60));
}

fn what_a_laggard_was_told_and_has_lost_is_told_again(seed: u64) {
    let options = Options {
        seed,
        pillars: 1 + (seed % 3) as u16,
        // Less than an interval.
        ops_per_client: 40,
        checkpoint_interval: 256,
        window: 1024,
        // Whoever is told nothing for twice as long asks for the state.
        view_timeout: Span::secs(30),
        ..Options::default()
    };
    let mut world = world(options);
    let (n, laggard) = (world.options().n, ReplicaId(1 + (seed % 3) as u16));
    let others: Vec<ReplicaId> = (0..n).map(ReplicaId).filter(|r| *r != laggard).collect();
    for other in &others {
        world.fault(Fault::Cut(laggard, *other));
        world.fault(Fault::Cut(*other, laggard));
    }
    assert!(world.run_until(Span::secs(60), World::clients_are_done), "{}", world.describe());
    // It is heard, and hears nothing yet. No link is new.
    let mend = |world: &mut World, from, to| assert!(world.network.mend(from, to), "it was cut");
    others.iter().for_each(|other| mend(&mut world, laggard, *other));
    world.run_for(Span::secs(2), |_| false);
    others.iter().for_each(|other| mend(&mut world, *other, laggard));
    let world = finish(world, Span::secs(100));
    assert_eq!(world.checker().counts().fetched, 0, "{}", world.describe());
}

fn checkpoints_become_stable_and_logs_are_cut(seed: u64) {
    let options =
        Options { seed, pillars: 2, ops_per_client: 600, unbatched: true, ..Options::default() };
    let world = finish(world(options), Span::secs(60));
    assert!(world.checker().checkpoint_count() > 20);
    for replica in (0..4).map(ReplicaId) {
        for pillar in (0..2).map(base::PillarId) {
            let report = world.lane(replica, pillar).report();
            assert!(report.stable.0 > 100, "{replica:?} {pillar:?} {report:?}");
            assert_eq!(report.misbehaviour, 0, "a correct group accuses nobody");
        }
    }
}

/// Waits until everything is forgotten that will be, and looks whether a lane holds on to
/// something, or wakes up more often than its heartbeats need.
fn comes_to_rest(world: &mut World) {
    let never = |_: &World| false;
    world.calm_down();
    let now = world.now().0;
    world.run_until(Span(now + Span::secs(80).0), never);
    for replica in world.correct() {
        for pillar in (0..world.options().pillars).map(base::PillarId) {
            let report = world.lane(replica, pillar).report();
            assert_eq!(report.pending_frames, 0, "{replica:?} {pillar:?} {report:?}");
            assert_eq!(report.in_flight, 0, "{replica:?} {pillar:?} {report:?}");
        }
    }
    let before = world.lane_turns();
    let now = world.now().0;
    world.run_until(Span(now + Span::secs(10).0), never);
    let lanes = world.correct().len() as u64 * u64::from(world.options().pillars);
    let turns = world.lane_turns() - before;
    let peers = u64::from(world.options().n);
    assert!(turns <= lanes * peers * 40, "{turns} turns of {lanes} lanes in ten idle seconds");
}

fn an_idle_group_rests_and_holds_nothing(seed: u64) {
    let (pillars, net) = [(1, Net::CALM), (3, Net::CALM), (2, Net::BAD)][seed as usize % 3];
    let options = Options { seed, pillars, net, window: 1024, ..Options::default() };
    let mut world = finish(world(options), Span::secs(200));
    comes_to_rest(&mut world);
}

fn a_faulty_backup_and_a_faulty_client_stop_nobody(seed: u64) {
    let (n, f) = [(4, 1), (7, 2)][seed as usize % 2];
    let options = Options {
        seed,
        n,
        f,
        pillars: [1, 2, 4][seed as usize % 3],
        net: if seed % 4 == 3 { Net::BAD } else { Net::CALM },
        unbatched: seed.is_multiple_of(5),
        window: 1024,
        ..Options::default()
    };
    let mut world = world(options);
    world.corrupt(ReplicaId(1 + seed as u16 % (n - 1)));
    world.harass(400);
    let mut world = finish(world, Span::secs(300));
    if seed.is_multiple_of(4) {
        comes_to_rest(&mut world);
    }
}

fn an_outage_longer_than_clocks_may_differ_is_survived(seed: u64) {
    // One backup is down for good and everybody is needed; what was proposed before the outage
    // is old when it ends.
    let options =
        Options { seed, pillars: 1 + (seed % 3) as u16, window: 1024, ..Options::default() };
    let mut world = world(options);
    world.stop(ReplicaId(3));
    world.run_until(Span::secs(20), |w| w.completed() > 50);
    let cut_off = ReplicaId((seed % 3) as u16);
    world.stop(cut_off);
    let until = Span(world.now().0 + Span::secs(12).0);
    world.run_until(until, |_| false);
    world.resume(cut_off);
    finish(world, Span::secs(120));
}

fn a_faulty_leader_gets_no_two_replicas_to_disagree(seed: u64) {
    let options = Options {
        seed,
        pillars: 1 + (seed % 2) as u16,
        net: if seed % 4 == 3 { Net::BAD } else { Net::CALM },
        window: 64,
        ..Options::default()
    };
    let mut world = world(options);
    world.corrupt(ReplicaId(0));
    world.harass(100);
    world.run_until(Span::secs(2), World::clients_are_done);
}
