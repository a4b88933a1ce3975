//! What replicas say of frames, each for itself, and for how long that counts.
//!
//! Who still means it says it again. So what was said goes by generations: the first is under way,
//! and whatever was not repeated is forgotten with the last.
//!
//! Invariant: of each replica at most [`NAMES_MAX`] frames are in one generation. What it says
//! again in it counts among those, so that who names without end is soon not heard.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use base::{ReplicaId, Seq, Span, Time, VoteSet};

use super::Key;

/// How often one replica may name a frame in one generation: more often than a correct one does in
/// 4T (`endorse`).
const NAMES_MAX: usize = 20 * super::ENDORSE_MAX;

/// Who has said something of a frame, and how far each had executed.
type Names = BTreeMap<Key, Vec<(ReplicaId, Seq)>>;

/// What was said of late.
#[derive(Clone, Debug)]
pub(super) struct Said {
    generations: VecDeque<Names>,
    /// How often each replica has named one in the first of them.
    many: Vec<usize>,
    /// Since when it is the first.
    since: Time,
}

impl Said {
    /// What `n` replicas say, in so many generations.
    pub(super) fn new(n: u16, generations: usize) -> Said {
        let generations = vec![Names::new(); generations].into();
        Said { generations, many: vec![0; usize::from(n)], since: Time::ZERO }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.generations.iter().all(BTreeMap::is_empty)
    }

    pub(super) fn clear(&mut self) {
        self.generations.iter_mut().for_each(BTreeMap::clear);
        self.many.fill(0);
    }

    /// Time passes: a generation lasts for `life`.
    pub(super) fn turn(&mut self, now: Time, life: Span) {
        let over = now.since(self.since).0 / life.0.max(1);
        if over == 0 {
            return;
        }
        for _ in 0..over.min(self.generations.len() as u64) {
            self.generations.rotate_right(1);
            self.generations[0].clear();
        }
        self.many.fill(0);
        self.since = now;
    }

    /// `who` names `key`, having executed so far. Whether that is heard.
    pub(super) fn add(&mut self, who: ReplicaId, (key, executed): (Key, Seq)) -> bool {
        let many = &mut self.many[usize::from(who.0)];
        if *many >= NAMES_MAX {
            return false;
        }
        *many += 1;
        let of = self.generations[0].entry(key).or_default();
        match of.iter_mut().find(|(other, _)| *other == who) {
            Some((_, before)) => *before = executed.max(*before),
            None => of.push((who, executed)),
        }
        true
    }

    /// What those have said of `key` who had executed less than `seq` is void.
    pub(super) fn forget(&mut self, key: &Key, seq: Seq) {
        for names in &mut self.generations {
            let Some(of) = names.get_mut(key) else { continue };
            of.retain(|(_, executed)| *executed >= seq);
            if of.is_empty() {
                names.remove(key);
            }
        }
    }

    /// Who has named `key` in the last two generations, having executed `after`.
    pub(super) fn who(&self, key: &Key, after: Seq) -> VoteSet {
        self.who_in(2, (key, after))
    }

    /// Who has named `key` at all, as far as that is remembered.
    pub(super) fn anybody(&self, key: &Key) -> VoteSet {
        self.who_in(self.generations.len(), (key, Seq(0)))
    }

    fn who_in(&self, generations: usize, (key, after): (&Key, Seq)) -> VoteSet {
        let mut set = VoteSet::EMPTY;
        let said = self.generations.iter().take(generations).filter_map(|names| names.get(key));
        let valid = said.flatten().filter(|(_, executed)| *executed >= after);
        valid.for_each(|(who, _)| _ = set.insert(*who));
        set
    }

    pub(super) fn check(&self) {
        for (place, many) in self.many.iter().enumerate() {
            let is = |(who, _): &&(ReplicaId, Seq)| usize::from(who.0) == place;
            let named = self.generations[0].values().flatten().filter(is).count();
            assert!(*many >= named && *many <= NAMES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, Digest, FrameId, SessionId};

    fn key(id: u64) -> Key {
        (FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id }, Digest([1; 32]))
    }

    #[test]
    fn what_is_not_said_again_is_forgotten() {
        let (mut said, life) = (Said::new(4, 4), Span::secs(1));
        said.add(ReplicaId(1), (key(1), Seq(5)));
        said.add(ReplicaId(2), (key(1), Seq(7)));
        said.add(ReplicaId(2), (key(1), Seq(6)));
        assert_eq!(said.who(&key(1), Seq(6)).len(), 1);
        assert_eq!(said.who(&key(1), Seq(7)).len(), 1, "the highest counts");
        let turn = |said: &mut Said, at| said.turn(Time::ZERO.after(Span::secs(at)), life);
        turn(&mut said, 1);
        assert_eq!(said.who(&key(1), Seq(0)).len(), 2);
        said.add(ReplicaId(1), (key(1), Seq(5)));
        turn(&mut said, 2);
        assert_eq!((said.who(&key(1), Seq(0)).len(), said.anybody(&key(1)).len()), (1, 2));
        turn(&mut said, 3);
        turn(&mut said, 4);
        assert_eq!((said.who(&key(1), Seq(0)).len(), said.anybody(&key(1)).len()), (0, 1));
        said.check();
        said.forget(&key(1), Seq(5));
        assert_eq!(said.anybody(&key(1)).len(), 1);
        said.forget(&key(1), Seq(6));
        assert!(said.anybody(&key(1)).is_empty());
    }

    #[test]
    fn one_replica_names_a_bounded_number_of_frames_and_keeps_out_nobody() {
        let mut said = Said::new(4, 2);
        let many = |said: &mut Said, who| {
            let heard = |id: &u64| said.add(ReplicaId(who), (key(id % 4_096), Seq(0)));
            (0..=NAMES_MAX as u64).take_while(heard).count()
        };
        assert_eq!(many(&mut said, 3), NAMES_MAX, "also of what it says again");
        assert_eq!(many(&mut said, 1), NAMES_MAX);
        assert_eq!(said.anybody(&key(0)).len(), 2);
        said.check();
    }
}
