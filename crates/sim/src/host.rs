//! A simulated replica: its lanes, coordinator, stage, log and disk, and the links between them.
//!
//! The parts of a replica are message peers: what one tells another arrives later, in order per
//! link, never lost while the replica lives, but for what a full ring in `rt` drops too (`tempo`).
//! Not here: what the cores do with it, and the network.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::crypto::PlainKeys;
use base::{
    Epoch, FromStage, GroupId, Incarnation, Now, PillarId, Quorums, ReplicaId, Span, Stripe, Time,
    ToStage, View,
};
use durable::{Boot, FirstWords};
use exec::stage::{Stage, StageConfig, Target as StageTarget, TentativeReport};
use proto::group::link::FromCoordinator;
use proto::group::rules::Rules;
use proto::group::{Coordinator, CoordinatorConfig, GroupFact};
use proto::pbft::msg::Message;
use proto::pbft::{Batching, Idle, Input, Lane, LaneConfig, Reject, Switches};
use proto::{Effect, Outbox, Record, Target, group};

use crate::coverage::Sight;
use crate::crew::Crew;
use crate::disk::Disk;
use crate::events::{Event, Inside, Life, Part, Sender};
use crate::journal::{Journals, Promises};
use crate::observe::Notes;
use crate::options::{Durability, Options};
use crate::spoil::Spoil;
use crate::tempo::Tempo;
use crate::world::World;

/// The group of every world.
pub(crate) const GROUP: GroupId = GroupId([7; 32]);
/// Steps of lanes and stages from one look at a part's whole state to the next.
pub(crate) const CHECK_EVERY: u64 = 61;

/// Whether a replica's process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    Running,
    /// Stopped with all its memory: what arrives waits.
    Paused,
    Dead,
}

/// A replica of the group.
pub(crate) struct Replica {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) coordinator: Coordinator,
    pub(crate) stage: Stage,
    /// Who executes what does not depend on each other.
    pub(crate) crew: Crew,
    pub(crate) journals: Journals,
    /// What it has promised, over its lives.
    pub(crate) promises: Promises,
    pub(crate) disk: Disk,
    pub(crate) incarnation: Incarnation,
    pub(crate) life: Life,
    pub(crate) condition: Condition,
    /// The earliest turn already in the queue, per part.
    pub(crate) turns: BTreeMap<Part, Time>,
    /// How fast its parts are.
    pub(crate) tempo: Tempo,
    /// What happens while the process is paused.
    pub(crate) backlog: VecDeque<Event>,
    /// The service loses an object as soon as this is set.
    pub(crate) spoil: Arc<Spoil>,
    /// What the service sees.
    pub(crate) notes: Arc<Notes>,
    /// The state is wrong, until another one is fetched.
    pub(crate) spoiled: bool,
    /// The highest view of the coordinator.
    view: View,
    /// What was executed tentatively when it was looked at last.
    pub(crate) tentative: TentativeReport,
}

/// What a life of a replica goes on with.
pub(crate) struct Before {
    pub(crate) disk: Disk,
    pub(crate) promises: Promises,
    pub(crate) life: Life,
    /// Shared with the service.
    pub(crate) spoil: Arc<Spoil>,
    pub(crate) notes: Arc<Notes>,
}

impl Replica {
    /// A life of a replica, and what its coordinator wants done first: with the lanes, and then.
    pub(crate) fn new(
        options: &Options,
        now: Now,
        me: ReplicaId,
        mut boot: Boot,
        before: Before,
    ) -> (Replica, FirstWords, Vec<group::Effect>) {
        let Before { disk, promises, life, spoil, notes } = before;
        if options.reads() {
            boot.stage.answer_reads();
        }
        let config = coordinator_config(options, me, boot.incarnation);
        let (coordinator, mut effects) = boot.coordinator(config, keys(options, me), now);
        let words = FirstWords::split(&mut effects);
        let mut journals = Journals::new(options);
        // Before any lane makes the log begin another segment.
        journals.coordinator.carry(|| coordinator.records().into_iter().map(Record::Group));
        let lanes = (0..options.pillars).map(PillarId).map(|pillar| {
            let start = words.lane_start(&mut boot, pillar);
            Lane::restore(lane_config(options, me, pillar), keys(options, me), start)
        });
        let lanes = lanes.collect();
        let mut crew = Crew::new(options, me, life);
        crew.pace(&mut boot.stage);
        let replica = Replica {
            lanes,
            view: coordinator.report().view,
            coordinator,
            stage: boot.stage,
            crew,
            journals,
            promises,
            disk,
            incarnation: boot.incarnation,
            life,
            condition: Condition::Running,
            turns: BTreeMap::new(),
            tempo: Tempo::new(options, me, life),
            backlog: VecDeque::new(),
            spoil,
            notes,
            spoiled: false,
            tentative: TentativeReport::default(),
        };
        (replica, words, effects)
    }
}

/// Keys of a replica.
pub(crate) fn keys(options: &Options, me: ReplicaId) -> Box<PlainKeys> {
    Box::new(PlainKeys { me, n: options.n })
}

fn quorums(options: &Options) -> Quorums {
    Quorums::pbft(options.n, options.f).expect("n >= 3f + 1")
}

pub(crate) fn stripe(options: &Options) -> Stripe {
    Stripe::new(options.pillars).expect("pillars in range")
}

/// What a lane is told at its start.
pub(crate) fn lane_config(options: &Options, me: ReplicaId, pillar: PillarId) -> LaneConfig {
    LaneConfig {
        me,
        pillar,
        group: GROUP,
        epoch: Epoch(0),
        quorums: quorums(options),
        stripe: stripe(options),
        window: options.window,
        checkpoint_interval: options.checkpoint_interval,
        switches: Switches {
            leaders: options.leaders,
            commits: options.travel.commits,
            bodies: options.travel.bodies,
            tentative: options.answers.tentative,
            idle: options.travel.idle,
            reads: options.reads(),
        },
        batching: Batching {
            frames_max: if options.unbatched { 1 } else { 64 },
            bytes_max: 1 << 20,
            delay: Span(0),
            in_flight_max: if options.unbatched { 16 } else { 4 },
        },
        clock_skew_max: Span::secs(5),
        retransmit: Span::millis(20),
        view_timeout: options.view_timeout,
    }
}

pub(crate) fn coordinator_config(
    options: &Options,
    me: ReplicaId,
    incarnation: Incarnation,
) -> CoordinatorConfig {
    CoordinatorConfig {
        me,
        incarnation,
        group: GROUP,
        epoch: Epoch(0),
        quorums: quorums(options),
        stripe: stripe(options),
        window: options.window,
        checkpoint_interval: options.checkpoint_interval,
        leaders: options.leaders,
        view_timeout: options.view_timeout,
    }
}

/// What everybody judges signed messages by.
pub(crate) fn rules(options: &Options) -> Rules {
    coordinator_config(options, ReplicaId(0), Incarnation(1)).rules()
}

/// What a stage is told at its start.
pub(crate) fn stage_config(options: &Options) -> StageConfig {
    StageConfig {
        group: GROUP,
        stripe: stripe(options),
        checkpoint_interval: options.checkpoint_interval,
        window: 2 * options.window,
        nulls_ahead: options.travel.idle == Idle::Ahead,
        replicas: options.n,
    }
}

impl World {
    pub(crate) fn replica(&mut self, replica: ReplicaId) -> &mut Replica {
        &mut self.replicas[usize::from(replica.0)]
    }

    /// A part of a replica tells another: late, in order, and not lost, but for what a full ring
    /// to the stage need not take.
    pub(crate) fn tell(&mut self, replica: ReplicaId, from: Part, message: Inside) {
        let to = match &message {
            Inside::Lane(pillar, _) => Part::Lane(*pillar),
            Inside::Coordinator(_) => Part::Coordinator,
            Inside::Stage(_) => Part::Stage,
        };
        let us = self.prng.between(0, self.options.inside.delay_max_us);
        let now = self.queue.now();
        let host = self.replica(replica);
        if let Inside::Stage(message) = &message
            && host.tempo.drops(message)
        {
            return self.saw(Sight::RingFull);
        }
        let (at, life) = (host.tempo.arrives((from, to), now, us), host.life);
        self.queue.schedule_at(at, Event::Inside { replica, life, message });
    }

    fn tell_lanes(&mut self, replica: ReplicaId, from: Part, input: impl Fn() -> Input) {
        for pillar in self.pillars() {
            if from != Part::Lane(pillar) {
                self.tell(replica, from, Inside::Lane(pillar, input()));
            }
        }
    }

    pub(crate) fn hear(&mut self, replica: ReplicaId, message: Inside) {
        match message {
            Inside::Lane(pillar, input) => self.step_lane(replica, pillar, input),
            Inside::Coordinator(input) => self.step_coordinator(replica, input),
            Inside::Stage(message) => self.step_stage(replica, Some(message)),
        }
    }

    /// A message of another replica, or of its stage or coordinator.
    pub(crate) fn on_peer(
        &mut self,
        to: ReplicaId,
        pillar: PillarId,
        sender: Sender,
        message: Message,
    ) {
        let Sender { replica: from, incarnation } = sender;
        let from = self.identity(from);
        if !self.adversary.is_faulty(to) {
            self.checker.hears(to, from, &message);
        }
        match message {
            Message::Group(message) => {
                let message = Arc::unwrap_or_clone(message);
                let input = group::Input::Peer { from, incarnation, message };
                if pillar == PillarId(0) {
                    self.step_coordinator(to, input);
                }
            }
            Message::State(message) => {
                let message = ToStage::State { from, message: Arc::unwrap_or_clone(message) };
                let part = Part::Lane(pillar);
                self.tell(to, part, Inside::Stage(message));
            }
            message => self.step_lane(to, pillar, Input::Peer { from, incarnation, message }),
        }
    }

    pub(crate) fn turn(&mut self, replica: ReplicaId, part: Part) {
        let now = self.queue.now();
        let planned = self.replica(replica).turns.remove(&part);
        if let Some(planned) = planned.filter(|planned| *planned > now) {
            // An earlier turn was planned and held back by a pause.
            self.replica(replica).turns.insert(part, planned);
            return;
        }
        match part {
            Part::Lane(pillar) => self.step_lane(replica, pillar, Input::Turn),
            Part::Coordinator => self.step_coordinator(replica, group::Input::Turn),
            Part::Stage => self.step_stage(replica, Some(ToStage::Tick(now))),
            Part::Worker(worker) => self.turn_worker(replica, worker),
            Part::Bell => self.step_stage(replica, None),
            Part::Disk => self.write_checkpoint(replica),
            Part::Log => self.turn_log(replica),
        }
    }

    /// Plans a part's next turn, unless an earlier one is planned.
    pub(crate) fn plan(&mut self, replica: ReplicaId, part: Part, at: Time) {
        let at = at.max(self.queue.now());
        let host = self.replica(replica);
        if host.turns.get(&part).is_none_or(|planned| *planned > at) {
            host.turns.insert(part, at);
            let life = host.life;
            self.queue.schedule_at(at, Event::Turn { replica, life, part });
        }
    }

    /// When the turn is that an input of a lane or the coordinator is for, if not at once.
    fn turn_later(&mut self, replica: ReplicaId, part: Part) -> Option<Time> {
        let now = self.queue.now();
        let host = self.replica(replica);
        let later = host.tempo.turn_behind(now)?;
        if host.turns.get(&part).is_some_and(|planned| *planned < later) {
            self.saw(Sight::TurnLater);
        }
        Some(later)
    }

    pub(crate) fn step_lane(&mut self, replica: ReplicaId, pillar: PillarId, input: Input) {
        let now = self.clock_of(replica);
        let is_turn = matches!(input, Input::Turn);
        self.count_turn(replica, pillar);
        self.steps.sound += u64::from(!self.adversary.is_faulty(replica));
        let later = if is_turn { None } else { self.turn_later(replica, Part::Lane(pillar)) };
        let lane = &mut self.replicas[usize::from(replica.0)].lanes[usize::from(pillar.0)];
        let before = lane.view();
        let mut out = Outbox::new();
        let from = match &input {
            Input::Peer { from, .. } => Some(*from),
            _ => None,
        };
        let sin = match lane.step(now, input, &mut out) {
            Err(Reject::Misbehaviour(what)) => Some(what),
            _ => None,
        };
        if !is_turn && later.is_none() {
            let _ = lane.step(now, Input::Turn, &mut out);
        }
        // The whole state, whenever much has changed, and else now and then.
        self.steps.all += 1;
        if lane.view() != before || self.steps.all.is_multiple_of(CHECK_EVERY) {
            lane.check();
        }
        assert!(lane.view() >= before, "{replica:?} {pillar:?} goes back to an older view");
        let deadline = lane.deadline();
        self.refuses(replica, from.zip(sin));
        if self.steps.all.is_multiple_of(4 * CHECK_EVERY) {
            self.observe_memory(replica);
        }
        for effect in out.drain() {
            self.admit_lane(replica, pillar, effect);
        }
        self.replica(replica).journals.lanes[usize::from(pillar.0)].submit();
        self.plan_flush(replica);
        self.release_lane(replica, pillar);
        let at = deadline.expect("a lane always has a heartbeat");
        self.plan(replica, Part::Lane(pillar), later.map_or(at, |later| later.min(at)));
    }

    pub(crate) fn step_coordinator(&mut self, replica: ReplicaId, input: group::Input) {
        let now = self.clock_of(replica);
        let is_turn = matches!(input, group::Input::Turn);
        let later = if is_turn { None } else { self.turn_later(replica, Part::Coordinator) };
        let host = self.replica(replica);
        let mut out = Vec::new();
        let from = match &input {
            group::Input::Peer { from, .. } => Some(*from),
            _ => None,
        };
        let sin = match host.coordinator.step(now, input, &mut out) {
            Err(Reject::Misbehaviour(what)) => Some(what),
            _ => None,
        };
        if !is_turn && later.is_none() {
            let _ = host.coordinator.step(now, group::Input::Turn, &mut out);
        }
        host.coordinator.check();
        let report = host.coordinator.report();
        assert!(report.view >= host.view, "{replica:?} installs an older view");
        host.view = report.view;
        let deadline = host.coordinator.deadline();
        self.refuses(replica, from.zip(sin));
        self.admit_coordinator(replica, out);
        if let Some(at) = deadline.into_iter().chain(later).min() {
            self.plan(replica, Part::Coordinator, at);
        }
        self.watch_log(replica);
    }

    pub(crate) fn carry_from_stage(
        &mut self,
        replica: ReplicaId,
        target: StageTarget,
        message: FromStage,
    ) {
        match &message {
            FromStage::Checkpoint { seq, digest } if self.is_sound(replica) => {
                self.checker.checkpoints(replica, *seq, *digest);
            }
            FromStage::Checkpoint { seq, digest } => {
                // Equal to what others have: repaired, if it was spoilt before. More may have
                // been executed since.
                let right = self.checker.checkpoint(*seq) == Some(*digest);
                let host = self.replica(replica);
                host.spoiled &= !(right && host.spoil.is_done_by(*seq));
            }
            FromStage::Fetched { checkpoint, .. } => {
                self.checker.fetched(replica, checkpoint.seq);
                // Where there is a disk it is lost with the process until it is there.
                if self.options.durability == Durability::Memory {
                    self.replica(replica).promises.settle(checkpoint.seq);
                }
            }
            _ => {}
        }
        let lanes: Vec<PillarId> = match target {
            StageTarget::All => self.pillars().collect(),
            StageTarget::Pillar(one) => vec![one],
            StageTarget::Coordinator => Vec::new(),
        };
        if target == StageTarget::All || target == StageTarget::Coordinator {
            let input = group::Input::Stage(message.clone());
            self.tell(replica, Part::Stage, Inside::Coordinator(input));
        }
        for pillar in lanes {
            let input = Input::Stage(message.clone());
            self.tell(replica, Part::Stage, Inside::Lane(pillar, input));
        }
    }

    /// Carries an effect of a lane out, now or once it may be.
    fn admit_lane(&mut self, replica: ReplicaId, pillar: PillarId, effect: Effect) {
        let kept = self.options.durability != Durability::Memory;
        let host = self.replica(replica);
        if let Effect::Persist(record) = &effect
            && !kept
        {
            host.promises.note(record);
        }
        if let Some(effect) = host.journals.lanes[usize::from(pillar.0)].admit(effect) {
            self.perform_lane(replica, pillar, effect);
        }
    }

    /// Carries effects of the coordinator out, each now or once it may be.
    pub(crate) fn admit_coordinator(&mut self, replica: ReplicaId, out: Vec<group::Effect>) {
        let kept = self.options.durability != Durability::Memory;
        let mut carry = false;
        for effect in out {
            carry |= durable::is_carried(&effect);
            let host = self.replica(replica);
            if let group::Effect::Persist(record) = &effect
                && !kept
            {
                host.promises.note(&Record::Group(record.clone()));
            }
            if let Some(effect) = host.journals.coordinator.admit(effect) {
                self.perform_coordinator(replica, effect);
            }
        }
        let host = self.replica(replica);
        if carry {
            let core = &host.coordinator;
            let records = || core.records().into_iter().map(Record::Group);
            host.journals.coordinator.carry(records);
        }
        host.journals.coordinator.submit();
        self.plan_flush(replica);
        self.release_coordinator(replica);
    }

    /// Carries out what waited for the disk and need not wait any more.
    pub(crate) fn release(&mut self, replica: ReplicaId) {
        for pillar in self.pillars() {
            self.release_lane(replica, pillar);
        }
        self.release_coordinator(replica);
    }

    fn release_lane(&mut self, replica: ReplicaId, pillar: PillarId) {
        let lane = usize::from(pillar.0);
        while let Some(effect) = self.replica(replica).journals.lanes[lane].released() {
            self.perform_lane(replica, pillar, effect);
        }
    }

    fn release_coordinator(&mut self, replica: ReplicaId) {
        while let Some(effect) = self.replica(replica).journals.coordinator.released() {
            self.perform_coordinator(replica, effect);
        }
    }

    fn perform_lane(&mut self, replica: ReplicaId, pillar: PillarId, effect: Effect) {
        let part = Part::Lane(pillar);
        match effect {
            Effect::Send { to, message, .. } => self.send_peers(replica, pillar, to, &message),
            Effect::Stage(message) => {
                if let ToStage::Tentative { seq, view, .. } = &message
                    && !self.adversary.is_faulty(replica)
                {
                    self.replicas[usize::from(replica.0)].promises.check_prepared(*seq, *view);
                }
                if let ToStage::Deliver { seq, batch } = &message {
                    self.watch_delivery(batch);
                    if !self.adversary.is_faulty(replica) {
                        self.checker.delivers(replica, *seq, batch);
                    }
                }
                self.tell(replica, part, Inside::Stage(message));
            }
            Effect::Siblings(message) => {
                self.tell_lanes(replica, part, || Input::Sibling(message.clone()));
            }
            Effect::Coordinator(message) => {
                let input = group::Input::Lane(message);
                self.tell(replica, part, Inside::Coordinator(input));
            }
            Effect::Fact(fact) => self.watch_lane(replica, pillar, &fact),
            Effect::Persist(_) => {}
        }
    }

    fn perform_coordinator(&mut self, replica: ReplicaId, effect: group::Effect) {
        match effect {
            group::Effect::Send { to, message, .. } => {
                let message = Message::Group(Arc::new(message));
                self.send_peers(replica, PillarId(0), to, &message);
            }
            group::Effect::Lanes(message) => {
                if let FromCoordinator::Install(plan) = &message {
                    self.watch_plan(plan);
                    self.checker.installs(replica, plan);
                }
                let part = Part::Coordinator;
                self.tell_lanes(replica, part, || Input::Coordinator(message.clone()));
            }
            group::Effect::Stage(message) => {
                self.tell(replica, Part::Coordinator, Inside::Stage(message));
            }
            group::Effect::Fact(fact) => {
                self.watch_fact(replica, &fact);
                let host = self.replica(replica);
                match &fact {
                    GroupFact::Recovered(_) => {
                        host.disk.doubtful = false;
                        host.journals.coordinator.recovered();
                        host.disk.state_replaced();
                    }
                    GroupFact::Fetched(_) => host.disk.state_replaced(),
                    _ => {}
                }
                if !self.adversary.is_faulty(replica) {
                    let faulty = self.adversary.faulty();
                    self.checker.learns(replica, &fact, &faulty);
                }
            }
            group::Effect::State { to, message } => {
                let message = Message::State(Arc::new(message));
                self.send_peers(replica, PillarId(0), Target::One(to), &message);
            }
            group::Effect::Save(checkpoint) => self.begin_checkpoint(replica, checkpoint),
            group::Effect::Persist(_) => {}
        }
    }

    fn send_peers(&mut self, from: ReplicaId, pillar: PillarId, to: Target, message: &Message) {
        if !self.adversary.is_faulty(from) {
            let host = &self.replicas[usize::from(from.0)];
            match message {
                Message::Nulls(nulls) => nulls
                    .each(GROUP, stripe(&self.options))
                    .for_each(|one| host.promises.check(&one)),
                message => host.promises.check(message),
            }
            self.checker.says(from, message);
        }
        let me = self.identity(from);
        for peer in self.addresses() {
            let it = self.identity(peer);
            if it != me && (to == Target::All || to == Target::One(it)) {
                self.send_peer(from, pillar, peer, message);
            }
        }
    }
}
