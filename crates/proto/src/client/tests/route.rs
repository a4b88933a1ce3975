//! Whom a client shows its frames where their bodies travel with proposals.

use base::limits::INLINE_BYTES_MAX;
use base::reply::ReplyPacket;
use base::{FrameId, ReplicaId, ReplyStatus, SessionId, View};
use std::format;
use std::vec::Vec;

use super::super::SendTo;
use super::model::{World, config, reply, result_of};

fn world() -> World {
    let mut config = config(4, 1, 1);
    config.inline = true;
    World::open(config)
}

fn sent_to(world: &mut World) -> Vec<SendTo> {
    world.turn();
    world.sent.drain(..).map(|(_, to, _)| to).collect()
}

#[test]
fn a_small_frame_goes_to_the_leader_alone_until_it_is_late_and_samples_to_all() {
    let mut world = world();
    world.submit(0, "1", 1);
    assert_eq!(sent_to(&mut world), [SendTo::One(ReplicaId(0))]);
    world.lose_all();
    world.core.on_link(ReplicaId(1), base::PillarId(0));
    assert_eq!(sent_to(&mut world), [], "no business of others");
    world.core.on_link(ReplicaId(0), base::PillarId(0));
    assert_eq!(sent_to(&mut world), [SendTo::One(ReplicaId(0))]);
    world.millis += 1_001;
    assert_eq!(sent_to(&mut world), [SendTo::All]);
    world.settle();
    assert_eq!(world.done[&1], Ok(result_of(b"1")));
    let mut samples = 0;
    for token in 2..=64 {
        world.submit(0, &format!("{token}"), token);
        samples += sent_to(&mut world).iter().filter(|to| **to == SendTo::All).count();
        // The model takes a frame that a quorum has.
        world.millis += 20_000;
        world.turn();
        world.settle();
        world.sent.clear();
    }
    assert_eq!(samples, 2, "every 32nd frame");
}

#[test]
fn a_small_frame_waits_for_a_large_one_of_its_line() {
    let mut world = world();
    world.submit(0, &"x".repeat(INLINE_BYTES_MAX), 1);
    assert_eq!(sent_to(&mut world), [SendTo::All]);
    world.submit(0, "2", 2);
    assert_eq!(sent_to(&mut world), [], "it would be ordered first");
    world.settle();
    assert_eq!(world.done.len(), 1);
    assert_eq!(world.sent.pop().map(|(_, to, _)| to), Some(SendTo::One(ReplicaId(0))));
}

#[test]
fn two_replicas_say_who_leads_and_one_does_not() {
    let mut world = world();
    world.submit(0, "1", 1);
    world.turn();
    let (_, _, frame) = world.sent.pop().expect("it was sent");
    world.lose_all();
    let other = FrameId { session: SessionId(1), ..frame.id() };
    let stale = reply(other, 1, ReplyStatus::NoSession, &[]);
    let names = |world: &mut World, from: u16, view: u64| {
        let now = world.now();
        world.core.on_reply(now, ReplicaId(from), &ReplyPacket::whole(View(view), &stale));
        sent_to(world)
    };
    assert_eq!(names(&mut world, 3, 7), [], "one may lie");
    assert_eq!(names(&mut world, 2, 2), [SendTo::One(ReplicaId(2))], "what waits is shown anew");
    world.submit(0, "2", 2);
    assert_eq!(sent_to(&mut world), [SendTo::One(ReplicaId(2))]);
}
