//! Leaders that fail in every way, over whole groups in one thread.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use base::{ClientId, PillarId, ReplicaId, Span, View};
use sim::scenario::{each_seed, finish, leader, seeds, settle, world};
use sim::{Behaviour, Durability, Fault, Net, Options, World};

/// A group of some shape under a load that lasts.
fn options(seed: u64) -> Options {
    let (n, f) = [(4, 1), (7, 2)][seed as usize % 2];
    Options {
        seed,
        n,
        f,
        pillars: [1, 2, 3][seed as usize % 3],
        durability: [Durability::Memory, Durability::Sync][seed as usize / 2 % 2],
        window: 64,
        ops_per_client: 150,
        pace_us: 2_000,
        ..Options::default()
    }
}

/// Views that correct replicas are in.
fn highest_view(world: &World) -> View {
    world.correct().into_iter().map(|replica| world.view(replica)).max().unwrap_or_default()
}

/// L-02: the leader ends in the middle of the load. One view change, and nobody is told an error
/// or gets an answer twice.
#[test]
fn the_group_goes_on_when_its_leader_ends() {
    each_seed(seeds(24, 600), |seed| {
        let mut world = world(options(seed));
        world.run_for(Span::millis(20 + seed * 7 % 200), |_| false);
        world.stop(ReplicaId(0));
        finish(&mut world, Span::secs(60));
        assert!(highest_view(&world) >= View(1), "{}", world.describe());
        world.resume(ReplicaId(0));
        settle(&mut world, 20);
    });
}

/// L-08: the next leaders fail, too. Timeouts double, and the f + 1st leader works.
#[test]
fn leaders_that_fail_in_a_row_are_all_passed() {
    each_seed(seeds(12, 300), |seed| {
        let mut world = world(Options { n: 7, f: 2, ..options(seed) });
        let how = [Behaviour::Silent, Behaviour::SilentLeader, Behaviour::ForgeViewChange];
        world.misbehave(ReplicaId(0), how[seed as usize % 3]);
        world.misbehave(ReplicaId(1), how[seed as usize / 3 % 3]);
        if seed % 3 == 2 {
            // Somebody has to ask for a view in which forgers have a say.
            world.run_for(Span::millis(50), |_| false);
            let all: Vec<u16> = (1..7).collect();
            world.part(&[0], &all);
        }
        finish(&mut world, Span::secs(120));
        settle(&mut world, 20);
    });
}

/// L-04, trap 14: a leader that is merely slow, orders nothing of one client, tells one replica
/// nothing, or proposes nothing in one pillar. Everybody is served all the same.
#[test]
fn a_leader_that_plays_favourites_starves_nobody() {
    each_seed(seeds(24, 600), |seed| {
        let mut world = world(options(seed));
        let behaviour = [
            Behaviour::StarveClient(ClientId(0)),
            Behaviour::StarveReplica(ReplicaId(2)),
            Behaviour::StarvePillar(PillarId(0)),
            Behaviour::SlowLeader(1_500_000),
        ][seed as usize % 4];
        world.misbehave(ReplicaId(0), behaviour);
        finish(&mut world, Span::secs(120));
    });
}

/// A leader proposes one batch to some and another to the rest: nobody executes both, and the
/// group gets itself another leader.
#[test]
fn a_leader_that_equivocates_divides_nobody() {
    each_seed(seeds(16, 600), |seed| {
        let mut world = world(options(seed));
        world.misbehave(ReplicaId(0), Behaviour::Equivocate);
        finish(&mut world, Span::secs(120));
    });
}

/// Traps 1 and 2, P-05: VIEW-CHANGEs and NEW-VIEWs with every kind of lie, signed by their liar.
/// The choice is made over distinct senders for one view, by everybody again, and no lie of f
/// replicas makes a committed value go away.
#[test]
fn forged_view_changes_lose_nothing() {
    each_seed(seeds(40, 2_000), |seed| {
        let mut world = world(options(seed));
        let n = world.options().n;
        let forger = ReplicaId((seed % 3) as u16);
        world.misbehave(forger, Behaviour::ForgeViewChange);
        if world.options().f > 1 {
            world.misbehave(ReplicaId(forger.0 + 1), Behaviour::ForgeViewChange);
        }
        // Whoever leads is cut off for a while, so that the forgers get their chance.
        for round in 0..4 {
            world.run_for(Span::millis(40 + seed % 50), |_| false);
            let all: Vec<u16> = (0..n).collect();
            let now = leader(&world);
            if round % 2 == 0 {
                world.part(&[now.0], &all);
            }
            world.run_for(Span::secs(2), |_| false);
            world.fault(Fault::Heal);
        }
        settle(&mut world, 20);
    });
}

/// Trap 2, P-06: what was prepared at one replica in an old view, and committed with another
/// value in a later one. Leaders are cut off at every moment of a round, again and again, so that
/// P and Q of different views compete.
#[test]
fn values_of_old_views_do_not_come_back() {
    each_seed(seeds(40, 4_000), |seed| {
        let mut world = world(Options {
            view_timeout: Span::millis(40),
            net: Net { delay_min_us: 20, delay_max_us: 4_000, ..Net::CALM },
            ..options(seed)
        });
        let n = u64::from(world.options().n);
        for round in 0..12u64 {
            let now = leader(&world);
            // The leader reaches a few, is heard by a few others, and then nobody.
            for peer in (0..n).filter(|peer| (seed >> ((peer + round) % 16)) & 1 == 0) {
                let peer = ReplicaId(peer as u16);
                world.fault(Fault::Cut(now, peer));
                if (seed + round + u64::from(peer.0)) % 3 == 0 {
                    world.fault(Fault::Cut(peer, now));
                }
            }
            world.run_for(Span::millis(20 + seed * 13 % 120), |_| false);
            world.fault(Fault::Heal);
            world.run_for(Span::millis(seed * 17 % 30), |_| false);
        }
        settle(&mut world, 20);
    });
}

/// Trap 3, P-07: two pillars of one replica hear of the view change at very different times. A
/// vote that leaves after its pillar's slice was taken could be for a value that the slice does
/// not know, which is how a committed value gets lost. The checker watches for such votes.
#[test]
fn no_pillar_votes_in_a_view_that_its_replica_has_left() {
    each_seed(seeds(30, 4_000), |seed| {
        let mut world = world(Options { pillars: 3, ..options(seed) });
        let n = world.options().n;
        for replica in 0..n {
            let pillar = PillarId(((seed + u64::from(replica)) % 3) as u16);
            let us = [100, 3_000, 60_000][seed as usize % 3];
            world.fault(Fault::Sluggish(ReplicaId(replica), pillar, us));
        }
        for _ in 0..3 {
            world.run_for(Span::millis(50 + seed % 60), |_| false);
            let now = leader(&world);
            world.stop(now);
            let before = highest_view(&world);
            world.run_for(Span::secs(10), |w| highest_view(w) > before);
            world.resume(now);
        }
        settle(&mut world, 20);
        assert!(highest_view(&world) >= View(1), "{}", world.describe());
    });
}

/// Trap 4: one pillar alone has work, so that all others owe null batches, also those that a
/// NEW-VIEW chooses; and what nulls displace is ordered again.
#[test]
fn idle_pillars_fill_their_gaps_over_view_changes() {
    each_seed(seeds(12, 300), |seed| {
        let mut world = world(Options { pillars: 4, clients: 1, outstanding: 1, ..options(seed) });
        world.run_for(Span::millis(60), |_| false);
        world.stop(ReplicaId(0));
        finish(&mut world, Span::secs(60));
        world.resume(ReplicaId(0));
        settle(&mut world, 20);
    });
}

/// Traps 9 and 14: a replica that hears nobody, or is heard by nobody, or both, comes back as a
/// learner and catches up, and takes nobody with it into another view.
#[test]
fn a_replica_alone_finds_back() {
    each_seed(seeds(20, 600), |seed| {
        let mut world = world(options(seed));
        let n = world.options().n;
        let alone = ReplicaId(1 + (seed % u64::from(n - 1)) as u16);
        world.run_for(Span::millis(50), |_| false);
        for peer in (0..n).map(ReplicaId).filter(|peer| *peer != alone) {
            if seed % 3 != 0 {
                world.fault(Fault::Cut(alone, peer));
            }
            if seed % 3 != 1 {
                world.fault(Fault::Cut(peer, alone));
            }
        }
        world.run_for(Span::secs(3), |_| false);
        settle(&mut world, 20);
    });
}

/// L-09: partitions that are not an equivalence: rings and stars of replicas that hear some of
/// the others. Whatever that does to views, it ends with the partition.
#[test]
fn partitions_of_every_kind_heal() {
    each_seed(seeds(24, 2_000), |seed| {
        let mut world = world(options(seed));
        let n = world.options().n;
        world.run_for(Span::millis(50), |_| false);
        for a in 0..n {
            for b in (0..n).filter(|b| *b != a) {
                let cut = match seed % 4 {
                    // Two halves.
                    0 => (a < n / 2) != (b < n / 2),
                    // A ring: everybody hears the next one only.
                    1 => (a + 1) % n != b,
                    // A star around one backup.
                    2 => a != 1 && b != 1,
                    // At random, each direction by itself.
                    _ => (seed >> ((a * 3 + b) % 24)) & 1 == 1,
                };
                if cut {
                    world.fault(Fault::Cut(ReplicaId(a), ReplicaId(b)));
                }
            }
        }
        world.run_for(Span::secs(5), |_| false);
        settle(&mut world, 20);
    });
}

/// L-09: one direction of one link is gone for good, and the group does not mind.
#[test]
fn a_one_way_link_to_or_from_the_leader_is_lived_with() {
    each_seed(seeds(12, 400), |seed| {
        let mut world = world(options(seed));
        let (leader, other) = (ReplicaId(0), ReplicaId(1 + seed as u16 / 2 % 3));
        let (from, to) = if seed % 2 == 0 { (leader, other) } else { (other, leader) };
        world.fault(Fault::Cut(from, to));
        finish(&mut world, Span::secs(120));
    });
}

/// Wishes for far views, and every old VIEW-CHANGE again: f replicas move nobody.
#[test]
fn wishes_and_old_view_changes_of_f_replicas_move_nobody() {
    each_seed(seeds(12, 400), |seed| {
        let mut world = world(options(seed));
        let how = [Behaviour::WishStorm, Behaviour::ReplayViewChanges][seed as usize / 2 % 2];
        let faulty = ReplicaId(world.options().n - 1);
        world.misbehave(faulty, how);
        finish(&mut world, Span::secs(60));
        assert_eq!(highest_view(&world), View(0), "{}", world.describe());
        // With a real view change in between there is something to replay.
        world.stop(ReplicaId(0));
        world.ask_more(50);
        finish(&mut world, Span::secs(60));
        world.resume(ReplicaId(0));
        settle(&mut world, 20);
        assert!(highest_view(&world) < View(20), "{}", world.describe());
    });
}

/// L-10: view changes one after another, under load. Nothing grows, and nobody is left behind.
#[test]
fn view_changes_one_after_another_leave_nothing_behind() {
    let mut world = world(Options {
        pillars: 2,
        window: 64,
        view_timeout: Span::millis(50),
        ops_per_client: u64::MAX >> 1,
        pace_us: 5_000,
        ..Options::default()
    });
    for round in 0..seeds(60, 1_000) {
        let now = leader(&world);
        let before = highest_view(&world);
        world.stop(now);
        let changed = world.run_for(Span::secs(60), |w| highest_view(w) > before);
        assert!(changed, "round {round}:\n{}", world.describe());
        world.resume(now);
        let completed = world.completed();
        let goes_on = world.run_for(Span::secs(60), |w| w.completed() > completed + 4);
        assert!(goes_on, "round {round}:\n{}", world.describe());
    }
    world.stop_asking();
    finish(&mut world, Span::secs(60));
    sim::scenario::check_memory(&world);
}

/// A backup that is paused and continued, as SIGSTOP and SIGCONT do, loses nothing; so does a
/// leader, which finds itself replaced.
#[test]
fn a_pause_is_survived() {
    each_seed(seeds(16, 400), |seed| {
        let mut world = world(options(seed));
        world.run_for(Span::millis(50), |_| false);
        let paused = ReplicaId((seed / 2 % 3) as u16);
        world.fault(Fault::Pause(paused));
        world.run_for(Span::secs(3), |_| false);
        world.fault(Fault::Continue(paused));
        settle(&mut world, 20);
    });
}

/// C-01 (big-MAC), trap 14: a client whose frames reach some replicas only, f or more of them,
/// gets no view changed, whatever becomes of its own frames.
#[test]
fn a_client_that_speaks_to_some_only_changes_no_view() {
    each_seed(seeds(12, 300), |seed| {
        let mut world = world(options(seed));
        world.harass(300);
        let limit = Span::secs(60);
        finish(&mut world, limit);
        assert_eq!(highest_view(&world), View(0), "{}", world.describe());
    });
}
