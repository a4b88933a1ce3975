//! The normal case over whole groups in one thread: many seeds, shapes and networks.

use base::{ReplicaId, Span};
use sim::scenario::{seeds, world};
use sim::{Net, Options, World};

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

#[test]
fn every_shape_of_group_answers_everything_on_a_calm_network() {
    for (n, f) in [(1, 0), (4, 1), (5, 1), (7, 2), (10, 3)] {
        for pillars in [1, 2, 4] {
            for unbatched in [false, true] {
                let options = Options { n, f, pillars, unbatched, ..Options::default() };
                finish(world(options), Span::secs(20));
            }
        }
    }
}

#[test]
fn loss_duplication_and_reordering_cost_time_and_nothing_else() {
    for seed in 0..seeds(60, 2000) {
        let pillars = [1, 2, 3, 4][seed as usize % 4];
        let options = Options {
            seed,
            pillars,
            net: Net::BAD,
            unbatched: seed % 3 == 0,
            // Wide enough that nobody is left behind: there is no transfer of state here.
            window: 1024,
            ..Options::default()
        };
        finish(world(options), Span::secs(200));
    }
}

#[test]
fn any_f_backups_may_be_down_from_the_start() {
    for (n, f) in [(4u16, 1u16), (7, 2)] {
        for seed in 0..10u64 {
            let options =
                Options { seed, n, f, pillars: 1 + (seed % 4) as u16, ..Options::default() };
            let mut world = world(options);
            for i in 0..f {
                let backup = 1 + (seed as u16 + i) % (n - 1);
                world.stop(ReplicaId(backup));
            }
            finish(world, Span::secs(60));
        }
    }
}

#[test]
fn a_backup_that_was_cut_off_for_less_than_a_window_catches_up() {
    for seed in 0..20 {
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
}

#[test]
fn checkpoints_become_stable_and_logs_are_cut() {
    let options =
        Options { pillars: 2, ops_per_client: 600, unbatched: true, ..Options::default() };
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

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let options =
            Options { seed, pillars: 2, net: Net::BAD, window: 1024, ..Options::default() };
        let world = finish(world(options), Span::secs(200));
        (world.trace(), world.now())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
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

#[test]
fn an_idle_group_rests_and_holds_nothing() {
    for (pillars, net) in [(1, Net::CALM), (3, Net::CALM), (2, Net::BAD)] {
        let options = Options { pillars, net, window: 1024, ..Options::default() };
        let mut world = finish(world(options), Span::secs(200));
        comes_to_rest(&mut world);
    }
}

#[test]
fn a_faulty_backup_and_a_faulty_client_stop_nobody() {
    for seed in 0..seeds(24, 600) {
        let (n, f) = [(4, 1), (7, 2)][seed as usize % 2];
        let options = Options {
            seed,
            n,
            f,
            pillars: [1, 2, 4][seed as usize % 3],
            net: if seed % 4 == 3 { Net::BAD } else { Net::CALM },
            unbatched: seed % 5 == 0,
            window: 1024,
            ..Options::default()
        };
        let mut world = world(options);
        world.corrupt(ReplicaId(1 + seed as u16 % (n - 1)));
        world.harass(400);
        let mut world = finish(world, Span::secs(300));
        if seed % 4 == 0 {
            comes_to_rest(&mut world);
        }
    }
}

#[test]
fn an_outage_longer_than_clocks_may_differ_is_survived() {
    // One backup is down for good and everybody is needed; what was proposed before the outage
    // is old when it ends.
    for seed in 0..seeds(12, 100) {
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
}

#[test]
fn a_faulty_leader_gets_no_two_replicas_to_disagree() {
    for seed in 0..seeds(16, 400) {
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
}
