//! Which share of the machine's cores a replica has, and which of them its threads are tied to.
//!
//! Not here: how many threads there are (`mesh`), nor what runs on them.

use base::ReplicaId;

use crate::pin;
use crate::socket::Place;

/// The cores of this process, and who else uses them.
pub(crate) struct Seats {
    cpus: Vec<usize>,
    /// Replicas of the group on this machine.
    replicas: usize,
    /// This partition, and how many there are in the process.
    share: (usize, usize),
}

impl Seats {
    /// For replica `me` of those at `places`, which is partition `own` of `all` in its process.
    pub(crate) fn new(places: &[Vec<Place>], me: ReplicaId, (own, all): (u16, u16)) -> Seats {
        let share = (usize::from(own), usize::from(all));
        Seats { cpus: pin::allowed_cpus(), replicas: sharers(places, me), share }
    }

    /// How many cores are its own; 0 when there are fewer than those who want one.
    pub(crate) fn cores(&self) -> usize {
        self.cpus.len() / self.replicas / self.share.1
    }

    /// Whether so many threads of each of those who share the process have a core each, and no
    /// other replica is there.
    pub(crate) fn suffice(&self, threads: usize) -> bool {
        self.replicas == 1 && threads * self.share.1 <= self.cpus.len()
    }

    /// The core of thread `nth` of replica `me`, of so many. Replicas and partitions that are
    /// pinned to the same machine on demand take different cores.
    pub(crate) fn cpu(&self, me: ReplicaId, nth: usize, threads: usize) -> usize {
        let (own, all) = self.share;
        let before = usize::from(me.0) * all + own;
        self.cpus[(before * threads + nth) % self.cpus.len()]
    }
}

/// How many replicas of the group, this one included, seem to share its machine: those with the
/// same IP address, and those that only a process of this machine can reach.
fn sharers(places: &[Vec<Place>], me: ReplicaId) -> usize {
    let ip = |replica: &Vec<Place>| replica.first().map(Place::ip);
    let mine = ip(&places[usize::from(me.0)]);
    places.iter().filter(|replica| ip(replica) == mine).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_share_the_cores_that_a_replica_has() {
        let seats =
            |cpus: usize, replicas, share| Seats { cpus: (0..cpus).collect(), replicas, share };
        assert_eq!(seats(8, 1, (0, 1)).cores(), 8);
        assert_eq!(seats(8, 2, (1, 4)).cores(), 1);
        assert_eq!(seats(2, 4, (0, 1)).cores(), 0);
        assert!(seats(8, 1, (3, 4)).suffice(2) && !seats(8, 1, (3, 4)).suffice(3));
        assert!(!seats(8, 2, (0, 1)).suffice(1));
        // Two replicas of two partitions with two threads each, on eight cores: one each.
        let one = |me: u16, own| {
            let seats = seats(8, 2, (own, 2));
            (0..2).map(|nth| seats.cpu(ReplicaId(me), nth, 2)).collect::<Vec<_>>()
        };
        let all = [one(0, 0), one(0, 1), one(1, 0), one(1, 1)].concat();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }
}
