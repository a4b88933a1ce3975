//! A replica leaves a view: its lanes, its coordinator, and every order of what they hear.
//!
//! The lanes and the coordinator are the production cores; between them are queues, one for each
//! ordered pair, as in the replica. The others' messages come from outside, in one order per
//! part, and are delayed against everything else as one likes. A state is what every part has
//! heard so far, in order: the cores are deterministic, so that says all.
//!
//! What must hold (`docs/protocol/view-change.md`, V4 to V6): no lane votes below a view for
//! which it has handed over its slice; nobody votes below a view for which this replica has sent
//! its VIEW-CHANGE; and that VIEW-CHANGE tells of every vote that was ever cast below its view.

use std::collections::VecDeque;
use std::sync::Arc;

use base::crypto::PlainKeys;
use base::{
    AgreedTime, Digest, Epoch, GroupId, Incarnation, Keyring as _, Now, PillarId, Quorums,
    ReplicaId, Seq, Signature, Span, StableCheckpoint, Stripe, Time, View,
};
use proto::group::link::{FromCoordinator, ToCoordinator};
use proto::group::msg::{GroupMessage, ViewChange};
use proto::group::roster::Roster;
use proto::group::{self, Beginning, Coordinator, CoordinatorConfig};
use proto::pbft::msg::{Message, Proposal, Vote};
use proto::pbft::{Batching, Input, Lane, LaneConfig, Leaders, Switches};
use proto::{Effect, Outbox};

use crate::explore::{Model, Next};

const GROUP: GroupId = GroupId([3; 32]);
const N: u16 = 4;
/// The replica; it leads view 1.
const ME: ReplicaId = ReplicaId(1);
const PILLARS: usize = 2;
const INTERVAL: u64 = 8;
const WINDOW: u64 = 32;
const TIMEOUT: Span = Span::secs(10);
const NOW: Now = Now { mono: Time(1), wall: AgreedTime(1) };

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Nothing.
    None,
    /// The coordinator takes the first lane's answer for everybody's.
    FirstAnswerCounts,
    /// A lane's answer is given for it, before it has stopped.
    AnsweredForIt,
    /// What one lane has promised is left out.
    SliceForgotten,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    /// What is wrong on purpose.
    pub bug: Bug,
}

/// Who hears something next, and from whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hear {
    /// A lane, from another replica.
    LaneOutside(usize),
    /// A lane, from the coordinator.
    LaneInside(usize),
    /// The coordinator, from other replicas.
    CoordinatorOutside,
    /// The coordinator, from a lane.
    CoordinatorInside(usize),
}

/// What was heard by each part, in order: the lanes, then the coordinator.
pub type Heard = [Vec<Hear>; PILLARS + 1];

impl Model for Barrier {
    type State = Heard;
    type Action = Hear;

    fn initial(&self) -> Heard {
        Heard::default()
    }

    fn next(&self, state: &Heard) -> Next<Barrier> {
        let world = World::replayed(self.bug, state);
        world.check()?;
        let step = |hear: Hear| {
            let mut next = state.clone();
            next[part(hear)].push(hear);
            (hear, next)
        };
        Ok(world.possible().into_iter().map(step).collect())
    }
}

fn part(hear: Hear) -> usize {
    match hear {
        Hear::LaneOutside(lane) | Hear::LaneInside(lane) => lane,
        Hear::CoordinatorOutside | Hear::CoordinatorInside(_) => PILLARS,
    }
}

/// What left the replica, or passed between its parts, in the order in which it did.
enum Said {
    Voted { lane: usize, view: View, seq: Seq, digest: Digest, commit: bool },
    Slice { lane: usize, view: View },
    Change(Arc<ViewChange>),
}

struct World {
    bug: Bug,
    lanes: Vec<Lane>,
    coordinator: Coordinator,
    outside: [VecDeque<Message>; PILLARS],
    wishes: VecDeque<GroupMessage>,
    to_lane: [VecDeque<FromCoordinator>; PILLARS],
    to_coordinator: [VecDeque<ToCoordinator>; PILLARS],
    said: Vec<Said>,
}

impl World {
    fn new(bug: Bug) -> World {
        let quorums = Quorums::pbft(N, 1).expect("a legal group");
        let stripe = Stripe::new(2).expect("a legal striping");
        let (group, epoch) = (GROUP, Epoch(0));
        let (window, checkpoint_interval) = (WINDOW, INTERVAL);
        let incarnation = Incarnation(1);
        let cfg = CoordinatorConfig {
            me: ME,
            incarnation,
            group,
            epoch,
            quorums,
            stripe,
            window,
            checkpoint_interval,
            leaders: Leaders::Fixed,
            view_timeout: TIMEOUT,
        };
        let stable = StableCheckpoint::default();
        let coordinator = Coordinator::new(cfg, keys(ME.0), Beginning::Whole, stable, vec![]);
        let lane = |pillar| LaneConfig {
            me: ME,
            pillar,
            group,
            epoch,
            quorums,
            stripe,
            window,
            checkpoint_interval,
            switches: Switches::default(),
            batching: Batching {
                frames_max: 1,
                bytes_max: 1 << 10,
                delay: Span(0),
                in_flight_max: 4,
            },
            clock_skew_max: Span::secs(5),
            retransmit: Span::secs(1),
            view_timeout: TIMEOUT,
        };
        let pillars = [PillarId(0), PillarId(1)];
        let lanes = pillars.map(|pillar| Lane::new(lane(pillar), keys(ME.0))).into();
        let (to_lane, to_coordinator) = Default::default();
        let mut world = World {
            bug,
            lanes,
            coordinator,
            outside: pillars.map(|pillar| votes(stripe.next_of(pillar, Seq(0)))),
            wishes: wishes(),
            to_lane,
            to_coordinator,
            said: vec![],
        };
        // The very first step, before any lane is fed anything; what it says is heard at once.
        world.step_coordinator(group::Input::Turn);
        for lane in 0..PILLARS {
            while let Some(message) = world.to_lane[lane].pop_front() {
                world.step_lane(lane, Input::Coordinator(message));
            }
        }
        world
    }

    /// The world after these parts have heard this. Parts go ahead as far as they can: what one
    /// hears depends on what others were told before, whatever the order was.
    fn replayed(bug: Bug, heard: &Heard) -> World {
        let mut world = World::new(bug);
        let mut done = [0; PILLARS + 1];
        loop {
            let ready = |world: &World, part: usize| {
                let next = heard[part].get(done[part])?;
                world.possible().contains(next).then_some(*next)
            };
            let next = (0..=PILLARS).find_map(|part| ready(&world, part));
            let Some(next) = next else { break };
            done[part(next)] += 1;
            world.carry_out(next);
        }
        assert!((0..=PILLARS).all(|part| done[part] == heard[part].len()), "cannot be replayed");
        world
    }

    fn possible(&self) -> Vec<Hear> {
        let lanes = 0..PILLARS;
        let outside = lanes.clone().filter(|i| !self.outside[*i].is_empty());
        let inside = lanes.clone().filter(|i| !self.to_lane[*i].is_empty());
        let answers = lanes.filter(|i| !self.to_coordinator[*i].is_empty());
        let wishes = (!self.wishes.is_empty()).then_some(Hear::CoordinatorOutside);
        let all = outside.map(Hear::LaneOutside).chain(inside.map(Hear::LaneInside));
        all.chain(wishes).chain(answers.map(Hear::CoordinatorInside)).collect()
    }

    fn carry_out(&mut self, hear: Hear) {
        let incarnation = Incarnation(1);
        match hear {
            Hear::LaneOutside(lane) => {
                let message = self.outside[lane].pop_front().expect("is possible");
                let from = match &message {
                    Message::Prepare(vote) | Message::Commit(vote) => from_of(vote, &message),
                    _ => ReplicaId(0),
                };
                self.step_lane(lane, Input::Peer { from, incarnation, message });
            }
            Hear::LaneInside(lane) => {
                let message = self.to_lane[lane].pop_front().expect("is possible");
                self.step_lane(lane, Input::Coordinator(message));
            }
            Hear::CoordinatorOutside => {
                let message = self.wishes.pop_front().expect("is possible");
                let from = match &message {
                    GroupMessage::ViewChange(change) => change.replica,
                    _ if self.wishes.len() % 2 == 1 => ReplicaId(2),
                    _ => ReplicaId(3),
                };
                self.step_coordinator(group::Input::Peer { from, incarnation, message });
            }
            Hear::CoordinatorInside(lane) => {
                let message = self.to_coordinator[lane].pop_front().expect("is possible");
                self.tell_coordinator(lane, message);
            }
        }
    }

    fn tell_coordinator(&mut self, lane: usize, message: ToCoordinator) {
        let ToCoordinator::Slice { view, stable, mut entries, .. } = message.clone() else {
            return self.step_coordinator(group::Input::Lane(message));
        };
        let pillar = |lane| PillarId(u16::try_from(lane).expect("few"));
        if self.bug == Bug::SliceForgotten && lane == 1 {
            entries.clear();
        }
        let slice = |lane, entries| ToCoordinator::Slice {
            pillar: pillar(lane),
            view,
            stable: stable.clone(),
            entries,
        };
        self.step_coordinator(group::Input::Lane(slice(lane, entries)));
        if self.bug == Bug::FirstAnswerCounts {
            self.step_coordinator(group::Input::Lane(slice(1 - lane, vec![])));
        }
    }

    fn step_lane(&mut self, lane: usize, input: Input) {
        let mut out = Outbox::new();
        // A refusal is as good as an answer: the lane has counted it.
        let _ = self.lanes[lane].step(NOW, input, &mut out);
        let _ = self.lanes[lane].step(NOW, Input::Turn, &mut out);
        self.lanes[lane].check();
        for effect in out.drain() {
            match effect {
                Effect::Send { message, .. } => self.note_vote(lane, message),
                Effect::Coordinator(message) => {
                    if let ToCoordinator::Slice { view, .. } = &message {
                        self.said.push(Said::Slice { lane, view: *view });
                    }
                    self.to_coordinator[lane].push_back(message);
                }
                // Siblings tell each other only of proposals of their own and of checkpoints.
                _ => {}
            }
        }
    }

    fn note_vote(&mut self, lane: usize, message: Message) {
        let (commit, Vote { view, seq, digest }) = match message {
            Message::Prepare(vote) => (false, vote),
            Message::Commit(vote) => (true, vote),
            Message::PrePrepare { view, seq, proposal } => {
                let digest = proposal.digest(GROUP, seq);
                (false, Vote { view, seq, digest })
            }
            _ => return,
        };
        self.said.push(Said::Voted { lane, view, seq, digest, commit });
    }

    fn step_coordinator(&mut self, input: group::Input) {
        let mut out = vec![];
        let _ = self.coordinator.step(NOW, input, &mut out);
        let _ = self.coordinator.step(NOW, group::Input::Turn, &mut out);
        self.coordinator.check();
        for effect in out {
            match effect {
                group::Effect::Lanes(message) => self.tell_lanes(&message),
                group::Effect::Send { message: GroupMessage::ViewChange(change), .. } => {
                    self.said.push(Said::Change(change));
                }
                _ => {}
            }
        }
    }

    fn tell_lanes(&mut self, message: &FromCoordinator) {
        for lane in 0..PILLARS {
            self.to_lane[lane].push_back(message.clone());
        }
        if let (Bug::AnsweredForIt, FromCoordinator::Stop { view }) = (self.bug, message) {
            self.to_coordinator[1].push_back(ToCoordinator::Slice {
                pillar: PillarId(1),
                view: *view,
                stable: StableCheckpoint::default(),
                entries: vec![],
            });
        }
    }

    /// Looks at everything that was said.
    fn check(&self) -> Result<(), String> {
        let mut slices = [View(0); PILLARS];
        let mut changed = View(0);
        for said in &self.said {
            match said {
                Said::Slice { lane, view } => slices[*lane] = *view,
                Said::Change(change) => changed = change.view,
                Said::Voted { lane, view, seq, .. } if *view < slices[*lane] => {
                    return Err(format!("lane {lane} votes for {seq} in {view} after its slice"));
                }
                Said::Voted { lane, view, seq, .. } if *view < changed => {
                    let what = "votes after the replica's VIEW-CHANGE";
                    return Err(format!("lane {lane} {what}: {seq} in {view}"));
                }
                Said::Voted { .. } => {}
            }
        }
        let changes = self.said.iter().filter_map(|said| match said {
            Said::Change(change) => Some(change),
            _ => None,
        });
        changes.into_iter().try_for_each(|change| self.tells_of_all(change))
    }

    /// Whether a VIEW-CHANGE tells of every vote below its view, also of later ones.
    fn tells_of_all(&self, change: &ViewChange) -> Result<(), String> {
        for said in &self.said {
            let Said::Voted { view, seq, digest, commit, .. } = said else { continue };
            if *view >= change.view {
                continue;
            }
            let entry = change.entries.iter().find(|entry| entry.seq == *seq);
            let told = entry.is_some_and(|entry| match commit {
                true => entry.prepared.is_some_and(|(v, d)| v >= *view && d == *digest),
                false => entry.pre_prepared.iter().any(|(v, d)| v >= view && d == digest),
            });
            if !told {
                let kind = if *commit { "COMMIT" } else { "PREPARE" };
                return Err(format!("the VIEW-CHANGE does not tell of a {kind} for {seq}"));
            }
        }
        Ok(())
    }
}

/// Who a vote of [`votes`] is from: the first is of replica 2, the second of replica 3.
fn from_of(_: &Vote, message: &Message) -> ReplicaId {
    match message {
        Message::Prepare(_) => ReplicaId(2),
        _ => ReplicaId(3),
    }
}

/// What a lane hears in view 0: a proposal, then a vote that makes a quorum of it.
fn votes(seq: Seq) -> VecDeque<Message> {
    let view = View(0);
    let digest = Proposal::Null.digest(GROUP, seq);
    let vote = Vote { view, seq, digest };
    VecDeque::from([
        Message::PrePrepare { view, seq, proposal: Proposal::Null },
        Message::Prepare(vote),
        Message::Commit(vote),
    ])
}

/// What the coordinator hears: two wishes for view 1, then both VIEW-CHANGEs.
fn wishes() -> VecDeque<GroupMessage> {
    let wish = GroupMessage::Wish { wish: View(1), installed: View(0), recovering: false };
    let change = |replica: u16| {
        let rules = CoordinatorRules::of();
        let mut change = ViewChange {
            replica: ReplicaId(replica),
            incarnation: Incarnation(1),
            view: View(1),
            stable: StableCheckpoint::default(),
            entries: vec![],
            roster: Roster::default(),
            signature: Signature([0; 64]),
        };
        let signed = rules.change_signed(rules.change_digest(&change));
        change.signature = keys(replica).sign(&signed);
        GroupMessage::ViewChange(Arc::new(change))
    };
    VecDeque::from([wish.clone(), wish, change(2), change(3)])
}

/// The rules by which the VIEW-CHANGEs of the others are signed.
struct CoordinatorRules;

impl CoordinatorRules {
    fn of() -> proto::group::rules::Rules {
        proto::group::rules::Rules {
            group: GROUP,
            epoch: Epoch(0),
            quorums: Quorums::pbft(N, 1).expect("a legal group"),
            window: WINDOW,
            checkpoint_interval: INTERVAL,
        }
    }
}

fn keys(me: u16) -> Box<PlainKeys> {
    Box::new(PlainKeys { me: ReplicaId(me), n: N })
}
