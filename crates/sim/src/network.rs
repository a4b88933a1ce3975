//! The links between replicas, and between clients and replicas: late, lossy, cut, clogged, and
//! with a long memory.
//!
//! A link carries a message, or what was said long ago, to whoever still is in the life that it
//! was said to; a receiver that has started again has other links. Not here: who breaks what when
//! (`faults`, `plan`).

use std::collections::{BTreeMap, BTreeSet};

use base::{ReplicaId, Span, Time};

use crate::coverage::{Coverage, Sight};
use crate::events::Event;
use crate::options::Net;
use crate::prng::{Prng, Ratio};
use crate::world::World;

/// Messages that are remembered, to come again.
const OLD_MAX: usize = 128;
/// How often a message is remembered.
const KEPT: Ratio = Ratio(1, 16);

/// The links of a group.
pub(crate) struct Network {
    pub(crate) net: Net,
    /// Links between these, and between them and clients, are calm whatever the others are.
    pub(crate) core: BTreeSet<ReplicaId>,
    /// Directed links that carry nothing.
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Directed links with a further delay, in microseconds.
    slow: BTreeMap<(ReplicaId, ReplicaId), u64>,
    /// Replicas whose links hold everything back until then.
    clogged: BTreeMap<ReplicaId, Time>,
    /// Replicas that nobody hears and that hear nobody, clients included.
    off: BTreeSet<ReplicaId>,
    /// Messages that may come again.
    old: Vec<Event>,
}

impl Network {
    pub(crate) fn new(net: Net) -> Network {
        Network {
            net,
            core: BTreeSet::new(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            clogged: BTreeMap::new(),
            off: BTreeSet::new(),
            old: Vec::new(),
        }
    }

    /// How a link behaves; clients are nobody.
    fn net(&self, from: Option<ReplicaId>, to: Option<ReplicaId>) -> Net {
        let in_core = |end: Option<ReplicaId>| end.is_none_or(|end| self.core.contains(&end));
        let calm = !self.core.is_empty() && in_core(from) && in_core(to);
        if calm { Net::CALM } else { self.net }
    }

    /// The further delay of a link.
    fn extra(&self, from: Option<ReplicaId>, to: Option<ReplicaId>, now: Time) -> Span {
        let ends = [from, to].into_iter().flatten();
        let until = ends.filter_map(|end| self.clogged.get(&end)).max();
        let slow = from.zip(to).and_then(|link| self.slow.get(&link)).copied().unwrap_or(0);
        Span(until.map_or(0, |until| until.since(now).0) + Span::micros(slow).0)
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

    /// Mends one direction. Whether it was broken.
    pub(crate) fn mend(&mut self, from: ReplicaId, to: ReplicaId) -> bool {
        self.slow.remove(&(from, to));
        self.cut.remove(&(from, to))
    }

    /// Delays one direction by `us` microseconds more.
    pub(crate) fn slow(&mut self, from: ReplicaId, to: ReplicaId, us: u64) {
        self.slow.insert((from, to), us);
    }

    /// Holds back what a replica sends and is sent until `until`.
    pub(crate) fn clog(&mut self, replica: ReplicaId, until: Time) {
        self.clogged.insert(replica, until);
    }

    /// Mends everything but what is off. Gives the pairs that hear each other again.
    pub(crate) fn heal(&mut self) -> Vec<(ReplicaId, ReplicaId)> {
        self.slow.clear();
        self.clogged.clear();
        let pairs: BTreeSet<_> = self.cut.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        self.cut.clear();
        pairs.into_iter().collect()
    }

    /// Remembers a message, now and then.
    fn keep(&mut self, event: &Event, prng: &mut Prng) {
        if !prng.chance(KEPT) {
            return;
        }
        let Some(event) = event.again() else { return };
        if self.old.len() < OLD_MAX {
            self.old.push(event);
        } else {
            // Some stay for very long.
            let at = prng.below(OLD_MAX as u64) as usize;
            self.old[at] = event;
        }
    }
}

/// When a message arrives that is sent now: the copies of it that do.
fn delays(net: Net, prng: &mut Prng, coverage: &mut Coverage) -> [Option<Span>; 2] {
    let mut one = || {
        if prng.chance(net.loss) {
            coverage.saw(Sight::Lost);
            return None;
        }
        Some(Span::micros(prng.between(net.delay_min_us, net.delay_max_us)))
    };
    let first = one();
    if !prng.chance(net.duplicate) {
        return [first, None];
    }
    coverage.saw(Sight::Duplicated);
    let again = Span::micros(prng.between(net.delay_min_us, net.delay_max_us));
    [first, Some(again)]
}

impl World {
    /// Sends a message over a link, `later` than now; `from` or `to` is nobody for a client.
    pub(crate) fn send(
        &mut self,
        (from, to): (Option<ReplicaId>, Option<ReplicaId>),
        later: Span,
        event: Event,
    ) {
        let net = self.network.net(from, to);
        let extra = self.network.extra(from, to, self.queue.now()).0 + later.0;
        if net.replay.0 > 0 {
            self.network.keep(&event, &mut self.prng);
            if self.prng.chance(net.replay) {
                self.replay(net);
            }
        }
        let [first, again] = delays(net, &mut self.prng, &mut self.coverage);
        if let Some(after) = again
            && let Some(event) = event.again()
        {
            self.queue.schedule(Span(after.0 + extra), event);
        }
        if let Some(after) = first {
            self.queue.schedule(Span(after.0 + extra), event);
        }
    }

    /// Something that was said long ago comes again.
    fn replay(&mut self, net: Net) {
        let at = self.prng.below(self.network.old.len() as u64) as usize;
        if let Some(event) = self.network.old.get(at).and_then(Event::again) {
            self.saw(Sight::Replayed);
            let us = self.prng.between(net.delay_min_us, net.delay_max_us);
            self.queue.schedule(Span::micros(us), event);
        }
    }
}
