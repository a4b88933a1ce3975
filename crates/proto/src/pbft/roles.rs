//! Who leads: one replica for the whole view, or the replicas in turn, block by block
//! (COP §4.3.2; design, decision 2).
//!
//! A block is one number of every pillar. With rotating leaders block i of view v is led by the
//! ((i + v) mod m)-th of the m replicas that are not excluded there; with a fixed leader every
//! block is led by v mod n. Who is excluded follows from the NEW-VIEW (`group::roster`), so
//! everybody who is in the view agrees on it.
//!
//! Clients' streams are dealt to the leaders, in *buckets*, anew for each checkpoint interval: a
//! frame may be proposed by one leader only in each, which is another one in the next. So no two
//! leaders propose a frame unless an interval ends in between, and none can keep one from being
//! ordered for longer than an interval.
//!
//! Not here: what leaders do with that (`lead`), and what becomes of one that fails.

use alloc::vec::Vec;

use base::{FrameId, PillarId, ReplicaId, Seq, Stripe, View};

use super::LaneConfig;
use crate::group::link::Plan;

/// Who leads in a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Leaders {
    /// One replica.
    #[default]
    Fixed,
    /// All that are not excluded, block by block.
    Rotating,
}

/// Who leads which number of a view, and who may propose which frames.
#[derive(Clone, Debug)]
pub struct Roles {
    leaders: Leaders,
    n: u16,
    stripe: Stripe,
    interval: u64,
    view: View,
    /// Who leads no number up to which.
    excluded: Vec<(ReplicaId, Seq)>,
}

impl Roles {
    /// Those of the first view.
    #[must_use]
    pub fn new(cfg: &LaneConfig) -> Roles {
        let (n, interval) = (cfg.quorums.n(), cfg.checkpoint_interval);
        let (leaders, stripe) = (cfg.switches.leaders, cfg.stripe);
        Roles { leaders, n, stripe, interval, view: View(0), excluded: Vec::new() }
    }

    /// Those of a view of which nothing but its number is known, or needed.
    pub fn begin(&mut self, view: View) {
        (self.view, self.excluded) = (view, Vec::new());
    }

    /// Those of the view that `plan` begins.
    pub fn install(&mut self, plan: &Plan) {
        self.view = plan.view;
        let interval = self.interval;
        let until = plan.excluded.iter().map(|one| (one.replica, one.until(interval)));
        let above = plan.start.seq;
        self.excluded = until.filter(|(_, until)| *until > above).collect();
    }

    /// Whether leaders rotate.
    #[must_use]
    pub fn rotate(&self) -> bool {
        self.leaders == Leaders::Rotating
    }

    /// Who is excluded, and up to which number.
    #[must_use]
    pub fn excluded(&self) -> &[(ReplicaId, Seq)] {
        &self.excluded
    }

    /// Who takes turns to lead at `seq`, one bit per replica: bit r for replica r.
    pub(super) fn leading_at(&self, seq: Seq) -> u64 {
        match self.leaders {
            Leaders::Fixed => 1 << self.view.leader(self.n).0,
            Leaders::Rotating => {
                let leads = (0..self.n).filter(|one| self.leads_at_all(ReplicaId(*one), seq));
                leads.fold(0, |all, one| all | 1 << one)
            }
        }
    }

    /// Whether `replica` takes turns to lead at `seq`.
    pub(super) fn is_leading(&self, replica: ReplicaId, seq: Seq) -> bool {
        self.leading_at(seq) >> replica.0 & 1 == 1
    }

    fn leads_at_all(&self, replica: ReplicaId, seq: Seq) -> bool {
        self.excluded.iter().all(|(out, until)| *out != replica || seq > *until)
    }

    /// The `place`-th of those that lead in the interval of `seq`, counted round and round.
    fn member(&self, place: u64, seq: Seq) -> ReplicaId {
        let n = u64::from(self.n);
        if self.excluded.is_empty() {
            return ReplicaId((place % n) as u16);
        }
        let members = || (0..self.n).map(ReplicaId).filter(|one| self.leads_at_all(*one, seq));
        let count = members().count().max(1);
        let place = usize::try_from(place % count as u64).expect("below the number of replicas");
        members().nth(place).unwrap_or_default()
    }

    /// Who leads `seq`.
    #[must_use]
    pub fn leader(&self, seq: Seq) -> ReplicaId {
        match self.leaders {
            Leaders::Fixed => self.view.leader(self.n),
            Leaders::Rotating => {
                let block = self.stripe.index_of(seq.max(Seq(1)));
                self.member(block.wrapping_add(self.view.0), seq)
            }
        }
    }

    /// The first number of `pillar` above `after` that `replica` leads, if it leads any.
    pub(super) fn next_of(&self, replica: ReplicaId, pillar: PillarId, after: Seq) -> Option<Seq> {
        let mut after = after;
        if let Some((_, until)) = self.excluded.iter().find(|(out, _)| *out == replica) {
            after = after.max(*until);
        }
        // One turn, and another where somebody comes back.
        for _ in 0..=2 * self.n {
            after = self.stripe.next_of(pillar, after);
            if self.leader(after) == replica {
                return Some(after);
            }
        }
        None
    }

    /// Leaders that take turns at `seq`.
    pub(super) fn count(&self, seq: Seq) -> u64 {
        match self.leaders {
            Leaders::Fixed => 1,
            Leaders::Rotating => {
                let all = (0..self.n).map(ReplicaId);
                all.filter(|one| self.leads_at_all(*one, seq)).count() as u64
            }
        }
    }

    /// The last number of the checkpoint interval of `seq`.
    pub(super) fn interval_end(&self, seq: Seq) -> Seq {
        Seq(seq.0.div_ceil(self.interval) * self.interval)
    }

    /// The last number of the block of `seq`.
    pub(super) fn block_end(&self, seq: Seq) -> Seq {
        let pillars = u64::from(self.stripe.pillars());
        Seq(seq.0.div_ceil(pillars) * pillars)
    }

    /// Who may propose `frame` in the checkpoint interval of `seq`.
    #[must_use]
    pub fn dealt_to(&self, frame: &FrameId, seq: Seq) -> ReplicaId {
        match self.leaders {
            Leaders::Fixed => self.view.leader(self.n),
            Leaders::Rotating => {
                let interval = seq.0.saturating_sub(1) / self.interval;
                let turn = if base::mutant!(BucketsStay) { 0 } else { interval };
                self.member(bucket(frame).wrapping_add(turn), seq)
            }
        }
    }
}

/// Deals streams out evenly. Whoever chooses its streams so that they meet in one bucket has
/// itself to wait.
fn bucket(frame: &FrameId) -> u64 {
    let parts = [u64::from(frame.client.0), frame.session.0, u64::from(frame.stream)];
    let mixed = parts.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |mixed, part| {
        let mixed = (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    });
    mixed >> 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::roster::Exclusion;
    use base::{ClientId, SessionId, StableCheckpoint};
    use std::vec;

    fn roles(pillars: u16) -> Roles {
        let stripe = Stripe::new(pillars).unwrap();
        let (leaders, interval) = (Leaders::Rotating, 16);
        Roles { leaders, n: 4, stripe, interval, view: View(0), excluded: vec![] }
    }

    fn frame(stream: u32) -> FrameId {
        FrameId { client: ClientId(1), session: SessionId(7), stream, id: 1 }
    }

    fn without(replica: u16, since: u64) -> Roles {
        let excluded =
            vec![Exclusion { replica: ReplicaId(replica), since: Seq(since), strikes: 0 }];
        let (start, choices) = (StableCheckpoint::default(), vec![]);
        let mut roles = roles(2);
        roles.install(&Plan { view: View(5), start, choices, excluded });
        roles
    }

    #[test]
    fn every_leader_leads_every_pillar_block_by_block() {
        let roles = roles(4);
        let of = |from: u64| (from..from + 4).map(|seq| roles.leader(Seq(seq)).0);
        assert!(of(1).all(|leader| leader == 0));
        assert!(of(5).all(|leader| leader == 1));
        assert!(of(17).all(|leader| leader == 0));
        assert_eq!(roles.next_of(ReplicaId(2), PillarId(3), Seq(0)), Some(Seq(12)));
        assert_eq!(roles.next_of(ReplicaId(2), PillarId(3), Seq(12)), Some(Seq(28)));
        assert_eq!((roles.block_end(Seq(5)), roles.interval_end(Seq(16))), (Seq(8), Seq(16)));
    }

    #[test]
    fn who_is_excluded_leads_nothing_and_comes_back() {
        let roles = without(1, 40);
        let back = 32 * 16 + 48;
        assert_eq!(roles.excluded(), [(ReplicaId(1), Seq(back))]);
        assert!((1..=back).all(|seq| roles.leader(Seq(seq)) != ReplicaId(1)));
        let first = roles.next_of(ReplicaId(1), PillarId(0), Seq(0)).unwrap();
        assert!(first.0 > back && first.0 <= back + 8, "{first:?}");
        assert!((1..=back).all(|seq| roles.dealt_to(&frame(3), Seq(seq)) != ReplicaId(1)));
        assert_eq!((roles.count(Seq(back)), roles.count(Seq(back + 1))), (3, 4));
        let leading = (roles.leading_at(Seq(back)), roles.leading_at(Seq(back + 1)));
        assert_eq!(leading, (0b1101, 0b1111));
    }

    /// Each stream has one leader per interval, who leads in it, and all have their turn.
    #[test]
    fn buckets_move_on_with_every_interval() {
        let roles = roles(2);
        for stream in 0..40 {
            let of = |seq| roles.dealt_to(&frame(stream), Seq(seq));
            assert!((1..=16).all(|seq| of(seq) == of(1)));
            let mut turns: Vec<u16> = (0..4).map(|turn| of(1 + turn * 16).0).collect();
            turns.sort_unstable();
            assert_eq!(turns, [0, 1, 2, 3]);
        }
        let first: Vec<u16> =
            (0..40).map(|stream| roles.dealt_to(&frame(stream), Seq(1)).0).collect();
        for leader in 0..4 {
            let dealt = first.iter().filter(|one| **one == leader).count();
            assert!((4..=18).contains(&dealt), "{first:?}");
        }
    }
}
