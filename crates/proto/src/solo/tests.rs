//! An unreplicated server's order, step by step. Whole servers run in `rt` and `node`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use base::crypto::{ClientKeyring, PlainKeys};
use base::{
    AgreedTime, Batch, ClientId, Digest, Epoch, Frame, FrameBuilder, FrameId, FromStage, GroupId,
    Incarnation, Keyring, Now, PillarId, Progress, Quorums, ReplicaId, Seq, SessionId, Sibling,
    Span, Stripe, Time, ToStage, limits,
};

use super::Solo;
use crate::outbox::{Effect, Outbox};
use crate::pbft::msg::{Checkpoint, Message};
use crate::pbft::{Batching, Input, LaneConfig, Reject};

const GROUP: GroupId = GroupId([7; 32]);
const NOW: Now = Now { mono: Time(1), wall: AgreedTime(1_000_000_000_000) };
const KEYS: PlainKeys = PlainKeys { me: ReplicaId(0), n: 1 };

struct Rig {
    solo: Solo,
    out: Outbox,
    now: Now,
}

impl Rig {
    fn new(pillar: u16, pillars: u16) -> Rig {
        let cfg = LaneConfig {
            me: ReplicaId(0),
            pillar: PillarId(pillar),
            group: GROUP,
            epoch: Epoch(0),
            quorums: Quorums::pbft(1, 0).expect("a group of one"),
            stripe: Stripe::new(pillars).expect("in range"),
            window: 16,
            checkpoint_interval: 4,
            switches: crate::pbft::Switches::default(),
            batching: Batching {
                frames_max: 4,
                bytes_max: 1 << 20,
                delay: Span(0),
                in_flight_max: 1,
            },
            clock_skew_max: Span::secs(5),
            retransmit: Span::millis(50),
            view_timeout: Span::secs(1),
        };
        Rig { solo: Solo::new(cfg, Box::new(KEYS)), out: Outbox::new(), now: NOW }
    }

    fn feed(&mut self, input: Input) -> Result<(), Reject> {
        let result = self.solo.step(self.now, input, &mut self.out);
        self.solo.check();
        result
    }

    /// Ends the turn; what was delivered since the last one: frames of each batch, none for null.
    fn turn(&mut self) -> Vec<(u64, Option<usize>)> {
        self.feed(Input::Turn).expect("turns are never refused");
        let delivered = |effect| match effect {
            Effect::Stage(ToStage::Deliver { seq, batch }) => match &*batch {
                Batch::Null => Some((seq.0, None)),
                Batch::Frames { frames, .. } => Some((seq.0, Some(frames.len()))),
            },
            Effect::Send { .. } | Effect::Persist(_) => panic!("there is nobody else, nor a disk"),
            _ => None,
        };
        self.out.drain().filter_map(delivered).collect()
    }

    fn executed(&mut self, seq: u64, deadline: Option<u64>) {
        let deadline = deadline.map(AgreedTime);
        let progress = Progress { executed: Seq(seq), time: AgreedTime(seq), deadline };
        self.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    }
}

fn frame(id: u64) -> Arc<Frame> {
    let id = FrameId { client: ClientId(3), session: SessionId(1), stream: 0, id };
    let mut builder = FrameBuilder::new();
    builder.push(b"op");
    Arc::new(builder.request(GROUP, id, 0, |digest| KEYS.authenticate(digest)))
}

/// No vote, no proposal, no record: what came in a turn is delivered at its end, in its order.
#[test]
fn a_batch_is_what_came_in_a_turn() {
    let mut rig = Rig::new(0, 1);
    assert_eq!(rig.turn(), []);
    (1..=2).for_each(|id| rig.feed(Input::Request(frame(id))).expect("room"));
    assert_eq!(rig.turn(), [(1, Some(2))]);
    (3..=8).for_each(|id| rig.feed(Input::Request(frame(id))).expect("room"));
    assert_eq!(rig.turn(), [(2, Some(4)), (3, Some(2))], "but no more than a batch may hold");
    assert_eq!(rig.turn(), []);
}

#[test]
fn order_waits_for_execution_and_a_quota_bounds_what_waits() {
    let mut rig = Rig::new(0, 1);
    let most = limits::PENDING_FRAMES_PER_CLIENT_MAX as u64;
    (1..=most).for_each(|id| rig.feed(Input::Request(frame(id))).expect("room"));
    assert_eq!(rig.feed(Input::Request(frame(most + 1))), Err(Reject::Quota));
    assert_eq!(rig.turn().len(), 16, "a window beyond execution");
    assert_eq!(rig.turn(), []);
    rig.executed(3, None);
    assert_eq!(rig.turn(), [(17, Some(4)), (18, Some(4)), (19, Some(4))]);
    rig.feed(Input::Request(frame(most + 1))).expect("what was executed has left");
}

#[test]
fn pillars_fill_their_numbers_for_each_other() {
    let mut rig = Rig::new(1, 3);
    rig.feed(Input::Sibling(Sibling::Proposed(Seq(7)))).expect("news");
    assert_eq!(rig.turn(), [(2, None), (5, None)]);
    rig.feed(Input::Stage(FromStage::Blocked { missing: Seq(8), highest: Seq(9) })).expect("news");
    assert_eq!(rig.turn(), [(8, None)]);
    rig.feed(Input::Request(frame(1))).expect("room");
    rig.feed(Input::Sibling(Sibling::Proposed(Seq(13)))).expect("news");
    assert_eq!(rig.turn(), [(11, Some(1))], "frames rather than null");
}

#[test]
fn a_checkpoint_is_stable_by_its_own_signature() {
    let mut rig = Rig::new(0, 1);
    let digest = Digest([9; 32]);
    rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(4), digest })).expect("news");
    let stable = rig.out.drain().find_map(|effect| match effect {
        Effect::Stage(ToStage::Stable(stable)) => Some(stable),
        _ => None,
    });
    let stable = stable.expect("the stage is told");
    let bytes = Checkpoint::signed_bytes(GROUP, Epoch(0), Seq(4), digest);
    assert!(matches!(&stable.proof[..], [(who, sig)] if KEYS.verify(*who, &bytes, sig)));
    assert_eq!((rig.solo.report().stable, rig.solo.report().stable_digest), (Seq(4), digest));
}

#[test]
fn an_idle_server_ticks_when_the_service_wants_it() {
    let mut rig = Rig::new(0, 1);
    rig.executed(0, Some(NOW.wall.0 + 1_000));
    assert_eq!(rig.turn(), []);
    let at = rig.solo.deadline().expect("a tick is planned");
    assert_eq!(at, Time(Span::millis(10).0), "never more often");
    rig.now.mono = at;
    assert_eq!(rig.turn(), [(1, Some(0))]);
    assert_eq!(rig.turn(), [], "not again before it is executed");
}

#[test]
fn there_are_no_peers() {
    let mut rig = Rig::new(0, 1);
    let (from, incarnation) = (ReplicaId(0), Incarnation(1));
    let message = Message::Vouch { executed: Seq(0), entries: vec![] };
    let told = rig.feed(Input::Peer { from, incarnation, message });
    assert!(matches!(told, Err(Reject::Misbehaviour(_))));
    assert_eq!(rig.solo.report().misbehaviour, 1);
}
