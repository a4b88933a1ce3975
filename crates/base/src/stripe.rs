//! The striping of sequence numbers over pillars: c(p, i) = p + i·P (COP §4.2.1).
//!
//! Numbers start at 1, so pillar p of P owns the n with (n - 1) mod P = p.

use crate::id::{PillarId, Seq};

/// One group's striping: P pillars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stripe {
    pillars: u16,
}

impl Stripe {
    /// A striping over `pillars`, in `1..=PILLARS_MAX`.
    ///
    /// # Errors
    /// Returns `None` outside that range.
    #[must_use]
    pub fn new(pillars: u16) -> Option<Stripe> {
        let ok = pillars >= 1 && usize::from(pillars) <= crate::limits::PILLARS_MAX;
        ok.then_some(Stripe { pillars })
    }

    /// Number of pillars.
    #[must_use]
    pub fn pillars(self) -> u16 {
        self.pillars
    }

    /// The pillar that owns `seq`.
    ///
    /// # Panics
    /// For `Seq(0)`, which no pillar owns.
    #[must_use]
    pub fn pillar_of(self, seq: Seq) -> PillarId {
        assert!(seq.0 > 0, "sequence number 0 is before the first");
        let pillar = (seq.0 - 1) % u64::from(self.pillars);
        PillarId(u16::try_from(pillar).expect("a remainder below a u16 fits"))
    }

    /// The lowest number above `after` that `pillar` owns.
    #[must_use]
    pub fn next_of(self, pillar: PillarId, after: Seq) -> Seq {
        let p = u64::from(self.pillars);
        let ahead = (u64::from(pillar.0) + p - after.0 % p) % p;
        Seq(after.0 + ahead + 1)
    }

    /// The highest number at or below `upto` that `pillar` owns; `None` when there is none.
    #[must_use]
    pub fn last_of(self, pillar: PillarId, upto: Seq) -> Option<Seq> {
        let next = self.next_of(pillar, upto);
        next.0.checked_sub(u64::from(self.pillars)).filter(|n| *n > 0).map(Seq)
    }

    /// The place of `seq` among its pillar's own numbers, from 0: the i of c(p, i).
    ///
    /// # Panics
    /// For `Seq(0)`.
    #[must_use]
    pub fn index_of(self, seq: Seq) -> u64 {
        assert!(seq.0 > 0, "sequence number 0 is before the first");
        (seq.0 - 1) / u64::from(self.pillars)
    }

    /// The pillar in charge of the checkpoint at `seq`, which is the `k`-th: round-robin
    /// (COP §4.2.2).
    #[must_use]
    pub fn checkpoint_pillar(self, k: u64) -> PillarId {
        let pillar = k % u64::from(self.pillars);
        PillarId(u16::try_from(pillar).expect("a remainder below a u16 fits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dumb twin counts up one by one.
    #[test]
    fn striping_agrees_with_counting() {
        for pillars in 1..=9u16 {
            let s = Stripe::new(pillars).expect("in range");
            for after in 0..60u64 {
                for p in 0..pillars {
                    let pillar = PillarId(p);
                    let next = (after + 1..).map(Seq).find(|n| s.pillar_of(*n) == pillar);
                    assert_eq!(Some(s.next_of(pillar, Seq(after))), next);
                    let last = (1..=after).rev().map(Seq).find(|n| s.pillar_of(*n) == pillar);
                    assert_eq!(s.last_of(pillar, Seq(after)), last);
                }
            }
            assert_eq!(s.index_of(Seq(1)), 0);
            assert_eq!(s.index_of(Seq(1 + 3 * u64::from(pillars))), 3);
        }
    }
}
