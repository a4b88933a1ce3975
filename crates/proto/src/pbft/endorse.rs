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

/// How many more frames a doubted leader orders slowly, although it owes them, than
/// `PROMPT_WORTH` times those that it orders promptly. One in between excuses nothing.
const SLOW_PROOFS: u32 = 8;
/// What an owed frame that is ordered promptly makes up for.
const PROMPT_WORTH: u32 = 2;
/// Frames endorsed in a quarter of T while the leader seems slow, which is then more often, and at
/// least at a time.
const CLOSE_MAX: usize = 80;
const CLOSE_MIN: usize = 8;
/// For how many T an ENDORSE or an OWED counts at least, and at most twice as long: for as long as
/// replicas pause between two (`grieve`), and as it takes until all that wait had their turn.
const TIMEOUTS: u64 = 4;
/// In so many of these times what an ENDORSE says of whose the frame is is remembered: for longer
/// than it counts, so that all know that while one of them takes the frame for owed.
const TRUSTED: usize = 4;
/// In so many an OWED is.
const BELIEVED: usize = 2;
/// For how many T what a replica says to be owed is kept: for longer than anybody counts that.
pub(super) const KEPT_TIMEOUTS: u64 = 2 * TIMEOUTS + 1;

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
    /// What this replica has endorsed, when last, and whether it has said since then that it is
    /// owed.
    mine: BTreeMap<Key, (Time, bool)>,
    /// Whether it has said so of something of late.
    says_owed: bool,
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
        Endorsements {
            endorsed: Said::new(n, TRUSTED),
            owed: Said::new(n, BELIEVED),
            mine: BTreeMap::new(),
            says_owed: false,
            clocks: BTreeMap::new(),
            last: None,
            turn: ClientId(0),
            skipped: Seq(0),
            executed: Seq(0),
            slow: 0,
        }
    }

    /// Whether something is owed, as far as this replica says or hears.
    pub(super) fn any_owed(&self) -> bool {
        self.says_owed || !self.clocks.is_empty()
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
        let life = Span(timeout.0.saturating_mul(TIMEOUTS));
        self.endorsed.turn(now, life);
        self.owed.turn(now, life);
    }

    /// Another view begins, to whose leader nobody has said anything.
    pub(super) fn clear(&mut self) {
        self.endorsed.clear();
        self.forget_debts();
    }

    /// A state was fetched: what is owed may be executed. Whose frames are stays true.
    pub(super) fn forget_debts(&mut self) {
        self.owed.clear();
        self.mine.clear();
        self.clocks.clear();
        (self.last, self.slow, self.says_owed) = (None, 0, false);
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
    /// counts no more, unless it was `refused`, and by those who had executed that.
    pub(super) fn done(&mut self, key: &Key, refused: Option<Seq>) {
        self.clocks.remove(key);
        if !self.owed.is_empty() {
            self.owed.forget(key, refused.unwrap_or(Seq(u64::MAX)));
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
        let monitor = &self.grievances.monitor;
        let (age, pause) = match monitor.looks_closely() {
            true => (quarter.min(Span(monitor.threshold().0 / 4)), quarter.min(self.look_pause())),
            false => (quarter, quarter),
        };
        let most = match monitor.looks_closely() {
            true => (CLOSE_MAX as u64 * pause.0 / quarter.0.max(1)).max(CLOSE_MIN as u64) as usize,
            false => ENDORSE_MAX,
        };
        let endorsements = &mut self.grievances.endorsements;
        endorsements.turn(now, self.cfg.view_timeout);
        if endorsements.last.is_some_and(|last| now.since(last) < pause) || now.0 < age.0 {
            return;
        }
        endorsements.says_owed = false;
        let Endorsements { mine, turn, .. } = endorsements;
        mine.retain(|key, _| self.pool.get(key).is_some());
        let rank = |key: &Key| match mine.get(key) {
            Some((at, _)) if now.since(*at) < quarter => None,
            Some((at, _)) => Some(*at),
            None => Some(Time::ZERO),
        };
        let old = self.pool.oldest_own(Time(now.0 - age.0), most, *turn, rank);
        if let Some(last) = old.last() {
            *turn = last.id.client;
            endorsements.last = Some(now);
            self.endorse(now, &old, out);
        }
    }

    /// Endorses these, and says of those that are owed that they are.
    fn endorse(&mut self, now: Time, entries: &[BatchEntry], out: &mut Outbox) {
        let held = |entry: &BatchEntry| Some((*entry, self.holds_since(&pool::key_of(entry))?));
        let entries: Vec<(BatchEntry, Seq)> = entries.iter().filter_map(held).collect();
        for (entry, executed) in &entries {
            let key = pool::key_of(entry);
            self.grievances.endorsements.mine.insert(key, (now, false));
            self.grievances.endorsements.endorsed.add(self.cfg.me, (key, *executed));
        }
        let keys: Vec<Key> = entries.iter().map(|(entry, _)| pool::key_of(entry)).collect();
        out.send(Target::All, Message::Endorse { view: self.view, entries });
        self.say_owed(now, &keys, out);
    }

    /// How far this replica has executed, if it waits for `key`. What it is still to execute may
    /// take the frame away, also where it came after that (unlike in a VOUCH, which is for a leader
    /// that knows what becomes of it).
    fn holds_since(&self, key: &Key) -> Option<Seq> {
        self.pool.get(key).filter(|held| held.is_awaited())?;
        Some(self.progress.executed.max(self.floor()))
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
        let mut heard = Vec::new();
        for (entry, executed) in entries {
            let key = pool::key_of(entry);
            if !self.grievances.endorsements.endorsed.add(from, (key, *executed)) {
                break;
            }
            heard.push(key);
            let weak = self.cfg.quorums.weak();
            let doubted = |held: &&pool::Entry| held.needs_trust() && !held.is_trusted(weak);
            if self.pool.get(&key).filter(doubted).is_some() {
                let pool = (&mut self.pool, weak);
                self.grievances.endorsements.answer_for(now.mono, key, pool);
                self.frame_changed(now, &key, out);
            }
        }
        self.say_owed(now.mono, &heard, out);
        match heard.len() == entries.len() {
            true => Ok(()),
            false => Err(Reject::Stale("endorses more than is heard")),
        }
    }

    /// Says of those of `keys` that the leader owes them that this replica has endorsed itself of
    /// late and hears a quorum endorse: of each once for each time that it had its turn. So one
    /// that shows many frames keeps nobody's out.
    fn say_owed(&mut self, now: Time, keys: &[Key], out: &mut Outbox) {
        let timeout = self.cfg.view_timeout;
        let mut entries: Vec<(BatchEntry, Seq)> = Vec::new();
        for key in keys {
            let mine = self.grievances.endorsements.mine.get(key).copied();
            let Some((at, false)) = mine else { continue };
            let Some(executed) = self.takes_for_owed(key) else { continue };
            if now.since(at) >= timeout {
                // It has its turn soon.
                self.grievances.frame_waits(now, timeout);
                continue;
            }
            let Endorsements { mine, owed, says_owed, .. } = &mut self.grievances.endorsements;
            mine.entry(*key).and_modify(|(_, said)| *said = true);
            *says_owed = true;
            owed.add(self.cfg.me, (*key, executed));
            self.pool.keep_for_debt(now, key);
            self.look_at_debt(now, *key);
            entries.push((BatchEntry { id: key.0, digest: key.1 }, executed));
        }
        if !entries.is_empty() {
            out.send(Target::All, Message::Owed { view: self.view, entries });
        }
    }

    /// Whether this replica waits for `key`, holds its body, and hears a quorum endorse it, all
    /// beyond what is known to be decided, and since when it holds it. What is older than all
    /// that this replica has skipped may be void.
    fn takes_for_owed(&self, key: &Key) -> Option<Seq> {
        self.pool.get(key).filter(|held| held.frame.is_some())?;
        let executed = self.holds_since(key)?;
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
            let decided = self.pool.decided_at(&key);
            if !self.grievances.endorsements.owed.add(from, (key, *executed)) {
                return Err(Reject::Stale("says of more that it is owed than is heard"));
            }
            if *executed < decided {
                // It was on its way meanwhile, and where it was decided may be forgotten.
                self.grievances.endorsements.owed.forget(&key, decided);
            }
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
            if self.pool.owed(now, key, who) {
                self.catchup.waits_for_bodies(now);
            } else {
                self.pool.queue_if_eligible(key, quorum);
            }
        }
        if who.len() < quorum || !self.pool.is_overdue(&key) {
            return;
        }
        let (roles, next) = (&self.views.roles, self.next_undelivered());
        let leader = roles.dealt_to(&key.0, next);
        if leader != self.cfg.me {
            let upto = if roles.rotate() { roles.interval_end(next) } else { Seq(0) };
            let clock = Clock { leader, upto, since: now };
            self.grievances.endorsements.clocks.entry(key).or_insert(clock);
        }
    }
}
