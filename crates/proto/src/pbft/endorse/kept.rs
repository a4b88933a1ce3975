//! The proofs with which a leader orders frames that a quorum endorses.
//!
//! That a frame is its client's stays true; that somebody holds it does not. Whoever keeps what a
//! quorum has signed can show it to a leader when the others have let go of the frame, and then
//! they cannot know whose it is if its authenticator is not genuine for them. So the leader gives
//! them the signatures with the body. A weak quorum's are enough: one of them is correct.
//!
//! Invariant: of each teller at most [`FORWARDED_MAX`] are kept, as many as a correct one has told
//! of at a time.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use base::{ReplicaId, Span, Time, View};

use super::{FORWARDED_MAX, Key, Proof};

/// What a quorum has signed, in which view, and who has shown that.
type Shown = (ReplicaId, View, Proof);

/// What a leader can show of the frames that it orders for a quorum's word.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    proofs: BTreeMap<Key, Shown>,
    /// How many of them each replica has shown.
    of: Vec<usize>,
    /// When it was looked last which are needed no more.
    looked: Time,
}

impl Kept {
    pub(super) fn new(n: u16) -> Kept {
        Kept { proofs: BTreeMap::new(), of: vec![0; usize::from(n)], looked: Time::ZERO }
    }

    /// Whether what `teller` shows of `key` may be kept. If there is no room, those go, at most
    /// once per `pause`, that are not `needed`: their frames are not here, or were refused and wait
    /// for nothing. Whoever endorses one of these anew shows that anew.
    pub(super) fn has_room(
        &mut self,
        (teller, key): (ReplicaId, &Key),
        (now, pause): (Time, Span),
        needed: impl Fn(&Key) -> bool,
    ) -> bool {
        let full = |kept: &Kept| kept.of[usize::from(teller.0)] >= FORWARDED_MAX;
        if full(self) && now.since(self.looked) >= pause {
            self.looked = now;
            self.let_go(needed);
        }
        !full(self) || self.proofs.get(key).is_some_and(|(by, ..)| *by == teller)
    }

    /// Only what is still `needed` is kept.
    pub(super) fn let_go(&mut self, needed: impl Fn(&Key) -> bool) {
        let of = &mut self.of;
        of.fill(0);
        self.proofs.retain(|key, (who, ..)| {
            let stays = needed(key);
            of[usize::from(who.0)] += usize::from(stays);
            stays
        });
    }

    /// Keeps what was shown of `key`.
    pub(super) fn keep(&mut self, key: Key, shown: Shown) {
        self.of[usize::from(shown.0.0)] += 1;
        if let Some((before, ..)) = self.proofs.insert(key, shown) {
            self.of[usize::from(before.0)] -= 1;
        }
    }

    /// What a weak quorum has signed of `key`, and in which view.
    pub(super) fn get(&self, key: &Key) -> Option<(View, &Proof)> {
        self.proofs.get(key).map(|(_, view, proof)| (*view, proof))
    }

    pub(super) fn check(&self) {
        assert_eq!(self.proofs.len(), self.of.iter().sum());
        assert!(self.of.iter().all(|many| *many <= FORWARDED_MAX));
    }
}
