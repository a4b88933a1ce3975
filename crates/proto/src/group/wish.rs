//! The view synchronizer's arithmetic: who wishes to be in which view, and what follows.
//!
//! f + 1 wishes for a view or a higher one make this replica wish for it, too; a quorum of
//! wishes makes it leave its view. So whoever leaves is followed by all correct replicas, for a
//! quorum holds f + 1 correct ones, whose wishes reach everybody and are never taken back.
//! Nobody leaves a view alone, and f liars move nothing, whatever number they wish for
//! (design, trap 14). One number is kept per replica.

use alloc::vec;
use alloc::vec::Vec;

use base::{Quorums, ReplicaId, View};

/// The highest wish of every replica.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    quorums: Quorums,
    me: ReplicaId,
    heard: Vec<View>,
}

impl Wishes {
    pub(super) fn new(quorums: Quorums, me: ReplicaId) -> Wishes {
        Wishes { quorums, me, heard: vec![View(0); usize::from(quorums.n())] }
    }

    pub(super) fn me(&self) -> ReplicaId {
        self.me
    }

    pub(super) fn quorums(&self) -> Quorums {
        self.quorums
    }

    /// `from` wishes for `view`. Wishes only grow.
    pub(super) fn hear(&mut self, from: ReplicaId, view: View) {
        let heard = &mut self.heard[usize::from(from.0)];
        *heard = view.max(*heard);
    }

    /// This replica wishes for `view`; whether that is more than before.
    pub(super) fn raise(&mut self, view: View) -> bool {
        let before = self.own();
        self.hear(self.me, view);
        self.own() > before
    }

    /// This replica's own wish.
    pub(super) fn own(&self) -> View {
        self.heard[usize::from(self.me.0)]
    }

    /// Joins a weak quorum: the own wish rises to the highest view that f + 1 wish for at
    /// least. Whether it rose.
    pub(super) fn join(&mut self) -> bool {
        let weak = self.quorums.weak() - usize::from(base::mutant!(OneWishIsJoined));
        let view = self.nth_highest(weak);
        self.raise(view)
    }

    /// The highest view that a quorum wishes for at least.
    pub(super) fn agreed(&self) -> View {
        let weak = base::mutant!(WeakQuorumLeaves).then(|| self.quorums.weak());
        self.nth_highest(weak.unwrap_or(self.quorums.quorum()))
    }

    fn nth_highest(&self, count: usize) -> View {
        let mut all = self.heard.clone();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all[count - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(n: u16, f: u16) -> Wishes {
        Wishes::new(Quorums::pbft(n, f).unwrap(), ReplicaId(0))
    }

    #[test]
    fn f_liars_move_nothing_whatever_they_wish_for() {
        for f in 1..=5u16 {
            let mut w = wishes(3 * f + 1, f);
            for liar in 0..f {
                w.hear(ReplicaId(3 * f - liar), View(u64::MAX >> 1));
            }
            assert!(!w.join());
            assert_eq!((w.own(), w.agreed()), (View(0), View(0)));
            // One correct complaint more, and they all join; to the view that it named.
            w.hear(ReplicaId(1), View(1));
            assert!(w.join());
            assert_eq!(w.own(), View(1));
        }
    }

    /// The dumb twin counts for each view who wishes for it.
    #[test]
    fn counting_agrees_with_counting_one_by_one() {
        for code in 0..256u64 {
            let mut w = wishes(4, 1);
            let views = [code % 4, code / 4 % 4, code / 16 % 4, code / 64];
            for (r, view) in (0u16..).zip(views) {
                w.hear(ReplicaId(r), View(view));
                w.hear(ReplicaId(r), View(0));
            }
            let at_least = |v: u64| views.iter().filter(|x| **x >= v).count();
            let highest = |count| (0..4).filter(|v| at_least(*v) >= count).max().map(View);
            assert_eq!(Some(w.agreed()), highest(3));
            let joined = highest(2).max(Some(View(views[0])));
            let rose = w.join();
            assert_eq!((Some(w.own()), rose), (joined, joined > Some(View(views[0]))));
        }
    }
}
