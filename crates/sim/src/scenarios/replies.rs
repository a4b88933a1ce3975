//! Replicas that do not all answer, or not in full: what that costs when one of them fails.

use base::{ReplicaId, Span};

use super::Scenario;
use crate::adversary::Behaviour;
use crate::options::{Answers, Net, Options};
use crate::scenario::{PATIENCE, finish, settle, world};
use crate::world::World;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "nobody_asks_twice_while_nobody_fails",
        claim: "Trap 10: with digests, with relief and with both, every shape of group answers \
                everything, and nothing is asked for again while nobody fails.",
        ci_seeds: 16,
        full_seeds: 2_000,
        run: nobody_asks_twice_while_nobody_fails,
    },
    Scenario {
        name: "a_replica_that_does_not_answer_is_passed_over",
        claim: "Trap 10: f replicas that execute and do not answer, designated ones among them, \
                cost a client few questions, and are not relied on.",
        ci_seeds: 16,
        full_seeds: 2_000,
        run: a_replica_that_does_not_answer_is_passed_over,
    },
    Scenario {
        name: "a_designated_replica_that_lies_is_found_out",
        claim: "Trap 10: f replicas say the same wrong thing, by content and by digest. Nobody \
                believes them, and no correct replica is called a liar.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: a_designated_replica_that_lies_is_found_out,
    },
    Scenario {
        name: "answers_in_part_survive_a_bad_network",
        claim: "Trap 10: whatever is lost, repeated or late, and whoever ends and comes again, \
                everybody is answered.",
        ci_seeds: 16,
        full_seeds: 2_000,
        run: answers_in_part_survive_a_bad_network,
    },
];

fn options(seed: u64) -> Options {
    let pick = |of: u64, by: u64| seed / by % of;
    let (n, f) = [(4, 1), (7, 2)][pick(2, 1) as usize];
    let (digests, relief) = [(true, false), (true, true), (false, true)][pick(3, 2) as usize];
    Options {
        seed,
        n,
        f,
        answers: Answers { digests, relief, tentative: pick(3, 7) == 1 },
        pillars: 1 + pick(2, 3) as u16,
        clients: 1 + pick(3, 1) as u32,
        outstanding: [1, 8][pick(2, 5) as usize],
        unbatched: pick(3, 4) == 0,
        ops_per_client: 100,
        ..Options::default()
    }
}

fn fallbacks(world: &World) -> u64 {
    world.clients().map(|core| core.counters().fallbacks).sum()
}

fn nobody_asks_twice_while_nobody_fails(seed: u64) {
    let mut world = world(options(seed));
    finish(&mut world, PATIENCE);
    assert_eq!(fallbacks(&world), 0, "{}", world.describe());
}

fn a_replica_that_does_not_answer_is_passed_over(seed: u64) {
    let mut world = world(options(seed));
    let Options { f, clients, answers, .. } = world.options();
    world.run_for(Span::millis(seed % 7), |_| false);
    let silent = (0..f).map(|i| ReplicaId(i + (seed % 2) as u16)).collect::<Vec<_>>();
    silent.iter().for_each(|replica| world.miss_answers(*replica));
    finish(&mut world, PATIENCE);
    // f + 1 of those that answer in full are enough, once it is committed.
    let most = if answers.digests || answers.tentative {
        u64::from(clients) * 8 * u64::from(f)
    } else {
        0
    };
    assert!(fallbacks(&world) <= most, "{} times: {}", fallbacks(&world), world.describe());
    for core in world.clients() {
        assert!(core.avoided().iter().all(|r| silent.contains(&r)), "{}", world.describe());
    }
}

fn a_designated_replica_that_lies_is_found_out(seed: u64) {
    let mut world = world(options(seed));
    let Options { n, f, .. } = world.options();
    let liars = (0..f).map(|i| ReplicaId(n - 1 - i)).collect::<Vec<_>>();
    liars.iter().for_each(|liar| world.misbehave(*liar, Behaviour::WrongReplies));
    finish(&mut world, PATIENCE);
    for core in world.clients() {
        let honest = (0..n).map(ReplicaId).filter(|replica| !liars.contains(replica));
        let wrong: u64 = honest.map(|replica| core.wrong_replies(replica)).sum();
        assert_eq!(wrong, 0, "{}", world.describe());
    }
}

fn answers_in_part_survive_a_bad_network(seed: u64) {
    let mut world = world(Options { net: Net::BAD, ..options(seed) });
    for round in 0..3 {
        world.run_for(Span::millis(20 + seed % 30), |_| false);
        let one = ReplicaId((seed + round) as u16 % world.options().n);
        world.stop(one);
        world.run_for(Span::millis(300), |_| false);
        world.resume(one);
    }
    finish(&mut world, PATIENCE);
    settle(&mut world, 20);
}
