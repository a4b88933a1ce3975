//! The client core against a model of a group.

mod model;
mod reads;
mod repliers;
mod route;

use std::collections::BTreeMap;
use std::vec::Vec;
use std::{format, vec};

use base::limits::{self, STREAM_WINDOW};
use base::reply::ReplyPacket;
use base::{PillarId, ReplicaId, ReplyStatus, Seq, SessionId, Span, View};
use model::{CLIENT, WALL, World, at, config, reply, result_of};

use super::{Effect, OpError, SendTo, SubmitError};

/// Checks what must hold whatever the network did: each operation that completed did so with its
/// own result, was executed once, and each caller's stream in its order.
fn judge(world: &World, streams: &BTreeMap<u64, u32>) {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for op in &world.group.executed {
        let text = std::str::from_utf8(op).expect("text");
        let token: u64 = text.parse().expect("operations are their tokens");
        let before = last.insert(streams[&token], token);
        assert!(before < Some(token), "stream {}: {token} after {before:?}", streams[&token]);
    }
    for (token, result) in &world.done {
        let op = format!("{token}");
        let times = world.group.executed.iter().filter(|x| **x == op.as_bytes()).count();
        match result {
            Ok(result) => {
                assert_eq!(*result, result_of(op.as_bytes()));
                assert_eq!(times, 1, "operation {token}");
            }
            Err(_) => assert!(times <= 1, "operation {token}"),
        }
    }
}

#[test]
fn every_operation_is_executed_once_and_in_order_over_a_bad_network() {
    for seed in 1..=120u64 {
        let (n, f) = if seed % 3 == 0 { (7, 2) } else { (4, 1) };
        let mut config = config(n, f, 1 + u16::try_from(seed % 3).expect("small"));
        if seed % 2 == 0 {
            config = config.unbatched();
        }
        config.request_timeout = Span::secs(100_000);
        let mut world = World::new(config, seed);
        (world.loss, world.repeat, world.reorder) = (15, 15, true);
        world.group.liars = (0..f).collect();
        let streams: BTreeMap<u64, u32> =
            (0..60).map(|token| (token, u32::try_from(token % 5).expect("small"))).collect();
        for (token, stream) in &streams {
            world.submit(*stream, &format!("{token}"), *token);
            if world.dice.below(3) == 0 {
                world.turn();
                world.deliver();
            }
        }
        world.run(60);
        judge(&world, &streams);
        assert!(world.done.values().all(Result::is_ok), "seed {seed}");
        assert!(world.suspects.iter().all(|r| r.0 < f), "seed {seed}: a correct one is blamed");
        assert_eq!(world.core.held_ops(), 0);
    }
}

#[test]
fn lost_sessions_fail_what_is_in_flight_and_nothing_runs_twice() {
    let (mut lost, mut fine) = (0, 0);
    for seed in 1..=60u64 {
        let mut world = World::new(config(4, 1, 2), seed);
        (world.loss, world.repeat, world.reorder) = (10, 10, true);
        let streams: BTreeMap<u64, u32> =
            (0..80).map(|token| (token, u32::try_from(token % 3).expect("small"))).collect();
        for (token, stream) in &streams {
            world.submit(*stream, &format!("{token}"), *token);
            world.turn();
            for _ in 0..world.dice.below(12) {
                world.deliver();
                world.turn();
            }
            if world.dice.below(40) == 0 {
                world.group.evict_all();
            }
        }
        world.run(80);
        judge(&world, &streams);
        let errors = world.done.values().filter_map(|result| result.as_ref().err());
        errors.for_each(|error| assert_eq!(*error, OpError::SessionLost));
        lost += world.core.counters().sessions_lost;
        fine += world.core.counters().completed;
    }
    assert!(lost > 10 && fine > 1000, "the scenario does not happen: {lost}, {fine}");
}

#[test]
fn a_session_is_opened_above_the_highest_that_the_group_knows() {
    let mut world = World::new(config(4, 1, 1), 1);
    world.group.highest = SessionId(WALL + 500);
    world.settle();
    assert_eq!(world.opened.len(), 1, "{:?}", world.opened);
    assert!(world.opened[0] > SessionId(WALL + 500), "{:?}", world.opened);
    world.submit(0, "1", 1);
    world.settle();
    assert_eq!(world.done[&1], Ok(result_of(b"1")));
}

#[test]
fn processes_of_one_principal_whose_clocks_are_behind_open_sessions_of_their_own() {
    let highest = SessionId(WALL + 1_000_000_000);
    let opened = |millis| {
        let mut world = World::new(config(4, 1, 1), 1);
        world.millis = millis;
        world.group.highest = highest;
        world.settle();
        assert_eq!(world.opened.len(), 1, "{:?}", world.opened);
        world.opened[0]
    };
    let (one, other) = (opened(0), opened(1));
    assert!(one > highest && other > highest, "{one:?}, {other:?}");
    assert_ne!(one, other);
}

#[test]
fn f_liars_cannot_move_the_session_or_open_it() {
    let mut world = World::new(config(4, 1, 1), 1);
    world.turn();
    let id = world.sent[0].2.id();
    world.lose_all();
    for (seq, status) in [
        (1, ReplyStatus::StaleSession(SessionId(u64::MAX))),
        (2, ReplyStatus::Opened),
        (3, ReplyStatus::Opened),
        (4, ReplyStatus::NoSession),
    ] {
        let now = world.now();
        world.core.on_reply(
            now,
            ReplicaId(3),
            &ReplyPacket::whole(View(0), &reply(id, seq, status, &[])),
        );
        world.turn();
        assert_eq!((world.core.session(), world.core.is_open()), (SessionId(WALL), false));
    }
    world.millis = 1_000;
    world.settle();
    assert_eq!(world.opened, [SessionId(WALL)]);
}

#[test]
fn the_wall_clock_numbers_the_session() {
    let world = World::open(config(4, 1, 1));
    assert_eq!(world.opened, [SessionId(WALL)]);
}

#[test]
fn a_lone_operation_leaves_at_once_and_frames_grow_under_load() {
    let mut config = config(4, 1, 1);
    config.frames_in_flight_max = 2;
    let mut world = World::open(config);
    let sizes = |world: &World| -> Vec<usize> {
        world.sent.iter().map(|(_, _, frame)| frame.op_count()).collect()
    };
    for token in 0..12 {
        world.submit(token % 5, "1", u64::from(token));
        world.turn();
    }
    assert_eq!(sizes(&world), [1, 1], "two frames fly, the rest waits");
    world.settle();
    assert_eq!(sizes(&world), [1, 1, 10], "the rest leaves together");
    assert_eq!(world.order, (0..12).collect::<Vec<_>>());
}

#[test]
fn full_frames_leave_before_earlier_ones_are_answered_but_never_beyond_the_window() {
    let mut config = config(4, 1, 1);
    config.frame_ops_max = 3;
    config.frames_in_flight_max = 1;
    let mut world = World::open(config);
    for token in 0..1000 {
        world.submit(0, "1", token);
    }
    world.turn();
    assert!(world.sent.len() > 1);
    assert!(world.sent.len() as u64 <= STREAM_WINDOW);
    assert!(world.sent.iter().all(|(_, _, frame)| frame.op_count() == 3));
    world.settle();
    assert_eq!(world.order, (0..1000).collect::<Vec<_>>());
}

#[test]
fn unbatched_means_one_operation_per_frame_and_the_whole_window() {
    let mut world = World::open(config(4, 1, 1).unbatched());
    for token in 0..STREAM_WINDOW + 10 {
        world.submit(0, "1", token);
    }
    world.turn();
    assert_eq!(world.sent.len() as u64, STREAM_WINDOW);
    assert!(world.sent.iter().all(|(_, _, frame)| frame.op_count() == 1));
    world.settle();
    assert_eq!(world.done.len() as u64, STREAM_WINDOW + 10);
}

#[test]
fn streams_are_shared_out_over_the_pillars() {
    let mut world = World::open(config(4, 1, 3));
    for stream in 0..6 {
        world.submit(stream, "1", u64::from(stream));
        world.turn();
    }
    for (pillar, _, frame) in &world.sent {
        assert_eq!(u32::from(pillar.0), (CLIENT.0 + frame.id().stream) % 3);
    }
    let pillars: Vec<u16> = world.sent.iter().map(|(pillar, _, _)| pillar.0).collect();
    assert_eq!(pillars, [1, 2, 0, 1, 2, 0], "beginning where no other principal near it does");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut config = config(4, 1, 1);
    config.held_ops_max = 2;
    config.held_bytes_max = 100;
    let mut world = World::open(config);
    let now = world.now();
    let huge = vec![0; limits::OP_BYTES_MAX + 1];
    assert_eq!(world.core.submit(now, 0, &huge, 9), Err((SubmitError::TooLarge, 9)));
    assert_eq!(world.core.submit(now, 0, &[0; 97], 9), Err((SubmitError::Full, 9)));
    world.submit(0, "1", 1);
    world.submit(0, "2", 2);
    assert_eq!(world.core.submit(now, 0, b"3", 3), Err((SubmitError::Full, 3)));
    world.settle();
    world.submit(0, "3", 3);
    world.core.close(now);
    assert_eq!(world.core.submit(now, 0, b"4", 4), Err((SubmitError::Closed, 4)));
    world.settle();
    assert_eq!(world.done[&3], Err(OpError::Closed));
    assert!(world.closed);
}

/// The replies of frames that were in flight when the client closed its session come while it
/// closes: they answer frames that it has forgotten, not frames that it never sent.
#[test]
fn replies_that_come_while_the_session_closes_blame_nobody() {
    let mut world = World::open(config(4, 1, 1));
    world.submit(0, "1", 1);
    world.turn();
    let frame = world.sent.last().expect("it left").2.clone();
    let now = world.now();
    world.core.close(now);
    let late = world.core.counters().late_replies;
    let content = reply(frame.id(), 2, ReplyStatus::Executed, &[result_of(b"1")]);
    world.core.on_reply(now, ReplicaId(3), &ReplyPacket::whole(View(0), &content));
    assert_eq!(world.core.wrong_replies(ReplicaId(3)), 0);
    assert_eq!(world.core.counters().late_replies, late + 1);
}

#[test]
fn a_timeout_ends_the_waiting_but_not_the_frame() {
    let mut config = config(4, 1, 1);
    config.request_timeout = Span::secs(10);
    let mut world = World::open(config);
    world.submit(0, "1", 1);
    world.turn();
    world.lose_all();
    let mut times = vec![];
    while world.millis < 40_000 {
        world.millis += 100;
        let before = world.sent.len();
        world.turn();
        world.lose_all();
        if world.sent.len() > before {
            times.push(world.millis / 1000);
        }
    }
    assert_eq!(world.done[&1], Err(OpError::TimedOut));
    assert_eq!(times, [1, 3, 7, 15, 31], "each time twice as long");
    let first = world.sent[0].2.clone();
    assert!(world.sent.iter().all(|(_, to, frame)| *frame == first && *to == SendTo::All));
    // The stream goes on once the frame is answered.
    world.submit(0, "2", 2);
    world.run(2);
    assert_eq!(world.done[&2], Ok(result_of(b"2")));
    assert_eq!(world.group.executed, [b"1", b"2"]);
}

/// An answer waits for those before it, but no longer than their callers do.
#[test]
fn an_answer_leaves_once_all_before_it_were_answered_or_timed_out() {
    let mut config = config(4, 1, 1);
    config.request_timeout = Span::secs(10);
    let mut world = World::open(config);
    let mut ids = vec![];
    for token in 1..=3 {
        world.millis = token * 1_000;
        world.submit(0, &format!("{token}"), token);
        world.turn();
        ids.push(world.sent.last().expect("it left").2.id());
        world.lose_all();
    }
    let answer = |world: &mut World, token: u64| {
        let id = ids[token as usize - 1];
        let results = [result_of(format!("{token}").as_bytes())];
        let content = reply(id, 1 + token, ReplyStatus::Executed, &results);
        for from in 0..2 {
            let now = world.now();
            world.core.on_reply(now, ReplicaId(from), &ReplyPacket::whole(View(0), &content));
        }
        world.turn();
        world.lose_all();
    };
    answer(&mut world, 2);
    assert!(world.done.is_empty(), "its caller would see it before the one of the first");
    while world.millis < 11_000 {
        assert!(world.done.is_empty());
        let due = world.core.deadline().expect("the first one's time").0.div_ceil(1_000_000);
        world.millis = due.min(11_000);
        world.turn();
        world.lose_all();
    }
    assert_eq!(world.done[&1], Err(OpError::TimedOut));
    assert_eq!(world.done.get(&2), Some(&Ok(result_of(b"2"))), "nothing before it is to come");
    assert!(!world.done.contains_key(&3));
    // The same for one that is answered later; and the first frame is not forgotten.
    answer(&mut world, 3);
    assert_eq!(world.done.get(&3), Some(&Ok(result_of(b"3"))));
    assert_eq!(world.core.held_ops(), 3);
    answer(&mut world, 1);
    assert_eq!((world.order.as_slice(), world.core.held_ops()), (&[1, 2, 3][..], 0));
    assert_eq!((world.core.counters().completed, world.core.counters().failed), (2, 1));
}

#[test]
fn operations_that_were_never_sent_time_out_and_are_gone() {
    let mut config = config(4, 1, 1);
    config.request_timeout = Span::secs(10);
    config.frames_in_flight_max = 1;
    let mut world = World::open(config);
    world.submit(0, "1", 1);
    world.turn();
    world.lose_all();
    world.submit(0, "2", 2);
    world.millis = 10_000;
    world.turn();
    assert_eq!(world.done[&2], Err(OpError::TimedOut));
    world.submit(0, "3", 3);
    world.run(3);
    assert_eq!(world.group.executed, [b"1", b"3"]);
}

/// Or somebody would see what was submitted behind an operation that is never executed.
#[test]
fn what_waits_behind_an_operation_that_was_given_up_is_given_up_with_it() {
    let mut config = config(4, 1, 2);
    config.request_timeout = Span::secs(10);
    config.frames_in_flight_max = 1;
    let mut world = World::open(config);
    for stream in 0..2 {
        world.submit(stream, "1", u64::from(stream));
    }
    world.turn();
    world.lose_all();
    world.submit(0, "2", 2);
    world.millis = 5_000;
    world.submit(0, "3", 3);
    world.submit(1, "4", 4);
    world.millis = 10_000;
    world.turn();
    assert_eq!(world.done[&2], Err(OpError::TimedOut));
    assert_eq!(world.done[&3], Err(OpError::TimedOut), "its time is not over");
    assert!(!world.done.contains_key(&4), "another line");
    world.submit(0, "5", 5);
    world.run(6);
    assert_eq!(world.group.executed.iter().filter(|op| **op == b"3").count(), 0);
    assert!(world.done[&4].is_ok() && world.done[&5].is_ok());
}

#[test]
fn f_liars_convince_nobody_and_are_found_out() {
    let mut world = World::open(config(7, 2, 1));
    world.submit(0, "1", 1);
    world.turn();
    let id = world.sent[0].2.id();
    let lie = reply(id, 9, ReplyStatus::Executed, &[b"lie".to_vec()]);
    let truth = reply(id, 8, ReplyStatus::Executed, &[b"truth".to_vec()]);
    world.lose_all();
    let say = |world: &mut World, replica: u16, content: &[u8]| {
        let now = world.now();
        world.core.on_reply(now, ReplicaId(replica), &ReplyPacket::whole(View(0), content));
        world.turn();
    };
    for _ in 0..3 {
        say(&mut world, 0, &lie);
        say(&mut world, 1, &lie);
    }
    say(&mut world, 2, &truth);
    say(&mut world, 2, &truth);
    say(&mut world, 3, &truth);
    assert!(world.done.is_empty(), "two votes of one replica count once");
    say(&mut world, 4, &truth);
    assert_eq!(world.done[&1], Ok(b"truth".to_vec()));
    assert_eq!(world.suspects.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1]);
    // A lie that comes late is found out, too; a correct late reply is not one.
    say(&mut world, 5, &truth);
    say(&mut world, 6, &lie);
    assert_eq!(world.suspects.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1, 6]);
    assert_eq!(world.core.wrong_replies(ReplicaId(5)), 0);
}

#[test]
fn f_liars_cause_no_errand_by_nudging() {
    let mut world = World::new(config(7, 2, 1), 1);
    let nudge = |world: &mut World, from, seq| {
        world.core.on_nudge(ReplicaId(from), Seq(seq));
        world.core.nudged()
    };
    assert_eq!(nudge(&mut world, 0, u64::MAX), Seq(0));
    assert_eq!(nudge(&mut world, 1, u64::MAX), Seq(0));
    assert_eq!(nudge(&mut world, 1, u64::MAX), Seq(0), "the same one again");
    assert_eq!(nudge(&mut world, 2, 9), Seq(9), "the first correct one");
    assert_eq!(nudge(&mut world, 3, 5), Seq(9), "an older nudge that was late");
    assert_eq!(nudge(&mut world, 9, u64::MAX), Seq(9), "nobody");
    assert_eq!(world.core.counters().nudges, 5);
}

#[test]
fn replies_to_nothing_are_counted_and_dropped() {
    let mut world = World::open(config(4, 1, 1));
    world.submit(0, "1", 1);
    world.turn();
    let id = world.sent[0].2.id();
    let status = ReplyStatus::Executed;
    let bad = [
        vec![],
        vec![0xff; 100],
        reply(base::FrameId { id: 99, ..id }, 1, status, &[]),
        reply(base::FrameId { stream: 99, ..id }, 1, status, &[]),
        reply(base::FrameId { client: base::ClientId(99), ..id }, 1, status, &[]),
    ];
    for (at, content) in (1..).zip(&bad) {
        let now = world.now();
        world.core.on_reply(now, ReplicaId(3), &ReplyPacket::whole(View(0), content));
        assert_eq!(world.core.wrong_replies(ReplicaId(3)), at);
    }
    let now = world.now();
    world.core.on_reply(now, ReplicaId(64), &ReplyPacket::whole(View(0), &bad[0]));
    world.settle();
    assert_eq!(world.done[&1], Ok(result_of(b"1")));
}

/// Story: frame 1 is lost on its way to everybody, frame 2 is ordered first and refused. Both go
/// again, unchanged, 1 before 2, without waiting for the first one's timer.
#[test]
fn a_refused_frame_goes_again_behind_its_predecessor() {
    let mut world = World::open(config(4, 1, 1));
    world.submit(0, "1", 1);
    world.turn();
    world.lose_all();
    world.millis = 500;
    world.submit(0, "2", 2);
    world.settle();
    let ids: Vec<u64> = world.sent.iter().map(|(_, _, frame)| frame.id().id).collect();
    assert_eq!(ids, [1, 2, 1, 2]);
    assert_eq!(world.sent[0].2, world.sent[2].2);
    assert_eq!(world.sent[1].2, world.sent[3].2);
    assert_eq!(world.group.executed, [b"1", b"2"]);
    assert_eq!(world.core.counters().refused, 1);
    assert_eq!(world.order, [1, 2]);
}

#[test]
fn replies_that_are_gone_or_too_large_are_errors_of_their_own() {
    let mut world = World::open(config(4, 1, 1));
    let end = |world: &mut World, status, results: &[Vec<u8>]| {
        world.turn();
        let id = world.sent.last().expect("sent").2.id();
        world.lose_all();
        let content = reply(id, id.id, status, results);
        for replica in 0..2 {
            let now = world.now();
            world.core.on_reply(now, ReplicaId(replica), &ReplyPacket::whole(View(0), &content));
        }
        world.turn();
    };
    world.submit(0, "1", 1);
    end(&mut world, ReplyStatus::ReplyGone, &[]);
    assert_eq!(world.done[&1], Err(OpError::ReplyGone));
    world.submit(0, "2", 2);
    end(&mut world, ReplyStatus::Executed, &[vec![], vec![]]);
    assert_eq!(world.done[&2], Err(OpError::BadReply), "two results for one operation");
    world.submit(0, "3", 3);
    end(&mut world, ReplyStatus::TooLarge, &[]);
    assert_eq!(world.done[&3], Err(OpError::ResultTooLarge));
    // After that, frames are small until results are.
    world.submit(0, "4", 4);
    world.submit(0, "5", 5);
    world.sent.clear();
    world.turn();
    assert!(world.sent.iter().all(|(_, _, frame)| frame.op_count() == 1));
}

#[test]
fn a_link_that_comes_up_gets_what_is_in_flight_on_its_pillar() {
    let mut world = World::open(config(4, 1, 2));
    world.submit(0, "1", 1);
    world.submit(1, "2", 2);
    world.turn();
    world.sent.clear();
    // Its second line is at the first pillar, where every principal with an even number begins.
    world.core.on_link(ReplicaId(2), PillarId(0));
    let effects: Vec<_> = world.core.drain().collect();
    assert_eq!(effects.len(), 1);
    let Effect::Send { pillar, to, frame } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!((*pillar, *to), (PillarId(0), SendTo::One(ReplicaId(2))));
    assert_eq!(frame.ops().collect::<Vec<_>>(), [b"2"]);
}

#[test]
fn it_works_with_f_replicas_down_and_not_with_more() {
    let mut world = World::new(config(4, 1, 1), 1);
    world.down.insert(0);
    world.submit(0, "1", 1);
    world.run(1);
    assert_eq!(world.done[&1], Ok(result_of(b"1")));
    world.down.insert(1);
    world.submit(0, "2", 2);
    world.run(2);
    assert_eq!(world.done[&2], Err(OpError::TimedOut));
    assert!(world.now().mono >= at(30_000).mono);
}
