//! When this replica wants another leader: the timers and tests behind a [`Grievance`].
//!
//! | grievance | felt when |
//! |---|---|
//! | stalled | the leader owes something and nothing was delivered for T |
//! | stalled | frames wait, and fewer than a quorum say that they vote in this view |
//! | starved | a frame is not ordered T after a quorum has said that the leader owes it |
//! | slow | such frames are ordered late, in the last of three slow windows (`monitor`) |
//! | equivocates | a weak quorum has accepted another proposal for one number |
//! | forges | it gives a body to its own proposal that the client has not signed (`inline`) |
//!
//! None of them can be caused by a client, alone or with f replicas: a stall needs the leader's
//! own proposal, the word of a weak quorum, or the absence of correct replicas from the view, the
//! next two a quorum's word that the leader owes a frame (`endorse`), the fifth a weak quorum's
//! votes, and the last what no correct leader sends. A replica that lags blames nobody; nor does
//! one that has stopped voting in its view, or that leads it. Who has stopped goes on endorsing:
//! where nobody has followed it, and a liar stands in for it, the others see a quorum in their view
//! and have too few endorsements without it.
//!
//! Time is looked at only while something is under way: an idle group has no timers.

use alloc::collections::BTreeMap;

use base::{ClientId, Now, ReplicaId, Seq, Span, Time, VoteSet};

use super::catchup::HEARTBEAT_IDLE;
use super::endorse::Endorsements;
use super::log::{Phase, Slot};
use super::monitor::Monitor;
use super::msg::Proposal;
use super::peers::Peers;
use super::rotate::Pace;
use super::{Lane, LaneConfig, pool};
use crate::group::link::{Grievance, ToCoordinator};
use crate::group::share_pause_max;
use crate::outbox::Outbox;

/// A replica whose peers say that they are further, and that still does not get on, stops
/// believing that they help it after so many T: some of them may lie.
const LAG_PATIENCE: u64 = 4;
/// How many T a leader may leave numbers empty that a recovering replica waits for: it may not
/// have been asked, or be that very replica, which cannot fill them. And for so long it may have
/// to refuse this replica, when f liars have it pass on what each may ask for.
const FILL_PATIENCE: u64 = 4;
/// For so long somebody counts as one who votes in this view after saying so, and for half of
/// that too few must have been there, while frames waited.
const PRESENT: Span = Span(2 * HEARTBEAT_IDLE.0);
/// The timers are looked at so many times per T while the leader owes something, and as often in
/// the time that it may take while it seems slow.
const LOOKS: u64 = 8;

/// What is held against the leader of this view.
#[derive(Clone, Debug)]
pub(super) struct Grievances {
    pub(super) monitor: Monitor,
    pub(super) pace: Pace,
    pub(super) endorsements: Endorsements,
    pub(super) looked: Time,
    /// When to look again even if nothing else happens, and how long the last pause was.
    due: Time,
    pause: Span,
    /// Whether a frame has come since.
    fresh: bool,
    /// Since when the leader owes something.
    owed_since: Option<Time>,
    /// Since when numbers are missing that a recovering replica waits for.
    unfilled_since: Option<Time>,
    /// Since when too few vote in this view, while frames wait.
    deserted_since: Option<Time>,
    /// Since when a weak quorum says that it has what is missing here.
    helped_since: Option<Time>,
    /// The stage waits for this number of this stripe.
    blocked: Seq,
    /// The highest number at which each leader proposed something that was refused for its time.
    refused: BTreeMap<ReplicaId, Seq>,
    /// What was told in this view, and when last.
    told: BTreeMap<(Grievance, ReplicaId), Time>,
}

impl Grievances {
    pub(super) fn new(cfg: &LaneConfig) -> Grievances {
        Grievances {
            monitor: Monitor::default(),
            pace: Pace::new(cfg.switches, cfg.quorums.n()),
            endorsements: Endorsements::new(cfg.quorums.n()),
            looked: Time::ZERO,
            due: Time::ZERO,
            pause: Span(0),
            fresh: false,
            unfilled_since: None,
            deserted_since: None,
            helped_since: None,
            owed_since: None,
            blocked: Seq(0),
            refused: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// A frame waits for its order from now on: it is overdue after a quarter of T.
    pub(super) fn frame_waits(&mut self, now: Time, timeout: Span) {
        let by = now.after(Span(timeout.0 / 4));
        let scheduled = self.due > self.looked;
        self.due = if scheduled { self.due.min(by) } else { by };
        self.fresh = true;
    }

    /// The stage waits for `missing`, of this stripe.
    pub(super) fn blocked_on(&mut self, missing: Seq) {
        self.blocked = self.blocked.max(missing);
    }

    /// The proposal of `leader` at `seq` is too far from this replica's clock.
    pub(super) fn refused_of(&mut self, leader: ReplicaId, seq: Seq) {
        let refused = self.refused.entry(leader).or_default();
        *refused = seq.max(*refused);
    }

    /// A proposal that this replica holds names `key`.
    /// Whoever got it itself knows `since` when.
    pub(super) fn ordered(&mut self, now: Time, key: &pool::Key, since: Option<Time>) {
        self.endorsements.ordered(now, key, since, self.monitor.threshold());
    }

    /// The state was fetched.
    pub(super) fn forget_frames(&mut self) {
        self.endorsements.forget_debts();
    }

    pub(super) fn begin_view(&mut self, now: Time) {
        let blamed = self.told.keys().any(|(what, _)| *what == Grievance::Slow);
        self.monitor.begin_view(now, blamed);
        self.endorsements.clear();
        (self.owed_since, self.helped_since, self.unfilled_since) = (None, None, None);
        self.deserted_since = None;
        self.refused.clear();
        self.told.clear();
    }

    pub(super) fn check(&self) {
        self.endorsements.check();
    }
}

impl Lane {
    /// Whether instances are under way, or endorsed frames.
    fn is_busy(&self) -> bool {
        self.is_behind()
            || self.is_blocked()
            || self.is_unfilled()
            || self.has_refused()
            || self.grievances.endorsements.any_owed()
    }

    fn is_unfilled(&self) -> bool {
        self.lead.gentle_fill() >= self.next_undelivered()
    }

    /// Whether something was refused of who leads the next number. Nobody follows what is refused
    /// of others, so nobody owes anything for it.
    fn has_refused(&self) -> bool {
        let refused = self.grievances.refused.get(&self.suspect());
        refused.is_some_and(|seq| *seq >= self.next_undelivered())
    }

    fn is_blocked(&self) -> bool {
        self.grievances.blocked >= self.next_undelivered()
    }

    /// When the timers are to be looked at, if there is a leader to watch over.
    pub(super) fn grieve_deadline(&self) -> Option<Time> {
        if !self.is_active() {
            let quarter = Span(self.cfg.view_timeout.0 / 4);
            let owed = self.grievances.endorsements.any_owed();
            let owed = owed.then(|| self.grievances.looked.after(quarter));
            let due = Some(self.grievances.due).filter(|_| self.pool.len() > 0);
            return owed.into_iter().chain(due).min();
        }
        if self.leads_alone() {
            return None;
        }
        let soon = self.grievances.looked.after(self.look_pause());
        // The pause for frames that wait may be long, and would be taken for a sleep. Not a part of
        // being busy: what the leader owed is forgiven when that ends, and nobody owes this.
        let deserted = self.grievances.deserted_since.is_some();
        let busy = (deserted || self.is_busy()).then_some(soon);
        let monitor = &self.grievances.monitor;
        let closely = monitor.looks_closely().then_some(soon);
        let frames = [Some(self.grievances.due), closely, monitor.due()];
        let frames = frames.into_iter().flatten().filter(|_| self.pool.len() > 0);
        busy.into_iter().chain(frames).min()
    }

    /// Tells the coordinator, once per T and kind, unless the view is over here.
    pub(super) fn aggrieved(
        &mut self,
        now: Time,
        (what, whom): (Grievance, ReplicaId),
        out: &mut Outbox,
    ) {
        if !self.is_active() || whom == self.cfg.me {
            return;
        }
        let told = self.grievances.told.get(&(what, whom));
        if told.is_none_or(|at| now.since(*at) >= self.cfg.view_timeout) {
            self.grievances.told.insert((what, whom), now);
            out.coordinator(ToCoordinator::Grievance { view: self.view, what, whom });
        }
    }

    /// Whether there is no leader to watch over but this replica itself.
    pub(super) fn leads_alone(&self) -> bool {
        !self.views.roles.rotate() && self.is_leader()
    }

    /// Whether something has been owed for at least so long.
    pub(super) fn owes_for(&self, span: Span) -> bool {
        let since = self.grievances.owed_since.map(|at| at.max(self.catchup.last_progress()));
        since.is_some_and(|since| self.grievances.looked.since(since) >= span)
    }

    /// Looks at the timers.
    pub(super) fn grieve(&mut self, now: Now, out: &mut Outbox) {
        let (now, deadline) = (now.mono, self.grieve_deadline());
        self.forgive_what_is_done(deadline);
        if deadline.is_none_or(|at| at > now) {
            return;
        }
        self.excuse_sleep(now);
        self.grievances.looked = now;
        if self.grievances.due <= now {
            // Frames that nobody else endorses are worth less and less attention.
            let quarter = self.cfg.view_timeout.0 / 4;
            let fresh = core::mem::take(&mut self.grievances.fresh);
            let longer = self.grievances.pause.0.saturating_mul(2).clamp(quarter, 16 * quarter);
            let pause = if fresh { quarter } else { longer };
            (self.grievances.pause, self.grievances.due) = (Span(pause), now.after(Span(pause)));
        }
        if !self.is_active() {
            // Those who are still in the view may need its word (`endorse`).
            self.endorse_oldest(now, out);
            return;
        }
        if self.grievances.monitor.turn(now, Span(self.cfg.view_timeout.0 / 5)) {
            self.grievances.endorsements.window_ends();
        }
        let lags = self.lags(now);
        self.look_for_stall(now, lags, out);
        self.look_for_unfilled(now, lags, out);
        // Who waits for a state votes like the others, and sees as well as they who does not.
        self.look_for_deserters(now, lags && !self.floats(), out);
        self.look_for_starved(now, lags, out);
        self.look_for_late(now, out);
    }

    /// Nothing is owed any more. At once and not at the next look: frames that nobody orders may
    /// put that off for long, and something else be under way by then.
    fn forgive_what_is_done(&mut self, deadline: Option<Time>) {
        let Grievances { owed_since, unfilled_since, helped_since, .. } = &self.grievances;
        let any = owed_since.or(*unfilled_since).or(*helped_since).is_some();
        if any && (deadline.is_none() || !self.is_active() || !self.is_busy()) {
            let Grievances { owed_since, unfilled_since, helped_since, .. } = &mut self.grievances;
            (*owed_since, *unfilled_since, *helped_since) = (None, None, None);
        }
    }

    /// A process that was stopped, or had no processor, has seen nothing of what happened in
    /// between, and what came meanwhile is yet to be read: that time counts for nobody's delay.
    fn excuse_sleep(&mut self, now: Time) {
        let usual = self.look_pause();
        let slept = now.since(self.grievances.looked).0.saturating_sub(2 * usual.0);
        let Grievances { owed_since, unfilled_since, deserted_since, helped_since, .. } =
            &mut self.grievances;
        let all = [owed_since, unfilled_since, deserted_since, helped_since];
        for since in all.into_iter().flatten() {
            *since = since.after(Span(slept)).min(now);
        }
        self.grievances.endorsements.excuse(now, Span(slept));
    }

    /// How often the timers are looked at while something is under way.
    pub(super) fn look_pause(&self) -> Span {
        let owed = self.grievances.owed_since.is_some();
        let looks = if owed || self.grievances.endorsements.any_owed() { LOOKS } else { 2 };
        let usual = self.cfg.view_timeout.0 / looks;
        let monitor = &self.grievances.monitor;
        let closely = monitor.looks_closely().then(|| monitor.threshold().0 / LOOKS);
        Span(closely.map_or(usual, |pause| pause.min(usual)))
    }

    fn look_for_stall(&mut self, now: Time, lags: bool, out: &mut Outbox) {
        if lags || !self.leader_owes() || base::mutant!(StallUnnoticed) {
            self.grievances.owed_since = None;
            return;
        }
        let since = *self.grievances.owed_since.get_or_insert(now);
        let reset = if base::mutant!(TimerNotReset) { since } else { self.catchup.last_progress() };
        if now.since(since.max(reset)) >= self.cfg.view_timeout {
            self.aggrieved(now, (Grievance::Stalled, self.suspect()), out);
        }
    }

    fn look_for_unfilled(&mut self, now: Time, lags: bool, out: &mut Outbox) {
        if lags || !self.is_unfilled() {
            self.grievances.unfilled_since = None;
            return;
        }
        let since = *self.grievances.unfilled_since.get_or_insert(now);
        let (window, interval) = (self.cfg.window, self.cfg.checkpoint_interval);
        let pause = share_pause_max(window, interval).0;
        let patience = self.cfg.view_timeout.0.saturating_mul(FILL_PATIENCE).saturating_add(pause);
        if now.since(since.max(self.catchup.last_progress())) >= Span(patience) {
            self.aggrieved(now, (Grievance::Stalled, self.suspect()), out);
        }
    }

    /// Whoever has left this view votes in it no more, and with others down the rest may be too
    /// few: the leader gets no quorum of vouches and owes nothing, and nobody's frames are
    /// endorsed by enough. All that liars can do is to be away, and without them there is a
    /// quorum of correct replicas, so neither they nor clients make this come about.
    fn look_for_deserters(&mut self, now: Time, lags: bool, out: &mut Outbox) {
        let before = |span: Span| Time(now.0.saturating_sub(span.0));
        let present = 1 + self.catchup.peers.who_votes_in(self.view, before(PRESENT));
        let waits = || {
            let since = before(HEARTBEAT_IDLE);
            let stands_still = self.catchup.last_progress() <= since;
            stands_still
                && !self.pool.oldest_own(since, 1, ClientId(0), |_| Some(Time::ZERO)).is_empty()
        };
        if lags || present >= self.cfg.quorums.quorum() || !waits() {
            self.grievances.deserted_since = None;
            return;
        }
        let begun = *self.grievances.deserted_since.get_or_insert(now);
        if now.since(begun) >= HEARTBEAT_IDLE {
            self.aggrieved(now, (Grievance::Stalled, self.suspect()), out);
        }
    }

    /// Whether the next number is held up elsewhere than at the leader: the others have it.
    fn lags(&mut self, now: Time) -> bool {
        let next = self.next_undelivered();
        let weak = self.cfg.quorums.weak();
        // Proven, or out of reach of everybody's log: a checkpoint will be fetched. Not where it is
        // only said that the number is decided: with liars among those who say so, the rest may be
        // too few for their word, or their state, to be believed.
        let settled = |peers: &Peers| peers.marks().filter(|(low, _)| *low >= next).count() >= weak;
        let lost = self.catchup.lost() == Some(next) && settled(&self.catchup.peers);
        if self.floats() || self.checkpoints.ahead() >= next || lost {
            return true;
        }
        let decided = self.log.get(next).is_some_and(|slot| slot.decided);
        if !decided && self.catchup.peers.who_delivered(next) < weak {
            self.grievances.helped_since = None;
            return false;
        }
        let since = *self.grievances.helped_since.get_or_insert(now);
        let patience = Span(self.cfg.view_timeout.0.saturating_mul(LAG_PATIENCE));
        now.since(since.max(self.catchup.last_progress())) < patience
    }

    /// Whether there is something that the leader of this view has begun or has to begin: its
    /// own proposal, also one that was refused for its time (a leader whose clock was wrong cannot
    /// take it back, and nothing is ordered behind it), what the NEW-VIEW fixed, what a weak
    /// quorum speaks of, what the stage waits for.
    ///
    /// Where leaders rotate, somebody else's proposal counts once this replica has voted for it:
    /// its maker may have shown it to nobody else, and then that vote is what tells who leads the
    /// next number that it is wanted (`follow_votes`). The vote of who is excluded tells nobody, be
    /// it this replica or another one: f liars and it are no weak quorum.
    fn leader_owes(&self) -> bool {
        let (next, suspect) = (self.next_undelivered(), self.suspect());
        let (weak, rotate) = (self.cfg.quorums.weak(), self.views.roles.rotate());
        let told = |seq, slot: &Slot| {
            let heard = || !rotate || self.views.roles.is_leading(self.cfg.me, seq);
            self.leader(seq) == suspect || (slot.phase >= Phase::Accepted && heard())
        };
        let owed = |seq, slot: &Slot| {
            let proposed = slot.phase > Phase::Empty && told(seq, slot);
            proposed || slot.chosen.is_some() || self.heard_voters(seq, slot) >= weak
        };
        self.is_blocked()
            || self.has_refused()
            || self.catchup.peers.believed() >= next
            || self.log.iter().any(|(seq, slot)| seq >= next && owed(seq, slot))
    }

    /// How many replicas have voted at `seq`, as far as others hear them. Where leaders rotate, who
    /// has proposed there has told everybody, too, if it is correct.
    fn heard_voters(&self, seq: Seq, slot: &Slot) -> usize {
        let (roles, mut who) = (&self.views.roles, VoteSet::EMPTY);
        let proposed = Some(self.leader(seq)).filter(|_| roles.rotate() && slot.led);
        let voted = slot.prepares.all().chain(slot.commits.all()).chain(proposed);
        for replica in voted.filter(|who| !roles.rotate() || roles.is_leading(*who, seq)) {
            who.insert(replica);
        }
        who.len()
    }

    /// Whether execution has yet to come to so many batches of this pillar, apart from null ones
    /// that were delivered long before they are wanted.
    fn executes_late(&self, many: u64) -> bool {
        let delivered = self.cfg.stripe.next_of(self.cfg.pillar, self.delivered);
        let executed = self.cfg.stripe.next_of(self.cfg.pillar, self.progress.executed);
        let behind = delivered.0.saturating_sub(executed.0) / u64::from(self.cfg.stripe.pillars());
        if behind < many || !self.idle_runs() {
            return behind >= many;
        }
        let waiting = self.log.above(self.progress.executed);
        let waiting = waiting.take_while(|(seq, _)| *seq <= self.delivered);
        let framed = waiting.filter(|(_, slot)| slot.proposal != Some(Proposal::Null));
        framed.take(usize::try_from(many).unwrap_or(usize::MAX)).count() as u64 >= many
    }

    /// Own frames of the proposal that was just accepted: how long they have waited.
    pub(super) fn watch_order(&mut self, now: Time, seq: Seq) {
        // Where they rotate, `rotate` looks at how late each of them is.
        if self.grievances.monitor.is_full() || self.views.roles.rotate() {
            return;
        }
        let lags = self.executes_late((self.cfg.batching.in_flight_max as u64 / 2).max(2));
        let Some(slot) = self.log.get(seq) else { return };
        for entry in slot.proposal.iter().flat_map(|proposal| proposal.entries()) {
            let held = self.pool.get(&pool::key_of(entry)).filter(|held| held.is_awaited());
            if let Some(held) = held {
                self.grievances.monitor.ordered(now.since(held.pending_since), lags);
            }
        }
    }
}
