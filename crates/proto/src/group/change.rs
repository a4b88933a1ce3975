//! The joint view change of all pillars: leaving a view, VIEW-CHANGE, NEW-VIEW, and the timers
//! (`docs/protocol/view-change.md`, V1 to V18).
//!
//! | state | what this replica does |
//! |---|---|
//! | active: left = installed | votes in `installed`; wishes for more when its lanes complain |
//! | changing: left > installed | votes in nothing; waits for a NEW-VIEW of `left` or above |
//!
//! Not here: what a set of VIEW-CHANGEs decides (`decide`), and when one is genuine (`rules`).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Incarnation, PillarId, ReplicaId, Seq, Signature, Span, StableCheckpoint, Time, View};

use super::blame::{self, Blame};
use super::decide::{Decision, decide, decide_with_few};
use super::evidence::Proof;
use super::link::{FromCoordinator, Grievance, Plan, SliceEntry};
use super::msg::{GroupMessage, NewView, ViewChange};
use super::record::GroupRecord;
use super::rules::{Fault, Rules};
use super::wish::Wishes;
use super::{Coordinator, CoordinatorConfig, Effect, GroupFact, SuspicionKind};
use super::{promise, send, wire};
use crate::outbox::Target;
use crate::pbft::Reject;

/// The longest that a view may take, however many have failed before.
pub(super) const TIMEOUT_MAX: Span = Span::secs(60);
/// Heartbeats while the group works, and while it is idle.
const HEARTBEAT: Span = Span::secs(1);
const HEARTBEAT_IDLE: Span = Span::secs(5);

/// One pillar's answer to [`FromCoordinator::Stop`].
#[derive(Clone, Debug)]
struct Slice {
    stable: StableCheckpoint,
    entries: Vec<SliceEntry>,
}

/// Where this replica stands.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) wishes: Wishes,
    /// The view in which this replica votes, or voted last.
    installed: View,
    /// It votes in no view below this one.
    pub(super) left: View,
    /// The last NEW-VIEW: kept for those who lag, across everything.
    last: Option<Arc<NewView>>,
    /// What the pillars handed over for `left`.
    slices: BTreeMap<PillarId, Slice>,
    /// The VIEW-CHANGE of the highest view of each replica, verified.
    changes: Vec<Option<Arc<ViewChange>>>,
    /// View changes since the last one that worked: the timeout's exponent.
    failed: u32,
    /// When `left` was left for, or `installed` installed.
    pub(super) since: Time,
    /// Whether something was delivered in the installed view.
    pub(super) progressed: bool,
    /// What the lanes complain about in the installed view, while it still has time.
    pub(super) aggrieved: Vec<Grievance>,
    pub(super) blame: Blame,
    /// Whether anything happened since the last heartbeat.
    busy: bool,
    say_next: Time,
    resend_next: Time,
    installed_count: u64,
}

impl Change {
    pub(super) fn new(cfg: &CoordinatorConfig) -> Change {
        Change {
            wishes: Wishes::new(cfg.quorums, cfg.me),
            installed: View(0),
            left: View(0),
            last: None,
            slices: BTreeMap::new(),
            changes: vec![None; usize::from(cfg.quorums.n())],
            failed: 0,
            since: Time::ZERO,
            progressed: true,
            aggrieved: Vec::new(),
            blame: Blame::default(),
            busy: true,
            say_next: Time::ZERO,
            resend_next: Time::ZERO,
            installed_count: 0,
        }
    }

    pub(super) fn installed(&self) -> View {
        self.installed
    }

    pub(super) fn asks_for(&self) -> Option<View> {
        self.is_changing().then_some(self.left)
    }

    pub(super) fn count(&self) -> u64 {
        self.installed_count
    }

    pub(super) fn is_changing(&self) -> bool {
        self.left > self.installed
    }

    /// This replica's own VIEW-CHANGE for the view that it asks for.
    pub(super) fn own_change(&self) -> Option<&Arc<ViewChange>> {
        let me = self.wishes.me();
        let own = self.changes[usize::from(me.0)].as_ref();
        own.filter(|change| self.is_changing() && change.view == self.left)
    }

    pub(super) fn replay_left(&mut self, view: View) {
        self.left = view.max(self.left);
        self.wishes.raise(self.left);
    }

    /// The log is believed. Where the view begins, if it is newer than what is known.
    pub(super) fn replay_installed(
        &mut self,
        rules: &Rules,
        nv: Arc<NewView>,
    ) -> Option<StableCheckpoint> {
        let Decision::Decided(plan) = decide(rules.quorums, nv.view, &nv.changes) else {
            return None;
        };
        if nv.view <= self.installed {
            return None;
        }
        self.installed = nv.view;
        self.blame.begin_view(&plan);
        self.replay_left(nv.view);
        self.last = Some(nv);
        Some(plan.start)
    }

    /// What the lanes must know when a life begins: the view, and whether it was left.
    pub(super) fn begin(&self) -> impl Iterator<Item = FromCoordinator> {
        let plan = self.last.as_ref().and_then(|nv| {
            match decide(self.wishes.quorums(), nv.view, &nv.changes) {
                Decision::Decided(plan) => Some(FromCoordinator::Install(Arc::new(plan))),
                Decision::Undecided(_) => None,
            }
        });
        let stop = self.is_changing().then_some(FromCoordinator::Stop { view: self.left });
        plan.into_iter().chain(stop)
    }

    /// The records that say where this replica stands.
    pub(super) fn records(&self) -> impl Iterator<Item = GroupRecord> {
        let last = self.last.clone().map(GroupRecord::Installed);
        let left = self.is_changing().then_some(GroupRecord::Left { view: self.left });
        last.into_iter().chain(left)
    }

    /// Drops `replica`'s VIEW-CHANGE if it is void.
    pub(super) fn void(&mut self, replica: ReplicaId, voids: impl Fn(&ViewChange) -> bool) {
        let held = &mut self.changes[usize::from(replica.0)];
        if held.as_ref().is_some_and(|change| voids(change)) {
            *held = None;
        }
    }

    pub(super) fn check(&self) {
        assert!(self.installed <= self.left);
        assert!(self.left <= self.wishes.own());
        assert_eq!(self.last.as_ref().map_or(View(0), |nv| nv.view), self.installed);
        assert!(self.aggrieved.len() <= 4);
    }
}

impl Coordinator {
    /// How long the view that is asked for, or was installed last, has.
    pub(super) fn timeout(&self) -> Span {
        let first = self.cfg.view_timeout;
        let failed = if base::mutant!(TimeoutStays) { 0 } else { self.change.failed.min(32) };
        let doubled = first.0.saturating_mul(1 << failed);
        Span(doubled.min(TIMEOUT_MAX.0.max(first.0)))
    }

    fn quarter(&self) -> Span {
        Span(self.cfg.view_timeout.0 / 4)
    }

    pub(super) fn change_start(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.change.since = now;
        self.change.resend_next = now.after(self.quarter());
        self.say_wish(now, Target::All, out);
    }

    pub(super) fn change_deadline(&self) -> Time {
        let change = &self.change;
        let mut next = change.say_next;
        let timed =
            (change.is_changing() && change.wishes.own() == change.left) || self.is_aggrieved();
        if timed {
            next = next.min(change.since.after(self.timeout()));
        }
        if change.is_changing() { next.min(change.resend_next) } else { next }
    }

    pub(super) fn change_turn(&mut self, now: Time, out: &mut Vec<Effect>) {
        let expired = now >= self.change.since.after(self.timeout());
        let change = &self.change;
        if expired && change.is_changing() && change.wishes.own() == change.left {
            // V14: the view that was asked for does not begin.
            let late = change.left;
            let next = self.view_after(late);
            self.change.wishes.raise(next);
            self.suspect(late.leader(self.cfg.quorums.n()), SuspicionKind::NoNewView, out);
            self.wish_raised(now, out);
        } else if expired && !change.is_changing() && self.is_aggrieved() {
            self.wish_for_next(now, out);
        }
        if now >= self.change.say_next {
            self.say_wish(now, Target::All, out);
        }
        if self.change.is_changing() && now >= self.change.resend_next {
            self.change.resend_next = now.after(Span(self.cfg.view_timeout.0 / 2));
            self.resend_change(now, out);
        }
    }

    /// V3: sends the own wish, which is the heartbeat, too.
    fn say_wish(&mut self, now: Time, to: Target, out: &mut Vec<Effect>) {
        let (wish, installed) = (self.change.wishes.own(), self.change.installed);
        let recovering = self.recovery.is_some();
        send(out, to, GroupMessage::Wish { wish, installed, recovering });
        if to == Target::All {
            self.fill_again(out);
            let pause = if wish > installed {
                self.quarter()
            } else if self.is_filling() {
                HEARTBEAT.min(self.cfg.view_timeout)
            } else if self.change.busy {
                HEARTBEAT
            } else {
                HEARTBEAT_IDLE
            };
            self.change.busy = false;
            self.change.say_next = now.after(pause);
        }
    }

    /// Numbers are waited for: whom this replica asks for them now, it asks again before it blames
    /// them, also where the next heartbeat of a group at rest would be too late for that.
    pub(super) fn say_soon(&mut self, now: Time) {
        let pause = HEARTBEAT.min(self.cfg.view_timeout);
        self.change.say_next = self.change.say_next.min(now.after(pause));
    }

    /// The link to `peer` is new: what was said on the old one may be lost.
    pub(super) fn greet(&mut self, now: Time, peer: ReplicaId, out: &mut Vec<Effect>) {
        self.say_wish(now, Target::One(peer), out);
        if let Some(change) = self.change.own_change() {
            promise(out, Target::One(peer), GroupMessage::ViewChange(change.clone()));
        }
    }

    /// The leader that is waited for gets the VIEW-CHANGE again; or, where no VIEW-CHANGE could
    /// be made yet, the lanes are asked again. The leader itself looks again what it has.
    fn resend_change(&mut self, now: Time, out: &mut Vec<Effect>) {
        let leader = self.change.left.leader(self.cfg.quorums.n());
        match self.change.own_change() {
            // It may be late enough for those whom it has left out.
            Some(_) if leader == self.cfg.me => self.try_new_view(now, out),
            Some(change) => {
                promise(out, Target::One(leader), GroupMessage::ViewChange(change.clone()));
            }
            None => self.stop_lanes(out),
        }
    }

    fn stop_lanes(&mut self, out: &mut Vec<Effect>) {
        self.change.slices.clear();
        out.push(Effect::Lanes(FromCoordinator::Stop { view: self.change.left }));
    }

    /// V15: the installed view works.
    pub(super) fn on_progress(&mut self, view: View) -> Result<(), Reject> {
        let change = &mut self.change;
        if view != change.installed || change.is_changing() {
            return Err(Reject::Stale("progress in a view that is left"));
        }
        change.busy = true;
        change.progressed = true;
        change.failed = 0;
        // What the view had time for. A lane says again what is still so, and it ends the view.
        change.aggrieved.retain(|what| !blame::is_given_time(*what));
        change.blame.view_works(change.wishes.own() > view);
        Ok(())
    }

    pub(super) fn on_wish(
        &mut self,
        now: Time,
        from: ReplicaId,
        wish: View,
        installed: View,
        out: &mut Vec<Effect>,
    ) {
        self.change.wishes.hear(from, wish);
        self.follow_wishes(now, out);
        let begun = installed >= self.change.installed();
        out.extend(self.peers.hear_whether_begun(from, begun, now).map(Effect::Lanes));
        // V13: the others had time to get it from the leader.
        let settled = now.since(self.change.since) >= self.quarter() || self.change.is_changing();
        let last = self.change.last.clone().filter(|nv| nv.view > installed && settled);
        let Some(last) = last.filter(|_| !base::mutant!(LaggardsFindNoView)) else { return };
        let bytes = wire::new_view_len(&last);
        if self.peers.may_serve(from, now, installed, bytes, self.quarter()) {
            promise(out, Target::One(from), GroupMessage::NewView(last));
        }
    }

    pub(super) fn wish_raised(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.say_wish(now, Target::All, out);
        self.follow_wishes(now, out);
    }

    /// V2, V4 and V18: what the wishes ask for.
    fn follow_wishes(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.change.wishes.join() {
            self.say_wish(now, Target::All, out);
        }
        let agreed = self.change.wishes.agreed();
        if agreed > self.change.left {
            self.leave_for(now, agreed, out);
        }
        self.pass_over(now, out);
    }

    /// V4: votes no more below `view`, and asks every pillar for its promises.
    fn leave_for(&mut self, now: Time, view: View, out: &mut Vec<Effect>) {
        let change = &mut self.change;
        debug_assert!(view > change.left);
        change.failed = if change.progressed { 0 } else { change.failed.saturating_add(1) };
        change.progressed = false;
        change.left = view;
        change.since = now;
        change.resend_next = now.after(Span(self.cfg.view_timeout.0 / 2));
        change.aggrieved.clear();
        change.wishes.raise(view);
        out.push(Effect::Fact(GroupFact::Leaving(view)));
        self.stop_lanes(out);
        self.try_new_view(now, out);
    }

    /// V5: one pillar has stopped.
    pub(super) fn on_slice(
        &mut self,
        now: Time,
        pillar: PillarId,
        view: View,
        stable: StableCheckpoint,
        entries: Vec<SliceEntry>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        debug_assert!(pillar.0 < self.cfg.stripe.pillars());
        if !self.change.is_changing() || view != self.change.left {
            return Err(Reject::Stale("slice for another view"));
        }
        if self.change.own_change().is_some() {
            return Err(Reject::Stale("slice after the VIEW-CHANGE"));
        }
        self.change.slices.insert(pillar, Slice { stable, entries });
        let missing = usize::from(self.cfg.stripe.pillars()) - self.change.slices.len();
        if missing == 0 || base::mutant!(OneSliceIsEnough) {
            self.make_change(now, out);
        }
        Ok(())
    }

    /// V6: all pillars have stopped: the joint VIEW-CHANGE.
    fn make_change(&mut self, now: Time, out: &mut Vec<Effect>) {
        let slices = core::mem::take(&mut self.change.slices);
        let lowest = base::mutant!(LowestMarkOfPillars);
        let stables = slices.values().map(|slice| &slice.stable);
        let stable = stables.max_by_key(|s| if lowest { !s.seq.0 } else { s.seq.0 });
        let stable = stable.cloned().unwrap_or_default();
        // R8: whoever may have forgotten says nothing about numbers that it may have forgotten.
        if self.recovery.is_some() || stable.seq < self.recovered.seq {
            return;
        }
        // The beginning of the history has one form.
        let stable = if stable.seq == Seq(0) { StableCheckpoint::default() } else { stable };
        let mut entries: Vec<SliceEntry> = slices
            .into_values()
            .flat_map(|slice| slice.entries)
            .filter(|entry| entry.seq > stable.seq)
            .filter_map(SliceEntry::canonical)
            .collect();
        entries.sort_unstable_by_key(|entry| entry.seq);
        let (replica, incarnation) = (self.cfg.me, self.cfg.incarnation);
        let view = self.change.left;
        let signature = Signature([0; 64]);
        let roster = self.roster(stable.seq);
        let mut change =
            ViewChange { replica, incarnation, view, stable, entries, roster, signature };
        let digest = self.rules.change_digest(&change);
        change.signature = self.keys.sign(&self.rules.change_signed(digest));
        // Never seen to happen; if it did, the others would hold it against this replica for good.
        if self.judge().change(&change).is_err() {
            debug_assert!(false, "{change:?}");
            return;
        }
        let change = Arc::new(change);
        out.push(Effect::Persist(GroupRecord::Left { view }));
        self.change.changes[usize::from(replica.0)] = Some(change.clone());
        promise(out, Target::All, GroupMessage::ViewChange(change));
        self.try_new_view(now, out);
    }

    /// V7: a peer has left its view.
    pub(super) fn on_view_change(
        &mut self,
        now: Time,
        from: ReplicaId,
        incarnation: Incarnation,
        change: Arc<ViewChange>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if change.replica != from {
            return Err(Reject::Misbehaviour("view-change of another replica"));
        }
        if change.incarnation != incarnation || self.recovers.voids(&change) {
            return Err(Reject::Stale("view-change of an older life"));
        }
        if change.view <= self.change.installed {
            return Err(Reject::Stale("view-change for a view that has begun"));
        }
        let held = self.change.changes[usize::from(from.0)].clone();
        let order = |c: &ViewChange| (c.view, c.incarnation);
        if let Some(held) = held.filter(|held| order(held) >= order(&change)) {
            return self.on_second_change(held, change, out);
        }
        match self.judge().change(&change) {
            Ok(_) => {}
            Err(fault) => return Err(self.refuse(fault, Proof::BadViewChange(change), out)),
        }
        self.recovers.says(from, false);
        let view = change.view;
        self.change.changes[usize::from(from.0)] = Some(change);
        self.change.wishes.hear(from, view);
        self.follow_wishes(now, out);
        self.try_new_view(now, out);
        Ok(())
    }

    /// A VIEW-CHANGE of a replica that has sent one for the same view, or a later one, before.
    fn on_second_change(
        &mut self,
        held: Arc<ViewChange>,
        change: Arc<ViewChange>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if (held.view, held.incarnation) != (change.view, change.incarnation) || held == change {
            return Err(Reject::Stale("view-change known or older"));
        }
        let swap = self.rules.change_digest(&held) > self.rules.change_digest(&change);
        let (one, other) = if swap { (change, held) } else { (held, change) };
        self.accuse(Proof::TwoViewChanges(one, other), out);
        Err(Reject::Misbehaviour("two view-changes for one view"))
    }

    /// What was signed is not accepted; where it proves something, that is kept.
    fn refuse(&mut self, fault: Fault, proof: Proof, out: &mut Vec<Effect>) -> Reject {
        match fault {
            Fault::Forged(what) => Reject::Misbehaviour(what),
            Fault::Bad(what) => {
                self.accuse(proof, out);
                Reject::Misbehaviour(what)
            }
        }
    }

    /// V8: as leader of the view that is asked for, begins it as soon as that is decided.
    fn try_new_view(&mut self, now: Time, out: &mut Vec<Effect>) {
        let view = self.change.left;
        let leads = view.leader(self.cfg.quorums.n()) == self.cfg.me;
        if !leads || !self.change.is_changing() || self.recovery.is_some() {
            return;
        }
        let Some((changes, plan)) = self.decided(now, view) else { return };
        let named = |change: &Arc<ViewChange>| (self.rules.change_digest(change), change.signature);
        let digests: Vec<_> = changes.iter().map(named).collect();
        let signature = self.keys.sign(&self.rules.new_view_signed(view, &digests));
        let nv = Arc::new(NewView { view, changes, signature });
        self.install(now, nv.clone(), plan, out);
        promise(out, Target::All, GroupMessage::NewView(nv));
    }

    /// The VIEW-CHANGEs with which `view` begins, and how. Those of unsettled replicas are made use
    /// of only where the view has waited long for the others, and of no more than it takes, whoever
    /// is unsettled longest first: somebody may know of yet another life, and could not follow.
    fn decided(&self, now: Time, view: View) -> Option<(Vec<Arc<ViewChange>>, Plan)> {
        let late = now >= self.change.since.after(Span(self.timeout().0 / 2));
        let mut changes = Vec::new();
        let mut unsettled = Vec::new();
        for change in self.change.changes.iter().flatten().filter(|c| c.view == view) {
            match self.recovers.unsettled(change.replica, now, self.settling()) {
                Some(since) => unsettled.push((since, change.clone())),
                None => changes.push(change.clone()),
            }
        }
        unsettled.sort_unstable_by_key(|(since, change)| (*since, change.replica));
        let more = unsettled.into_iter().filter(|_| late).map(|(_, change)| change);
        decide_with_few(self.cfg.quorums, view, changes, more)
    }

    /// V9: a view begins, as its leader says; anybody may pass it on.
    pub(super) fn on_new_view(
        &mut self,
        now: Time,
        nv: Arc<NewView>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if nv.view <= self.change.installed || nv.view < self.change.left {
            return Err(Reject::Stale("new-view for a view that is left"));
        }
        if let Some((change, void)) = self.void_in(&nv) {
            return Err(self.refuse_void(now, &change, void, out));
        }
        match self.judge().new_view(&nv) {
            Ok(plan) => {
                self.compare_changes(&nv, out);
                self.install(now, nv, plan, out);
                Ok(())
            }
            Err(fault) => Err(self.refuse(fault, Proof::BadNewView(nv), out)),
        }
    }

    /// Who sent the leader another VIEW-CHANGE than this replica is found out.
    fn compare_changes(&mut self, nv: &NewView, out: &mut Vec<Effect>) {
        for theirs in &nv.changes {
            let Some(ours) = self.change.changes[usize::from(theirs.replica.0)].clone() else {
                continue;
            };
            if ours != *theirs && theirs.replica != self.cfg.me {
                // Nothing comes of it when they are for different views or lives.
                let _ = self.on_second_change(ours, theirs.clone(), out);
            }
        }
    }

    /// V10: votes in the view from now on.
    fn install(&mut self, now: Time, nv: Arc<NewView>, plan: Plan, out: &mut Vec<Effect>) {
        let change = &mut self.change;
        let view = nv.view;
        debug_assert!(view > change.installed && view >= change.left);
        change.installed = view;
        change.left = view;
        change.blame.begin_view(&plan);
        change.last = Some(nv.clone());
        change.since = now;
        change.progressed = false;
        change.busy = true;
        change.aggrieved.clear();
        change.slices.clear();
        change.installed_count += 1;
        change.wishes.raise(view);
        for held in change.changes.iter_mut() {
            if held.as_ref().is_some_and(|held| held.view <= view) {
                *held = None;
            }
        }
        out.push(Effect::Persist(GroupRecord::Installed(nv)));
        let start = plan.start.clone();
        self.certified_seen(&start);
        if start.seq > self.stable.seq {
            out.push(Effect::Lanes(FromCoordinator::Certified(start.clone())));
        }
        out.push(Effect::Lanes(FromCoordinator::Install(Arc::new(plan))));
        out.push(Effect::Fact(GroupFact::Installed(view)));
        self.say_wish(now, Target::All, out);
        // Wishes that came for later views meanwhile.
        self.follow_wishes(now, out);
    }

    /// R8: this replica may say again what it has promised.
    pub(super) fn change_recovered(&mut self, out: &mut Vec<Effect>) {
        if self.change.is_changing() {
            self.stop_lanes(out);
        }
    }

    /// The view must be found (design, trap 11): whoever is ahead answers with its NEW-VIEW.
    pub(super) fn change_fetched(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.say_wish(now, Target::All, out);
    }
}
