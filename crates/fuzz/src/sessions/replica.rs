//! A whole replica in memory, and what others tell it: two lanes, the coordinator and the stage.
//!
//! An input is a row of steps: a byte that says what happens, and where it is a packet, who it is
//! from, its length in two bytes, and its payload. Packets arrive as after the seal was opened.
//! With the top bit of the first byte set, what a replica signs in the packet is signed by its
//! sender before it arrives: a liar can sign, and what is not signed does not get far.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{
    AgreedTime, Epoch, Frame, FromStage, Incarnation, Keyring as _, Now, PillarId, Quorums, Reader,
    ReplicaId, Span, StableCheckpoint, Stripe, Time, ToStage, Writer,
};
use exec::stage::{Stage, StageConfig, StageOutbox, Target as StageTarget};
use proto::group::msg::{GroupMessage, NewView, ViewChange};
use proto::group::{self, Beginning, Coordinator, CoordinatorConfig};
use proto::pbft::msg::{Checkpoint, Message};
use proto::pbft::{Batching, Input, Lane, LaneConfig, Leaders, Switches};
use proto::{Effect, Outbox};
use svc::echo::EchoService;

use crate::samples::{self, CHECKPOINT_INTERVAL, GROUP, N, WINDOW};
use crate::target::{Outcome, Run};

/// The replica: it leads view 1.
const ME: ReplicaId = ReplicaId(1);
const PILLARS: u16 = 2;
/// Steps of the parts of a replica that one packet may lead to.
const STEPS_MAX: usize = 20_000;

/// What the parts tell each other.
enum Inside {
    Lane(usize, Input),
    Coordinator(group::Input),
    Stage(ToStage),
}

struct Replica {
    lanes: Vec<Lane>,
    coordinator: Coordinator,
    stage: Stage,
    inside: VecDeque<Inside>,
    now: Now,
    /// What was sent, by its type.
    sent: u64,
}

impl Replica {
    fn new() -> Replica {
        let rules = samples::rules();
        let stripe = Stripe::new(PILLARS).expect("a legal striping");
        let keys = || Box::new(samples::keys(ME.0));
        let (view_timeout, incarnation) = (Span::millis(400), Incarnation(1));
        let (window, checkpoint_interval) = (WINDOW, CHECKPOINT_INTERVAL);
        let cfg = CoordinatorConfig {
            me: ME,
            incarnation,
            group: GROUP,
            epoch: Epoch(0),
            quorums: rules.quorums,
            stripe,
            window,
            checkpoint_interval,
            leaders: Leaders::Fixed,
            view_timeout,
        };
        let stable = StableCheckpoint::default();
        let coordinator = Coordinator::new(cfg, keys(), Beginning::Whole, stable, vec![]);
        let lane = |pillar| LaneConfig {
            me: ME,
            pillar: PillarId(pillar),
            group: GROUP,
            epoch: Epoch(0),
            quorums: Quorums::pbft(N, 1).expect("a legal group"),
            stripe,
            window,
            checkpoint_interval,
            switches: Switches::default(),
            batching: Batching {
                frames_max: 16,
                bytes_max: 1 << 20,
                delay: Span(0),
                in_flight_max: 4,
            },
            clock_skew_max: Span::secs(5),
            retransmit: Span::millis(20),
            view_timeout,
        };
        let lanes = (0..PILLARS).map(|pillar| Lane::new(lane(pillar), keys())).collect();
        let config = StageConfig {
            group: GROUP,
            stripe,
            checkpoint_interval,
            window: 2 * WINDOW,
            nulls_ahead: false,
            replicas: 4,
        };
        let stage = Stage::new(config, Box::new(EchoService::new()));
        let now = Now { mono: Time(1), wall: AgreedTime(1_000) };
        let inside = VecDeque::from([Inside::Coordinator(group::Input::Turn)]);
        let mut replica = Replica { lanes, coordinator, stage, inside, now, sent: 0 };
        replica.settle();
        replica
    }

    /// Carries out everything that the parts have for each other, then gives each its turn.
    fn settle(&mut self) {
        for turn in [false, true] {
            if turn {
                (0..self.lanes.len())
                    .for_each(|i| self.inside.push_back(Inside::Lane(i, Input::Turn)));
                self.inside.push_back(Inside::Coordinator(group::Input::Turn));
            }
            for _ in 0..STEPS_MAX {
                let Some(next) = self.inside.pop_front() else { break };
                match next {
                    Inside::Lane(lane, input) => self.step_lane(lane, input),
                    Inside::Coordinator(input) => self.step_coordinator(input),
                    Inside::Stage(message) => self.step_stage(message),
                }
            }
            assert!(self.inside.is_empty(), "the parts of the replica never come to rest");
        }
    }

    fn step_lane(&mut self, lane: usize, input: Input) {
        let mut out = Outbox::new();
        // A refusal is an answer: the lane has counted it.
        let _ = self.lanes[lane].step(self.now, input, &mut out);
        for effect in out.drain() {
            match effect {
                Effect::Send { message, .. } => self.send(&message),
                Effect::Stage(message) => self.inside.push_back(Inside::Stage(message)),
                Effect::Siblings(message) => {
                    let other = 1 - lane;
                    self.inside.push_back(Inside::Lane(other, Input::Sibling(message)));
                }
                Effect::Coordinator(message) => {
                    self.inside.push_back(Inside::Coordinator(group::Input::Lane(message)));
                }
                Effect::Persist(record) => {
                    let mut bytes = vec![];
                    record.encode(&mut bytes);
                    let back = proto::Record::decode(GROUP, &mut Reader::new(&bytes));
                    assert!(back.as_ref() == Ok(&record), "{record:?} is not read back");
                }
                Effect::Fact(_) => {}
            }
        }
    }

    /// What leaves must be readable for the others.
    fn send(&mut self, message: &Message) {
        let mut bytes = vec![];
        message.encode(&mut bytes);
        let back = Message::decode(GROUP, &mut Reader::new(&bytes));
        assert!(back.as_ref() == Ok(message), "{message:?} is not read back");
        self.sent |= 1 << (bytes[0] & 31);
        if bytes[0] == 16 {
            self.sent |= 1 << (32 + (bytes[1] & 15));
        }
    }

    fn step_coordinator(&mut self, input: group::Input) {
        let mut out = vec![];
        let _ = self.coordinator.step(self.now, input, &mut out);
        for effect in out {
            match effect {
                group::Effect::Send { message, .. } => {
                    self.send(&Message::Group(Arc::new(message)))
                }
                group::Effect::State { message, .. } => {
                    self.send(&Message::State(Arc::new(message)));
                }
                group::Effect::Lanes(message) => {
                    for lane in 0..self.lanes.len() {
                        let input = Input::Coordinator(message.clone());
                        self.inside.push_back(Inside::Lane(lane, input));
                    }
                }
                group::Effect::Stage(message) => self.inside.push_back(Inside::Stage(message)),
                group::Effect::Save(_) => {
                    self.inside
                        .push_back(Inside::Coordinator(group::Input::Saved { written: true }));
                }
                group::Effect::Persist(_) | group::Effect::Fact(_) => {}
            }
        }
    }

    fn step_stage(&mut self, message: ToStage) {
        let mut out = StageOutbox::new();
        let _ = self.stage.on(message, &mut out);
        while self.stage.run(64, &mut out).more() {}
        for (target, message) in out.messages {
            self.pass_on(target, message);
        }
    }

    fn pass_on(&mut self, target: StageTarget, message: FromStage) {
        let lanes = match target {
            StageTarget::All => 0..self.lanes.len(),
            StageTarget::Pillar(pillar) => usize::from(pillar.0)..usize::from(pillar.0) + 1,
            StageTarget::Coordinator => 0..0,
        };
        for lane in lanes {
            self.inside.push_back(Inside::Lane(lane, Input::Stage(message.clone())));
        }
        if !matches!(target, StageTarget::Pillar(_)) {
            self.inside.push_back(Inside::Coordinator(group::Input::Stage(message)));
        }
    }

    fn hear(&mut self, from: ReplicaId, pillar: usize, message: Message) {
        let incarnation = Incarnation(1);
        let inside = match message {
            Message::Group(message) => {
                let message = Arc::unwrap_or_clone(message);
                Inside::Coordinator(group::Input::Peer { from, incarnation, message })
            }
            Message::State(message) => {
                Inside::Stage(ToStage::State { from, message: Arc::unwrap_or_clone(message) })
            }
            message => Inside::Lane(pillar, Input::Peer { from, incarnation, message }),
        };
        self.inside.push_back(inside);
    }

    fn check(&self) {
        self.lanes.iter().for_each(Lane::check);
        self.coordinator.check();
        self.stage.check();
    }
}

/// One step of an input; `None` at its end.
fn step(replica: &mut Replica, r: &mut Reader<'_>) -> Option<()> {
    let kind = r.u8("step").ok()?;
    match kind & 7 {
        0 => {
            let ms = u64::from(r.u8("time").ok()?) * 10;
            replica.now.mono = replica.now.mono.after(Span::millis(ms));
            replica.now.wall = AgreedTime(replica.now.wall.0 + ms);
            let tick = ToStage::Tick(replica.now.mono);
            replica.inside.push_back(Inside::Stage(tick));
        }
        1 => {
            let peer = ReplicaId(u16::from(r.u8("peer").ok()?) % N);
            (0..replica.lanes.len()).for_each(|lane| {
                replica.inside.push_back(Inside::Lane(lane, Input::Connected { peer }));
            });
            replica.inside.push_back(Inside::Coordinator(group::Input::Connected { peer }));
        }
        2 => {
            let len = usize::from(r.u16("length").ok()?).min(r.rest().len());
            let mut frames = Reader::new(r.bytes(len, "frames").ok()?);
            while let Ok(frame) = Frame::decode(GROUP, &mut frames) {
                replica.inside.push_back(Inside::Lane(0, Input::Request(Arc::new(frame))));
            }
        }
        _ => {
            let who = r.u8("sender").ok()?;
            let len = usize::from(r.u16("length").ok()?).min(r.rest().len());
            let mut messages = Reader::new(r.bytes(len, "packet").ok()?);
            let from = ReplicaId(u16::from(who) % N);
            if from != ME {
                while let Ok(message) = Message::decode(GROUP, &mut messages) {
                    let message = if kind & 0x80 != 0 { signed(from, message) } else { message };
                    replica.hear(from, usize::from(who >> 7), message);
                }
            }
        }
    }
    replica.settle();
    replica.check();
    Some(())
}

/// `message` with the signatures that its sender can make.
fn signed(from: ReplicaId, message: Message) -> Message {
    let (keys, rules) = (samples::keys(from.0), samples::rules());
    match message {
        Message::Checkpoint(said) => Message::Checkpoint(signed_checkpoint(from, said)),
        Message::Group(message) => {
            let message = match Arc::unwrap_or_clone(message) {
                GroupMessage::ViewChange(change) => {
                    let change = ViewChange { replica: from, ..Arc::unwrap_or_clone(change) };
                    GroupMessage::ViewChange(Arc::new(samples::sign_change(change)))
                }
                GroupMessage::NewView(nv) if nv.view.leader(N) == from => {
                    let nv = NewView::clone(&nv);
                    GroupMessage::NewView(Arc::new(samples::sign_new_view(nv)))
                }
                GroupMessage::Recover(mut recover) => {
                    recover.replica = from;
                    let bytes = rules.recover_signed(from, recover.incarnation, recover.view);
                    recover.signature = keys.sign(&bytes);
                    GroupMessage::Recover(recover)
                }
                GroupMessage::HaveState { seq, digest, signature, stable } => {
                    let said = signed_checkpoint(from, Checkpoint { seq, digest, signature });
                    GroupMessage::HaveState { seq, digest, signature: said.signature, stable }
                }
                other => other,
            };
            Message::Group(Arc::new(message))
        }
        other => other,
    }
}

fn signed_checkpoint(from: ReplicaId, said: Checkpoint) -> Checkpoint {
    let bytes = Checkpoint::signed_bytes(GROUP, Epoch(0), said.seq, said.digest);
    Checkpoint { signature: samples::keys(from.0).sign(&bytes), ..said }
}

/// A replica that is told things: nothing makes it panic, and its parts come to rest.
pub fn session() -> Run {
    Box::new(|bytes| {
        let mut replica = Replica::new();
        let mut r = Reader::new(bytes);
        for _ in 0..64 {
            if step(&mut replica, &mut r).is_none() {
                break;
            }
        }
        let views: Vec<u64> = replica.lanes.iter().map(|lane| lane.view().0).collect();
        let report = replica.coordinator.report();
        let executed = replica.stage.progress().executed.0;
        let refused: u64 = replica.lanes.iter().map(|lane| lane.report().misbehaviour).sum();
        Outcome::of((
            replica.sent,
            views,
            report.asks_for.is_some(),
            report.proofs,
            executed,
            refused > 0,
            report.misbehaviour > 0,
        ))
    })
}

fn packet(out: &mut Vec<u8>, who: u8, messages: &[Message]) {
    let mut bytes = vec![];
    messages.iter().for_each(|message| message.encode(&mut bytes));
    let len = u16::try_from(bytes.len()).expect("samples are small");
    Writer::new(out).u8(0x80 | 3).u8(who).u16(len).bytes(&bytes);
}

/// Sessions with all kinds of messages: agreement, a view change, and each message by itself.
#[must_use]
pub fn session_seeds() -> Vec<Vec<u8>> {
    let all = samples::messages();
    let mut agreement = vec![];
    let mut frames = vec![];
    samples::frames().iter().for_each(|frame| frame.encode(&mut frames));
    let len = u16::try_from(frames.len()).expect("samples are small");
    Writer::new(&mut agreement).u8(2).u16(len).bytes(&frames);
    // The leader proposes, the others vote; the replica has the bodies from their client.
    packet(&mut agreement, 0, &all[..1]);
    packet(&mut agreement, 2, &all[2..4]);
    packet(&mut agreement, 3, &all[2..4]);
    packet(&mut agreement, 0x80, &all[1..2]);
    let mut change = agreement.clone();
    let wish =
        GroupMessage::Wish { wish: base::View(1), installed: base::View(0), recovering: false };
    for who in [2, 3] {
        packet(&mut change, who, &[Message::Group(Arc::new(wish.clone()))]);
    }
    for who in [2u8, 3] {
        let said = samples::change(who.into(), 1, StableCheckpoint::default());
        packet(
            &mut change,
            who,
            &[Message::Group(Arc::new(GroupMessage::ViewChange(Arc::new(said))))],
        );
    }
    Writer::new(&mut change).u8(0).u8(50);
    let one = |message: &Message| {
        let mut out = vec![1, 3];
        packet(&mut out, 3, std::slice::from_ref(message));
        Writer::new(&mut out).u8(0).u8(30);
        out
    };
    let mut seeds: Vec<Vec<u8>> = all.iter().map(one).collect();
    seeds.extend([agreement, change]);
    seeds
}
