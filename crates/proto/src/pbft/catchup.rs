//! Catching up: retransmission, missing bodies, and instances that were decided elsewhere.
//!
//! A lane that makes no progress although it knows of more to come tells its peers how far it is
//! (STATUS). Whoever is ahead answers with its own votes for what is still open and with DECIDED
//! for what is decided (`answer`). One peer can lie: DECIDED counts when a weak quorum says the
//! same (design, trap 9); bodies are recognised by their digest.
//!
//! Beyond the logs of the others (one window below their low mark) only a transfer of state
//! helps; that is told as a fact.

use alloc::sync::Arc;

use base::{Frame, Now, ReplicaId, Seq, Span, Time};

use super::agree::Origin;
use super::endorse::KEPT_TIMEOUTS;
use super::hearing::Hearing;
use super::log::{Counted, Phase, Slot};
use super::msg::{Message, Proposal, Vote};
use super::overheard::Overheard;
use super::peers::{ANSWER_GAP, ANSWER_NUMBERS_MAX, Peers};
use super::{Lane, Reject, pool};
use crate::group::link::ToCoordinator;
use crate::outbox::{Fact, Outbox, Target};

/// Own votes that are repeated at once.
const VOTE_AGAIN_MAX: usize = 16;
/// How long a proposal may wait for a frame that is on its way from the client. Doubles, up to
/// 64 times, while nothing that was asked for comes.
const BODY_PATIENCE: Span = Span::millis(3);
const FETCHES_MAX: u32 = 6;
/// Most frames that are asked for at a time, the lowest numbers first (and one number always).
const FETCH_ENTRIES_MAX: usize = 2048;
/// Numbers, and their frames, that are asked for at a time once the wait does not double any more.
/// Nobody has what is missing, or nobody hears: that may last, and a window is missing perhaps.
const VAIN_NUMBERS_MAX: usize = 4;
const VAIN_ENTRIES_MAX: usize = 64;
/// The longest wait between two cries for help.
const RETRANSMIT_MAX: Span = Span::millis(1000);
/// How often a lane tells how far it is: while it moves, and while it idles.
const HEARTBEAT_BUSY: Span = Span::secs(1);
pub(super) const HEARTBEAT_IDLE: Span = Span::secs(5);
/// The least time between two cries while decisions flow: a little more than peers leave between
/// two answers.
const ASK_GAP: Span = Span(2 * ANSWER_GAP.0);
/// How many T, and how many cries, nothing comes until the logs of the others seem to be cut.
const HELP_PATIENCE: u64 = 2;
const HELP_CRIES: u32 = 3;
/// How far above what is missing a decision may be, in numbers of the stripe: what is further is
/// no answer to what was asked, and each may be large.
pub(super) const DECISIONS_MAX: u64 = 2 * ANSWER_NUMBERS_MAX as u64;
/// Between two questions for votes: who is asked may lack some, too, and ask back, without end.
const OWED_GAP: Span = Span::secs(1);
/// A leader forgets what was first vouched for this long ago and is still not proposed, and a
/// backup vouches this long after a frame came. A backup keeps the frame for longer than both
/// together, so that what is proposed is still there: or a client could choose its moment to
/// make a number that nobody can decide.
pub(super) const VOUCH_LIFETIME: Span = Span::secs(20);
const FRAME_LIFETIME: Span = Span::secs(60);
/// Pending frames that are vouched for again when the leader seems not to know them.
const VOUCH_AGAIN_MAX: usize = 1024;

const _: () = assert!(FRAME_LIFETIME.0 > 2 * VOUCH_LIFETIME.0);

/// Questions for what is missing.
#[derive(Clone, Copy, Debug, Default)]
struct Asking {
    /// Since when something is missing, when it was last asked for, and how often since some came.
    since: Option<Time>,
    last: Time,
    times: u32,
}

impl Asking {
    fn at(&self) -> Option<Time> {
        let wait = Span(BODY_PATIENCE.0 << self.times.min(FETCHES_MAX));
        Some(self.since?.max(self.last).after(wait))
    }

    fn is_due(&self, now: Time) -> bool {
        self.at().is_some_and(|at| at <= now)
    }

    fn asked(&mut self, now: Time) {
        (self.last, self.times) = (now, self.times.saturating_add(1));
    }

    /// Nothing is missing any more.
    fn ends(&mut self) {
        (self.since, self.times) = (None, 0);
    }

    /// Whether what is missing was asked for so often that it is a few numbers' turn at a time.
    fn in_vain(&self) -> bool {
        self.times > FETCHES_MAX
    }
}

/// The timers and what is known about the others.
#[derive(Clone, Debug)]
pub(super) struct Catchup {
    pub(super) peers: Peers,
    pub(super) hearing: Hearing,
    last_progress: Time,
    /// Since when it is known that there is more to come than is here.
    behind_since: Option<Time>,
    /// Cries since the last progress; each doubles the wait.
    cries: u32,
    last_cry: Time,
    last_heartbeat: Time,
    moved_since_heartbeat: bool,
    /// Questions for what proposals lack, and for the bodies that a leader may propose. Each waits
    /// for itself: somebody may vouch for what nobody gives, for as long as it likes.
    lacking: Asking,
    unproposed: Asking,
    /// The number that was asked for last in vain: the next come next.
    fetched: Seq,
    /// The number about which it was told that nobody's log reaches back to it.
    told_lost: Option<Seq>,
    told_lost_at: Option<Time>,
    /// Decisions flow: the next are to be asked for soon.
    ask_again: bool,
    /// When votes were asked for last that this replica lacks for its own.
    asked_for_votes: Option<Time>,
    pub(super) overheard: Overheard,
}

impl Catchup {
    /// Whether votes may be asked for now; if so, the gap to the next time begins.
    pub(super) fn may_ask_for_votes(&mut self, now: Time) -> bool {
        let may = self.asked_for_votes.is_none_or(|at| now.since(at) >= OWED_GAP);
        if may {
            self.asked_for_votes = Some(now);
        }
        may
    }

    pub(super) fn new(n: u16) -> Catchup {
        Catchup {
            peers: Peers::new(n),
            hearing: Hearing::new(n),
            last_progress: Time::ZERO,
            behind_since: None,
            cries: 0,
            last_cry: Time::ZERO,
            last_heartbeat: Time::ZERO,
            moved_since_heartbeat: false,
            lacking: Asking::default(),
            unproposed: Asking::default(),
            fetched: Seq(0),
            told_lost: None,
            told_lost_at: None,
            ask_again: false,
            asked_for_votes: None,
            overheard: Overheard::default(),
        }
    }

    pub(super) fn progressed(&mut self, now: Time) {
        self.last_progress = now;
        self.cries = 0;
        self.moved_since_heartbeat = true;
        self.overheard.reaches_further(now);
    }

    pub(super) fn last_progress(&self) -> Time {
        self.last_progress
    }

    /// The number about which it is known that nobody's log reaches back to it.
    pub(super) fn lost(&self) -> Option<Seq> {
        self.told_lost
    }

    /// Whether nothing that is missing has come for so long, however often it was asked for.
    fn waits_in_vain(&self, now: Time, patience: Span) -> bool {
        let waits = |since: Time| now.since(since.max(self.last_progress)) >= patience;
        self.cries >= HELP_CRIES && self.behind_since.is_some_and(waits)
    }

    /// A leader waits for bodies that it may propose.
    pub(super) fn waits_for_bodies(&mut self, now: Time) {
        self.unproposed.since.get_or_insert(now);
    }

    /// A number waits for its proposal, or for the bodies of that.
    pub(super) fn waits_for_proposal(&mut self, now: Time) {
        self.lacking.since.get_or_insert(now);
    }

    /// A proposal has come that was asked for: whoever was not heard is heard again.
    pub(super) fn proposal_came(&mut self, now: Time) {
        self.overheard.came(now);
        if self.lacking.in_vain() {
            self.lacking.times = 0;
        }
    }

    /// Another view begins, in which other things are missing: the next question is about all.
    pub(super) fn begin_view(&mut self, now: Time) {
        self.progressed(now);
        self.hearing.begin_view();
        self.lacking.times = self.lacking.times.min(FETCHES_MAX);
    }

    fn heartbeat_at(&self, waiting: bool) -> Time {
        let busy = waiting || self.moved_since_heartbeat;
        self.last_heartbeat.after(if busy { HEARTBEAT_BUSY } else { HEARTBEAT_IDLE })
    }

    /// When to cry for help; never while nothing is missing. The wait begins when it is first
    /// known that something is: what follows an idle time is not late.
    fn cry_at(&self, first: Span) -> Option<Time> {
        let since = self.behind_since?;
        if self.ask_again {
            return Some(self.last_cry.after(ASK_GAP));
        }
        let wait = Span(first.0.saturating_mul(1 << self.cries.min(16)).min(RETRANSMIT_MAX.0));
        Some(since.max(self.last_progress).max(self.last_cry).after(wait))
    }
}

impl Lane {
    pub(super) fn status(&self) -> Message {
        let (view, stable) = (self.views.asked, self.low());
        Message::Status { view, stable, delivered: self.decided_upto() }
    }

    /// Up to where everything is decided and here, though execution may be too far behind to be
    /// handed all of it. Whoever waits for a state has to get on nevertheless: others may need
    /// its votes for what comes next, and tell it of that only when it has what is before.
    ///
    /// Costs a step or two where execution keeps up. While it waits for a state the walk grows to
    /// a window, for each decision that comes meanwhile. A place to go on from could be kept, since
    /// what is decided stays through views; nobody has measured that the walk matters.
    pub(super) fn decided_upto(&self) -> Seq {
        let (mut upto, mut next) = (self.delivered, self.next_undelivered());
        while self.log.get(next).is_some_and(Slot::is_to_be_delivered) {
            (upto, next) = (next, self.cfg.stripe.next_of(self.cfg.pillar, next));
        }
        upto
    }

    /// Whether there is more to come than was delivered here.
    pub(super) fn is_behind(&self) -> bool {
        let next = self.next_undelivered();
        self.catchup.peers.believed() >= next
            || self.log.highest_touched().is_some_and(|top| top >= next)
    }

    pub(super) fn catchup_deadline(&self) -> Time {
        let heartbeat = self.catchup.heartbeat_at(self.pool.len() > 0);
        let fetches = [self.catchup.lacking.at(), self.catchup.unproposed.at()];
        let cry = self.catchup.cry_at(self.cfg.retransmit);
        fetches.into_iter().chain([cry]).flatten().fold(heartbeat, Time::min)
    }

    /// Looks at the timers.
    pub(super) fn catch_up(&mut self, now: Now, out: &mut Outbox) {
        if self.catchup.lacking.is_due(now.mono) {
            self.fetch_missing(now, out);
        }
        if self.catchup.unproposed.is_due(now.mono) {
            self.fetch_unproposed(now, out);
        }
        if self.is_behind() {
            self.catchup.behind_since.get_or_insert(now.mono);
        } else {
            (self.catchup.behind_since, self.catchup.ask_again) = (None, false);
        }
        if self.catchup.cry_at(self.cfg.retransmit).is_some_and(|at| at <= now.mono) {
            self.catchup.last_cry = now.mono;
            let flows = core::mem::take(&mut self.catchup.ask_again);
            self.catchup.cries = self.catchup.cries.saturating_add(u32::from(!flows));
            out.send(Target::All, self.status());
            self.vote_again(out);
        }
        if self.catchup.heartbeat_at(self.pool.len() > 0) <= now.mono {
            self.catchup.last_heartbeat = now.mono;
            self.catchup.moved_since_heartbeat = false;
            out.send(Target::All, self.status());
            self.vouch_again(now, (self.vouched_to(), VOUCH_AGAIN_MAX), out);
            let before = |span: Span| Time(now.mono.0.saturating_sub(span.0));
            let (vouched, came) = (before(VOUCH_LIFETIME), before(FRAME_LIFETIME));
            let owed = Span(self.cfg.view_timeout.0.saturating_mul(KEPT_TIMEOUTS));
            let owed = before(owed.max(VOUCH_LIFETIME));
            self.pool.expire(now.mono, self.pool_role(), (vouched, came), owed);
        }
    }

    /// Repeats own votes for what is not delivered here. Whoever has delivered it asks for
    /// nothing, but may lack just this vote for its own vote in this view, which is needed here.
    fn vote_again(&self, out: &mut Outbox) {
        if !self.is_active() {
            return;
        }
        let (view, me) = (self.view, self.cfg.me);
        let open = |slot: &Slot| slot.phase >= Phase::Accepted && !slot.delivered;
        let above = self.log.above(self.decided_upto());
        for (seq, slot) in above.filter(|(_, slot)| open(slot)).take(VOTE_AGAIN_MAX) {
            let vote = Vote { view, seq, digest: slot.digest };
            if slot.prepares.said(me, slot.digest) {
                out.promise(Target::All, Message::Prepare(vote));
            }
            if slot.commits.said(me, slot.digest) {
                out.promise(Target::All, Message::Commit(vote));
            }
        }
    }

    /// The link to `peer` is new: what was under way on the old one may be lost.
    pub(super) fn on_connected(&mut self, now: Now, peer: ReplicaId, out: &mut Outbox) {
        if peer == self.cfg.me || peer.0 >= self.cfg.quorums.n() {
            return;
        }
        self.catchup.peers.connected(peer);
        out.send(Target::One(peer), self.status());
        if self.views.roles.rotate() || peer == self.leader(Seq(1)) {
            self.vouch_again(now, (Target::One(peer), VOUCH_AGAIN_MAX), out);
        }
    }

    /// Asks for the bodies that proposals here wait for, and for what the NEW-VIEW has chosen.
    fn fetch_missing(&mut self, now: Now, out: &mut Outbox) {
        let in_vain = self.catchup.lacking.in_vain();
        self.catchup.lacking.asked(now.mono);
        let (numbers_max, entries_max, each_max, last) = match in_vain {
            false => (usize::MAX, FETCH_ENTRIES_MAX, usize::MAX, self.delivered),
            true => (VAIN_NUMBERS_MAX, VAIN_ENTRIES_MAX, VAIN_ENTRIES_MAX, self.catchup.fetched),
        };
        // In turn, for what is missing at the lowest may be what nobody has.
        let last = last.max(self.delivered);
        let before = self.log.above(self.delivered).take_while(|(seq, _)| *seq <= last);
        let in_turn = self.log.above(last).chain(before);
        let (mut numbers, mut asked) = (0, 0);
        for (seq, slot) in in_turn.filter(|(_, slot)| slot.is_incomplete()) {
            if numbers >= numbers_max || asked >= entries_max {
                break;
            }
            numbers += 1;
            self.catchup.fetched = seq;
            if let (Some(digest), None) = (slot.chosen, &slot.proposal) {
                asked += 1;
                out.send(Target::All, Message::FetchProposal { seq, digest });
            } else {
                let mut entries = slot.missing_entries();
                entries.truncate(each_max);
                asked += entries.len();
                out.send(Target::All, Message::Fetch { seq, entries });
            }
        }
        if numbers == 0 {
            self.catchup.lacking.ends();
        }
    }

    /// Asks as leader for the bodies that others vouch for.
    fn fetch_unproposed(&mut self, now: Now, out: &mut Outbox) {
        self.catchup.unproposed.asked(now.mono);
        let before = Time(now.mono.0.saturating_sub(BODY_PATIENCE.0));
        let (entries, more) = match self.is_leader() {
            true => self.pool.want_unproposed(self.cfg.quorums.weak(), before),
            false => Default::default(),
        };
        if !entries.is_empty() {
            out.send(Target::All, Message::Fetch { seq: self.lead_next(), entries });
        }
        if !more {
            self.catchup.unproposed.ends();
        }
    }

    pub(super) fn on_body(
        &mut self,
        now: Now,
        from: ReplicaId,
        vouched: bool,
        frame: &Arc<Frame>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let (key, weak) = ((frame.id(), frame.digest()), self.cfg.quorums.weak());
        let Some(entry) = self.pool.get(&key).filter(|entry| entry.is_wanted()) else {
            return Err(Reject::Stale("body that nobody waits for"));
        };
        // In order: the authenticator is looked at only while the frame is not trusted yet, or
        // where a leader's own vouch may make the quorum.
        let open = !entry.is_trusted(weak) || (self.is_leader() && !entry.own);
        let own = open && self.is_genuine(frame) || base::mutant!(BodyUnauthenticated);
        let forged = open && !own && entry.needs_trust();
        // It is asked for since others hold it: beyond where it was decided last.
        let decided = if entry.ordered { Seq(0) } else { self.pool.decided_at(&key) };
        self.look_for_forgery(now.mono, (from, frame), forged, out)?;
        if vouched {
            self.pool.vouch(now.mono, (from, None), key, weak);
        }
        if own && self.is_leader() {
            let me = (self.cfg.me, Some(decided.max(self.progress.executed)));
            self.pool.vouch(now.mono, me, key, weak);
        }
        let next = self.next_undelivered();
        self.pool.body(now.mono, frame, own, (weak, next));
        self.frame_changed(now, &key, out);
        if self.pool.get(&key).is_none_or(|entry| !entry.is_wanted()) {
            (self.catchup.lacking.times, self.catchup.unproposed.times) = (0, 0);
        }
        Ok(())
    }

    /// The logs of a weak quorum no longer reach back to what is missing here: they are a window
    /// further, or beyond it and silent, for logs are bounded in bytes, too, and may stay there. Or
    /// some of them have never decided it: whoever fetched the state that the others rested in has
    /// what is missing, cannot say how it came about, and votes on it no more.
    pub(super) fn tell_if_left_behind(&mut self, now: Now, out: &mut Outbox) {
        let missing = self.next_undelivered();
        let here = self.log.get(missing).is_some_and(Slot::is_to_be_delivered);
        let long = Span(self.cfg.view_timeout.0.saturating_mul(HELP_PATIENCE));
        let in_vain = self.catchup.waits_in_vain(now.mono, long);
        let window = self.cfg.window;
        let beyond = |(stable, delivered): &(Seq, Seq)| match in_vain {
            true => *delivered >= missing,
            false => stable.0.saturating_sub(window) >= missing.0,
        };
        let lost = || self.catchup.peers.marks().filter(beyond).map(|(stable, _)| stable);
        if !here && lost().count() >= self.cfg.quorums.weak() {
            let stable = lost().min().expect("a weak quorum is not empty");
            if self.catchup.told_lost.replace(missing) != Some(missing) {
                out.fact(Fact::LeftBehind { missing, stable });
                self.catchup.told_lost_at = None;
            }
            // The coordinator may have had something else to do.
            let at = self.catchup.told_lost_at;
            if at.is_none_or(|at| now.mono.since(at) >= self.cfg.view_timeout) {
                self.catchup.told_lost_at = Some(now.mono);
                out.coordinator(ToCoordinator::LeftBehind { missing, stable });
            }
        }
    }

    /// A view begins at `start`, so far ahead that the others' logs cannot reach back. This one's
    /// may: after a restart execution has yet to get through what an earlier life has decided,
    /// and who has that must not exchange it for a state that perhaps nobody else has.
    pub(super) fn tell_if_beyond_reach(&mut self, start: Seq, out: &mut Outbox) {
        let missing = self.next_undelivered();
        let here = self.log.get(missing).is_some_and(Slot::is_to_be_delivered);
        if !here && start.0 > self.progress.executed.0 + 2 * self.cfg.window {
            out.coordinator(ToCoordinator::LeftBehind { missing, stable: start });
        }
    }

    pub(super) fn on_decided(
        &mut self,
        now: Now,
        from: ReplicaId,
        seq: Seq,
        proposal: Proposal,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if self.cfg.stripe.pillar_of(seq) != self.cfg.pillar {
            return Err(Reject::Misbehaviour("number of another pillar"));
        }
        if seq <= self.low() || seq > self.high() {
            return Err(Reject::Stale("decided outside of what is missing"));
        }
        let index = |seq| self.cfg.stripe.index_of(seq);
        let far = |next| index(seq).saturating_sub(index(next)) >= DECISIONS_MAX;
        // The second look costs a walk over what is decided, which few need.
        if far(self.next_undelivered())
            && far(self.cfg.stripe.next_of(self.cfg.pillar, self.decided_upto()))
        {
            return Err(Reject::Stale("decided far beyond what is missing"));
        }
        let digest = proposal.digest(self.cfg.group, seq);
        let weak = self.cfg.quorums.weak();
        let slot = self.log.slot(seq).ok_or(Reject::Stale("cut off"))?;
        if slot.delivered || seq <= self.delivered {
            return Err(Reject::Stale("already delivered"));
        }
        match slot.decisions.add(from, digest) {
            Counted::Fresh => {}
            Counted::Again => return Err(Reject::Stale("decided again")),
            Counted::Contradicts => {
                return Err(Reject::Misbehaviour("two decisions for one number"));
            }
        }
        if !slot.decision_bodies.iter().any(|(d, _)| *d == digest) {
            slot.decision_bodies.push((digest, proposal));
        }
        if slot.decisions.count(digest) >= weak - usize::from(base::mutant!(OneDecidedIsBelieved)) {
            self.adopt_decision(now, seq, digest, out);
        }
        Ok(())
    }

    /// A weak quorum says that `digest` is decided at `seq`: whatever this replica thought of
    /// that number gives way. Where it is what this replica votes for anyway, or a weak quorum
    /// does, it goes on doing so, since others may need its vote.
    fn adopt_decision(&mut self, now: Now, seq: Seq, digest: base::Digest, out: &mut Outbox) {
        let view = self.view;
        let slot = self.log.get_mut(seq).expect("the caller found the slot");
        if slot.decided {
            return;
        }
        let decided = slot.decision_bodies.iter().find(|(d, _)| *d == digest);
        let proposal = decided.map(|(_, proposal)| proposal.clone()).expect("kept with the vote");
        if slot.proposal.is_some() && slot.digest == digest {
            slot.decided = true;
            let old = slot.proposal.clone().filter(|_| slot.missing > 0);
            if old.is_some() {
                self.unwant_all(now, seq, old.as_ref());
                self.want_bodies(now, seq, Origin::Decision);
            }
        } else {
            slot.fold(view);
            slot.phase = Phase::Empty;
            let old = slot.displace();
            self.unwant_all(now, seq, old.as_ref());
            self.install(now, seq, proposal, Origin::Decision);
            self.overhear(now, seq);
        }
        self.fetch_decided(seq, out);
        let before = self.decided_upto();
        self.advance(now, seq, out);
        // While decisions flow, the next are asked for as soon as the last have come, so that
        // catching up is faster than moving on.
        self.catchup.ask_again |= self.decided_upto() > before;
    }

    /// The proposal for `seq` is void.
    pub(super) fn unwant_all(&mut self, now: Now, seq: Seq, proposal: Option<&Proposal>) {
        for entry in proposal.iter().flat_map(|proposal| proposal.entries()) {
            self.pool.unwant(now.mono, &pool::key_of(entry), seq);
        }
    }

    /// Asks one of those who say what is decided at `seq` for the bodies. No patience here: the
    /// client has long stopped sending them.
    fn fetch_decided(&mut self, seq: Seq, out: &mut Outbox) {
        let Some(slot) = self.log.get(seq) else { return };
        let entries = slot.missing_entries();
        if let Some(source) = slot.decisions.senders(slot.digest).next()
            && !entries.is_empty()
        {
            out.send(Target::One(source), Message::Fetch { seq, entries });
        }
    }
}
