//! Twins: two copies of one replica with one key, each of which believes that it is the only one.
//!
//! An *address* is where a host can be reached, an *identity* is whose key it has. The first n
//! addresses are the replicas themselves; those beyond are copies. A copy is correct code with
//! the state of its own partition, so together with the first it equivocates, votes twice and
//! forgets, as a replica would that two machines run by mistake (Bano et al., "Twins: BFT systems
//! made robust", 2021). A plan is rounds; each has a partition of the addresses and a leader.
//!
//! Not here: malformed or forged messages, which no copy of a correct replica sends.

use base::{Incarnation, ReplicaId, Span};
use proto::group::link::{Grievance, ToCoordinator};

use crate::adversary::Behaviour;
use crate::faults::Fault;
use crate::host::Condition;
use crate::options::Options;
use crate::prng::Prng;
use crate::world::World;

/// Most rounds of a plan: known attacks need fewer than eight.
const ROUNDS_MAX: u64 = 7;

/// Who has a copy, and what happens in which round.
#[derive(Clone, Debug)]
pub struct Twins {
    /// Whose copies run, at the addresses from n on.
    pub of: Vec<ReplicaId>,
    /// The lives that the copies say they are in.
    pub incarnations: Vec<Incarnation>,
    /// What happens, in order.
    pub rounds: Vec<Round>,
}

/// One partition for a while.
#[derive(Clone, Debug)]
pub struct Round {
    /// On which side each address is; sides do not hear each other.
    pub sides: Vec<u8>,
    /// Who is to lead: all lose patience until it is this one, as far as the partition lets them.
    pub leader: ReplicaId,
    /// How long it lasts.
    pub length: Span,
}

impl Twins {
    /// The plan of a seed.
    #[must_use]
    pub fn new(options: &Options) -> Twins {
        let mut prng = Prng::new(options.seed ^ 0x7717);
        let n = u64::from(options.n);
        let first = prng.below(n);
        let count = prng.between(1, u64::from(options.f));
        let of: Vec<_> = (0..count).map(|i| ReplicaId(((first + i) % n) as u16)).collect();
        let incarnations = of.iter().map(|_| Incarnation(1 + prng.below(2))).collect();
        let rounds = prng.between(3, ROUNDS_MAX);
        let rounds = (0..rounds).map(|_| Round::new(options.n, &of, &mut prng)).collect();
        Twins { of, incarnations, rounds }
    }
}

impl Round {
    fn new(n: u16, of: &[ReplicaId], prng: &mut Prng) -> Round {
        let addresses = usize::from(n) + of.len();
        let count = prng.between(1, 3);
        let mut sides: Vec<u8> = (0..addresses).map(|_| prng.below(count) as u8).collect();
        if count > 1 && prng.below(2) == 0 {
            // What does most harm: each copy on a side of its own.
            for (i, twin) in of.iter().enumerate() {
                sides[usize::from(twin.0)] = 0;
                sides[usize::from(n) + i] = 1;
            }
        }
        // Those who can say two things at once lead as often as all others together.
        let leader = match prng.below(2) {
            0 => of[prng.below(of.len() as u64) as usize],
            _ => ReplicaId(prng.below(u64::from(n)) as u16),
        };
        let length = Span::micros([1_000, 5_000, 25_000][prng.below(3) as usize]);
        Round { sides, leader, length }
    }
}

impl World {
    /// Starts a copy of `replica`, which counts as faulty from now on. Gives the copy's address.
    pub fn twin(&mut self, replica: ReplicaId, incarnation: Incarnation) -> ReplicaId {
        let address = ReplicaId(self.options.n + self.adversary.twins.len() as u16);
        self.adversary.twins.push(replica);
        self.misbehave(replica, Behaviour::Twin);
        self.misbehave(address, Behaviour::Twin);
        // The first is in its life number 1.
        let first = self.replica(replica).incarnation;
        self.begin_as(address, Incarnation(first.0 + incarnation.0 - 1));
        address
    }

    /// Plays a plan to its end. The last partition stays.
    pub fn play(&mut self, twins: &Twins) {
        for (replica, incarnation) in twins.of.iter().zip(&twins.incarnations) {
            self.twin(*replica, *incarnation);
        }
        for round in &twins.rounds {
            self.play_round(round);
        }
    }

    fn play_round(&mut self, round: &Round) {
        self.adversary.counts.twin_rounds += 1;
        self.fault(Fault::Heal);
        let side = |address: ReplicaId| round.sides[usize::from(address.0)];
        for a in self.addresses() {
            for b in self.addresses().filter(|b| side(*b) != side(a)) {
                self.fault(Fault::Cut(a, b));
            }
        }
        let n = self.options.n;
        let views = self.correct().into_iter().map(|replica| self.view(replica));
        let now = views.max().unwrap_or_default().leader(n);
        for _ in 0..(round.leader.0 + n - now.0) % n {
            self.lose_patience();
            self.run_for(Span::millis(1), |_| false);
        }
        self.run_for(round.length, |_| false);
    }

    /// Every replica that runs wants another leader: as if all timers had ended.
    pub(crate) fn lose_patience(&mut self) {
        for address in self.addresses() {
            if self.condition(address) == Condition::Running {
                let view = self.view(address);
                let what = Grievance::Slow;
                let message =
                    ToCoordinator::Grievance { view, what, whom: view.leader(self.options.n) };
                self.step_coordinator(address, proto::group::Input::Lane(message));
            }
        }
    }

    /// All addresses: those of the replicas, then those of their copies.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.options.n + self.adversary.twins.len() as u16).map(ReplicaId)
    }

    /// Whose key the host at this address has.
    pub(crate) fn identity(&self, address: ReplicaId) -> ReplicaId {
        let copy = address.0.checked_sub(self.options.n);
        copy.map_or(address, |copy| self.adversary.twins[usize::from(copy)])
    }
}
