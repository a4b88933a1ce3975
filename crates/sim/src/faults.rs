//! Faults of machines and networks: what they do to a world.
//!
//! Not here: which of them happen when (`plan`), and their end (`phase`).

use base::{ReplicaId, Span};
use proto::pbft::Input;

use crate::events::{Event, Part};
use crate::host::Condition;
use crate::options::Net;
use crate::prng::{Prng, Ratio};
use crate::storage::DiskFault;
use crate::world::World;

/// Something that breaks, or is mended.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The directed link carries nothing.
    Cut(ReplicaId, ReplicaId),
    /// The directed link is slower by this many microseconds.
    Slow(ReplicaId, ReplicaId, u64),
    /// The directed link is whole again, and as fast as others.
    Restore(ReplicaId, ReplicaId),
    /// The links that this partition keeps apart carry nothing.
    Part(Shape, u64),
    /// They are whole again.
    Mend(Shape, u64),
    /// The links of a replica hold everything back for this many microseconds.
    Clog(ReplicaId, u64),
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
    /// A wall clock jumps by this many microseconds.
    ClockJumps(ReplicaId, i64),
    /// A wall clock is too fast by this many parts per million from now on.
    ClockDrifts(ReplicaId, i64),
    /// A part hears everything inside its replica this many microseconds later; the log writes so
    /// much longer.
    Sluggish(ReplicaId, Part, u64),
    /// The disk does, or is about to do, something wrong.
    Disk(ReplicaId, DiskFault),
}

impl Fault {
    /// Whether it is the beginning of something, and not, or maybe not, its end.
    pub(crate) fn begins(&self) -> bool {
        !matches!(
            self,
            Fault::Restore(..)
                | Fault::Mend(..)
                | Fault::Heal
                | Fault::Weather(_)
                | Fault::Restart(_)
                | Fault::Continue(_)
        )
    }
}

/// Who does not hear whom in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Two sides.
    Halves,
    /// One alone.
    Alone,
    /// One hears nobody.
    Deaf,
    /// Nobody hears one.
    Mute,
    /// Everybody hears one other.
    Ring,
    /// All hear one, which hears all, and nobody hears anybody else.
    Star,
    /// Each direction of each link for itself.
    Any,
}

impl Shape {
    /// The directed links that carry nothing; `side` says which, of all that have this shape.
    fn links(self, n: u16, side: u64) -> Vec<(ReplicaId, ReplicaId)> {
        let one = (side % u64::from(n)) as u16;
        let mut prng = Prng::new(side);
        let mut links = Vec::new();
        for from in 0..n {
            for to in (0..n).filter(|to| *to != from) {
                let cut = match self {
                    Shape::Halves => (side >> from ^ side >> to) & 1 == 1,
                    Shape::Alone => from == one || to == one,
                    Shape::Deaf => to == one,
                    Shape::Mute => from == one,
                    Shape::Ring => (from + 1) % n != to,
                    Shape::Star => from != one && to != one,
                    Shape::Any => prng.chance(Ratio(1, 3)),
                };
                if cut {
                    links.push((ReplicaId(from), ReplicaId(to)));
                }
            }
        }
        links
    }
}

impl World {
    /// Lets `fault` happen now.
    ///
    /// # Panics
    /// When it contradicts what happened before.
    pub fn fault(&mut self, fault: Fault) {
        self.watch_fault(&fault);
        match fault {
            fault @ (Fault::Cut(..)
            | Fault::Slow(..)
            | Fault::Restore(..)
            | Fault::Part(..)
            | Fault::Mend(..)
            | Fault::Clog(..)
            | Fault::Weather(_)
            | Fault::Heal) => self.fault_of_links(fault),
            Fault::Crash(replica) => self.crash(replica, false),
            Fault::PowerFails(replica) => self.crash(replica, true),
            Fault::Restart(replica) => self.restart(replica),
            Fault::LoseDisk(replica) => {
                let host = self.replica(replica);
                assert_eq!(host.condition, Condition::Dead, "the disk of a process that runs");
                host.disk.lose();
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
            Fault::ClockJumps(replica, us) => {
                self.clocks[usize::from(replica.0)].ahead_ns += us * 1_000;
            }
            Fault::ClockDrifts(replica, ppm) => {
                self.clocks[usize::from(replica.0)].fast_ppm = ppm;
            }
            Fault::Sluggish(replica, part, us) => self.replica(replica).tempo.delay(part, us),
            Fault::Disk(replica, fault) => self.replica(replica).disk.storage.suffer(fault),
        }
    }

    fn fault_of_links(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Slow(from, to, us) => self.network.slow(from, to, us),
            Fault::Restore(from, to) => {
                if self.network.mend(from, to) {
                    self.connect(from, to);
                }
            }
            Fault::Part(shape, side) => {
                for (from, to) in shape.links(self.options.n, side) {
                    self.network.cut(from, to);
                }
            }
            Fault::Mend(shape, side) => {
                for (from, to) in shape.links(self.options.n, side) {
                    if self.network.mend(from, to) {
                        self.connect(from, to);
                    }
                }
            }
            Fault::Clog(replica, us) => {
                let until = self.now().after(Span::micros(us));
                self.network.clog(replica, until);
            }
            Fault::Heal => {
                for (a, b) in self.network.heal() {
                    self.connect(a, b);
                }
            }
            Fault::Weather(net) => self.network.net = net,
            _ => unreachable!("a fault of something else: {fault:?}"),
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

    pub(crate) fn connect_all(&mut self, replica: ReplicaId) {
        for peer in self.addresses().filter(|peer| *peer != replica) {
            self.connect(peer, replica);
        }
    }

    /// The links between two replicas are up again, if both are there.
    pub(crate) fn connect(&mut self, a: ReplicaId, b: ReplicaId) {
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
}
