//! Frames that wait for too long: a quorum that endorses one makes it the leader's debt.
//!
//! A replica signs for its oldest frames that are not ordered (ENDORSE, to all), and for those
//! that it has not signed for before others: what was executed in a checkpoint that it fetched
//! still seems to wait here. Whoever holds a
//! quorum of signatures for one frame hands them to the leader (ENDORSED), which takes them as
//! vouches, fetches the body and orders it before others. From then on its clock runs. A client
//! that shows a frame to some replicas only never gets that far.
//!
//! An ENDORSE is no vote, nor is a vouch: it says that a client's frame is here and waits. So a
//! replica that has left its view, and that nobody has followed yet, endorses for that view all
//! the same, and repeats its vouches to whoever leads it. With a faulty leader the others have a
//! quorum of endorsements then; a correct one has vouches of a quorum, and proposes what nobody
//! decides. It counts nobody's: whom to replace is for those to say who are still in the view.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use base::{BatchEntry, ClientId, Now, ReplicaId, Signature, Span, Time, View, VoteSet};

use super::catchup::VOUCH_LIFETIME;
use super::msg::{ENDORSE_MAX, Message, endorse_bytes};
use super::pool::{self, Key};
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
/// What checking a quorum of signatures costs the sender's share.
const ENDORSED_COST_BYTES: usize = 64 << 10;
/// What having a frame ordered once more, which was decided of late, costs the share of a replica.
pub(super) const AGAIN_COST_BYTES: usize = 1 << 20;
/// What a forged signature costs the share of who sent it.
pub(super) const FORGED_COST_BYTES: usize = 1 << 20;

/// What a replica has endorsed, its signature, and when it came, or was sent by this replica.
type Said = (BatchEntry, Signature, Time);

/// Who has endorsed what, in this view.
#[derive(Clone, Debug)]
pub(super) struct Endorsements {
    said: Vec<VecDeque<Said>>,
    /// When a leader was told, and which.
    forwarded: BTreeMap<Key, (Time, ReplicaId)>,
    last: Option<Time>,
    /// The principal whose frames were endorsed last: the next ones in turn come first.
    turn: ClientId,
    slow: u32,
}

impl Endorsements {
    pub(super) fn new(n: u16) -> Endorsements {
        let said = vec![VecDeque::new(); usize::from(n)];
        Endorsements { said, forwarded: BTreeMap::new(), last: None, turn: ClientId(0), slow: 0 }
    }

    /// Whether the leader owes a frame.
    pub(super) fn any_forwarded(&self) -> bool {
        !self.forwarded.is_empty()
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
        if let Some((at, _)) = self.forwarded.remove(key) {
            let waited = now.since(since.unwrap_or(at).min(at));
            if threshold == Span(0) || waited <= threshold {
                self.slow = self.slow.saturating_sub(PROMPT_WORTH);
            } else if now.since(at) > Span(threshold.0 / 2) {
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
        self.forwarded.values_mut().for_each(|(at, _)| *at = at.after(slept).min(now));
    }

    /// These were refused: whoever waits for one still, or again, has to say so anew.
    pub(super) fn refused(&mut self, was_refused: impl Fn(&Key) -> bool) {
        for said in &mut self.said {
            said.retain(|(entry, ..)| !was_refused(&pool::key_of(entry)));
        }
    }

    fn keep(&mut self, from: ReplicaId, (entry, signature, at): Said) {
        let said = &mut self.said[usize::from(from.0)];
        if said.iter().any(|(known, ..)| *known == entry) {
            return;
        }
        if said.len() >= KEPT_PER_REPLICA {
            said.pop_front();
        }
        said.push_back((entry, signature, at));
    }

    fn signatures(&self, entry: &BatchEntry) -> Vec<(ReplicaId, Signature)> {
        let of = |said: &VecDeque<Said>| {
            said.iter().find(|(known, ..)| known == entry).map(|(_, signature, _)| *signature)
        };
        let all = (0..).map(ReplicaId).zip(&self.said);
        all.filter_map(|(who, said)| of(said).map(|signature| (who, signature))).collect()
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
        endorsements.forwarded.retain(|key, (_, who)| owes(key, *who));
        if self.views.roles.rotate() && stalls {
            // Whoever does not order them waits for another leader itself.
            let waits = |who: &ReplicaId| *who != stalled;
            let forwarded = endorsements.forwarded.values_mut();
            forwarded.filter(|(_, who)| waits(who)).for_each(|(at, _)| *at = now);
        }
        if lags {
            // What it does not know of may be ordered.
            endorsements.forwarded.values_mut().for_each(|(at, _)| *at = now);
        }
        let mut told = endorsements.forwarded.values();
        let starved = told.find(|(at, _)| now.since(*at) >= timeout).map(|(_, who)| *who);
        let slow = endorsements.slow;
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
            let said = self.grievances.endorsements.said[usize::from(me.0)].iter();
            let known = said.clone().find(|(known, ..)| *known == entry).map(|(_, s, _)| *s);
            let sign =
                || self.keys.sign(&endorse_bytes(self.cfg.group, self.cfg.epoch, view, &entry));
            let signature = known.unwrap_or_else(sign);
            // Moves to the end: others have their turn before it is said again.
            self.grievances.endorsements.drop_said(me, &entry);
            self.grievances.endorsements.keep(me, (entry, signature, now));
            entries.push((entry, signature));
        }
        let overdue: Vec<BatchEntry> = entries.iter().map(|(entry, _)| *entry).collect();
        out.send(Target::All, Message::Endorse { view, entries });
        if self.is_active() {
            overdue.iter().for_each(|entry| self.try_forward(now, entry, out));
        }
    }

    pub(super) fn on_endorse(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, entries): (View, Vec<(BatchEntry, Signature)>),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if view != self.view || !self.is_active() {
            return Err(Reject::Stale("endorsements of another view"));
        }
        if !self.catchup.peers.may_serve(from, now.mono) {
            return Err(Reject::Stale("endorsements faster than they are checked"));
        }
        for (entry, signature) in entries {
            self.grievances.endorsements.keep(from, (entry, signature, now.mono));
            self.try_forward(now.mono, &entry, out);
        }
        Ok(())
    }

    /// Tells the leader once a quorum endorses `entry`. Signatures are looked at then, not
    /// before.
    fn try_forward(&mut self, now: Time, entry: &BatchEntry, out: &mut Outbox) {
        let key = pool::key_of(entry);
        let quorum =
            if base::mutant!(OneEndorsementIsEnough) { 1 } else { self.cfg.quorums.quorum() };
        let endorsements = &self.grievances.endorsements;
        let known = endorsements.forwarded.contains_key(&key);
        if known || endorsements.forwarded.len() >= FORWARDED_MAX || !self.pool.is_overdue(&key) {
            return;
        }
        let mut proof = endorsements.signatures(entry);
        if proof.len() < quorum {
            return;
        }
        let bytes = endorse_bytes(self.cfg.group, self.cfg.epoch, self.view, entry);
        let genuine = |(who, s): &(ReplicaId, Signature)| self.keys.verify(*who, &bytes, s);
        let forged: Vec<_> = proof.extract_if(.., |one| !genuine(one)).collect();
        for (who, _) in forged {
            self.misbehaviour += 1;
            self.grievances.endorsements.drop_said(who, entry);
            // It made this replica check the others' signatures, too, and may say it again.
            self.catchup.peers.served(who, now, FORGED_COST_BYTES);
        }
        if proof.len() < quorum {
            return;
        }
        let leader = self.views.roles.dealt_to(&entry.id, self.next_undelivered());
        if leader == self.cfg.me {
            let by = voters(&proof);
            self.take_endorsed(now, key, by);
            return;
        }
        self.grievances.endorsements.forwarded.insert(key, (now, leader));
        let message = Message::Endorsed { view: self.view, entry: *entry, proof };
        out.send(Target::One(leader), message);
    }

    /// A quorum endorses a frame, as its signatures prove: this replica, which leads, owes it.
    pub(super) fn on_endorsed(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, entry): (View, BatchEntry),
        proof: &[(ReplicaId, Signature)],
    ) -> Result<(), Reject> {
        let key = pool::key_of(&entry);
        if view != self.view || !self.is_leader() {
            return Err(Reject::Stale("endorsed frame for another leader"));
        }
        if self.pool.is_urgent(&key) {
            return Err(Reject::Stale("endorsed frame that is known"));
        }
        if !self.catchup.peers.may_serve(from, now.mono) {
            return Err(Reject::Stale("endorsed frames faster than they are checked"));
        }
        // A proof is as good as it was after the frame was ordered, for as long as the view lasts.
        let cost = if self.pool.was_decided(&key) { AGAIN_COST_BYTES } else { ENDORSED_COST_BYTES };
        self.catchup.peers.served(from, now.mono, cost);
        let distinct = voters(proof);
        let members = proof.iter().all(|(who, _)| who.0 < self.cfg.quorums.n());
        if !members
            || distinct.len() != proof.len()
            || (proof.len() < self.cfg.quorums.quorum() && !base::mutant!(OneEndorsementIsEnough))
        {
            return Err(Reject::Misbehaviour("endorsed by less than a quorum"));
        }
        let bytes = endorse_bytes(self.cfg.group, self.cfg.epoch, view, &entry);
        if !proof.iter().all(|(who, signature)| self.keys.verify(*who, &bytes, signature)) {
            return Err(Reject::Misbehaviour("forged signed vouch"));
        }
        self.take_endorsed(now.mono, key, distinct);
        Ok(())
    }

    fn take_endorsed(&mut self, now: Time, key: Key, by: VoteSet) {
        if self.pool.endorsed(now, key, by, self.cfg.quorums.weak()) {
            self.catchup.waits_for_bodies(now);
        } else {
            self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
        }
    }
}

/// The distinct replicas in a proof.
fn voters(proof: &[(ReplicaId, Signature)]) -> VoteSet {
    let mut set = VoteSet::EMPTY;
    let known = proof.iter().filter(|(who, _)| usize::from(who.0) < base::limits::REPLICAS_MAX);
    for (who, _) in known {
        set.insert(*who);
    }
    set
}
