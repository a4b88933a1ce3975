//! Faults of machines and networks, and plans of them: swarms of a few kinds at random times.
//!
//! A plan harms no more than a group must survive: as many replicas may forget or be faulty as
//! the group tolerates, all may crash with their disks. After [`World::freeze`] nothing new
//! happens, and what was broken is mended.

use base::{Incarnation, PillarId, ReplicaId, Span};
use exec::service::Service;
use proto::group::Beginning;
use proto::pbft::Input;

use crate::adversary::Behaviour;
use crate::coverage::Sight;
use crate::disk::Disk;
use crate::events::{Event, Part};
use crate::host::{Condition, Replica, Start};
use crate::journal::Held;
use crate::options::{Durability, Net, Options};
use crate::prng::Prng;
use crate::world::World;

/// Something that breaks, or is mended.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The directed link carries nothing.
    Cut(ReplicaId, ReplicaId),
    /// The directed link is slower by this many microseconds.
    Slow(ReplicaId, ReplicaId, u64),
    /// All links are whole.
    Heal,
    /// All links behave like this.
    Weather(Net),
    /// The process ends; what was not durable is lost.
    Crash(ReplicaId),
    /// The machine loses its power: what the operating system held is lost, too.
    PowerFails(ReplicaId),
    /// The process starts.
    Restart(ReplicaId),
    /// The disk is lost. The process must be down.
    LoseDisk(ReplicaId),
    /// The process stops with all its memory.
    Pause(ReplicaId),
    /// It goes on.
    Continue(ReplicaId),
    /// The service's memory is spoilt.
    Spoil(ReplicaId),
    /// One pillar hears everything inside its replica this many microseconds later.
    Sluggish(ReplicaId, PillarId, u64),
}

impl World {
    /// Lets `fault` happen now.
    ///
    /// # Panics
    /// When it contradicts what happened before.
    pub fn fault(&mut self, fault: Fault) {
        self.watch_fault(&fault);
        match fault {
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Slow(from, to, us) => self.network.slow(from, to, us),
            Fault::Heal => {
                for (a, b) in self.network.heal() {
                    self.connect(a, b);
                }
            }
            Fault::Weather(net) => self.network.net = net,
            Fault::Crash(replica) => self.crash(replica, false),
            Fault::PowerFails(replica) => self.crash(replica, true),
            Fault::Restart(replica) => self.restart(replica),
            Fault::LoseDisk(replica) => {
                let host = self.replica(replica);
                assert_eq!(host.condition, Condition::Dead, "the disk of a process that runs");
                host.disk = Disk::default();
                host.disk.doubtful = true;
            }
            Fault::Pause(replica) => {
                let host = self.replica(replica);
                if host.condition == Condition::Running {
                    host.condition = Condition::Paused;
                }
            }
            Fault::Continue(replica) => {
                let host = self.replica(replica);
                if host.condition == Condition::Paused {
                    host.condition = Condition::Running;
                    for event in std::mem::take(&mut host.backlog) {
                        self.queue.schedule(Span(0), event);
                    }
                }
            }
            Fault::Spoil(replica) => {
                let host = self.replica(replica);
                host.spoil.order();
                host.spoiled = true;
                self.checker.spoils(replica);
            }
            Fault::Sluggish(replica, pillar, us) => {
                self.replica(replica).sluggish.insert(Part::Lane(pillar), us);
            }
        }
    }

    /// Lets `fault` happen `after` from now.
    pub fn fault_after(&mut self, after: Span, fault: Fault) {
        self.queue.schedule(after, Event::Fault(fault));
    }

    /// Cuts every link between the two groups, in both directions.
    pub fn part(&mut self, some: &[u16], others: &[u16]) {
        for a in some.iter().copied().map(ReplicaId) {
            for b in others.iter().copied().map(ReplicaId) {
                self.fault(Fault::Cut(a, b));
                self.fault(Fault::Cut(b, a));
            }
        }
    }

    fn crash(&mut self, replica: ReplicaId, power: bool) {
        let durability = self.options.durability;
        let prng = &mut self.prng;
        let host = &mut self.replicas[usize::from(replica.0)];
        if host.condition == Condition::Dead {
            return;
        }
        host.condition = Condition::Dead;
        host.life += 1;
        host.turns.clear();
        host.backlog.clear();
        let journal = std::mem::take(&mut host.journal);
        let undurable = journal.durable() < journal.len();
        // Whatever was under way to the disk may have reached it.
        let upto = prng.between(journal.durable() as u64, journal.len() as u64);
        host.disk.close(journal.into_records(upto as usize));
        host.disk.doubtful |= match durability {
            Durability::Memory => true,
            Durability::Async => power,
            Durability::Sync => false,
        };
        if undurable {
            self.saw(Sight::Undurable);
        }
    }

    fn restart(&mut self, replica: ReplicaId) {
        let service = (self.service)();
        let host = self.replica(replica);
        if host.condition != Condition::Dead {
            return;
        }
        let doubtful = host.disk.doubtful;
        if doubtful {
            self.saw(Sight::Forgetful);
        }
        let host = self.replica(replica);
        let disk = match doubtful {
            true => Disk::default(),
            false => std::mem::take(&mut host.disk),
        };
        let start = Start {
            beginning: if doubtful { Beginning::Forgetful } else { Beginning::Whole },
            incarnation: Incarnation(host.incarnation.0 + 1),
            life: host.life + 1,
            disk,
        };
        self.begin(replica, service, start);
        self.checker.reborn(replica, !doubtful);
        self.connect_all(replica);
    }

    /// A replica begins a life.
    pub(crate) fn begin(&mut self, replica: ReplicaId, service: Box<dyn Service>, start: Start) {
        let now = self.clock();
        let me = self.identity(replica);
        let (host, effects) = Replica::new(&self.options, now, me, service, start);
        match self.replicas.get_mut(usize::from(replica.0)) {
            Some(old) => *old = host,
            None => self.replicas.push(host),
        }
        self.observe_beginning(replica);
        // What the coordinator says now, lanes hear before anything else.
        self.waking = true;
        for effect in effects {
            self.admit(replica, Held::Coordinator(effect));
        }
        self.waking = false;
        self.plan(replica, Part::Coordinator, now.mono);
        for pillar in self.pillars() {
            self.plan(replica, Part::Lane(pillar), now.mono);
        }
    }

    pub(crate) fn connect_all(&mut self, replica: ReplicaId) {
        for peer in self.addresses().filter(|peer| *peer != replica) {
            self.connect(peer, replica);
        }
    }

    /// The links between two replicas are up again, if both are there.
    fn connect(&mut self, a: ReplicaId, b: ReplicaId) {
        if self.identity(a) == self.identity(b) {
            return;
        }
        for (one, peer) in [(a, b), (b, a)] {
            let there = self.network.carries(one, peer) && self.network.carries(peer, one);
            let runs = |r: ReplicaId| self.condition(r) == Condition::Running;
            if !there || !runs(one) || !runs(peer) {
                continue;
            }
            let peer = self.identity(peer);
            for pillar in self.pillars() {
                self.step_lane(one, pillar, Input::Connected { peer });
            }
            self.step_coordinator(one, proto::group::Input::Connected { peer });
        }
    }

    /// Nothing breaks any more and what was broken is mended, except that the faulty replicas
    /// stay what they are.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.fault(Fault::Weather(Net::CALM));
        for replica in self.addresses() {
            for pillar in self.pillars() {
                self.fault(Fault::Sluggish(replica, pillar, 0));
            }
            match self.condition(replica) {
                Condition::Running => {}
                Condition::Paused => self.fault(Fault::Continue(replica)),
                Condition::Dead => self.fault(Fault::Restart(replica)),
            }
        }
        self.fault(Fault::Heal);
    }
}

/// What a plan may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    CutBoth,
    CutOne,
    Split,
    Weather,
    Crash,
    Forget,
    Pause,
    Slow,
    Sluggish,
    Spoil,
    Behave,
}

const KINDS: [Kind; 11] = [
    Kind::CutBoth,
    Kind::CutOne,
    Kind::Split,
    Kind::Weather,
    Kind::Crash,
    Kind::Forget,
    Kind::Pause,
    Kind::Slow,
    Kind::Sluggish,
    Kind::Spoil,
    Kind::Behave,
];

/// What the swarm of a seed does.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Faults and when they happen.
    pub faults: Vec<(Span, Fault)>,
    /// Replicas that are faulty from the beginning.
    pub faulty: Vec<(ReplicaId, Behaviour)>,
    /// When all of that is over.
    pub length: Span,
}

impl Swarm {
    /// A plan for a group.
    #[must_use]
    pub fn new(options: &Options, length: Span) -> Swarm {
        let mut prng = Prng::new(options.seed ^ 0x5a17);
        let mut swarm = Swarm { faults: Vec::new(), faulty: Vec::new(), length };
        // A few kinds per run: all at once hide each other.
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|_| prng.below(3) == 0).collect();
        // These may forget, or be faulty, but no others.
        let first = prng.below(u64::from(options.n));
        let victims: Vec<ReplicaId> = (0..u64::from(options.f))
            .map(|i| ReplicaId(((first + i) % u64::from(options.n)) as u16))
            .collect();
        if kinds.contains(&Kind::Behave) {
            let count = prng.between(1, u64::from(options.f)) as usize;
            for victim in victims.iter().take(count) {
                swarm.faulty.push((*victim, behaviour(options, &mut prng)));
            }
        }
        let weak = &victims[swarm.faulty.len().min(victims.len())..];
        for kind in kinds {
            for _ in 0..prng.between(1, 4) {
                swarm.add(options, kind, weak, &mut prng);
            }
        }
        swarm
    }

    fn add(&mut self, options: &Options, kind: Kind, weak: &[ReplicaId], prng: &mut Prng) {
        let n = u64::from(options.n);
        let begin = Span(prng.below(self.length.0));
        let end = Span(begin.0 + prng.below(self.length.0 / 2));
        let any = |prng: &mut Prng| ReplicaId(prng.below(n) as u16);
        let one = any(prng);
        let other = ReplicaId((one.0 + 1 + prng.below(n.max(2) - 1) as u16) % options.n);
        let weakling = weak.get(prng.below(weak.len() as u64) as usize).copied();
        let mut push = |at, fault| self.faults.push((at, fault));
        match kind {
            Kind::CutBoth => {
                push(begin, Fault::Cut(one, other));
                push(begin, Fault::Cut(other, one));
                push(end, Fault::Heal);
            }
            Kind::CutOne => {
                push(begin, Fault::Cut(one, other));
                push(end, Fault::Heal);
            }
            Kind::Split => {
                for (a, b) in split(options.n, prng.next_u64()) {
                    push(begin, Fault::Cut(a, b));
                    push(begin, Fault::Cut(b, a));
                }
                push(end, Fault::Heal);
            }
            Kind::Weather => {
                push(begin, Fault::Weather(Net::BAD));
                push(end, Fault::Weather(Net::CALM));
            }
            Kind::Crash => {
                // Whoever forgets is one of the weak.
                let victim = match options.durability {
                    Durability::Sync => Some(one),
                    Durability::Async | Durability::Memory => weakling,
                };
                if let Some(victim) = victim {
                    push(begin, Fault::PowerFails(victim));
                    push(end, Fault::Restart(victim));
                }
            }
            Kind::Forget => {
                if let Some(victim) = weakling {
                    push(begin, Fault::Crash(victim));
                    push(begin, Fault::LoseDisk(victim));
                    push(end, Fault::Restart(victim));
                }
            }
            Kind::Pause => {
                push(begin, Fault::Pause(one));
                push(end, Fault::Continue(one));
            }
            Kind::Slow => {
                push(begin, Fault::Slow(one, other, prng.between(1_000, 400_000)));
                push(end, Fault::Heal);
            }
            Kind::Sluggish => {
                let pillar = PillarId(prng.below(u64::from(options.pillars)) as u16);
                push(begin, Fault::Sluggish(one, pillar, prng.between(100, 50_000)));
            }
            Kind::Spoil => {
                if let Some(victim) = weakling {
                    push(begin, Fault::Spoil(victim));
                }
            }
            Kind::Behave => {}
        }
    }
}

/// Pairs of replicas on two sides of a partition: bit i of `side` says on which i is.
fn split(n: u16, side: u64) -> Vec<(ReplicaId, ReplicaId)> {
    let on = |which: u64| (0..n).filter(move |r| side >> r & 1 == which).map(ReplicaId);
    on(1).flat_map(|a| on(0).map(move |b| (a, b))).collect()
}

fn behaviour(options: &Options, prng: &mut Prng) -> Behaviour {
    let n = u64::from(options.n);
    match prng.below(12) {
        0 => Behaviour::Silent,
        1 => Behaviour::SilentLeader,
        2 => Behaviour::SlowLeader(prng.between(1_000, 2_000_000)),
        3 => Behaviour::StarveClient(base::ClientId(0)),
        4 => Behaviour::StarveReplica(ReplicaId(prng.below(n) as u16)),
        5 => Behaviour::StarvePillar(PillarId(prng.below(u64::from(options.pillars)) as u16)),
        6 => Behaviour::Equivocate,
        7 => Behaviour::LyingSource,
        8 => Behaviour::ForgeViewChange,
        9 => Behaviour::WishStorm,
        10 => Behaviour::ReplayViewChanges,
        _ => Behaviour::Random,
    }
}
