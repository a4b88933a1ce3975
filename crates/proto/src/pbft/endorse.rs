//! Frames that wait for too long: what the leader owes, by word and not by signature.
//!
//! In two steps, as in a reliable broadcast (Bracha). A replica names its oldest frames that are
//! not executed (ENDORSE, to all), and first those that it has not named before: what was executed
//! in a checkpoint that it fetched still seems to wait here. Who holds one of these itself, and
//! hears a quorum name it, says that the leader owes it (OWED, to all). A weak quorum of these
//! obliges the leader: one of them is correct and has the body, and a weak quorum of correct
//! replicas has told everybody that the frame is its client's. A quorum of them starts the clock:
//! a weak quorum of correct replicas has told the leader as well. So no clock runs for what a
//! correct leader does not know of or cannot order, and nothing can be kept and shown later:
//! whoever means it says it again, and holds the frame for as long.
//!
//! Neither is a vote, nor is a vouch: they say that a client's frame is here and waits. So a
//! replica that has left its view, and that nobody has followed yet, says them for that view all
//! the same, and repeats its vouches to whoever leads it. With a faulty leader the others have a
//! quorum then; a correct one has vouches of a quorum, and proposes what nobody decides. Whom to
//! replace is for those to say who are still in the view.

mod said;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::{BatchEntry, ClientId, Now, ReplicaId, Seq, Span, Time, View};

use self::said::Said;
use super::catchup::VOUCH_LIFETIME;
use super::msg::{ENDORSE_MAX, Message};
use super::pool::{self, Key, Pool};
use super::{Lane, Reject};
use crate::group::link::Grievance;
use crate::outbox::{Outbox, Target};

/// Frames of which this replica says that they are owed, at a time.
const DEBTS_MAX: usize = 4 * ENDORSE_MAX;
/// How many more frames a doubted leader orders slowly, although it owes them, than
/// `PROMPT_WORTH` times those that it orders promptly. One in between excuses nothing.
const SLOW_PROOFS: u32 = 8;
/// What an owed frame that is ordered promptly makes up for.
const PROMPT_WORTH: u32 = 2;
/// Frames endorsed at a time while the leader seems slow, which is then more often.
const CLOSE_MAX: usize = 8;
/// For how many T an ENDORSE counts at least, and at most twice as long: for as long as replicas
/// pause between two (`grieve`). What it says of whose the frame is counts three times as long at
/// least, so that all know that while one of them takes the frame for owed.
const ENDORSED_TIMEOUTS: u64 = 4;

/// Since when a leader owes a frame, as far as is known here.
#[derive(Clone, Copy, Debug)]
struct Clock {
    leader: ReplicaId,
    /// Where leaders rotate: the end of the checkpoint interval for which it is dealt to it.
    upto: Seq,
    since: Time,
}

/// Who has endorsed what, in this view, and what is owed for that.
#[derive(Clone, Debug)]
pub(super) struct Endorsements {
    /// Who has named a frame in an ENDORSE.
    endorsed: Said,
    /// Who says that one is owed.
    owed: Said,
    /// What this replica has endorsed, and when last.
    mine: BTreeMap<Key, Time>,
    /// What it says to be owed, and when it did last.
    debts: BTreeMap<Key, Time>,
    /// What a quorum says to be owed, and is not ordered here.
    clocks: BTreeMap<Key, Clock>,
    last: Option<Time>,
    /// The principal whose frames were endorsed last: the next ones in turn come first.
    turn: ClientId,
    /// What was decided up to here this replica may not know: it has begun there, or has fetched
    /// that state or waits for it.
    skipped: Seq,
    /// What was executed at the last look.
    executed: Seq,
    slow: u32,
}

impl Endorsements {
    pub(super) fn new(n: u16) -> Endorsements {
        let (endorsed, owed) = (Said::new(n), Said::new(n));
        let (mine, debts, clocks) = Default::default();
        let (last, turn, skipped, executed, slow) = (None, ClientId(0), Seq(0), Seq(0), 0);
        Endorsements { endorsed, owed, mine, debts, clocks, last, turn, skipped, executed, slow }
    }

    /// Whether something is owed, as far as this replica says or hears.
    pub(super) fn any_owed(&self) -> bool {
        !self.debts.is_empty() || !self.clocks.is_empty()
    }

    /// Who has owed a frame for so long and has not ordered it.
    pub(super) fn debtor(&self, now: Time, since: Span) -> Option<ReplicaId> {
        let late = |clock: &&Clock| now.since(clock.since) >= since;
        self.clocks.values().find(late).map(|clock| clock.leader)
    }

    /// This replica does not learn what was decided up to `seq`.
    pub(super) fn skips(&mut self, seq: Seq) {
        self.skipped = self.skipped.max(seq);
    }

    /// Time passes, and what nobody says any more is forgotten.
    fn turn(&mut self, now: Time, timeout: Span) {
        self.endorsed.turn(now, Span(timeout.0.saturating_mul(ENDORSED_TIMEOUTS)));
        self.owed.turn(now, timeout);
    }

    pub(super) fn clear(&mut self) {
        self.endorsed.clear();
        self.owed.clear();
        self.mine.clear();
        self.debts.clear();
        self.clocks.clear();
        (self.last, self.slow) = (None, 0);
    }

    /// A proposal names `key`, which has waited here `since` then. Half of the `threshold` after
    /// the leader knew of it is four rounds or more, which is all that a leader takes that wants
    /// to. What it came to owe too late to tell says nothing.
    pub(super) fn ordered(&mut self, now: Time, key: &Key, since: Option<Time>, threshold: Span) {
        if self.clocks.is_empty() {
            return;
        }
        if let Some(clock) = self.clocks.remove(key) {
            let waited = now.since(since.unwrap_or(clock.since).min(clock.since));
            if threshold == Span(0) || waited <= threshold {
                self.slow = self.slow.saturating_sub(PROMPT_WORTH);
            } else if now.since(clock.since) > Span(threshold.0 / 2) {
                self.slow = self.slow.saturating_add(1);
            }
        }
    }

    /// A batch that names `key` was executed, or is decided and let go. What was said of it before
    /// counts no more; if it was `refused`, what was said by those who have executed that does.
    pub(super) fn done(&mut self, key: &Key, refused: bool) {
        self.debts.remove(key);
        self.clocks.remove(key);
        if !refused && !self.owed.is_empty() {
            self.owed.forget(key);
        }
    }

    /// A window of the monitor is over: what was seen before counts less and less.
    pub(super) fn window_ends(&mut self) {
        self.slow /= 2;
    }

    /// For so long this replica could not see what the leader did.
    pub(super) fn excuse(&mut self, now: Time, slept: Span) {
        self.clocks.values_mut().for_each(|clock| clock.since = clock.since.after(slept).min(now));
    }

    /// Tells the pool who has told everybody that `key` is its client's, if a `weak` quorum has:
    /// one of them is correct, and that stays true.
    pub(super) fn answer_for(&self, now: Time, key: Key, (pool, weak): (&mut Pool, usize)) {
        if self.endorsed.is_empty() {
            return;
        }
        let who = self.endorsed.anybody(&key);
        if who.len() >= weak {
            who.iter().for_each(|who| _ = pool.vouch(now, (who, None), key, weak));
        }
    }

    pub(super) fn check(&self) {
        self.endorsed.check();
        self.owed.check();
        assert!(self.debts.len() <= DEBTS_MAX);
    }
}

impl Lane {
    /// Vouches once more for what still waits for its order; also after leaving the view.
    pub(super) fn vouch_again(&mut self, now: Now, (to, max): (Target, usize), out: &mut Outbox) {
        if to == Target::One(self.cfg.me) {
            return;
        }
        let after = Time(now.mono.0.saturating_sub(VOUCH_LIFETIME.0));
        let entries = self.pool.vouch_again(after, max);
        self.vouch_for(to, &entries, out);
    }

    /// Endorses what is overdue, and looks whether what is owed is ordered.
    pub(super) fn look_for_starved(&mut self, now: Time, lags: bool, out: &mut Outbox) {
        let timeout = self.cfg.view_timeout;
        let doubts = self.grievances.monitor.doubts();
        self.endorse_oldest(now, out);
        self.look_at_clocks(now, lags);
        let slow = self.grievances.endorsements.slow;
        let starved = self.grievances.endorsements.debtor(now, timeout);
        if let Some(who) = starved.filter(|_| !base::mutant!(StarvationUnnoticed)) {
            self.aggrieved(now, (Grievance::Starved, who), out);
        }
        if slow >= SLOW_PROOFS && doubts && !base::mutant!(SlownessUnnoticed) {
            self.aggrieved(now, (Grievance::Slow, self.suspect()), out);
            self.grievances.endorsements.slow = 0;
            self.grievances.monitor.reassured();
        }
    }

    /// Clocks run while a quorum says that the frame is owed, it is not ordered, and nothing but
    /// its leader is in the way. Where leaders rotate, that is for one checkpoint interval: in the
    /// next one somebody else may order it.
    fn look_at_clocks(&mut self, now: Time, lags: bool) {
        let quarter = Span(self.cfg.view_timeout.0 / 4);
        let (stalls, stalled) = (self.owes_for(quarter), self.suspect());
        let (quorum, rotates) = (self.owed_quorum(), self.views.roles.rotate());
        let (next, executed) = (self.next_undelivered(), self.progress.executed);
        let upto = if rotates { self.views.roles.interval_end(next) } else { Seq(0) };
        let (pool, roles, me) = (&self.pool, &self.views.roles, self.cfg.me);
        let Endorsements { clocks, owed, executed: before, .. } = &mut self.grievances.endorsements;
        // A sibling's number holds up all that was delivered here.
        let stands = core::mem::replace(before, executed) == executed;
        let waits = stands && self.delivered > executed;
        clocks.retain(|key, _| {
            pool.is_overdue(key) && owed.who(key, pool.decided_at(key)).len() >= quorum
        });
        for (key, clock) in clocks.iter_mut() {
            let leader = roles.dealt_to(&key.0, next);
            // Whoever does not order what comes before it waits for another leader itself.
            let held_up = rotates && (waits || stalls && leader != stalled);
            // What a replica that lags does not know of may be ordered.
            let dealt_anew = (leader, upto) != (clock.leader, clock.upto);
            if lags || held_up || dealt_anew || leader == me {
                *clock = Clock { leader, upto, since: now };
            }
        }
    }

    /// Every quarter of T: the oldest frames that have waited for as long. While the leader
    /// seems slow, those that have waited for a quarter of what it may take, and at each look:
    /// it has to be told while there is time enough left to be slow in. What was said is said
    /// again after a quarter of T in either case.
    pub(super) fn endorse_oldest(&mut self, now: Time, out: &mut Outbox) {
        let quarter = Span(self.cfg.view_timeout.0 / 4);
        self.grievances.endorsements.turn(now, self.cfg.view_timeout);
        let mut said = self.endorse(now, quarter, out);
        said.extend(self.debts_to_repeat(now, quarter));
        self.say_owed(now, said, out);
    }

    /// Names what is overdue, if it is time for that: what was named.
    fn endorse(&mut self, now: Time, quarter: Span, out: &mut Outbox) -> Vec<Key> {
        let monitor = &self.grievances.monitor;
        let (age, pause, most) = match monitor.looks_closely() {
            true => (quarter.min(Span(monitor.threshold().0 / 4)), self.look_pause(), CLOSE_MAX),
            false => (quarter, quarter, ENDORSE_MAX),
        };
        let last = self.grievances.endorsements.last;
        if last.is_some_and(|last| now.since(last) < pause) || now.0 < age.0 {
            return Vec::new();
        }
        let Endorsements { mine, turn, .. } = &mut self.grievances.endorsements;
        mine.retain(|key, _| self.pool.get(key).is_some());
        let rank = |key: &Key| match mine.get(key) {
            Some(at) if now.since(*at) < quarter => None,
            Some(at) => Some(*at),
            None => Some(Time::ZERO),
        };
        let old = self.pool.oldest_own(Time(now.0 - age.0), most, *turn, rank);
        let Some(last) = old.last() else { return Vec::new() };
        *turn = last.id.client;
        self.grievances.endorsements.last = Some(now);
        let held = |entry: &BatchEntry| Some((*entry, self.holds_until(&pool::key_of(entry))?));
        let entries: Vec<(BatchEntry, Seq)> = old.iter().filter_map(held).collect();
        for (entry, executed) in &entries {
            let key = pool::key_of(entry);
            self.grievances.endorsements.mine.insert(key, now);
            self.grievances.endorsements.endorsed.add(self.cfg.me, (key, *executed));
        }
        let keys = entries.iter().map(|(entry, _)| pool::key_of(entry)).collect();
        out.send(Target::All, Message::Endorse { view: self.view, entries });
        keys
    }

    /// For how long this replica holds `key`, as a VOUCH says it, if it waits for it.
    fn holds_until(&self, key: &Key) -> Option<Seq> {
        let so_far = self.progress.executed.max(self.floor());
        self.pool.holds_beyond(key, so_far)
    }

    /// Of how many replicas a clock takes the word, and an OWED.
    fn owed_quorum(&self) -> usize {
        if base::mutant!(OneEndorsementIsEnough) { 1 } else { self.cfg.quorums.quorum() }
    }

    pub(super) fn on_endorse(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, entries): (View, &[(BatchEntry, Seq)]),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if view != self.view {
            return Err(Reject::Stale("endorsements of another view"));
        }
        self.grievances.endorsements.turn(now.mono, self.cfg.view_timeout);
        for (entry, executed) in entries {
            let key = pool::key_of(entry);
            self.grievances.endorsements.endorsed.add(from, (key, *executed));
            let weak = self.cfg.quorums.weak();
            let doubted = |held: &&pool::Entry| held.needs_trust() && !held.is_trusted(weak);
            if self.pool.get(&key).filter(doubted).is_some() {
                let pool = (&mut self.pool, weak);
                self.grievances.endorsements.answer_for(now.mono, key, pool);
                self.frame_changed(now, &key, out);
            }
        }
        if !self.leads_alone() {
            let keys = entries.iter().map(|(entry, _)| pool::key_of(entry)).collect();
            self.say_owed(now.mono, keys, out);
        }
        Ok(())
    }

    /// What this replica said to be owed, and has to say again.
    fn debts_to_repeat(&mut self, now: Time, quarter: Span) -> Vec<Key> {
        let debts = &mut self.grievances.endorsements.debts;
        let due = debts.iter().filter(|(_, said)| now.since(**said) >= quarter);
        let mut due: Vec<(Time, Key)> = due.map(|(key, said)| (*said, *key)).collect();
        due.sort_unstable();
        due.truncate(ENDORSE_MAX);
        due.iter().for_each(|(_, key)| _ = debts.remove(key));
        due.into_iter().map(|(_, key)| key).collect()
    }

    /// Says of those of `keys` that the leader owes them that this replica waits for and a quorum
    /// endorses.
    fn say_owed(&mut self, now: Time, keys: Vec<Key>, out: &mut Outbox) {
        let mut entries: Vec<(BatchEntry, Seq)> = Vec::new();
        for key in keys {
            let debts = &self.grievances.endorsements.debts;
            if debts.len() >= DEBTS_MAX || debts.contains_key(&key) {
                continue;
            }
            let Some(executed) = self.takes_for_owed(&key) else { continue };
            let Endorsements { debts, owed, .. } = &mut self.grievances.endorsements;
            debts.insert(key, now);
            owed.add(self.cfg.me, (key, executed));
            self.pool.keep_for_debt(now, &key);
            self.look_at_debt(now, key);
            entries.push((BatchEntry { id: key.0, digest: key.1 }, executed));
        }
        let view = self.view;
        for some in entries.chunks(ENDORSE_MAX) {
            out.send(Target::All, Message::Owed { view, entries: some.to_vec() });
        }
    }

    /// Whether this replica waits for `key`, holds its body, and hears a quorum endorse it, all
    /// beyond what is known to be decided, and for how long it holds it. What is older than all
    /// that this replica has skipped may be void.
    fn takes_for_owed(&self, key: &Key) -> Option<Seq> {
        self.pool.get(key).filter(|held| held.frame.is_some())?;
        let executed = self.holds_until(key)?;
        let endorsements = &self.grievances.endorsements;
        let after = self.pool.decided_at(key).max(endorsements.skipped);
        let who = endorsements.endorsed.who(key, after);
        (who.len() >= self.owed_quorum()).then_some(executed)
    }

    pub(super) fn on_owed(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, entries): (View, &[(BatchEntry, Seq)]),
    ) -> Result<(), Reject> {
        if view != self.view {
            return Err(Reject::Stale("debts of another view"));
        }
        self.grievances.endorsements.turn(now.mono, self.cfg.view_timeout);
        for (entry, executed) in entries {
            let key = pool::key_of(entry);
            self.grievances.endorsements.owed.add(from, (key, *executed));
            self.look_at_debt(now.mono, key);
        }
        Ok(())
    }

    /// Looks at who says that `key` is owed: what obliges this replica if it leads, and starts the
    /// clock otherwise.
    fn look_at_debt(&mut self, now: Time, key: Key) {
        if self.pool.get(&key).is_some_and(|held| held.ordered) {
            return;
        }
        let (weak, quorum) = (self.cfg.quorums.weak(), self.owed_quorum());
        let who = self.grievances.endorsements.owed.who(&key, self.pool.decided_at(&key));
        if self.is_leader() && who.len() >= weak.min(quorum) {
            if self.pool.owed(now, key, who, weak) {
                self.catchup.waits_for_bodies(now);
            } else {
                self.pool.queue_if_eligible(key, quorum);
            }
        }
        let (roles, next) = (&self.views.roles, self.next_undelivered());
        let leader = roles.dealt_to(&key.0, next);
        if who.len() >= quorum && leader != self.cfg.me && self.pool.is_overdue(&key) {
            let upto = if roles.rotate() { roles.interval_end(next) } else { Seq(0) };
            let clock = Clock { leader, upto, since: now };
            self.grievances.endorsements.clocks.entry(key).or_insert(clock);
        }
    }
}
