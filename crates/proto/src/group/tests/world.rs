//! A group of coordinators with lanes and stages that are as simple as can be, over links that
//! lose, delay and repeat, in virtual time. Every message and every record goes through its
//! bytes.
//!
//! What the model says of the rest of a replica: the group executes a checkpoint at a time while
//! the leader and a quorum of others that may vote have installed its view and stopped nothing;
//! everybody in reach of the logs follows.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use std::vec;

use base::transfer::{Manifest, SnapshotReader, StateAnswer, StateMessage};
use base::{
    Digest, FromStage, GroupId, Incarnation, Now, PillarId, Progress, Reader, ReplicaId, Seq, Span,
    StableCheckpoint, Time, ToStage, View,
};

use super::{Dice, K, L, certificate, config, keys};
use crate::group::link::{FromCoordinator, Grievance, ToCoordinator};
use crate::group::msg::GroupMessage;
use crate::group::record::GroupRecord;
use crate::group::{Beginning, Coordinator, Effect, GroupFact, Input};
use crate::outbox::Target;

pub(super) const PILLARS: u16 = 2;

/// One replica: its coordinator, and what its lanes and stage know.
pub(super) struct Node {
    pub(super) core: Option<Coordinator>,
    pub(super) incarnation: u64,
    pub(super) records: Vec<GroupRecord>,
    pub(super) facts: Vec<GroupFact>,
    /// The view in which the lanes vote; `None` when they have stopped.
    pub(super) votes_in: Option<View>,
    pub(super) installed: View,
    pub(super) may_vote: bool,
    pub(super) voting_above: Seq,
    pub(super) executed: Seq,
    pub(super) saved: Vec<StableCheckpoint>,
    filled: Seq,
    pins: BTreeMap<SnapshotReader, Seq>,
    kept: BTreeSet<Seq>,
    fetching: Option<(StableCheckpoint, Vec<ReplicaId>)>,
    /// The last state that it was given.
    fetched: Seq,
    delivered_at: Time,
}

enum Event {
    Input(u16, Input),
    Packet { to: u16, from: u16, incarnation: u64, bytes: Vec<u8> },
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) nodes: Vec<Node>,
    pub(super) dice: Dice,
    /// Up to where a quorum has executed everything.
    low: Seq,
    /// Percent of messages that are lost, and that come twice.
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) delay_ms: u64,
    /// Links that carry nothing, from and to.
    pub(super) cut: BTreeSet<(u16, u16)>,
    /// Nodes whose core is played by the test.
    pub(super) faulty: BTreeSet<u16>,
    /// Whether clients keep the group at work.
    pub(super) load: bool,
    /// Leaders that order nothing.
    pub(super) lazy: BTreeSet<u16>,
    pub(super) sent: u64,
    /// What correct replicas have said, as bytes; the latest of each length.
    pub(super) heard: BTreeMap<usize, Vec<u8>>,
    /// What a source answers in a transfer.
    pub(super) lying: BTreeSet<u16>,
    events: BTreeMap<(Time, u64), Event>,
    count: u64,
    n: u16,
    f: u16,
}

impl World {
    pub(super) fn new(n: u16, f: u16, seed: u64) -> World {
        let mut world = World {
            now: Time(1),
            nodes: vec![],
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            low: Seq(0),
            loss: 0,
            repeat: 0,
            delay_ms: 5,
            cut: BTreeSet::new(),
            faulty: BTreeSet::new(),
            load: true,
            lazy: BTreeSet::new(),
            sent: 0,
            heard: BTreeMap::new(),
            lying: BTreeSet::new(),
            events: BTreeMap::new(),
            count: 0,
            n,
            f,
        };
        for me in 0..n {
            world.nodes.push(Node {
                core: None,
                incarnation: 0,
                records: vec![],
                facts: vec![],
                votes_in: None,
                installed: View(0),
                may_vote: true,
                voting_above: Seq(0),
                executed: Seq(0),
                saved: vec![],
                filled: Seq(0),
                pins: BTreeMap::new(),
                kept: BTreeSet::new(),
                fetching: None,
                fetched: Seq(0),
                delivered_at: Time(1),
            });
            world.start(me, Beginning::Whole);
        }
        world
    }

    pub(super) fn core(&self, me: u16) -> &Coordinator {
        self.nodes[usize::from(me)].core.as_ref().expect("runs")
    }

    pub(super) fn node(&mut self, me: u16) -> &mut Node {
        &mut self.nodes[usize::from(me)]
    }

    pub(super) fn correct(&self) -> Vec<u16> {
        let up = |r: &u16| self.nodes[usize::from(*r)].core.is_some() && !self.faulty.contains(r);
        (0..self.n).filter(up).collect()
    }

    /// A life begins. A whole one knows everything that it knew; a forgetful one nothing.
    pub(super) fn start(&mut self, me: u16, beginning: Beginning) {
        let (n, f) = (self.n, self.f);
        let now = self.now;
        let node = self.node(me);
        if beginning == Beginning::Forgetful {
            (node.records, node.executed) = (vec![], Seq(0));
            (node.installed, node.voting_above) = (View(0), Seq(0));
        }
        node.incarnation += 1;
        node.may_vote = true;
        node.votes_in = Some(node.installed);
        node.delivered_at = now;
        (node.filled, node.fetching) = (Seq(0), None);
        (node.pins, node.kept) = (BTreeMap::new(), BTreeSet::new());
        let mut cfg = config(n, f, me, PILLARS);
        cfg.incarnation = Incarnation(node.incarnation);
        let stable = self.certified(self.nodes[usize::from(me)].executed);
        let node = self.node(me);
        let records = node.records.clone();
        let core = Coordinator::new(cfg, Box::new(keys(me)), beginning, stable, records);
        node.core = Some(core);
        self.input(me, Input::Turn);
        for peer in (0..n).filter(|peer| *peer != me) {
            self.later(1, Event::Input(me, Input::Connected { peer: ReplicaId(peer) }));
            self.later(1, Event::Input(peer, Input::Connected { peer: ReplicaId(me) }));
        }
    }

    pub(super) fn crash(&mut self, me: u16) {
        self.node(me).core = None;
    }

    pub(super) fn certified(&self, seq: Seq) -> StableCheckpoint {
        if seq == Seq(0) {
            return StableCheckpoint::default();
        }
        let cfg = config(self.n, self.f, 0, PILLARS);
        let count = u16::try_from(cfg.quorums.quorum()).unwrap();
        certificate(&cfg.rules(), seq.0, &(0..count).collect::<Vec<_>>())
    }

    fn later(&mut self, ms: u64, event: Event) {
        self.count += 1;
        let spread = self.dice.below(1_000_000);
        let at = self.now.after(Span(ms * 1_000_000 + spread));
        self.events.insert((at, self.count), event);
    }

    /// Feeds one input and carries out what follows.
    pub(super) fn input(&mut self, me: u16, input: Input) {
        let now = Now { mono: self.now, ..Now::default() };
        let Some(core) = self.node(me).core.as_mut() else { return };
        let mut out = vec![];
        let result = core.step(now, input, &mut out);
        core.check();
        if let Err(crate::pbft::Reject::Misbehaviour(what)) = result {
            assert!(!self.faulty.is_empty(), "a correct replica was found to misbehave: {what}");
        }
        for effect in out {
            self.carry_out(me, effect);
        }
    }

    fn carry_out(&mut self, me: u16, effect: Effect) {
        match effect {
            Effect::Send { to, message, .. } => self.send(me, to, &message),
            // What a source is asked for is in the state already.
            Effect::State { .. } => {}
            Effect::Persist(record) => {
                let mut bytes = vec![];
                record.encode(&mut bytes);
                let record = GroupRecord::decode(&mut Reader::new(&bytes)).expect("own record");
                self.node(me).records.push(record);
            }
            Effect::Lanes(message) => self.lanes(me, message),
            Effect::Stage(message) => self.stage(me, message),
            // What was fetched is written by itself; tests say so of what they have asked for.
            Effect::Save(stable) if self.node(me).fetched == stable.seq => {
                self.later(1, Event::Input(me, Input::Saved { written: true }));
            }
            Effect::Save(stable) => self.node(me).saved.push(stable),
            Effect::Fact(fact) => {
                if let GroupFact::Proof { accused, proof } = &fact {
                    assert!(self.faulty.contains(&accused.0), "a correct one accused: {proof:?}");
                }
                self.node(me).facts.push(fact);
            }
        }
    }

    pub(super) fn send(&mut self, from: u16, to: Target, message: &GroupMessage) {
        let mut bytes = vec![];
        message.encode(&mut bytes);
        assert!(bytes.len() <= message.encoded_len_max());
        let incarnation = self.nodes[usize::from(from)].incarnation;
        self.heard.insert(bytes.len() * 4 + usize::from(from), bytes.clone());
        let all: Vec<u16> = match to {
            Target::All => (0..self.n).filter(|r| *r != from).collect(),
            Target::One(one) => vec![one.0],
        };
        for to in all {
            self.sent += 1;
            if self.cut.contains(&(from, to)) || self.dice.chance(self.loss) {
                continue;
            }
            for _ in 0..1 + u64::from(self.dice.chance(self.repeat)) {
                let delay = self.dice.below(self.delay_ms.max(1));
                let bytes = bytes.clone();
                self.later(delay, Event::Packet { to, from, incarnation, bytes });
            }
        }
    }

    fn lanes(&mut self, me: u16, message: FromCoordinator) {
        match message {
            FromCoordinator::Stop { view } => {
                let stable = self.certified(self.nodes[usize::from(me)].executed);
                self.node(me).votes_in = None;
                for pillar in (0..PILLARS).map(PillarId) {
                    let (stable, entries) = (stable.clone(), vec![]);
                    let slice = ToCoordinator::Slice { pillar, view, stable, entries };
                    self.later(1, Event::Input(me, Input::Lane(slice)));
                }
            }
            FromCoordinator::Install(plan) => {
                let now = self.now;
                let node = self.node(me);
                assert!(plan.view >= node.installed, "views only grow");
                node.installed = plan.view;
                node.votes_in = Some(plan.view);
                node.delivered_at = now;
            }
            FromCoordinator::Fill(seq) => {
                let node = self.node(me);
                node.filled = node.filled.max(seq);
            }
            FromCoordinator::Voting { above } => {
                let node = self.node(me);
                node.may_vote = above.is_some();
                node.voting_above = above.unwrap_or_default();
            }
            FromCoordinator::Arrived(_)
            | FromCoordinator::Certified(_)
            | FromCoordinator::Elsewhere(_)
            | FromCoordinator::Float(_)
            | FromCoordinator::Saved(_) => {}
        }
    }

    fn stage(&mut self, me: u16, message: ToStage) {
        match message {
            ToStage::Pin { seq, reader } => {
                let node = self.node(me);
                if seq == node.executed {
                    node.kept.insert(seq);
                    let digest = self.certified(seq).digest;
                    let pinned = FromStage::Pinned { reader, seq, digest };
                    self.later(1, Event::Input(me, Input::Stage(pinned)));
                } else if seq < node.executed {
                    let executed = node.executed;
                    let missed = FromStage::PinMissed { reader, seq, executed };
                    self.later(1, Event::Input(me, Input::Stage(missed)));
                } else {
                    node.pins.insert(reader, seq);
                }
            }
            ToStage::Unpin(reader) => {
                let node = self.node(me);
                let seq = node.pins.remove(&reader);
                seq.map(|seq| node.kept.remove(&seq));
            }
            ToStage::Fetch { checkpoint, sources } => {
                let known = self.node(me).fetching.take();
                let again = known.is_some_and(|(old, _)| old == checkpoint);
                self.node(me).fetching = Some((checkpoint, sources));
                if !again {
                    let end = Input::Stage(FromStage::FetchFailed { seq: Seq(0) });
                    self.later(20, Event::Input(me, end));
                }
            }
            ToStage::Tick(_) => {}
            other => panic!("not for the coordinator to say: {other:?}"),
        }
    }

    /// The transfer comes to its end, good or bad.
    fn finish_fetch(&mut self, me: u16) {
        let Some((checkpoint, sources)) = self.node(me).fetching.take() else { return };
        let seq = checkpoint.seq;
        if let Some(liar) = sources.iter().find(|s| self.lying.contains(&s.0)).copied() {
            self.input(me, Input::Stage(FromStage::LyingSource { source: liar }));
        }
        let holds = |s: &&ReplicaId| {
            !self.lying.contains(&s.0) && self.nodes[usize::from(s.0)].kept.contains(&seq)
        };
        if sources.iter().any(|s| holds(&s)) {
            let read: Vec<ReplicaId> = sources.iter().filter(holds).copied().collect();
            for source in read {
                let answer = StateAnswer::Manifest(Manifest::default());
                let message = StateMessage::Tell { checkpoint: seq, answer };
                let said = FromStage::State { to: ReplicaId(me), message };
                self.input(source.0, Input::Stage(said));
            }
            let now = self.now;
            let node = self.node(me);
            node.executed = seq.max(node.executed);
            node.fetched = seq;
            node.delivered_at = now;
            let progress = Progress { executed: node.executed, ..Progress::default() };
            self.input(
                me,
                Input::Stage(FromStage::Fetched { checkpoint, progress, replaced: true }),
            );
            self.reach(me, seq);
        } else {
            self.input(me, Input::Stage(FromStage::FetchFailed { seq }));
        }
    }

    /// Who votes in `view` for numbers above `seq`.
    fn voters(&self, view: View, seq: Seq) -> Vec<u16> {
        let votes = |r: &u16| {
            let node = &self.nodes[usize::from(*r)];
            node.core.is_some()
                && node.votes_in == Some(view)
                && node.may_vote
                && seq > node.voting_above
        };
        (0..self.n).filter(|r| votes(r) && !self.faulty.contains(r)).collect()
    }

    /// The lanes and stages of all replicas do what they can do in one step of 20 ms.
    fn work(&mut self) {
        let quorum = config(self.n, self.f, 0, PILLARS).quorums.quorum();
        let views: BTreeSet<View> = self.nodes.iter().filter_map(|node| node.votes_in).collect();
        let top = self.nodes.iter().map(|node| node.executed).max().unwrap();
        let next = Seq(top.0 + K);
        for view in views {
            let leader = view.leader(self.n).0;
            let voters = self.voters(view, next);
            let wanted = self.load || self.nodes[usize::from(leader)].filled >= next;
            // Nobody votes beyond the window above what a quorum has executed.
            let room = next.0 <= self.low.0 + L;
            let works = room && voters.len() >= quorum && voters.contains(&leader);
            if works && wanted && !self.lazy.contains(&leader) {
                voters.iter().for_each(|me| self.execute(*me, view, next));
                break;
            }
        }
        let mut signed: Vec<Seq> = self.nodes.iter().map(|node| node.executed).collect();
        signed.sort_unstable_by(|a, b| b.cmp(a));
        self.low = self.low.max(signed[quorum - 1]);
        let top = self.nodes.iter().map(|node| node.executed).max().unwrap();
        for me in self.correct() {
            let node = self.node(me);
            let view = node.installed;
            if node.fetching.is_some() {
                continue;
            }
            if node.executed.0 + 2 * L < top.0 {
                let missing = node.executed.next();
                let lane = ToCoordinator::LeftBehind { missing, stable: top };
                self.input(me, Input::Lane(lane));
            } else if node.executed < top && self.dice.chance(50) {
                let seq = Seq(self.node(me).executed.0 + K);
                self.execute(me, view, seq);
            } else if top.0 + K > self.low.0 + L {
                // At the end of the window no leader owes anything.
                self.node(me).delivered_at = self.now;
            } else if self.load && self.now.since(self.node(me).delivered_at) > Span::secs(1) {
                self.node(me).delivered_at = self.now;
                let what = Grievance::Stalled;
                self.input(
                    me,
                    Input::Lane(ToCoordinator::Grievance { view, what, whom: view.leader(4) }),
                );
            }
        }
    }

    /// The stage is in the state after `seq`, and keeps it for whoever wants it.
    fn reach(&mut self, me: u16, seq: Seq) {
        let pins = &self.nodes[usize::from(me)].pins;
        let pinned: Vec<SnapshotReader> =
            pins.iter().filter(|(_, s)| **s == seq).map(|(r, _)| *r).collect();
        let digest: Digest = self.certified(seq).digest;
        for reader in pinned {
            self.node(me).kept.insert(seq);
            self.input(me, Input::Stage(FromStage::Pinned { reader, seq, digest }));
        }
    }

    fn execute(&mut self, me: u16, view: View, seq: Seq) {
        let (now, stable) = (self.now, self.certified(seq));
        let node = self.node(me);
        if node.executed >= seq || node.fetching.is_some() || seq.0 > node.executed.0 + K {
            return;
        }
        node.executed = seq;
        node.delivered_at = now;
        let progress = Progress { executed: seq, ..Progress::default() };
        self.input(me, Input::Stage(FromStage::Executed(progress)));
        self.reach(me, seq);
        self.input(me, Input::Lane(ToCoordinator::Progress { view, delivered: seq }));
        self.input(me, Input::Lane(ToCoordinator::Stable(stable)));
    }

    /// Runs for `ms` of virtual time.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now.after(Span::millis(ms));
        while self.now < end {
            let tick = self.now.after(Span::millis(20));
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > tick {
                    break;
                }
                let ((at, _), event) = entry.remove_entry();
                self.now = at.max(self.now);
                self.handle(event);
            }
            self.now = tick;
            self.work();
            for me in 0..self.n {
                let due = self.nodes[usize::from(me)].core.as_ref().and_then(Coordinator::deadline);
                if due.is_some_and(|due| due <= self.now) && !self.faulty.contains(&me) {
                    self.input(me, Input::Turn);
                    let next = self.core(me).deadline().expect("there is a heartbeat");
                    assert!(next > self.now, "a turn leaves nothing that is due");
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Input(me, _) if self.faulty.contains(&me) => {}
            // Number 0 stands for the end of a transfer.
            Event::Input(me, Input::Stage(FromStage::FetchFailed { seq: Seq(0) })) => {
                self.finish_fetch(me);
            }
            Event::Input(me, input) => self.input(me, input),
            Event::Packet { to, from, incarnation, bytes } => {
                // The link of an earlier life is gone.
                let current = self.nodes[usize::from(from)].incarnation;
                if self.faulty.contains(&to) || incarnation != current {
                    return;
                }
                let message = GroupMessage::decode(GroupId::default(), &mut Reader::new(&bytes));
                let (from, message) = (ReplicaId(from), message.expect("own encoding"));
                let incarnation = Incarnation(incarnation);
                self.input(to, Input::Peer { from, incarnation, message });
            }
        }
    }

    /// Runs until `done`, at most `ms` of virtual time.
    pub(super) fn run_until(&mut self, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        for _ in 0..ms / 100 {
            if done(self) {
                return true;
            }
            self.run(100);
        }
        done(self)
    }

    /// Whether all correct replicas vote in one view.
    pub(super) fn agree(&self) -> bool {
        let views: BTreeSet<Option<View>> =
            self.correct().iter().map(|r| self.nodes[usize::from(*r)].votes_in).collect();
        views.len() == 1 && !views.contains(&None)
    }

    pub(super) fn top(&self) -> Seq {
        self.nodes.iter().map(|node| node.executed).max().unwrap()
    }
}
