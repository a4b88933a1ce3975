//! What replicas say of frames, each for itself, and for how long that counts.
//!
//! Who still means it says it again. So what was said goes by generations: the first is under way,
//! and whatever was not repeated is forgotten with the last.
//!
//! Invariant: of each replica at most [`NAMES_MAX`] frames are in one generation.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use base::{ReplicaId, Seq, Span, Time, VoteSet};

use super::Key;

/// Frames that one replica may name in one generation: as many as a correct one does in 4T
/// (`endorse`).
const NAMES_MAX: usize = 16 * super::ENDORSE_MAX;
/// How many generations there are.
const GENERATIONS: usize = 4;

/// Who has said something of a frame, and how far each had executed.
type Names = BTreeMap<Key, Vec<(ReplicaId, Seq)>>;

/// What was said of late.
#[derive(Clone, Debug)]
pub(super) struct Said {
    generations: [Names; GENERATIONS],
    /// How many frames each replica has named in the first of them.
    many: Vec<usize>,
    /// Since when it is the first.
    since: Time,
}

impl Said {
    pub(super) fn new(n: u16) -> Said {
        let generations = Default::default();
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
        for _ in 0..over.min(GENERATIONS as u64) {
            self.generations.rotate_right(1);
            self.generations[0].clear();
        }
        self.many.fill(0);
        self.since = now;
    }

    /// `who` names `key`, having executed so far. What is too much is not heard.
    pub(super) fn add(&mut self, who: ReplicaId, (key, executed): (Key, Seq)) {
        let known = self.generations[0].get_mut(&key);
        let mut known = known.into_iter().flatten();
        if let Some((_, before)) = known.find(|(other, _)| *other == who) {
            *before = executed.max(*before);
            return;
        }
        let many = &mut self.many[usize::from(who.0)];
        if *many < NAMES_MAX {
            *many += 1;
            self.generations[0].entry(key).or_default().push((who, executed));
        }
    }

    /// Nobody has said anything of `key`.
    pub(super) fn forget(&mut self, key: &Key) {
        let [first, older @ ..] = &mut self.generations;
        for (who, _) in first.remove(key).into_iter().flatten() {
            self.many[usize::from(who.0)] -= 1;
        }
        older.iter_mut().for_each(|names| drop(names.remove(key)));
    }

    /// Who has named `key` in the last two generations, having executed `after`.
    pub(super) fn who(&self, key: &Key, after: Seq) -> VoteSet {
        self.who_in(2, (key, after))
    }

    /// Who has named `key` at all, as far as that is remembered.
    pub(super) fn anybody(&self, key: &Key) -> VoteSet {
        self.who_in(GENERATIONS, (key, Seq(0)))
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
            assert!(*many == named && *many <= NAMES_MAX);
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
        let (mut said, life) = (Said::new(4), Span::secs(1));
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
        said.forget(&key(1));
        assert!(said.anybody(&key(1)).is_empty());
    }

    #[test]
    fn one_replica_names_a_bounded_number_of_frames_and_keeps_out_nobody() {
        let mut said = Said::new(4);
        (0..=NAMES_MAX as u64).for_each(|id| said.add(ReplicaId(3), (key(id), Seq(0))));
        said.add(ReplicaId(1), (key(NAMES_MAX as u64), Seq(0)));
        assert_eq!(said.anybody(&key(NAMES_MAX as u64)).len(), 1);
        (0..NAMES_MAX as u64).for_each(|id| said.add(ReplicaId(3), (key(id), Seq(1))));
        assert_eq!(said.who(&key(0), Seq(1)).len(), 1, "what is known may be said again");
        said.check();
    }
}
