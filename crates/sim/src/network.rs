//! The links between replicas, and between clients and replicas: late, lossy, cut.

use std::collections::{BTreeMap, BTreeSet};

use base::{ReplicaId, Span};

use crate::coverage::{Coverage, Sight};
use crate::options::Net;
use crate::prng::Prng;

/// The links of a group.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) net: Net,
    /// Directed links that carry nothing.
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Directed links with a further delay, in microseconds.
    slow: BTreeMap<(ReplicaId, ReplicaId), u64>,
    /// Replicas that nobody hears and that hear nobody, clients included.
    off: BTreeSet<ReplicaId>,
}

impl Network {
    pub(crate) fn new(net: Net) -> Network {
        Network { net, cut: BTreeSet::new(), slow: BTreeMap::new(), off: BTreeSet::new() }
    }

    /// When the copies of a message arrive that is sent now.
    pub(crate) fn delays(&self, prng: &mut Prng, coverage: &mut Coverage) -> Vec<Span> {
        let twice = prng.chance(self.net.duplicate);
        if twice {
            coverage.saw(Sight::Duplicated);
        }
        let copies = 1 + u32::from(twice);
        let mut delays = Vec::new();
        for _ in 0..copies {
            if prng.chance(self.net.loss) {
                coverage.saw(Sight::Lost);
            } else {
                let us = prng.between(self.net.delay_min_us, self.net.delay_max_us);
                delays.push(Span::micros(us));
            }
        }
        delays
    }

    /// The further delay of a link.
    pub(crate) fn extra(&self, from: ReplicaId, to: ReplicaId) -> Span {
        Span::micros(self.slow.get(&(from, to)).copied().unwrap_or(0))
    }

    /// Whether a link between two replicas carries anything.
    pub(crate) fn carries(&self, from: ReplicaId, to: ReplicaId) -> bool {
        !self.cut.contains(&(from, to)) && !self.is_off(from) && !self.is_off(to)
    }

    pub(crate) fn is_off(&self, replica: ReplicaId) -> bool {
        self.off.contains(&replica)
    }

    pub(crate) fn take_off(&mut self, replica: ReplicaId) {
        self.off.insert(replica);
    }

    pub(crate) fn put_on(&mut self, replica: ReplicaId) {
        self.off.remove(&replica);
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: ReplicaId, to: ReplicaId) {
        self.cut.insert((from, to));
    }

    /// Delays one direction by `us` microseconds more.
    pub(crate) fn slow(&mut self, from: ReplicaId, to: ReplicaId, us: u64) {
        self.slow.insert((from, to), us);
    }

    /// Mends everything but what is off. Gives the pairs that hear each other again.
    pub(crate) fn heal(&mut self) -> Vec<(ReplicaId, ReplicaId)> {
        self.slow.clear();
        let pairs: BTreeSet<_> = self.cut.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        self.cut.clear();
        pairs.into_iter().collect()
    }
}
