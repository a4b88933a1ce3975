//! The client core with replicas that do not all answer in full.

use std::format;
use std::vec;
use std::vec::Vec;

use base::reply::{DIGEST_WORTH_BYTES, Repliers, ReplyBody, ReplyPacket};
use base::{ReplicaId, ReplyStatus, Span, View, VoteSet};

use super::super::vote::LARGE_BYTES_MAX;
use super::super::{Acceptance, ClientConfig, OpError};
use super::model::{World, config, reply, result_of};

const LARGE: &str = "large 5000";

/// Groups of 4 and of 7, with digests, with relief, and with both.
fn configs() -> impl Iterator<Item = ClientConfig> {
    [(4, 1), (7, 2)].into_iter().flat_map(|(n, f)| {
        [(true, false), (false, true), (true, true)].into_iter().map(move |(digests, relief)| {
            let mut config = config(n, f, 1);
            let all = Repliers::all(config.quorums);
            config.repliers =
                all.with_digests(digests.then_some(DIGEST_WORTH_BYTES)).with_relief(relief);
            config.request_timeout = Span::secs(100_000);
            config
        })
    })
}

/// Does `count` operations one after the other; time passes when nothing else happens.
fn drive(world: &mut World, count: u64) {
    for token in 1..=count {
        let done = world.done.len();
        world.submit(0, LARGE, 1_000 + world.millis * 1_000 + token);
        world.settle();
        while world.done.len() == done {
            let due = world.core.deadline().expect("it waits for something");
            world.millis = due.0.div_ceil(1_000_000);
            world.settle();
        }
    }
    let right = Ok(result_of(LARGE.as_bytes()));
    assert!(world.done.values().all(|done| *done == right));
}

#[test]
fn answers_come_at_once_and_most_of_them_are_short() {
    let mut plain = World::open(config(4, 1, 1));
    drive(&mut plain, 20);
    for config in configs().filter(|config| config.quorums.n() == 4) {
        let mut world = World::open(config);
        world.reply_bytes = 0;
        drive(&mut world, 20);
        let counters = world.core.counters();
        assert_eq!((counters.resent, counters.fallbacks, world.millis), (0, 0, 0));
        let factor = if config.repliers.use_digests() { 3 } else { 1 };
        assert!(world.reply_bytes * factor < plain.reply_bytes, "{}", world.reply_bytes);
    }
}

#[test]
fn large_answers_need_no_second_question() {
    for config in configs().filter(|config| config.repliers.use_digests()) {
        let mut world = World::open(config);
        for token in 0..20 {
            world.submit(0, "large 1000000", token);
            world.turn();
        }
        world.run(20);
        assert_eq!(world.core.counters().fallbacks, 0);
        assert!(world.done.values().all(Result::is_ok));
    }
}

/// Where all answer in full, the first large answers are kept as far as there is room for all of
/// them, so that the others need not be hashed; and no further, whoever sends them.
#[test]
fn large_answers_of_all_are_kept_within_bounds() {
    let mut config = config(4, 1, 1);
    config.frame_ops_max = 1;
    config.frames_in_flight_max = 50;
    let mut world = World::open(config);
    (0..50).for_each(|token| world.submit(0, "operation", token));
    world.turn();
    let frames: Vec<_> = world.sent.iter().map(|(_, _, frame)| frame.id()).collect();
    assert_eq!(frames.len(), 50);
    let answer = |world: &mut World, from: u16| {
        for (frame, seq) in frames.iter().zip(1..) {
            let content = reply(*frame, seq, ReplyStatus::Executed, &[vec![7; 2 << 20]]);
            let body = ReplyBody::Whole(&content);
            let packet = ReplyPacket { view: View(0), tentative: false, body };
            world.core.on_reply(world.now(), ReplicaId(from), &packet);
        }
    };
    answer(&mut world, 0);
    let kept = |world: &World| {
        let flights = world.core.lines.iter().flat_map(|line| &line.flying);
        flights.map(|flight| flight.ballot.kept_bytes()).sum::<usize>()
    };
    assert!((62 << 20..=LARGE_BYTES_MAX).contains(&kept(&world)), "{}", kept(&world));
    answer(&mut world, 1);
    assert_eq!(world.core.counters().completed, 50, "those without room, too");
    assert_eq!(kept(&world), 0);
}

/// Whatever the network does, and f liars, one of which is designated now and then.
#[test]
fn everything_is_answered_right_over_a_bad_network() {
    let (mut fallbacks, mut passed) = (0, 0);
    for seed in 1..=90u64 {
        let mut config = configs().nth(seed as usize % 6).expect("there are six");
        if seed % 4 == 0 {
            config.acceptance = Acceptance::quorum(config.quorums);
        }
        let f = config.quorums.f();
        let mut world = World::new(config, seed);
        (world.loss, world.repeat, world.reorder) = (10, 10, true);
        world.group.liars = (0..f).collect();
        for token in 0..40u32 {
            let op = if token % 3 == 0 { format!("{token}") } else { LARGE.into() };
            world.submit(token % 5, &op, u64::from(token));
            if world.dice.below(3) == 0 {
                world.turn();
                world.deliver();
            }
        }
        world.run(40);
        assert!(world.done.values().all(Result::is_ok), "seed {seed}");
        for (token, done) in &world.done {
            let op = if token % 3 == 0 { format!("{token}") } else { LARGE.into() };
            assert_eq!(*done, Ok(result_of(op.as_bytes())), "seed {seed}");
        }
        assert!(world.suspects.iter().all(|r| r.0 < f), "seed {seed}: a correct one is blamed");
        fallbacks += world.core.counters().fallbacks;
        passed += world.core.avoided().len();
    }
    assert!(fallbacks > 50 && passed > 10, "the scenario does not happen: {fallbacks}, {passed}");
}

/// A designated replica that says nothing costs one short wait, and is passed over then.
#[test]
fn a_silent_designated_replica_costs_one_retry() {
    let config = configs().next().expect("digests alone");
    let mut world = World::open(config);
    world.down.insert(2);
    drive(&mut world, 40);
    let counters = world.core.counters();
    assert_eq!((counters.fallbacks, counters.resent), (1, 1));
    assert!(world.millis < 500, "{} ms: it waits for less than for a lost frame", world.millis);
    assert_eq!(world.core.avoided(), [ReplicaId(2)].into_iter().collect());
    assert_eq!((0..4).map(|r| world.core.missed_replies(ReplicaId(r))).max(), Some(1));
    assert_eq!(world.core.missed_replies(ReplicaId(2)), 1);
    assert!(world.suspects.is_empty(), "silence is no lie");
    // It is relied on again some time later, in vain, and not again for longer.
    for _ in 0..20 {
        world.millis += 1_000;
        drive(&mut world, 4);
    }
    let fallbacks = world.core.counters().fallbacks;
    assert!((3..=5).contains(&fallbacks), "{fallbacks}: after 1, 2, 4, 8 seconds");
    world.down.clear();
    world.millis += 60_000;
    drive(&mut world, 20);
    assert_eq!(world.core.avoided(), VoteSet::EMPTY);
}

/// One that was silent for long is passed over for long, also when it is well again. When another
/// one falls silent meanwhile, of which no more may be passed over, that costs a few retries, and
/// not one for every frame until the first one's time is over.
#[test]
fn who_is_silent_now_is_passed_over_before_who_was_once() {
    let config = configs().next().expect("digests alone");
    let mut world = World::open(config);
    world.down.insert(0);
    for _ in 0..130 {
        world.millis += 1_000;
        drive(&mut world, 4);
    }
    assert_eq!(world.core.avoided(), [ReplicaId(0)].into_iter().collect());
    let before = world.core.counters().fallbacks;
    world.down.clear();
    world.down.insert(2);
    world.millis += 1;
    drive(&mut world, 100);
    assert_eq!(world.core.avoided(), [ReplicaId(2)].into_iter().collect());
    let fallbacks = world.core.counters().fallbacks - before;
    assert!((1..=8).contains(&fallbacks), "{fallbacks}");
}

/// What was on its way together and comes to nothing together is one miss.
#[test]
fn who_leaves_many_frames_at_once_without_content_has_failed_once() {
    let mut config = configs().next().expect("digests alone");
    (config.frame_ops_max, config.frames_in_flight_max) = (1, 24);
    let mut world = World::open(config);
    world.down.insert(2);
    (0..24).for_each(|token| world.submit(0, LARGE, token));
    world.settle();
    assert!(world.done.len() < 24, "some need the other's content");
    // A turn that comes a bit late finds all of them due.
    world.millis += 600;
    world.settle();
    assert_eq!(world.done.len(), 24);
    let missed = world.core.missed_replies(ReplicaId(2));
    assert!(missed > 1, "the scenario does not happen: {missed}");
    assert_eq!(world.core.avoided(), [ReplicaId(2)].into_iter().collect());
    world.down.clear();
    world.millis += 1_500;
    world.turn();
    assert_eq!(world.core.avoided(), VoteSet::EMPTY, "for a second, not for minutes");
}

/// One that lies is found out by the digests of the others.
#[test]
fn a_lying_designated_replica_costs_one_retry_and_is_named() {
    for config in configs().filter(|config| config.repliers.use_digests()) {
        let mut world = World::open(config);
        world.group.liars.insert(1);
        drive(&mut world, 30);
        let counters = world.core.counters();
        assert_eq!((counters.fallbacks, counters.resent), (1, 1));
        assert_eq!(world.suspects, [ReplicaId(1)].into_iter().collect());
        assert!(world.core.avoided().contains(ReplicaId(1)));
    }
}

/// Relief leaves a quorum, of which one may be silent. Who needs a quorum asks again.
#[test]
fn a_quorum_of_a_quorum_takes_a_retry() {
    for config in configs().filter(|config| !config.repliers.use_digests()) {
        let mut world = World::open(config);
        world.down.insert(0);
        drive(&mut world, 20);
        assert_eq!(world.core.counters().resent, 0, "f + 1 of 2f + 1 are there");
        let mut world =
            World::open(ClientConfig { acceptance: Acceptance::quorum(config.quorums), ..config });
        world.down.insert(0);
        drive(&mut world, 20);
        let counters = world.core.counters();
        assert_eq!((counters.fallbacks, counters.resent), (1, 1));
    }
}

/// The liar's word alone makes nobody ask again, however often it answers first.
#[test]
fn f_replicas_do_not_make_a_client_ask_again() {
    let config = configs().next().expect("digests alone");
    let mut world = World::open(config);
    world.group.liars.insert(3);
    world.down.extend([0, 1, 2]);
    world.submit(0, LARGE, 1);
    world.turn();
    world.lose_all();
    let id = world.sent[0].2.id();
    let now = world.now();
    let lie = super::model::reply(id, 9, base::ReplyStatus::Executed, &[b"lie".to_vec()]);
    world.core.on_reply(now, ReplicaId(3), &base::reply::ReplyPacket::whole(base::View(0), &lie));
    world.turn();
    assert_eq!(world.core.deadline(), Some(base::Time(1_000_000_000)), "as if nobody had answered");
    assert!(world.done.get(&1).is_none_or(|done| *done == Err(OpError::TimedOut)));
}
