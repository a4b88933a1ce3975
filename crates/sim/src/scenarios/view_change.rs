//! Leaders that fail in every way, over whole groups in one thread.
//!

use super::Scenario;
use crate::scenario::{finish, leader, settle, world};
use crate::{Behaviour, Durability, Fault, Net, Options, Part, World};
use base::{ClientId, PillarId, ReplicaId, Span, View};
use proto::pbft::Leaders;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "the_group_goes_on_when_its_leader_ends",
        claim: "L-02: the leader ends in the middle of the load. One view change, and nobody \
                is told an error or gets an answer twice.",
        ci_seeds: 24,
        full_seeds: 600,
        run: the_group_goes_on_when_its_leader_ends,
    },
    Scenario {
        name: "leaders_that_fail_in_a_row_are_all_passed",
        claim: "L-08: the next leaders fail, too. Timeouts double, and the f + 1st leader \
                works.",
        ci_seeds: 12,
        full_seeds: 300,
        run: leaders_that_fail_in_a_row_are_all_passed,
    },
    Scenario {
        name: "a_leader_that_plays_favourites_starves_nobody",
        claim: "L-04, trap 14: a leader that is merely slow, orders nothing of one client, \
                tells one replica nothing, or proposes nothing in one pillar. Everybody is \
                served all the same.",
        ci_seeds: 24,
        full_seeds: 600,
        run: a_leader_that_plays_favourites_starves_nobody,
    },
    Scenario {
        name: "a_leader_that_equivocates_divides_nobody",
        claim: "A leader proposes one batch to some and another to the rest: nobody executes \
                both, and the group gets itself another leader.",
        ci_seeds: 16,
        full_seeds: 600,
        run: a_leader_that_equivocates_divides_nobody,
    },
    Scenario {
        name: "a_leader_that_confides_in_few_and_ends_stops_nobody",
        claim: "A leader whose last proposals reach f replicas only ends. Those cannot decide, \
                and the others know of no proposal: all of them complain, and a view changes.",
        ci_seeds: 24,
        full_seeds: 1_000,
        run: a_leader_that_confides_in_few_and_ends_stops_nobody,
    },
    Scenario {
        name: "a_replica_alone_in_its_departure_is_followed",
        claim: "One replica has left the view, and those who would have followed it lose power \
                before they do. A liar says that it votes in the old view, and nothing else, so \
                that a quorum seems to be there, with whoever leads. Clients are answered.",
        ci_seeds: 24,
        full_seeds: 1_000,
        run: a_replica_alone_in_its_departure_is_followed,
    },
    Scenario {
        name: "forged_view_changes_lose_nothing",
        claim: "Traps 1 and 2, P-05: VIEW-CHANGEs and NEW-VIEWs with every kind of lie, signed \
                by their liar. The choice is made over distinct senders for one view, by \
                everybody again, and no lie of f replicas makes a committed value go away.",
        ci_seeds: 40,
        full_seeds: 2_000,
        run: forged_view_changes_lose_nothing,
    },
    Scenario {
        name: "values_of_old_views_do_not_come_back",
        claim: "Trap 2, P-06: what was prepared at one replica in an old view, and committed \
                with another value in a later one. Leaders are cut off at every moment of a \
                round, again and again, so that P and Q of different views compete.",
        ci_seeds: 40,
        full_seeds: 4_000,
        run: values_of_old_views_do_not_come_back,
    },
    Scenario {
        name: "no_pillar_votes_in_a_view_that_its_replica_has_left",
        claim: "Trap 3, P-07: two pillars of one replica hear of the view change at very \
                different times. A vote that leaves after its pillar's slice was taken could \
                be for a value that the slice does not know, which is how a committed value \
                gets lost. The checker watches for such votes.",
        ci_seeds: 30,
        full_seeds: 4_000,
        run: no_pillar_votes_in_a_view_that_its_replica_has_left,
    },
    Scenario {
        name: "idle_pillars_fill_their_gaps_over_view_changes",
        claim: "Trap 4: one pillar alone has work, so that all others owe null batches, also \
                those that a NEW-VIEW chooses; and what nulls displace is ordered again.",
        ci_seeds: 12,
        full_seeds: 300,
        run: idle_pillars_fill_their_gaps_over_view_changes,
    },
    Scenario {
        name: "a_replica_alone_finds_back",
        claim: "Traps 9 and 14: a replica that hears nobody, or is heard by nobody, or both, \
                comes back as a learner and catches up, and takes nobody with it into another \
                view.",
        ci_seeds: 20,
        full_seeds: 600,
        run: a_replica_alone_finds_back,
    },
    Scenario {
        name: "partitions_of_every_kind_heal",
        claim: "L-09: partitions that are not an equivalence: rings and stars of replicas that \
                hear some of the others. Whatever that does to views, it ends with the \
                partition.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: partitions_of_every_kind_heal,
    },
    Scenario {
        name: "a_one_way_link_to_or_from_the_leader_is_lived_with",
        claim: "L-09: one direction of one link is gone for good, and the group does not mind.",
        ci_seeds: 12,
        full_seeds: 400,
        run: a_one_way_link_to_or_from_the_leader_is_lived_with,
    },
    Scenario {
        name: "wishes_and_old_view_changes_of_f_replicas_move_nobody",
        claim: "Wishes for far views, and every old VIEW-CHANGE again: f replicas move nobody.",
        ci_seeds: 12,
        full_seeds: 400,
        run: wishes_and_old_view_changes_of_f_replicas_move_nobody,
    },
    Scenario {
        name: "view_changes_one_after_another_leave_nothing_behind",
        claim: "L-10: view changes one after another, under load. Nothing grows, and nobody is \
                left behind.",
        ci_seeds: 1,
        full_seeds: 2,
        run: view_changes_one_after_another_leave_nothing_behind,
    },
    Scenario {
        name: "a_pause_is_survived",
        claim: "A backup that is paused and continued, as SIGSTOP and SIGCONT do, loses \
                nothing; so does a leader, which finds itself replaced.",
        ci_seeds: 16,
        full_seeds: 400,
        run: a_pause_is_survived,
    },
    Scenario {
        name: "a_client_that_speaks_to_some_only_changes_no_view",
        claim: "C-01 (big-MAC), trap 14: a client whose frames reach some replicas only, f or \
                more of them, gets no view changed, whatever becomes of its own frames.",
        ci_seeds: 12,
        full_seeds: 300,
        run: a_client_that_speaks_to_some_only_changes_no_view,
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

fn the_group_goes_on_when_its_leader_ends(seed: u64) {
    let mut world = world(options(seed));
    world.run_for(Span::millis(20 + seed * 7 % 200), |_| false);
    world.stop(ReplicaId(0));
    finish(&mut world, Span::secs(60));
    assert!(highest_view(&world) >= View(1), "{}", world.describe());
    world.resume(ReplicaId(0));
    settle(&mut world, 20);
}

fn leaders_that_fail_in_a_row_are_all_passed(seed: u64) {
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
}

fn a_leader_that_plays_favourites_starves_nobody(seed: u64) {
    let mut world = world(options(seed));
    let behaviour = [
        Behaviour::StarveClient(ClientId(0)),
        Behaviour::StarveReplica(ReplicaId(2)),
        Behaviour::StarvePillar(PillarId(0)),
        Behaviour::SlowLeader(1_500_000),
    ][seed as usize % 4];
    world.misbehave(ReplicaId(0), behaviour);
    finish(&mut world, Span::secs(120));
}

fn a_leader_that_equivocates_divides_nobody(seed: u64) {
    let mut world = world(options(seed));
    world.misbehave(ReplicaId(0), Behaviour::Equivocate);
    finish(&mut world, Span::secs(120));
}

fn a_leader_that_confides_in_few_and_ends_stops_nobody(seed: u64) {
    let mut world = world(options(seed));
    let (n, f) = (world.options().n, world.options().f);
    world.run_for(Span::millis(2 + seed % 40), |_| false);
    let leader = leader(&world);
    let others = (1..n).map(|ahead| ReplicaId((leader.0 + ahead) % n));
    for other in others.skip(usize::from(f)) {
        world.fault(Fault::Cut(leader, other));
    }
    // Long enough for every client to wait for what those few know.
    world.run_for(Span::millis(10 + seed % 90), |_| false);
    world.fault(Fault::Crash(leader));
    world.fault(Fault::Heal);
    let all = world.run_until(Span::secs(120), World::clients_are_done);
    assert!(all, "seed {seed}: {}", world.describe());
    world.fault(Fault::Restart(leader));
    finish(&mut world, Span::secs(120));
}

fn a_replica_alone_in_its_departure_is_followed(seed: u64) {
    let leaders = [Leaders::Fixed, Leaders::Rotating][seed as usize / 6 % 2];
    let shape = Options { n: 4, f: 1, durability: Durability::Sync, leaders, ..options(seed) };
    let mut world = world(shape.fitted());
    world.run_for(Span::millis(20 + seed % 60), |_| false);
    let first = ReplicaId(0);
    let mut rest: Vec<ReplicaId> = (1..4).map(ReplicaId).collect();
    let leaver = rest.remove(seed as usize / 2 % 3);
    let liar = if seed.is_multiple_of(2) { first } else { rest[seed as usize / 4 % 2] };
    // With the leader away all others want another one, and only one of them hears of that. Where
    // leaders rotate, one of those may lead what is missing, and blame nobody.
    match leaders {
        Leaders::Fixed => world.stop(first),
        Leaders::Rotating => rest.push(first),
    }
    for deaf in &rest {
        (0..4).map(ReplicaId).for_each(|peer| world.fault(Fault::Cut(peer, *deaf)));
    }
    let leaves = |w: &World| w.coordinator(leaver).report().asks_for.is_some();
    let left = world.run_for(Span::secs(60), leaves);
    if !left && leaders == Leaders::Rotating {
        // Two of them lead what they miss: one seed in a hundred.
        return settle(&mut world, 20);
    }
    assert!(left, "seed {seed}: nobody leaves: {}", world.describe());
    world.run_for(Span::millis(100), |_| false);
    rest.iter().for_each(|one| world.fault(Fault::PowerFails(*one)));
    if seed % 4 < 2 {
        world.fault(Fault::PowerFails(leaver));
        world.fault(Fault::Restart(leaver));
    }
    world.misbehave(liar, Behaviour::Present);
    world.fault(Fault::Heal);
    rest.iter().for_each(|one| world.fault(Fault::Restart(*one)));
    if leaders == Leaders::Fixed {
        world.resume(first);
    }
    assert!(leaves(&world) && highest_view(&world) == View(0), "{}", world.describe());
    let stay = world.correct().into_iter().filter(|one| *one != leaver);
    let stays = |one| world.coordinator(one).report().asks_for.is_none();
    assert!(stay.into_iter().all(stays), "{}", world.describe());
    world.ask_more(10);
    finish(&mut world, Span::secs(60));
    assert!(highest_view(&world) > View(0), "{}", world.describe());
    settle(&mut world, 20);
}

fn forged_view_changes_lose_nothing(seed: u64) {
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
}

fn values_of_old_views_do_not_come_back(seed: u64) {
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
            if (seed + round + u64::from(peer.0)).is_multiple_of(3) {
                world.fault(Fault::Cut(peer, now));
            }
        }
        world.run_for(Span::millis(20 + seed * 13 % 120), |_| false);
        world.fault(Fault::Heal);
        world.run_for(Span::millis(seed * 17 % 30), |_| false);
    }
    settle(&mut world, 20);
}

fn no_pillar_votes_in_a_view_that_its_replica_has_left(seed: u64) {
    let mut world = world(Options { pillars: 3, ..options(seed) });
    let n = world.options().n;
    for replica in 0..n {
        let pillar = PillarId(((seed + u64::from(replica)) % 3) as u16);
        let us = [100, 3_000, 60_000][seed as usize % 3];
        world.fault(Fault::Sluggish(ReplicaId(replica), Part::Lane(pillar), us));
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
}

fn idle_pillars_fill_their_gaps_over_view_changes(seed: u64) {
    let mut world = world(Options { pillars: 4, clients: 1, outstanding: 1, ..options(seed) });
    world.run_for(Span::millis(60), |_| false);
    world.stop(ReplicaId(0));
    finish(&mut world, Span::secs(60));
    world.resume(ReplicaId(0));
    settle(&mut world, 20);
}

fn a_replica_alone_finds_back(seed: u64) {
    let mut world = world(options(seed));
    let n = world.options().n;
    let alone = ReplicaId(1 + (seed % u64::from(n - 1)) as u16);
    world.run_for(Span::millis(50), |_| false);
    for peer in (0..n).map(ReplicaId).filter(|peer| *peer != alone) {
        if !seed.is_multiple_of(3) {
            world.fault(Fault::Cut(alone, peer));
        }
        if seed % 3 != 1 {
            world.fault(Fault::Cut(peer, alone));
        }
    }
    world.run_for(Span::secs(3), |_| false);
    settle(&mut world, 20);
}

fn partitions_of_every_kind_heal(seed: u64) {
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
}

fn a_one_way_link_to_or_from_the_leader_is_lived_with(seed: u64) {
    let mut world = world(options(seed));
    let (leader, other) = (ReplicaId(0), ReplicaId(1 + seed as u16 / 2 % 3));
    let (from, to) = if seed.is_multiple_of(2) { (leader, other) } else { (other, leader) };
    world.fault(Fault::Cut(from, to));
    finish(&mut world, Span::secs(120));
}

fn wishes_and_old_view_changes_of_f_replicas_move_nobody(seed: u64) {
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
}

fn view_changes_one_after_another_leave_nothing_behind(seed: u64) {
    let mut world = world(Options {
        pillars: 2,
        window: 64,
        view_timeout: Span::millis(50),
        ops_per_client: u64::MAX >> 1,
        seed,
        pace_us: 5_000,
        ..Options::default()
    });
    // A long run is a matter of the seed, too.
    let rounds = if seed == 0 { 60 } else { 1_000 };
    for round in 0..rounds {
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
    crate::scenario::check_memory(&mut world);
}

fn a_pause_is_survived(seed: u64) {
    let mut world = world(options(seed));
    world.run_for(Span::millis(50), |_| false);
    let paused = ReplicaId((seed / 2 % 3) as u16);
    world.fault(Fault::Pause(paused));
    world.run_for(Span::secs(3), |_| false);
    world.fault(Fault::Continue(paused));
    settle(&mut world, 20);
}

fn a_client_that_speaks_to_some_only_changes_no_view(seed: u64) {
    let mut world = world(options(seed));
    world.harass(300);
    let limit = Span::secs(60);
    finish(&mut world, limit);
    assert_eq!(highest_view(&world), View(0), "{}", world.describe());
}
