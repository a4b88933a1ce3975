//! Frames that wait for too long: a quorum that endorses one makes it the leader's debt.
//!
//! A replica signs for its oldest frames that are not ordered (ENDORSE, to all), and for those
//! that it has not signed for before others: what was executed in a checkpoint that it fetched
//! still seems to wait here. Whoever holds a
//! quorum of signatures for one frame hands them to the leader (ENDORSED), which takes them as
//! vouches, fetches the body and orders it before others. From then on its clock runs. A client
//! that shows a frame to some replicas only never gets that far. What is signed says for how long
//! the frame is held, as a vouch does, so that who keeps proofs has few frames ordered a second
//! time. That a frame is its client's stays true: the leader gives the signatures to whoever lacks
//! that (`kept`).
//!
//! An ENDORSE is no vote, nor is a vouch: it says that a client's frame is here and waits. So a
//! replica that has left its view, and that nobody has followed yet, endorses for that view all
//! the same, and repeats its vouches to whoever leads it. With a faulty leader the others have a
//! quorum of endorsements then; a correct one has vouches of a quorum, and proposes what nobody
//! decides. It counts nobody's: whom to replace is for those to say who are still in the view.

mod kept;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use base::{BatchEntry, ClientId, Now, ReplicaId, Seq, Span, Time, View, VoteSet};

use self::kept::Kept;
use super::catchup::VOUCH_LIFETIME;
use super::msg::{ENDORSE_MAX, Message, SignedVouch, endorse_bytes};
use super::peers::Allowance;
use super::pool::{self, Entry, Key};
use super::{Lane, Reject};
use crate::group::link::Grievance;
use crate::outbox::{Outbox, Target};

/// Endorsements of one replica that are kept, the last ones.
const KEPT_PER_REPLICA: usize = 8 * ENDORSE_MAX;
/// Frames for which the leader's clock runs at a time.
const FORWARDED_MAX: usize = 1024;
/// How many more frames a doubted leader orders slowly, although a quorum has endorsed them, than
/// `PROMPT_WORTH` times those that it orders promptly. One in between excuses nothing.
const SLOW_PROOFS: u32 = 8;
/// What an endorsed frame that is ordered promptly makes up for.
const PROMPT_WORTH: u32 = 2;
/// Frames endorsed at a time while the leader seems slow, which is then more often.
const CLOSE_MAX: usize = ENDORSE_MAX / 2;
/// What checking one signature may take: no teller has a lane check more than one in this time.
const SIGNATURE: Span = Span::micros(172);
/// What a forged proof counts for among those that are looked at.
const FORGED_PROOFS: u64 = ENDORSE_MAX as u64;
/// How many debts a replica tells leaders of at once, and in each T: as many as it endorses itself
/// while a leader seems slow and is looked at 40 times.
const TELLS_AT_ONCE: u64 = 2 * ENDORSE_MAX as u64;
const TELLS_PER_TIMEOUT: u64 = 40 * CLOSE_MAX as u64;
/// What a forged signature costs the share of who sent it.
pub(super) const FORGED_COST_BYTES: usize = 1 << 20;

/// What a replica has endorsed, what it signed, and when that came, or was sent by this replica.
type Said = (BatchEntry, SignedVouch, Time);
/// What a quorum has signed for one frame.
type Proof = Vec<(ReplicaId, SignedVouch)>;

/// What a leader was told of.
#[derive(Clone, Copy, Debug)]
struct Debt {
    leader: ReplicaId,
    /// Since when it owes that.
    since: Time,
    /// When it was told last.
    told: Time,
}

/// Who has endorsed what, in this view.
#[derive(Clone, Debug)]
pub(super) struct Endorsements {
    said: Vec<VecDeque<Said>>,
    forwarded: BTreeMap<Key, Debt>,
    /// How often leaders are told.
    tells: Allowance,
    /// What this replica was told of as a leader.
    kept: Kept,
    last: Option<Time>,
    /// The principal whose frames were endorsed last: the next ones in turn come first.
    turn: ClientId,
    /// What was decided up to here this replica may not know: it has begun there, or has fetched
    /// that state or waits for it.
    skipped: Seq,
    slow: u32,
}

impl Endorsements {
    pub(super) fn new(n: u16) -> Endorsements {
        let said = vec![VecDeque::new(); usize::from(n)];
        let (forwarded, turn, skipped) = (BTreeMap::new(), ClientId(0), Seq(0));
        let (tells, kept) = (Allowance::default(), Kept::new(n));
        Endorsements { said, forwarded, tells, kept, last: None, turn, skipped, slow: 0 }
    }

    /// Whether the leader owes a frame.
    pub(super) fn any_forwarded(&self) -> bool {
        !self.forwarded.is_empty()
    }

    /// Who was told of a frame so long ago and has not ordered it.
    pub(super) fn debtor(&self, now: Time, since: Span) -> Option<ReplicaId> {
        let late = |debt: &&Debt| now.since(debt.since) >= since;
        self.forwarded.values().find(late).map(|debt| debt.leader)
    }

    /// This replica does not learn what was decided up to `seq`.
    pub(super) fn skips(&mut self, seq: Seq) {
        self.skipped = self.skipped.max(seq);
    }

    pub(super) fn clear(&mut self) {
        self.said.iter_mut().for_each(VecDeque::clear);
        self.forwarded.clear();
        (self.last, self.slow) = (None, 0);
    }

    /// `key` is ordered, which has waited here `since` then. Half of the `threshold` after the
    /// leader was told is four rounds or more, which is all that a leader takes that wants to.
    /// What it was told of too late to tell says nothing.
    pub(super) fn ordered(&mut self, now: Time, key: &Key, since: Option<Time>, threshold: Span) {
        if self.forwarded.is_empty() {
            return;
        }
        if let Some(debt) = self.forwarded.remove(key) {
            let waited = now.since(since.unwrap_or(debt.since).min(debt.since));
            if threshold == Span(0) || waited <= threshold {
                self.slow = self.slow.saturating_sub(PROMPT_WORTH);
            } else if now.since(debt.since) > Span(threshold.0 / 2) {
                self.slow = self.slow.saturating_add(1);
            }
        }
    }

    /// A window of the monitor is over: what was seen before counts less and less.
    pub(super) fn window_ends(&mut self) {
        self.slow /= 2;
    }

    /// For so long this replica could not see what the leader did.
    pub(super) fn excuse(&mut self, now: Time, slept: Span) {
        self.forwarded.values_mut().for_each(|debt| debt.since = debt.since.after(slept).min(now));
    }

    /// These were refused at `seq`: whoever waits for one still, or again, has to say so anew.
    pub(super) fn refused(&mut self, seq: Seq, was_refused: impl Fn(&Key) -> bool) {
        for said in &mut self.said {
            said.retain(|(entry, said, _)| {
                said.executed >= seq || !was_refused(&pool::key_of(entry))
            });
        }
    }

    fn keep(&mut self, from: ReplicaId, (entry, what, at): Said) {
        let said = &mut self.said[usize::from(from.0)];
        if let Some((_, known, _)) = said.iter_mut().find(|(known, ..)| *known == entry) {
            if what.executed > known.executed {
                *known = what;
            }
            return;
        }
        if said.len() >= KEPT_PER_REPLICA {
            said.pop_front();
        }
        said.push_back((entry, what, at));
    }

    /// What `who` has signed for `entry`.
    fn said_by(&self, who: ReplicaId, entry: &BatchEntry) -> Option<SignedVouch> {
        let said = self.said[usize::from(who.0)].iter();
        said.clone().find(|(known, ..)| known == entry).map(|(_, what, _)| *what)
    }

    /// What was signed for `entry` by those who hold it beyond `after`.
    fn said_of(&self, entry: &BatchEntry, after: Seq) -> Proof {
        let all = (0..).map(ReplicaId).take(self.said.len());
        let all = all.filter_map(|who| Some((who, self.said_by(who, entry)?)));
        all.filter(|(_, what)| what.executed >= after).collect()
    }

    /// What `from` has endorsed: by how long ago, 1 is the longest, and when.
    fn ranks(&self, from: ReplicaId) -> BTreeMap<Key, (usize, Time)> {
        let said = self.said[usize::from(from.0)].iter();
        said.zip(1..).map(|((entry, _, at), rank)| (pool::key_of(entry), (rank, *at))).collect()
    }

    fn drop_said(&mut self, from: ReplicaId, entry: &BatchEntry) {
        self.said[usize::from(from.0)].retain(|(known, ..)| known != entry);
    }

    pub(super) fn check(&self) {
        assert!(self.said.iter().all(|said| said.len() <= KEPT_PER_REPLICA));
        assert!(self.forwarded.len() <= FORWARDED_MAX);
        self.kept.check();
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

    /// Endorses what is overdue, and looks whether what was endorsed is ordered.
    pub(super) fn look_for_starved(&mut self, now: Time, lags: bool, out: &mut Outbox) {
        let timeout = self.cfg.view_timeout;
        let doubts = self.grievances.monitor.doubts();
        self.endorse_oldest(now, out);
        let (stalls, stalled) = (self.owes_for(Span(timeout.0 / 4)), self.suspect());
        let (pool, roles, next) = (&self.pool, &self.views.roles, self.next_undelivered());
        let endorsements = &mut self.grievances.endorsements;
        // Whom a frame is dealt to next is told anew.
        let owes = |key: &Key, who| pool.is_overdue(key) && roles.dealt_to(&key.0, next) == who;
        endorsements.forwarded.retain(|key, debt| owes(key, debt.leader));
        if self.views.roles.rotate() && stalls {
            // Whoever does not order them waits for another leader itself.
            let waits = |debt: &&mut Debt| debt.leader != stalled;
            let forwarded = endorsements.forwarded.values_mut();
            forwarded.filter(waits).for_each(|debt| debt.since = now);
        }
        if lags {
            // What it does not know of may be ordered.
            endorsements.forwarded.values_mut().for_each(|debt| debt.since = now);
        }
        let starved = endorsements.debtor(now, timeout);
        let slow = endorsements.slow;
        self.tell_again(now, out);
        if let Some(who) = starved.filter(|_| !base::mutant!(StarvationUnnoticed)) {
            self.aggrieved(now, (Grievance::Starved, who), out);
        }
        if slow >= SLOW_PROOFS && doubts && !base::mutant!(SlownessUnnoticed) {
            self.aggrieved(now, (Grievance::Slow, self.leader(next)), out);
            self.grievances.endorsements.slow = 0;
            self.grievances.monitor.reassured();
        }
    }

    /// Every quarter of T: the oldest frames that have waited for as long. While the leader
    /// seems slow, those that have waited for a quarter of what it may take, and at each look:
    /// it has to be told while there is time enough left to be slow in. What was said is said
    /// again after a quarter of T in either case.
    pub(super) fn endorse_oldest(&mut self, now: Time, out: &mut Outbox) {
        let quarter = Span(self.cfg.view_timeout.0 / 4);
        let monitor = &self.grievances.monitor;
        let (age, pause, most) = match monitor.looks_closely() {
            true => (quarter.min(Span(monitor.threshold().0 / 4)), self.look_pause(), CLOSE_MAX),
            false => (quarter, quarter, ENDORSE_MAX),
        };
        let last = self.grievances.endorsements.last;
        if last.is_some_and(|last| now.since(last) < pause) || now.0 < age.0 {
            return;
        }
        let endorsements = &self.grievances.endorsements;
        let said = endorsements.ranks(self.cfg.me);
        let rank = |key: &Key| match said.get(key) {
            Some((_, at)) if now.since(*at) < quarter => None,
            Some((rank, _)) => Some(*rank),
            None => Some(0),
        };
        let after = endorsements.turn;
        let old = self.pool.oldest_own(Time(now.0 - age.0), most, after, rank);
        let Some(last) = old.last() else { return };
        self.grievances.endorsements.turn = last.id.client;
        self.grievances.endorsements.last = Some(now);
        let (view, me) = (self.view, self.cfg.me);
        let mut entries = Vec::with_capacity(old.len());
        for entry in old {
            let said = self.sign_for(&entry);
            // Moves to the end: others have their turn before it is said again.
            self.grievances.endorsements.drop_said(me, &entry);
            self.grievances.endorsements.keep(me, (entry, said, now));
            entries.push((entry, said));
        }
        let overdue: Vec<BatchEntry> = entries.iter().map(|(entry, _)| *entry).collect();
        out.send(Target::All, Message::Endorse { view, entries });
        if self.is_active() {
            overdue.iter().for_each(|entry| _ = self.try_forward(now, entry, out));
        }
    }

    /// What this replica signs for `entry`, which it holds: what it has signed, if it has executed
    /// nothing since then. Others may know of a decision that yet others do not, and an older
    /// number would not count with them.
    fn sign_for(&self, entry: &BatchEntry) -> SignedVouch {
        let known = self.grievances.endorsements.said_by(self.cfg.me, entry);
        let so_far = self.progress.executed.max(self.floor());
        let executed = self.pool.holds_beyond(&pool::key_of(entry), so_far).unwrap_or(so_far);
        known.filter(|known| known.executed == executed).unwrap_or_else(|| {
            let signature = self.keys.sign(&self.endorsed_bytes(entry, executed));
            SignedVouch { executed, signature }
        })
    }

    fn endorsed_bytes(&self, entry: &BatchEntry, executed: Seq) -> Vec<u8> {
        endorse_bytes(self.cfg.group, self.cfg.epoch, self.view, (entry, executed))
    }

    pub(super) fn on_endorse(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, entries): (View, Vec<(BatchEntry, SignedVouch)>),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if view != self.view || !self.is_active() {
            return Err(Reject::Stale("endorsements of another view"));
        }
        if names_twice(&entries) {
            return Err(Reject::Misbehaviour("endorses a frame twice"));
        }
        let pace = self.tell_pace(2);
        if !self.catchup.peers.completes(from).is_left(now.mono, pace) {
            return Err(Reject::Stale("endorsements faster than they are checked"));
        }
        for (entry, said) in entries {
            self.grievances.endorsements.keep(from, (entry, said, now.mono));
            if self.try_forward(now.mono, &entry, out) {
                self.catchup.peers.completes(from).owe(now.mono, pace.0);
            }
        }
        Ok(())
    }

    /// Tells the leader once a quorum endorses `entry`. Whether signatures were checked for that.
    fn try_forward(&mut self, now: Time, entry: &BatchEntry, out: &mut Outbox) -> bool {
        let key = pool::key_of(entry);
        let leader = self.views.roles.dealt_to(&entry.id, self.next_undelivered());
        let endorsements = &self.grievances.endorsements;
        let known = match leader == self.cfg.me {
            true => self.pool.is_urgent(&key),
            false => endorsements.forwarded.contains_key(&key),
        };
        if known || endorsements.forwarded.len() >= FORWARDED_MAX || !self.pool.is_overdue(&key) {
            return false;
        }
        let pace = self.tell_pace(1);
        let endorsements = &self.grievances.endorsements;
        if leader != self.cfg.me && !endorsements.tells.is_left(now, pace) {
            // Those who wait say so again.
            return false;
        }
        let (checked, proof) = self.proof_of(now, entry);
        let Some(proof) = proof else { return checked };
        if leader == self.cfg.me {
            self.take_endorsed(now, (self.cfg.me, key), &proof);
            return checked;
        }
        let debt = Debt { leader, since: now, told: now };
        self.grievances.endorsements.tells.take(now, pace);
        self.grievances.endorsements.forwarded.insert(key, debt);
        let message = Message::Endorsed { view: self.view, entry: *entry, proof };
        out.send(Target::One(leader), message);
        checked
    }

    /// How often leaders are told by one replica, as often as they can look at what it shows, and
    /// how often at once, `bursts` times.
    fn tell_pace(&self, bursts: u64) -> (Span, Span) {
        let proof = SIGNATURE.0 * self.cfg.quorums.quorum() as u64;
        let each = (self.cfg.view_timeout.0 / TELLS_PER_TIMEOUT).max(proof);
        (Span(each), Span(each * TELLS_AT_ONCE * bursts))
    }

    /// Tells a leader again, every quarter of T, what it was told and has not ordered: it may have
    /// had no time for it, or may have forgotten it with all that a state has skipped.
    fn tell_again(&mut self, now: Time, out: &mut Outbox) {
        let pause = Span(self.cfg.view_timeout.0 / 4);
        let forwarded = self.grievances.endorsements.forwarded.iter();
        let due = forwarded.filter(|(_, debt)| now.since(debt.told) >= pause);
        let mut due: Vec<(Time, Key)> = due.map(|(key, debt)| (debt.told, *key)).collect();
        due.sort_unstable();
        let pace = self.tell_pace(1);
        for (_, key) in due.into_iter().take(ENDORSE_MAX) {
            let Endorsements { forwarded, tells, .. } = &mut self.grievances.endorsements;
            let Some(debt) = forwarded.get_mut(&key).filter(|_| tells.is_left(now, pace)) else {
                return;
            };
            debt.told = now;
            let (entry, leader) = (BatchEntry { id: key.0, digest: key.1 }, debt.leader);
            if let (_, Some(proof)) = self.proof_of(now, &entry) {
                self.grievances.endorsements.tells.take(now, pace);
                let message = Message::Endorsed { view: self.view, entry, proof };
                out.send(Target::One(leader), message);
            }
        }
    }

    /// What a quorum has signed for `entry` since it was refused, if one has, the newest.
    /// Signatures are looked at now, not before; and whether any were.
    fn proof_of(&mut self, now: Time, entry: &BatchEntry) -> (bool, Option<Proof>) {
        let quorum =
            if base::mutant!(OneEndorsementIsEnough) { 1 } else { self.cfg.quorums.quorum() };
        // What is older than all that this replica has skipped may be void to the leader.
        let endorsements = &self.grievances.endorsements;
        let after = self.pool.decided_at(&pool::key_of(entry)).max(endorsements.skipped);
        let mut said = endorsements.said_of(entry, after);
        if said.len() < quorum {
            return (false, None);
        }
        said.sort_by_key(|(_, said)| core::cmp::Reverse(said.executed));
        let (mut proof, mut forged) = (Proof::new(), Vec::new());
        for (who, said) in said {
            if proof.len() >= quorum {
                break;
            }
            let bytes = self.endorsed_bytes(entry, said.executed);
            match self.keys.verify(who, &bytes, &said.signature) {
                true => proof.push((who, said)),
                false => forged.push(who),
            }
        }
        let (each, _) = self.tell_pace(1);
        for who in forged {
            self.misbehaviour += 1;
            self.grievances.endorsements.drop_said(who, entry);
            // It made this replica check the others' signatures, too, and may say it again.
            self.catchup.peers.served(who, now, FORGED_COST_BYTES);
            self.catchup.peers.completes(who).owe(now, Span(each.0 * FORGED_PROOFS));
        }
        (true, (proof.len() >= quorum).then_some(proof))
    }

    /// A quorum endorses a frame, as its signatures prove: this replica, which leads, owes it. Or
    /// a leader shows whose the frame is that its proposal names.
    pub(super) fn on_endorsed(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, entry): (View, BatchEntry),
        proof: &[(ReplicaId, SignedVouch)],
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let (key, weak) = (pool::key_of(&entry), self.cfg.quorums.weak());
        let doubted = |held: &&Entry| held.needs_trust() && !held.is_trusted(weak);
        let lacks_trust = self.pool.get(&key).filter(doubted).is_some() && view <= self.view;
        if !lacks_trust && (view != self.view || !self.is_leader()) {
            return Err(Reject::Stale("endorsed frame for another leader"));
        }
        if !lacks_trust && self.pool.is_urgent(&key) {
            return Err(Reject::Stale("endorsed frame that is known"));
        }
        let members = proof.iter().all(|(who, _)| who.0 < self.cfg.quorums.n());
        let one = base::mutant!(OneEndorsementIsEnough) && !lacks_trust;
        let (least, quorum) = if one { (1, 1) } else { (weak, self.cfg.quorums.quorum()) };
        if !members || voters(proof).len() != proof.len() || proof.len() < least {
            return Err(Reject::Misbehaviour("endorsed by less than a quorum"));
        }
        if !lacks_trust && proof.len() < quorum {
            // From a leader that was asked for a body, perhaps, which is trusted by now.
            return Err(Reject::Stale("endorsed by a weak quorum only"));
        }
        // More would only have to be looked at.
        let proof = &proof[..if lacks_trust { weak } else { quorum }];
        self.look_at_proof(now.mono, (from, lacks_trust), (view, &entry), proof)?;
        if !lacks_trust {
            self.take_endorsed(now.mono, (from, key), proof);
            return Ok(());
        }
        // One of a weak quorum is correct, and that it held the frame from its client stays true.
        for (who, _) in proof {
            self.pool.vouch(now.mono, (*who, None), key, weak);
        }
        self.frame_changed(now, &key, out);
        Ok(())
    }

    /// Looks at the signatures that `from` shows, as many proofs as a correct replica can tell of.
    /// What it told apart may come together. Nobody has a frame ordered again and again more often
    /// with signatures of before it was decided; who shows these may not remember that it was, and
    /// would blame this replica for what it drops. `shows`: a leader may show what f liars have
    /// told it.
    fn look_at_proof(
        &mut self,
        now: Time,
        (from, shows): (ReplicaId, bool),
        (view, entry): (View, &BatchEntry),
        proof: &[(ReplicaId, SignedVouch)],
    ) -> Result<(), Reject> {
        let (each, burst) = self.tell_pace(2);
        let tellers = if shows { self.cfg.quorums.weak() as u64 } else { 1 };
        let each = Span(each.0 / tellers);
        let account = match shows {
            true => self.catchup.peers.shows(from),
            false => self.catchup.peers.tells(from),
        };
        if !account.take(now, (each, burst)) {
            return Err(Reject::Stale("endorsed frames faster than they are checked"));
        }
        let genuine = |(who, said): &(ReplicaId, SignedVouch)| {
            let (group, epoch) = (self.cfg.group, self.cfg.epoch);
            let bytes = endorse_bytes(group, epoch, view, (entry, said.executed));
            self.keys.verify(*who, &bytes, &said.signature)
        };
        if !proof.iter().all(genuine) {
            // Nobody shows what it has not checked, so that forgeries are its own.
            self.catchup.peers.served(from, now, FORGED_COST_BYTES);
            let forged = Span(each.0 * FORGED_PROOFS);
            self.catchup.peers.shows(from).owe(now, forged);
            self.catchup.peers.tells(from).owe(now, forged);
            return Err(Reject::Misbehaviour("forged signed vouch"));
        }
        Ok(())
    }

    /// Owes `key`, as `teller` has shown. Nothing is ordered so whose proof cannot be kept: the
    /// others may not hold it any more, and need that to know whose it is.
    fn take_endorsed(
        &mut self,
        now: Time,
        (teller, key): (ReplicaId, Key),
        proof: &[(ReplicaId, SignedVouch)],
    ) {
        let pause = Span(self.cfg.view_timeout.0 / 8);
        let kept = &mut self.grievances.endorsements.kept;
        let needed = |key: &Key| self.pool.is_to_be_shown(key);
        if !kept.has_room((teller, &key), (now, pause), needed) {
            return;
        }
        let enough = proof.iter().take(self.cfg.quorums.weak()).copied().collect();
        kept.keep(key, (teller, self.view, enough));
        let after = self.pool.decided_at(&key);
        let by = proof.iter().map(|(who, said)| (*who, said.executed.max(after)));
        if self.pool.endorsed(now, key, by, self.cfg.quorums.weak()) {
            self.catchup.waits_for_bodies(now);
        } else {
            self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
        }
    }

    /// What shows whose the frame of `entry` is, if this replica orders it for a quorum's word.
    pub(super) fn shows_whose(&self, entry: &BatchEntry) -> Option<Message> {
        let (view, proof) = self.grievances.endorsements.kept.get(&pool::key_of(entry))?;
        Some(Message::Endorsed { view, entry: *entry, proof: proof.clone() })
    }

    /// Another view begins: what was shown of frames that are not here any more is forgotten.
    pub(super) fn let_go_of_proofs(&mut self) {
        self.grievances.endorsements.kept.let_go(|key| self.pool.is_to_be_shown(key));
    }
}

/// Whether an ENDORSE names a frame twice.
fn names_twice(entries: &[(BatchEntry, SignedVouch)]) -> bool {
    let mut keys: Vec<Key> = entries.iter().map(|(entry, _)| pool::key_of(entry)).collect();
    keys.sort_unstable();
    keys.windows(2).any(|two| two[0] == two[1])
}

/// The distinct replicas in a proof.
fn voters(proof: &[(ReplicaId, SignedVouch)]) -> VoteSet {
    let mut set = VoteSet::EMPTY;
    let known = proof.iter().filter(|(who, _)| usize::from(who.0) < base::limits::REPLICAS_MAX);
    for (who, _) in known {
        set.insert(*who);
    }
    set
}
