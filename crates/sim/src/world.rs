//! A group and its clients on virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use base::crypto::PlainKeys;
use base::{
    AgreedTime, ClientId, Epoch, Frame, FromStage, GroupId, Incarnation, Now, PillarId, Quorums,
    ReplicaId, Sibling, Span, Stripe, Time, ToStage,
};
use exec::service::Service;
use exec::stage::{Stage, StageConfig, StageOutbox, Target as StageTarget, Turn};
use proto::client::{ClientConfig, ClientCore, Effect as ClientEffect, SendTo};
use proto::pbft::msg::Message;
use proto::pbft::{Batching, Input, Lane, LaneConfig};
use proto::{Effect, Outbox, Target};

use crate::adversary::Adversary;
use crate::check::Checker;
pub use crate::counters::Counters;
use crate::counters::{expected, operation};
use crate::options::Options;
use crate::prng::Prng;

enum Event {
    Peer { to: ReplicaId, pillar: PillarId, from: ReplicaId, message: Message },
    Request { to: ReplicaId, pillar: PillarId, frame: Arc<Frame> },
    Reply { to: usize, from: ReplicaId, content: Arc<Vec<u8>> },
    ToStage { replica: ReplicaId, message: ToStage },
    FromStage { replica: ReplicaId, pillar: PillarId, message: FromStage },
    Sibling { replica: ReplicaId, pillar: PillarId, message: Sibling },
    LaneTurn { replica: ReplicaId, pillar: PillarId },
    ClientTurn { client: usize },
    Attack,
}

/// How often the faulty client strikes, in microseconds of virtual time.
const ATTACK_EVERY_US: u64 = 400;

struct Replica {
    lanes: Vec<Lane>,
    /// The earliest turn already in the queue, per lane.
    turns: Vec<Option<Time>>,
    stage: Stage,
}

struct Client {
    core: ClientCore<u64>,
    submitted: u64,
    completed: u64,
    turn: Option<Time>,
}

/// A group, its clients and the network between them.
pub struct World {
    options: Options,
    stripe: Stripe,
    now: Time,
    prng: Prng,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    down: BTreeSet<ReplicaId>,
    adversary: Adversary,
    attacks_left: u32,
    lane_turns: u64,
    checker: Checker,
    /// A digest of everything that happened: equal seeds give equal traces.
    trace: u64,
}

/// The wall clock at virtual time zero.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

impl World {
    /// A world in which every replica runs a service that `service` makes.
    ///
    /// # Panics
    /// When the options contradict each other.
    #[must_use]
    pub fn new(options: Options, service: impl Fn() -> Box<dyn Service>) -> World {
        let quorums = Quorums::pbft(options.n, options.f).expect("n >= 3f + 1");
        let stripe = Stripe::new(options.pillars).expect("pillars in range");
        let group = GroupId([7; 32]);
        let replica = |me: ReplicaId| Replica {
            lanes: (0..options.pillars).map(|p| lane(&options, me, PillarId(p))).collect(),
            turns: vec![None; usize::from(options.pillars)],
            stage: Stage::new(
                StageConfig {
                    group,
                    stripe,
                    checkpoint_interval: options.checkpoint_interval,
                    window: 2 * options.window,
                },
                service(),
            ),
        };
        let now = Now { mono: Time::ZERO, wall: AgreedTime(EPOCH_NS) };
        let client = |id: u32| {
            let mut config = ClientConfig::new(group, quorums, stripe, ClientId(id));
            if options.unbatched {
                config = config.unbatched();
            }
            config.retransmit = Span::millis(100);
            let keys = Box::new(PlainKeys { me: ReplicaId(0), n: options.n });
            let core = ClientCore::new(config, keys, now);
            Client { core, submitted: 0, completed: 0, turn: None }
        };
        let mut world = World {
            stripe,
            now: Time::ZERO,
            prng: Prng::new(options.seed),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            replicas: quorums.replicas().map(replica).collect(),
            clients: (0..options.clients).map(client).collect(),
            down: BTreeSet::new(),
            adversary: Adversary::new(options.seed, options.n),
            attacks_left: 0,
            lane_turns: 0,
            checker: Checker::default(),
            trace: 0,
            options,
        };
        for client in 0..world.clients.len() {
            world.schedule(Span(0), Event::ClientTurn { client });
        }
        for replica in quorums.replicas() {
            for pillar in 0..options.pillars {
                let pillar = PillarId(pillar);
                world.schedule(Span(0), Event::LaneTurn { replica, pillar });
            }
        }
        world
    }

    /// Makes `replica` faulty: see [`Adversary`]. Nothing is asked of it from now on.
    pub fn corrupt(&mut self, replica: ReplicaId) {
        self.adversary.replica = Some(replica);
    }

    /// The faulty say nothing faulty any more. What they did stays.
    pub fn calm_down(&mut self) {
        self.adversary.quiet = true;
        self.attacks_left = 0;
    }

    /// A faulty client joins in, and sends `attacks` times.
    pub fn harass(&mut self, attacks: u32) {
        self.adversary.client = Some(ClientId(self.options.clients));
        self.attacks_left = attacks;
        self.schedule(Span(0), Event::Attack);
    }

    /// Turns of correct replicas' lanes so far: that an idle group has few.
    #[must_use]
    pub fn lane_turns(&self) -> u64 {
        self.lane_turns
    }

    /// The replicas of which something is asked: up and not faulty.
    #[must_use]
    pub fn correct(&self) -> Vec<ReplicaId> {
        let faulty = self.adversary.replica;
        let all = (0..self.options.n).map(ReplicaId);
        all.filter(|r| !self.is_down(*r) && Some(*r) != faulty).collect()
    }

    /// Takes `replica` off the network: it hears and says nothing from now on.
    pub fn stop(&mut self, replica: ReplicaId) {
        self.down.insert(replica);
    }

    /// Puts `replica` back on the network. It knows what it knew; what was said meanwhile is
    /// lost to it.
    pub fn resume(&mut self, replica: ReplicaId) {
        self.down.remove(&replica);
        for pillar in 0..self.options.pillars {
            let pillar = PillarId(pillar);
            self.replicas[usize::from(replica.0)].turns[usize::from(pillar.0)] = None;
            self.schedule(Span(0), Event::LaneTurn { replica, pillar });
            for peer in (0..self.options.n).map(ReplicaId).filter(|peer| *peer != replica) {
                self.step_lane(peer, pillar, Input::Connected { peer: replica });
                self.step_lane(replica, pillar, Input::Connected { peer });
            }
        }
    }

    /// Runs until `done` or until virtual time `limit` is reached; true when done.
    pub fn run_until(&mut self, limit: Span, done: impl Fn(&World) -> bool) -> bool {
        let end = Time::ZERO.after(limit);
        while self.now <= end {
            if done(self) {
                return true;
            }
            let Some(Reverse((at, id))) = self.queue.pop() else { return done(self) };
            self.now = self.now.max(at);
            self.trace = self.trace.rotate_left(5) ^ at.0 ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let event = self.events.remove(&id).expect("queued events are kept");
            self.dispatch(event);
        }
        done(self)
    }

    /// Whether every client has all its replies.
    #[must_use]
    pub fn clients_are_done(&self) -> bool {
        self.clients.iter().all(|client| client.completed == self.options.ops_per_client)
    }

    /// Whether every correct replica has executed the same, and as far as any.
    #[must_use]
    pub fn replicas_agree(&self) -> bool {
        let executed = |r: &ReplicaId| self.replicas[usize::from(r.0)].stage.progress().executed;
        let all: Vec<_> = self.correct().iter().map(executed).collect();
        all.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Digests of the present states of the correct replicas.
    pub fn state_digests(&mut self) -> Vec<base::Digest> {
        let correct = self.correct();
        let digest = |r: ReplicaId| self.replicas[usize::from(r.0)].stage.state_digest();
        correct.into_iter().map(digest).collect()
    }

    /// The shape of the world.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// Operations completed, of all clients together.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.clients.iter().map(|client| client.completed).sum()
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// A digest of everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// What was checked along the way.
    #[must_use]
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// The lane of a pillar, to look at.
    #[must_use]
    pub fn lane(&self, replica: ReplicaId, pillar: PillarId) -> &Lane {
        &self.replicas[usize::from(replica.0)].lanes[usize::from(pillar.0)]
    }

    /// What every lane reports, a line each: for the message of a failed scenario.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (i, replica) in self.replicas.iter().enumerate() {
            let progress = replica.stage.progress();
            text += &format!("r{i} executed {:?}\n", progress.executed);
            for lane in &replica.lanes {
                text += &format!("  {:?}\n", lane.report());
            }
        }
        text
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: AgreedTime(EPOCH_NS + self.now.0) }
    }

    fn schedule(&mut self, after: Span, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.insert(id, event);
        self.queue.push(Reverse((self.now.after(after), id)));
    }

    /// Sends over the network: late, never, or twice.
    fn send(&mut self, make: impl Fn() -> Event) {
        let net = self.options.net;
        let copies = 1 + u32::from(self.prng.chance(net.duplicate));
        for _ in 0..copies {
            if !self.prng.chance(net.loss) {
                let delay = self.prng.between(net.delay_min_us, net.delay_max_us);
                self.schedule(Span::micros(delay), make());
            }
        }
    }

    /// Sends inside a replica: in some order, never lost.
    fn send_inside(&mut self, event: Event) {
        let delay = self.prng.between(0, 20);
        self.schedule(Span::micros(delay), event);
    }

    fn is_down(&self, replica: ReplicaId) -> bool {
        self.down.contains(&replica)
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Peer { to, pillar, from, message } => {
                if !self.is_down(to) && !self.is_down(from) {
                    if self.adversary.replica == Some(to) {
                        self.adversary.hears(&message);
                    }
                    let incarnation = Incarnation(1);
                    self.step_lane(to, pillar, Input::Peer { from, incarnation, message });
                }
            }
            Event::Request { to, pillar, frame } => {
                if !self.is_down(to) {
                    self.step_lane(to, pillar, Input::Request(frame));
                }
            }
            Event::Reply { to, from, content } => {
                let now = self.clock();
                // The faulty client does not listen.
                if let Some(client) = self.clients.get_mut(to) {
                    client.core.on_reply(now, from, base::View(0), &content);
                    self.turn_client(to);
                }
            }
            Event::ToStage { replica, message } => self.on_stage(replica, message),
            Event::FromStage { replica, pillar, message: FromStage::Reply { frame, content } } => {
                let _ = pillar;
                if !self.is_down(replica) {
                    let to = frame.client.0 as usize;
                    let content = match self.adversary.replica == Some(replica) {
                        true => self.adversary.twist_reply(&content),
                        false => content,
                    };
                    self.send(|| Event::Reply { to, from: replica, content: content.clone() });
                }
            }
            Event::FromStage { replica, pillar, message } => {
                self.step_lane(replica, pillar, Input::Stage(message));
            }
            Event::Sibling { replica, pillar, message } => {
                self.step_lane(replica, pillar, Input::Sibling(message));
            }
            Event::LaneTurn { replica, pillar } => {
                let turn = &mut self.replicas[usize::from(replica.0)].turns[usize::from(pillar.0)];
                if turn.take().is_none_or(|at| at <= self.now) && !self.is_down(replica) {
                    self.step_lane(replica, pillar, Input::Turn);
                }
            }
            Event::Attack => self.attack(),
            Event::ClientTurn { client } => {
                self.clients[client].turn = None;
                self.turn_client(client);
            }
        }
    }

    fn attack(&mut self) {
        let Some(left) = self.attacks_left.checked_sub(1) else { return };
        self.attacks_left = left;
        self.schedule(Span::micros(ATTACK_EVERY_US), Event::Attack);
        for (to, frame) in self.adversary.attack() {
            let pillar = PillarId(self.prng.below(u64::from(self.options.pillars)) as u16);
            for to in to {
                self.send(|| Event::Request { to, pillar, frame: frame.clone() });
            }
        }
    }

    fn step_lane(&mut self, replica: ReplicaId, pillar: PillarId, input: Input) {
        let now = self.clock();
        let is_turn = matches!(input, Input::Turn);
        self.lane_turns += u64::from(self.adversary.replica != Some(replica));
        let lane = &mut self.replicas[usize::from(replica.0)].lanes[usize::from(pillar.0)];
        let mut out = Outbox::new();
        let _ = lane.step(now, input, &mut out);
        if !is_turn {
            let _ = lane.step(now, Input::Turn, &mut out);
        }
        lane.check();
        let deadline = lane.deadline();
        for effect in out.drain() {
            self.carry_out(replica, pillar, effect);
        }
        let at = deadline.expect("a lane always has a heartbeat").max(self.now);
        let planned = &mut self.replicas[usize::from(replica.0)].turns[usize::from(pillar.0)];
        if planned.is_none_or(|planned| planned > at) {
            *planned = Some(at);
            self.schedule(at.since(self.now), Event::LaneTurn { replica, pillar });
        }
    }

    fn carry_out(&mut self, replica: ReplicaId, pillar: PillarId, effect: Effect) {
        match effect {
            Effect::Send { to, message, .. } => {
                let others = (0..self.options.n).map(ReplicaId).filter(|peer| match to {
                    Target::All => *peer != replica,
                    Target::One(one) => *peer == one && one != replica,
                });
                for to in others {
                    let messages = match self.adversary.replica == Some(replica) {
                        true => self.adversary.twist(message.clone()),
                        false => vec![message.clone()],
                    };
                    for message in messages {
                        let from = replica;
                        self.send(|| Event::Peer { to, pillar, from, message: message.clone() });
                    }
                }
            }
            Effect::Stage(message) => {
                if let ToStage::Deliver { seq, batch } = &message
                    && self.adversary.replica != Some(replica)
                {
                    self.checker.delivers(replica, *seq, batch);
                }
                self.send_inside(Event::ToStage { replica, message });
            }
            Effect::Siblings(message) => {
                for sibling in (0..self.options.pillars).map(PillarId).filter(|p| *p != pillar) {
                    let message = message.clone();
                    self.send_inside(Event::Sibling { replica, pillar: sibling, message });
                }
            }
            Effect::Persist(_) | Effect::Fact(_) => {}
        }
    }

    fn on_stage(&mut self, replica: ReplicaId, message: ToStage) {
        let stage = &mut self.replicas[usize::from(replica.0)].stage;
        let mut out = StageOutbox::new();
        let _ = stage.on(message, &mut out);
        while stage.run(64, &mut out) == Turn::More {}
        stage.check();
        for (target, message) in out.messages {
            if let FromStage::Checkpoint { seq, digest } = &message
                && self.adversary.replica != Some(replica)
            {
                self.checker.checkpoints(replica, *seq, *digest);
            }
            let pillars = (0..self.options.pillars).map(PillarId).filter(|p| match target {
                StageTarget::All => true,
                StageTarget::Pillar(one) => *p == one,
            });
            for pillar in pillars.collect::<Vec<_>>() {
                let message = message.clone();
                self.send_inside(Event::FromStage { replica, pillar, message });
            }
        }
    }

    fn turn_client(&mut self, index: usize) {
        let now = self.clock();
        let options = self.options;
        let client = &mut self.clients[index];
        let mut sends = Vec::new();
        // Completions free room for submissions, which make more effects.
        loop {
            let outstanding = client.submitted - client.completed;
            let room = u64::from(options.outstanding) - outstanding;
            let more = room.min(options.ops_per_client - client.submitted);
            for _ in 0..more {
                let stream = u32::try_from(client.submitted % 8).expect("below 8");
                let op = operation(index, client.submitted);
                let token = client.submitted;
                client.core.submit(now, stream, &op, token).expect("within bounds");
                client.submitted += 1;
            }
            client.core.turn(now);
            client.core.check();
            let effects: Vec<ClientEffect<u64>> = client.core.drain().collect();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    ClientEffect::Send { pillar, to, frame } => sends.push((pillar, to, frame)),
                    ClientEffect::Done { tokens, outcome } => {
                        let results = match outcome {
                            Ok(results) => results,
                            Err(error) => panic!("client {index}: {error:?}\n{}", self.describe()),
                        };
                        assert_eq!(tokens.len(), results.len());
                        for (token, result) in tokens.iter().zip(results.iter()) {
                            assert_eq!(result, expected(index, *token), "client {index}");
                        }
                        client.completed += tokens.len() as u64;
                    }
                    _ => {}
                }
            }
        }
        let deadline = client.core.deadline();
        if let Some(at) = deadline.map(|at| at.max(now.mono))
            && client.turn.is_none_or(|planned| planned > at)
        {
            client.turn = Some(at);
            self.schedule(at.since(self.now), Event::ClientTurn { client: index });
        }
        for (pillar, to, frame) in sends {
            for replica in (0..self.options.n).map(ReplicaId) {
                if to == SendTo::All || to == SendTo::One(replica) {
                    self.send(|| Event::Request { to: replica, pillar, frame: frame.clone() });
                }
            }
        }
        debug_assert!(self.stripe.pillars() == self.options.pillars);
    }
}

fn lane(options: &Options, me: ReplicaId, pillar: PillarId) -> Lane {
    let config = LaneConfig {
        me,
        pillar,
        group: GroupId([7; 32]),
        epoch: Epoch(0),
        quorums: Quorums::pbft(options.n, options.f).expect("n >= 3f + 1"),
        stripe: Stripe::new(options.pillars).expect("pillars in range"),
        window: options.window,
        checkpoint_interval: options.checkpoint_interval,
        batching: Batching {
            frames_max: if options.unbatched { 1 } else { 64 },
            bytes_max: 1 << 20,
            delay: Span(0),
            in_flight_max: if options.unbatched { 16 } else { 4 },
        },
        clock_skew_max: Span::secs(5),
        retransmit: Span::millis(20),
    };
    Lane::new(config, Box::new(PlainKeys { me, n: options.n }))
}
