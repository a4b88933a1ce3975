//! The end of the faults: for all, or for a chosen core while the others stay as they are.
//!
//! A group must go on when as many correct replicas as make a quorum hear each other in time,
//! whatever has become of the rest. To see that, the rest must not be mended.

use base::ReplicaId;
use proto::pbft::Lane;

use crate::coverage::Sight;
use crate::events::Part;
use crate::faults::Fault;
use crate::host::Condition;
use crate::options::Net;
use crate::prng::{Prng, Ratio};
use crate::world::World;

/// A wall clock: how it differs from true time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Nanoseconds ahead.
    pub(crate) ahead_ns: i64,
    /// Parts per million that it is too fast.
    pub(crate) fast_ppm: i64,
}

impl Clock {
    /// What it shows at a true time.
    pub(crate) fn shows(self, true_ns: u64, since_start_ns: u64) -> u64 {
        let drift = i128::from(since_start_ns) * i128::from(self.fast_ppm) / 1_000_000;
        let shown = i128::from(true_ns) + drift + i128::from(self.ahead_ns);
        u64::try_from(shown).unwrap_or(0)
    }
}

impl World {
    /// Nothing breaks any more and what was broken is mended, except that the faulty replicas
    /// stay what they are.
    pub fn freeze(&mut self) {
        self.note(|| "## everything is mended".into());
        self.frozen = true;
        self.network.core.clear();
        self.fault(Fault::Weather(Net::CALM));
        for replica in self.addresses() {
            self.mend(replica);
        }
        self.fault(Fault::Heal);
    }

    /// Nothing new breaks, and nothing is mended but what concerns some n - f correct replicas
    /// alone: the others stay dead, cut off, paused or faulty. Whether there are so many that do
    /// not recover from a loss of their votes.
    pub fn freeze_but_a_core(&mut self) -> bool {
        self.frozen = true;
        let all: Vec<ReplicaId> = (0..self.options.n).map(ReplicaId).collect();
        let mut core: Vec<_> = all.into_iter().filter(|r| self.may_be_core(*r)).collect();
        let size = usize::from(self.options.n - self.options.f);
        if core.len() < size {
            return false;
        }
        // Often those are left out that are broken, for they stay so.
        let whole = self.prng.chance(Ratio(2, 3));
        let draw = |r: ReplicaId, prng: &mut Prng| (whole && !self.is_whole(r), prng.next_u64(), r);
        let mut prng = self.prng.clone();
        let mut drawn: Vec<_> = core.drain(..).map(|r| draw(r, &mut prng)).collect();
        drawn.sort_unstable();
        core.extend(drawn.into_iter().take(size).map(|(_, _, r)| r));
        self.prng = prng;
        core.sort_unstable();
        self.note(|| format!("## all is well among {core:?}, and stays as it is elsewhere"));
        self.saw(Sight::Core);
        self.network.core = core.iter().copied().collect();
        for replica in &core {
            self.network.put_on(*replica);
            self.network.clog(*replica, self.now());
            self.mend(*replica);
        }
        for a in &core {
            for b in core.iter().filter(|b| a != *b) {
                if self.network.mend(*a, *b) | self.network.mend(*b, *a) {
                    self.connect(*a, *b);
                }
            }
        }
        self.count_the_rest();
        true
    }

    /// What the replicas beside the core are.
    fn count_the_rest(&mut self) {
        for other in (0..self.options.n).map(ReplicaId) {
            if self.network.core.contains(&other) {
                continue;
            }
            let core = self.network.core.iter();
            let cut = core.filter(|one| !self.network.carries(**one, other)).count();
            match self.condition(other) {
                _ if self.adversary.is_faulty(other) => self.saw(Sight::StaysFaulty),
                Condition::Dead => self.saw(Sight::StaysDead),
                Condition::Paused => self.saw(Sight::StaysPaused),
                Condition::Running if cut > 0 => self.saw(Sight::StaysCut),
                Condition::Running => {}
            }
        }
    }

    /// Whether liveness may rest on this replica: neither faulty, nor forgetful or spoilt.
    fn may_be_core(&self, replica: ReplicaId) -> bool {
        let host = &self.replicas[usize::from(replica.0)];
        let forgets = match host.condition {
            Condition::Dead => host.disk.may_forget(),
            _ => host.coordinator.report().recovering,
        };
        self.is_sound(replica) && !forgets
    }

    /// Whether nothing seems to be wrong with a replica and its links.
    fn is_whole(&self, replica: ReplicaId) -> bool {
        let mut others = (0..self.options.n).map(ReplicaId).filter(|other| *other != replica);
        let linked = |o| self.network.carries(o, replica) && self.network.carries(replica, o);
        self.condition(replica) == Condition::Running && others.all(linked)
    }

    /// Mends a replica itself: its process, its clock, and the links between its parts.
    fn mend(&mut self, replica: ReplicaId) {
        let lanes = self.pillars().map(Part::Lane);
        for part in lanes.chain([Part::Coordinator, Part::Stage, Part::Log]) {
            self.fault(Fault::Sluggish(replica, part, 0));
        }
        self.replica(replica).tempo.calm_down();
        self.replica(replica).disk.storage.calm_down();
        match self.condition(replica) {
            Condition::Running => {}
            Condition::Paused => self.fault(Fault::Continue(replica)),
            Condition::Dead => self.fault(Fault::Restart(replica)),
        }
        if let Some(clock) = self.clocks.get_mut(usize::from(replica.0)) {
            *clock = Clock::default();
        }
    }

    /// Looks at the whole state of every core of every replica and client.
    ///
    /// # Panics
    /// When one of them contradicts itself.
    pub fn check(&self) {
        for replica in &self.replicas {
            replica.lanes.iter().for_each(Lane::check);
            replica.coordinator.check();
            replica.stage.check();
        }
        self.clients.iter().for_each(|client| client.core.check());
    }
}
