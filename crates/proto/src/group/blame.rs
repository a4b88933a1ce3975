//! Why a view is to end, which one is to follow, and who is blamed for it where leaders rotate (V1,
//! V17, V18).
//!
//! Not here: what follows from everybody's blame (`roster`), nor when a lane complains.

use alloc::vec::Vec;

use base::{ReplicaId, Seq, Time, View};

use super::link::{Grievance, Plan};
use super::roster::{Exclusion, Roster, still_known};
use super::{Coordinator, Effect, SuspicionKind};
use crate::pbft::{Leaders, Reject};

/// Whom this replica blames, and who is excluded in its view.
#[derive(Clone, Debug, Default)]
pub(super) struct Blame {
    /// Whom a lane has complained about last in the installed view, or named with its slice.
    whom: Option<ReplicaId>,
    /// Whether the view has worked since then.
    worked: bool,
    /// Who equivocates, which ends no view: blamed when it ends and nobody else is.
    equivocates: Option<ReplicaId>,
    excluded: Vec<Exclusion>,
}

impl Blame {
    pub(super) fn begin_view(&mut self, plan: &Plan) {
        *self = Blame { excluded: plan.excluded.clone(), ..Blame::default() };
    }

    fn put_on(&mut self, whom: ReplicaId) {
        (self.whom, self.worked) = (Some(whom), false);
    }

    /// Something was delivered. Once this replica has `wished` for another view, others may be
    /// about to complain of the same, so the name stays until there is another one.
    pub(super) fn view_works(&mut self, wished: bool) {
        self.worked = true;
        self.whom = self.whom.filter(|_| wished);
    }
}

/// V15: whether a view that has not worked yet gets its doubled time before it ends for `what`.
pub(super) fn is_given_time(what: Grievance) -> bool {
    matches!(what, Grievance::Stalled | Grievance::Starved)
}

impl Coordinator {
    /// What this replica's VIEW-CHANGE says about leaders, with this low mark.
    pub(super) fn roster(&self, stable: Seq) -> Roster {
        if self.cfg.leaders == Leaders::Fixed {
            return Roster::default();
        }
        let Blame { whom, equivocates, excluded, .. } = &self.change.blame;
        let excluded = still_known(excluded, stable, self.cfg.checkpoint_interval);
        let blames = whom.or(*equivocates).filter(|whom| *whom != self.cfg.me);
        Roster { blames, excluded }
    }

    /// A lane that has stopped names who would soon have been blamed: now, while a complaint from
    /// before the view worked again may be as old as the view.
    pub(super) fn on_suspects(&mut self, view: View, whom: ReplicaId) -> Result<(), Reject> {
        if view != self.change.left || self.change.own_change().is_some() {
            return Err(Reject::Stale("suspect of another view"));
        }
        let blame = &mut self.change.blame;
        if blame.whom.is_none() || blame.worked {
            blame.put_on(whom);
        }
        Ok(())
    }

    /// V1: a lane wants another leader.
    pub(super) fn on_grievance(
        &mut self,
        now: Time,
        view: View,
        (what, whom): (Grievance, ReplicaId),
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let ends_view = self.ends_view(what);
        let change = &mut self.change;
        if view != change.installed() || change.is_changing() {
            return Err(Reject::Stale("grievance about a view that is left"));
        }
        // Also after a wish: the others may not follow until this is felt.
        match ends_view {
            true => change.blame.put_on(whom),
            false => change.blame.equivocates = Some(whom),
        }
        if change.wishes.own() > view {
            return Err(Reject::Stale("grievance after the wish"));
        }
        if change.aggrieved.contains(&what) {
            return Err(Reject::Stale("grievance again"));
        }
        change.aggrieved.push(what);
        let patient = is_given_time(what) && !change.progressed;
        self.suspect(whom, SuspicionKind::Leader(what), out);
        if !ends_view {
            return Ok(());
        }
        // V15: a view that has not worked yet gets its doubled time.
        if !patient || now >= self.change.since.after(self.timeout()) {
            self.wish_for_next(now, out);
        }
        Ok(())
    }

    /// Whether the view is to end for `what`. Where leaders rotate, who equivocates may have told
    /// this replica alone, and a liar may wish for each next view: the view would end, and nobody
    /// else would blame it. If it matters, a number stands still.
    fn ends_view(&self, what: Grievance) -> bool {
        what != Grievance::Equivocates || self.cfg.leaders == Leaders::Fixed
    }

    /// Whether something is held against a leader that ends the view once its time is over. What
    /// is only to be blamed on somebody, should others end the view, stays for as long as it lasts.
    pub(super) fn is_aggrieved(&self) -> bool {
        self.change.aggrieved.iter().any(|what| self.ends_view(*what))
    }

    pub(super) fn wish_for_next(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.change.aggrieved.clear();
        if self.change.wishes.raise(self.view_after(self.change.installed())) {
            self.wish_raised(now, out);
        }
    }

    /// V18: the view to wish for when `view` does not work: the next one, but for those whose
    /// leaders say that they recover, and so begin none.
    pub(super) fn view_after(&self, view: View) -> View {
        self.led_after(view).unwrap_or(View(view.0 + 1))
    }

    /// V18: the view that is asked for is not waited for when its leader recovers.
    pub(super) fn pass_over(&mut self, now: Time, out: &mut Vec<Effect>) {
        let left = self.change.left;
        let asks = self.change.is_changing() && self.change.wishes.own() == left;
        if !asks || !self.recovers(left.leader(self.cfg.quorums.n())) {
            return;
        }
        if self.led_after(left).is_some_and(|next| self.change.wishes.raise(next)) {
            self.wish_raised(now, out);
        }
    }

    /// The first view above `view` whose leader does not say that it recovers, if anybody is left.
    fn led_after(&self, view: View) -> Option<View> {
        let n = self.cfg.quorums.n();
        let next = (1..=u64::from(n)).map(|step| View(view.0 + step));
        next.filter(|view| !self.recovers(view.leader(n))).min()
    }
}
