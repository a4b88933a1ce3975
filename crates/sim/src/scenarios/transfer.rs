//! Replicas that are so far behind, or so wrong, that they fetch a checkpoint.

use super::Scenario;
use crate::scenario::{finish, leader, settle, world};
use crate::{Behaviour, Durability, Fault, Options, World};
use base::{ReplicaId, Span};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "a_replica_that_was_left_behind_fetches_a_checkpoint",
        claim: "Traps 9 and 11, X-05: a replica that was away for longer than logs reach back \
                fetches a checkpoint, session table included, under load, and takes part \
                again.",
        ci_seeds: 16,
        full_seeds: 1_000,
        run: a_replica_that_was_left_behind_fetches_a_checkpoint,
    },
    Scenario {
        name: "lying_sources_cost_time_only",
        claim: "X-01: a source that lies about nodes, objects and sizes is found out piece by \
                piece, and costs time only.",
        ci_seeds: 16,
        full_seeds: 1_000,
        run: lying_sources_cost_time_only,
    },
    Scenario {
        name: "sources_that_go_away_are_replaced",
        claim: "X-02: sources end or stop answering in the middle; others are asked.",
        ci_seeds: 12,
        full_seeds: 600,
        run: sources_that_go_away_are_replaced,
    },
    Scenario {
        name: "a_target_that_crashes_begins_again",
        claim: "X-03: the target crashes while it fetches, and the checkpoint that it fetched \
                is superseded.",
        ci_seeds: 12,
        full_seeds: 600,
        run: a_target_that_crashes_begins_again,
    },
    Scenario {
        name: "a_view_that_changes_while_a_replica_fetches_is_activated",
        claim: "Trap 11, X-04: views change while a replica fetches. It activates the view \
                afterwards: with others gone, the group cannot do without it.",
        ci_seeds: 16,
        full_seeds: 1_000,
        run: a_view_that_changes_while_a_replica_fetches_is_activated,
    },
    Scenario {
        name: "several_laggards_fetch_at_once",
        claim: "X-07: as many replicas as the group tolerates are left behind at once.",
        ci_seeds: 8,
        full_seeds: 400,
        run: several_laggards_fetch_at_once,
    },
    Scenario {
        name: "a_group_that_cannot_do_without_its_laggards_brings_them_back",
        claim: "X-09: as many as the group tolerates forget while as many are left behind. The \
                others are no quorum, so they execute nothing more; yet a checkpoint to fetch \
                is one still to be executed.",
        ci_seeds: 32,
        full_seeds: 2_000,
        run: a_group_that_cannot_do_without_its_laggards_brings_them_back,
    },
    Scenario {
        name: "a_group_that_needs_its_laggard_stands_for_moments",
        claim: "X-09: a replica is left behind, by more or less than a window, and f others end \
                while it asks for a state. The others are no quorum without it; clients wait for \
                a view or two, and not for their own next repetitions.",
        ci_seeds: 24,
        full_seeds: 1_500,
        run: a_group_that_needs_its_laggard_stands_for_moments,
    },
    Scenario {
        name: "what_a_laggard_has_fetched_outlives_an_outage",
        claim: "F12, D-10: a replica has fetched a state, on the word of a quorum or of a weak one, \
                and takes part in checkpoints above it. Everybody loses power before, while or \
                after that state goes to its disk; one replica does not come back, another one \
                has yet to catch up. Whoever has signed a checkpoint has it.",
        ci_seeds: 48,
        full_seeds: 4_000,
        run: what_a_laggard_has_fetched_outlives_an_outage,
    },
    Scenario {
        name: "a_replica_whose_state_is_spoilt_is_repaired",
        claim: "A replica's memory goes wrong: the next checkpoint shows it, the replica is \
                named, and fetches the state that the others certify.",
        ci_seeds: 12,
        full_seeds: 600,
        run: a_replica_whose_state_is_spoilt_is_repaired,
    },
];

/// A group with a short log, under a load that runs far ahead of whoever is not there.
fn options(seed: u64) -> Options {
    let (n, f) = [(4, 1), (7, 2)][seed as usize % 2];
    Options {
        seed,
        n,
        f,
        pillars: [1, 2, 3][seed as usize % 3],
        unbatched: true,
        window: 32,
        ops_per_client: 300,
        pace_us: 500,
        ..Options::default()
    }
}

/// Takes `replica` away until the others' logs no longer reach back to it.
fn leave_behind(world: &mut World, replica: ReplicaId) {
    world.run_for(Span::millis(20), |_| false);
    world.stop(replica);
    let ahead = ReplicaId(0);
    let far = world.executed(replica).0 + 3 * world.options().window;
    let gone = world.run_for(Span::secs(60), |w| w.executed(ahead).0 > far);
    assert!(gone, "{}", world.describe());
    world.resume(replica);
}

fn a_replica_that_was_left_behind_fetches_a_checkpoint(seed: u64) {
    let mut world = world(options(seed));
    let behind = ReplicaId(1 + (seed % 3) as u16);
    leave_behind(&mut world, behind);
    settle(&mut world, 20);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
    // It takes part: without it there would be no quorum now.
    let (n, f) = (world.options().n, world.options().f);
    let others = (1..n).map(ReplicaId).filter(|other| *other != behind);
    for other in others.take(usize::from(f)).collect::<Vec<_>>() {
        world.stop(other);
    }
    world.ask_more(20);
    finish(&mut world, Span::secs(120));
}

fn lying_sources_cost_time_only(seed: u64) {
    // Whether a liar is asked for something that matters is a matter of luck.
    (0..5).for_each(|part| a_lying_source_costs_time_only(5 * seed + part));
}

fn a_lying_source_costs_time_only(seed: u64) {
    let mut world = world(options(seed));
    let (n, f) = (world.options().n, world.options().f);
    for liar in n - f..n {
        world.misbehave(ReplicaId(liar), Behaviour::LyingSource);
    }
    leave_behind(&mut world, ReplicaId(1));
    settle(&mut world, 20);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
}

fn sources_that_go_away_are_replaced(seed: u64) {
    let mut world = world(Options { durability: Durability::Sync, ..options(seed) });
    leave_behind(&mut world, ReplicaId(1));
    world.run_for(Span::micros(seed * 7_919 % 100_000), |_| false);
    let source = ReplicaId(2 + (seed % 2) as u16);
    let fault = [Fault::Crash(source), Fault::Pause(source)][seed as usize / 2 % 2];
    world.fault(fault);
    world.run_for(Span::secs(2), |_| false);
    settle(&mut world, 20);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
}

fn a_target_that_crashes_begins_again(seed: u64) {
    let durability = [Durability::Sync, Durability::Memory][seed as usize / 2 % 2];
    let mut world = world(Options { durability, ..options(seed) });
    let target = ReplicaId(1 + (seed % 3) as u16);
    leave_behind(&mut world, target);
    for _ in 0..3 {
        world.run_for(Span::micros(seed * 104_729 % 300_000), |_| false);
        world.fault(Fault::Crash(target));
        world.run_for(Span::millis(20), |_| false);
        world.fault(Fault::Restart(target));
    }
    settle(&mut world, 20);
}

fn a_view_that_changes_while_a_replica_fetches_is_activated(seed: u64) {
    let mut world = world(options(seed));
    let behind = ReplicaId(3);
    leave_behind(&mut world, behind);
    world.run_for(Span::micros(seed * 7_919 % 200_000), |_| false);
    let old = leader(&world);
    world.stop(old);
    world.run_for(Span::secs(3), |_| false);
    world.resume(old);
    settle(&mut world, 20);
    let f = world.options().f;
    for gone in (0..f).map(ReplicaId) {
        world.stop(gone);
    }
    world.ask_more(20);
    finish(&mut world, Span::secs(120));
}

fn several_laggards_fetch_at_once(seed: u64) {
    let mut world = world(Options { n: 7, f: 2, ..options(seed) });
    world.stop(ReplicaId(5));
    leave_behind(&mut world, ReplicaId(4));
    world.resume(ReplicaId(5));
    settle(&mut world, 20);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
}

fn a_group_that_cannot_do_without_its_laggards_brings_them_back(seed: u64) {
    let mut world = world(Options { ops_per_client: 2_000, ..options(seed) });
    let (n, f) = (world.options().n, world.options().f);
    for away in 2..=f {
        world.stop(ReplicaId(away));
    }
    world.run_for(Span::millis(20), |_| false);
    let behind = ReplicaId(1);
    world.stop(behind);
    let far = 3 * world.options().window;
    let gone = world.run_for(Span::secs(60), |w| w.executed(ReplicaId(0)).0 > far);
    assert!(gone, "{}", world.describe());
    world.run_for(Span::micros(seed * 7_919 % 20_000), |_| false);
    // What those who forget have said last, not everybody hears.
    for forgets in (n - f..n).map(ReplicaId) {
        world.fault(Fault::Cut(forgets, ReplicaId(f + 1)));
    }
    world.run_for(Span::micros(seed * 104_729 % 5_000), |_| false);
    for forgets in (n - f..n).map(ReplicaId) {
        world.fault(Fault::Crash(forgets));
    }
    for away in (1..=f).map(ReplicaId) {
        world.resume(away);
    }
    world.run_for(Span::millis(100), |_| false);
    settle(&mut world, 20);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
}

fn a_group_that_needs_its_laggard_stands_for_moments(seed: u64) {
    let window = [32, 128][seed as usize / 6 % 2];
    let checkpoint_interval = window / 4;
    let mut world =
        world(Options { window, checkpoint_interval, ops_per_client: 2_000, ..options(seed) });
    let behind = ReplicaId(1 + (seed % 3) as u16);
    leave_behind(&mut world, behind);
    world.run_for(Span::micros(seed * 7_919 % 20_000), |_| false);
    let (n, f) = (world.options().n, world.options().f);
    let others = (1..n).map(ReplicaId).filter(|other| *other != behind);
    for other in others.take(usize::from(f)).collect::<Vec<_>>() {
        world.stop(other);
    }
    let (mut completed, mut since) = (world.completed(), world.now());
    while !world.clients_are_done() {
        world.run_for(Span::millis(5), |_| false);
        if world.completed() > completed {
            (completed, since) = (world.completed(), world.now());
        }
        let stands = world.now().since(since);
        assert!(stands < Span::secs(3), "nobody was answered in {stands:?}: {}", world.describe());
    }
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
    finish(&mut world, Span::secs(120));
}

fn what_a_laggard_has_fetched_outlives_an_outage(seed: u64) {
    let durability = Durability::Sync;
    let mut world =
        world(Options { n: 4, f: 1, durability, ops_per_client: 2_000, ..options(seed) });
    let (fetches, lags, lost) = (ReplicaId(1), ReplicaId(2), ReplicaId(3));
    leave_behind(&mut world, fetches);
    if seed.is_multiple_of(2) {
        // From now on nobody gets on without the one that fetches.
        world.stop(lags);
    }
    let fetched = world.run_for(Span::secs(60), |w| w.checker().counts().fetched > 0);
    assert!(fetched, "{}", world.describe());
    world.stop(lags);
    world.run_for(Span::micros(seed * 7_919 % 60_000), |_| false);
    let all = || (0..4).map(ReplicaId);
    all().for_each(|replica| world.fault(Fault::PowerFails(replica)));
    world.resume(lags);
    all().filter(|replica| *replica != lost).for_each(|r| world.fault(Fault::Restart(r)));
    world.ask_more(20);
    finish(&mut world, Span::secs(300));
}

fn a_replica_whose_state_is_spoilt_is_repaired(seed: u64) {
    let mut world = world(options(seed));
    world.run_for(Span::millis(30), |_| false);
    world.fault(Fault::Spoil(ReplicaId((seed % 4) as u16)));
    finish(&mut world, Span::secs(120));
    settle(&mut world, 40);
    assert!(world.checker().counts().fetched > 0, "{}", world.describe());
    // Every replica is sound again, as the next checkpoints show.
    world.ask_more(60);
    finish(&mut world, Span::secs(120));
    assert_eq!(world.state_digests().len(), usize::from(world.options().n));
}
