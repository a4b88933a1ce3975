//! Frames on their way to being ordered: what arrived, who vouches for it, who waits for it.
//!
//! Keyed by identity *and* digest, so that a client that sends different bodies under one id to
//! different replicas makes entries that never gather a quorum, and nothing else (design §3.4).
//! Who says that a frame is its client's, which stays true, and who holds it, until it is executed
//! or refused there, are two things: a leader proposes what a quorum holds.
//!
//! Invariants:
//! 1. a principal has at most the entries and bytes that its quota allows;
//! 2. a peer has at most [`VOUCHED_ONLY_MAX`] entries that exist because of its vouch alone;
//! 3. `eligible` holds an entry at most once, and once more when it becomes urgent while it
//!    waits there; and only as leader.

mod divided;
mod done;
mod entry;
mod held;
mod holders;
mod leading;
mod quota;
mod refusals;
mod repeats;
mod shown;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{BatchEntry, ClientId, Digest, Frame, FrameId, ReplicaId, Seq, Span, Time, VoteSet};

pub(super) use super::arrival::{Arrival, Vouched};

use self::divided::Divided;
pub(super) use self::entry::{Entry, Want};
use self::holders::Holders;
use self::leading::Deal;
pub(super) use self::leading::Keeps;
use self::refusals::Refusals;
use self::repeats::Repeats;
use super::catchup::VOUCH_LIFETIME;
use super::queue::Queue;

/// Most entries that exist because one peer vouched for a frame that has not arrived here.
const VOUCHED_ONLY_MAX: usize = 16_384;
/// How long after a fetch frames may come that it has made obsolete.
const AFTER_FETCH: Span = Span::secs(60);

/// A frame by name: identity and content.
pub(super) type Key = (FrameId, Digest);

/// Where a frame stands among those of its principal: whether a proposal names it, rank, since
/// when it waits, its name.
type Place = (bool, Time, Time, Key);

/// What a key is, from a proposal's entry.
pub(super) fn key_of(entry: &BatchEntry) -> Key {
    (entry.id, entry.digest)
}

/// The frames that one pillar holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    /// When a checkpoint was last fetched.
    pub(super) fetched_at: Option<Time>,
    /// When this life began with one.
    pub(super) begun_at: Option<Time>,
    entries: BTreeMap<Key, Entry>,
    quota: BTreeMap<ClientId, (usize, usize)>,
    vouched_only: BTreeMap<ReplicaId, usize>,
    /// What waits to be proposed.
    eligible: Queue,
    /// What this replica may propose; without one, everything.
    deal: Option<Deal>,
    /// Places that wait for frames, of all entries together.
    wants: usize,
    /// Entries that a proposal names.
    ordered: usize,
    /// Entries without a body that a weak quorum vouches for, what a quorum endorses first and then
    /// the oldest; some may have one by now. What one peer alone vouches for is not looked at again
    /// and again.
    bodyless: VecDeque<Key>,
    /// What was executed of late.
    recent: Repeats,
    /// What was refused of late.
    refusals: Refusals,
    /// Clients whose frames a leader holds back.
    divided: Divided,
    /// Small frames travel with their proposal: a leader needs no vouches for what it has checked.
    inline: bool,
}

impl Pool {
    pub(super) fn new(inline: bool) -> Pool {
        Pool { inline, ..Pool::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether some frame is yet to be proposed, as far as is known here.
    pub(super) fn has_unordered(&self) -> bool {
        self.entries.len() > self.ordered
    }

    /// How many places of proposals wait for frames.
    pub(super) fn wants(&self) -> usize {
        self.wants
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// A frame arrived on its principal's own link. `weak` is the size of a weak quorum; `group` is
    /// how far the group is, as far as this replica knows.
    pub(super) fn arrive(
        &mut self,
        now: Time,
        frame: &Arc<Frame>,
        (weak, group): (usize, Seq),
    ) -> Arrival {
        let key = (frame.id(), frame.digest());
        self.forget_acknowledged(now, frame);
        let executed = self.recent.at(&key);
        if let Some(arrival) = self.recent.arrive(now, &key) {
            return arrival;
        }
        self.may_come_again(key, executed);
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.frame.is_some()
        {
            let again = core::mem::replace(&mut entry.came, true);
            if again && !self.recent.may_repeat(now, key.0.client) {
                return Arrival::TooOften;
            }
            if !entry.own {
                // A peer's copy may have another authenticator, which is nobody's word.
                entry.frame = Some(frame.clone());
                (entry.own, entry.pending_since) = (true, now);
            }
            entry.since = now;
            let named = if entry.ordered { entry.holders.ordered_at() } else { Seq(0) };
            entry.beyond = entry.beyond.max(group).max(named);
            if core::mem::take(&mut entry.dormant) {
                entry.pending_since = now;
            } else {
                entry.again |= again;
            }
            return Arrival::Known;
        }
        if !self.charge(frame) {
            return Arrival::OverQuota;
        }
        let entry = self.put_body(now, key, frame);
        (entry.own, entry.came, entry.pending_since) = (true, true, now);
        entry.beyond = group;
        self.look_for_division(now, key.0, weak);
        Arrival::Fresh
    }

    /// Looks whether the client sent one body under this id over its own link, and a weak quorum
    /// answers for another one that is not here.
    fn look_for_division(&mut self, now: Time, id: FrameId, weak: usize) {
        let mut same = self.entries.range((id, Digest([0; 32]))..=(id, Digest([0xff; 32])));
        let (mut came, mut elsewhere) = (false, false);
        if let (Some(one), Some(two)) = (same.next(), same.next()) {
            for (_, entry) in [one, two].into_iter().chain(same) {
                came |= entry.came;
                elsewhere |= entry.frame.is_none() && entry.backers() >= weak;
            }
        }
        if came && elsewhere {
            self.divided.note(now, id.client);
        }
    }

    /// Whether frames may come that were executed in what was skipped of late.
    pub(super) fn may_have_skipped(&self, now: Time) -> bool {
        self.fetched_at.max(self.begun_at).is_some_and(|at| now.since(at) < AFTER_FETCH)
    }

    /// The client has the replies to what `frame` acknowledges. After a checkpoint was fetched,
    /// what waits here of that is in the checkpoint, and must not use up the client's quota, also
    /// what is read late. At other times it stays, whatever the client says: this replica has
    /// vouched for it, and it may yet be proposed.
    fn forget_acknowledged(&mut self, now: Time, frame: &Frame) {
        let recent = |at| now.since(at) < AFTER_FETCH;
        if frame.ack() == 0 || !self.fetched_at.is_some_and(recent) {
            return;
        }
        // From 1: the opening of the session is in stream 0, and no request of that stream.
        let first = FrameId { id: 1, ..frame.id() };
        let last = FrameId { id: frame.ack(), ..first };
        let all = (first, Digest([0; 32]))..=(last, Digest([0xff; 32]));
        let idle = |e: &Entry| !e.ordered && !e.queued && !e.is_wanted() && e.kept_at.is_none();
        let acknowledged = self.entries.range(all).filter(|(_, entry)| idle(entry));
        let done: Vec<Key> = acknowledged.map(|(key, _)| *key).collect();
        done.iter().for_each(|key| drop(self.remove(key)));
    }

    /// A body came from a peer. `own`: this replica finds it genuine. It is kept when somebody
    /// waits for it and it is trusted, or known to be decided: what a faulty leader invents takes
    /// no memory. What is proposed may exceed its principal's quota within bounds (`quota`), and
    /// beyond them for the number that is `next`.
    pub(super) fn body(
        &mut self,
        now: Time,
        frame: &Arc<Frame>,
        own: bool,
        (weak, next): (usize, Seq),
    ) {
        let key = (frame.id(), frame.digest());
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if own && !entry.own {
            (entry.own, entry.pending_since) = (true, now);
            if let Some(copy) = &mut entry.frame {
                *copy = frame.clone();
            }
        }
        let good = entry.is_trusted(weak) || entry.wanted.iter().any(|want| !want.needs_trust);
        // A leader that would send it with its proposal waits for a copy whose signature is good.
        let shown = !own && self.inline && frame.is_small();
        let good = good && !(shown && entry.wanted.iter().all(|want| want.seq.0 == 0));
        if !good || !entry.is_wanted() || entry.frame.is_some() {
            return;
        }
        let (is_next, urgent) =
            (entry.wanted.iter().any(|want| want.seq == next), entry.is_urgent());
        if is_next || self.has_room_for(key.0.client, urgent) {
            self.count(frame);
            self.put_body(now, key, frame);
        } else {
            // What was found genuine is not here: another copy is to be looked at anew.
            entry_of((&mut self.entries, &self.refusals, &self.recent), now, key).own &= !own;
        }
    }

    fn put_body(&mut self, now: Time, key: Key, frame: &Arc<Frame>) -> &mut Entry {
        let entry = entry_of((&mut self.entries, &self.refusals, &self.recent), now, key);
        if let Some(peer) = entry.made_by.take() {
            release(&mut self.vouched_only, peer);
        }
        entry.frame = Some(frame.clone());
        entry.since = now;
        entry
    }

    /// A peer, `voucher`, vouches for `key`, and says how far it has executed if it goes on holding
    /// the frame.
    pub(super) fn vouch(
        &mut self,
        now: Time,
        voucher: (ReplicaId, Option<Seq>),
        key: Key,
        weak: usize,
    ) -> Vouched {
        if let Some(entry) = self.entries.get_mut(&key) {
            let known = entry.backers();
            entry.is_vouched_for(now, voucher);
            if entry.frame.is_some() {
                return Vouched::Held;
            }
            if known < weak && entry.backers() >= weak {
                self.bodyless.push_back(key);
                self.look_for_division(now, key.0, weak);
            }
            return Vouched::Bodyless;
        }
        // A vouch for what was just executed is a late one.
        let executed = self.recent.at(&key);
        if executed.is_some() && !self.recent.is_held_again(&key, voucher.1) {
            return Vouched::Late;
        }
        self.may_come_again(key, executed);
        let (peer, _) = voucher;
        let made = self.vouched_only.entry(peer).or_default();
        if *made >= VOUCHED_ONLY_MAX {
            return Vouched::TooMany;
        }
        *made += 1;
        let entry = entry_of((&mut self.entries, &self.refusals, &self.recent), now, key);
        entry.made_by = Some(peer);
        entry.is_vouched_for(now, voucher);
        if entry.vouches.len() == weak {
            self.bodyless.push_back(key);
        }
        Vouched::Bodyless
    }

    /// A proposal names `key`, and `voucher`, if any, vouches for it by that. The body when
    /// nothing is missing; otherwise [`Pool::satisfied`] tells when it is there.
    pub(super) fn want(
        &mut self,
        now: Time,
        key: Key,
        want: Want,
        voucher: Option<ReplicaId>,
        weak: usize,
    ) -> Option<Arc<Frame>> {
        let entry = entry_of((&mut self.entries, &self.refusals, &self.recent), now, key);
        if let Some(peer) = entry.made_by.take() {
            release(&mut self.vouched_only, peer);
        }
        if let Some(voucher) = voucher {
            let known = entry.backers();
            entry.vouches.insert(voucher);
            if entry.frame.is_none() && known < weak && entry.backers() >= weak {
                self.bodyless.push_back(key);
            }
        }
        if entry.satisfies(&want, weak) {
            return entry.frame.clone();
        }
        entry.wanted.push(want);
        self.wants += 1;
        None
    }

    /// Who waited for `key` and has it now, and its body.
    pub(super) fn satisfied(&mut self, key: &Key, weak: usize) -> Option<(Arc<Frame>, Vec<Want>)> {
        let entry = self.entries.get_mut(key).filter(|entry| entry.is_wanted())?;
        let frame = entry.frame.clone()?;
        let mut wanted = core::mem::take(&mut entry.wanted);
        let done: Vec<Want> = wanted.extract_if(.., |want| entry.satisfies(want, weak)).collect();
        entry.wanted = wanted;
        self.wants -= done.len();
        Some((frame, done))
    }

    /// The proposal for `seq` that named `key` is void: nobody waits on its behalf, and the frame
    /// may be vouched for and ordered again, as if it had just come.
    pub(super) fn unwant(&mut self, now: Time, key: &Key, seq: Seq) {
        if let Some(entry) = self.entries.get_mut(key) {
            let before = entry.wanted.len();
            entry.wanted.retain(|want| want.seq != seq);
            self.wants -= before - entry.wanted.len();
            self.ordered -= usize::from(core::mem::take(&mut entry.ordered));
            (entry.since, entry.pending_since) = (now, now);
        }
    }

    /// A view begins: what is not ordered waits for its leader from now on. Its name if this
    /// replica leads.
    pub(super) fn begin_view(&mut self, now: Time, leader: Option<ReplicaId>) -> Vec<Key> {
        self.eligible = Queue::default();
        let mut keys = Vec::new();
        for (key, entry) in &mut self.entries {
            (entry.queued, entry.owed_at, entry.kept_at) = (false, None, None);
            if !entry.ordered {
                (entry.made, entry.pending_since) = (now, now);
                if entry.holders.are_old(now, VOUCH_LIFETIME) {
                    entry.holders.forget();
                }
                if let Some(me) = leader.filter(|_| entry.is_awaited()) {
                    entry.vouches.insert(me);
                    entry.holders.add_me(now, me);
                }
                keys.push(*key);
            }
        }
        if leader.is_some() { keys } else { Vec::new() }
    }

    /// A leader owes `key`, as these say, one of whom is correct and holds it. That makes it
    /// urgent, and counts even for what was executed not long ago, as far as this replica knows:
    /// the others do not know it, and the client table will. True if its body is missing.
    pub(super) fn owed(&mut self, now: Time, key: Key, by: VoteSet) -> bool {
        let executed = self.recent.at(&key);
        self.recent.forget(&key);
        self.may_come_again(key, executed);
        let entry = entry_of((&mut self.entries, &self.refusals, &self.recent), now, key);
        if let Some(peer) = entry.made_by.take() {
            release(&mut self.vouched_only, peer);
        }
        by.iter().for_each(|who| entry.is_vouched_for(now, (who, None)));
        let fresh = entry.owed_at.replace(now).is_none();
        if let (true, true, Some(frame)) = (fresh, entry.queued, &entry.frame) {
            // It stays in its old place, too, where it is skipped.
            self.eligible.push(key, frame.weight(), true);
        }
        // What would travel with a proposal has to be a copy that was checked.
        let unchecked = |frame: &Arc<Frame>| self.inline && frame.is_small();
        let unchecked = !entry.own && entry.frame.as_ref().is_some_and(unchecked);
        let dropped = if unchecked { entry.frame.take() } else { None };
        let bodyless = entry.frame.is_none();
        if bodyless && (fresh || unchecked) {
            // Before those that may never come, or have no room, also if it is one of those.
            self.bodyless.push_front(key);
        }
        dropped.iter().for_each(|frame| self.uncount(frame));
        bodyless
    }

    /// This replica says that `key` is owed, and keeps it for as long.
    pub(super) fn keep_for_debt(&mut self, now: Time, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.kept_at = Some(now);
        }
    }

    /// `key` was executed at this number, if at any, and is to be ordered again all the same.
    /// Whoever has executed less has it only for as long.
    fn may_come_again(&mut self, key: Key, executed: Option<Seq>) {
        if let Some(seq) = executed {
            self.refusals.note(key, seq);
        }
    }

    /// Whether a batch that named `key` was executed here not long ago.
    pub(super) fn was_decided(&self, key: &Key) -> bool {
        self.decided_at(key) > Seq(0)
    }

    /// Where a batch that named `key` was executed here last, as far as that is remembered.
    pub(super) fn decided_at(&self, key: &Key) -> Seq {
        let known = self.entries.get(key).map_or(Seq(0), |entry| entry.holders.since_refusal());
        let refused = self.refusals.last(key).unwrap_or_default();
        known.max(refused).max(self.recent.at(key).unwrap_or_default())
    }

    /// Whether `key` waits for its order here, as far as this replica knows.
    pub(super) fn is_overdue(&self, key: &Key) -> bool {
        !self.recent.contains(key) && self.entries.get(key).is_none_or(|entry| !entry.ordered)
    }

    /// Own frames that have waited to be executed since `before` or longer, at most `max`: the
    /// principals in turn, beginning behind `after`, those that no proposal names, those of the
    /// lowest `rank` and then the oldest of each first; those without a rank not at all. One that
    /// shows frames to this replica alone, for ever, must not keep those of others out. And a
    /// leader may have shown its proposal to this replica alone: the others need its word to
    /// notice that it is silent.
    pub(super) fn oldest_own(
        &self,
        before: Time,
        max: usize,
        after: ClientId,
        rank: impl Fn(&Key) -> Option<Time>,
    ) -> Vec<BatchEntry> {
        let waits = |e: &Entry| e.is_awaited() && e.frame.is_some() && e.pending_since <= before;
        let mut of: BTreeMap<(bool, ClientId), Vec<Place>> = BTreeMap::new();
        for (key, entry) in self.entries.iter().filter(|(_, entry)| waits(entry)) {
            let client = key.0.client;
            let Some(rank) = rank(key) else { continue };
            let place = (entry.ordered, rank, entry.pending_since, *key);
            of.entry((client <= after, client)).or_default().push(place);
        }
        let mut queues: Vec<Vec<Place>> = of.into_values().collect();
        queues.iter_mut().for_each(|frames| frames.sort_unstable());
        let deepest = queues.iter().map(Vec::len).max().unwrap_or(0).min(max);
        let in_turn = (0..deepest).flat_map(|rank| queues.iter().filter_map(move |q| q.get(rank)));
        in_turn.take(max).map(|(.., (id, d))| BatchEntry { id: *id, digest: *d }).collect()
    }

    /// A proposal for `seq` of this replica, or one that it accepted, names `key`.
    pub(super) fn mark_ordered(&mut self, key: &Key, seq: Seq) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.ordered += usize::from(!entry.ordered);
            entry.is_ordered_at(seq);
        }
    }

    fn remove(&mut self, key: &Key) -> Vec<Want> {
        let Some(entry) = self.entries.remove(key) else { return Vec::new() };
        self.wants -= entry.wanted.len();
        self.ordered -= usize::from(entry.ordered);
        if let Some(peer) = entry.made_by {
            release(&mut self.vouched_only, peer);
        }
        entry.frame.iter().for_each(|frame| self.uncount(frame));
        entry.wanted
    }

    /// Own frames that came after `after` and wait for their order, oldest ids first, at most
    /// `max`: this replica vouches for them once more.
    pub(super) fn vouch_again(&self, after: Time, max: usize) -> Vec<BatchEntry> {
        let waits = |e: &Entry| e.is_awaited() && !e.ordered && e.since >= after;
        let named = |((id, digest), _): (&Key, &Entry)| BatchEntry { id: *id, digest: *digest };
        self.entries.iter().filter(|(_, entry)| waits(entry)).take(max).map(named).collect()
    }

    /// Up to which number what is executed here takes `key` away no more, if this replica holds
    /// it: it has `executed`, and keeps what has come since.
    pub(super) fn holds_beyond(&self, key: &Key, executed: Seq) -> Option<Seq> {
        let entry = self.entries.get(key).filter(|entry| entry.is_awaited())?;
        Some(entry.beyond.max(executed))
    }

    pub(super) fn check(&self) {
        // One pass: a pool may hold tens of thousands.
        let (mut held, mut made, mut wants) = (BTreeMap::new(), BTreeMap::new(), 0);
        let mut ordered = 0;
        for (key, entry) in &self.entries {
            if let Some(frame) = &entry.frame {
                let (frames, bytes): &mut (usize, usize) = held.entry(key.0.client).or_default();
                (*frames, *bytes) = (*frames + 1, *bytes + frame.weight());
            }
            if let Some(peer) = entry.made_by {
                *made.entry(peer).or_default() += 1;
            }
            wants += entry.wanted.len();
            ordered += usize::from(entry.ordered);
        }
        for (client, quota) in &self.quota {
            assert_eq!(*quota, held.get(client).copied().unwrap_or_default());
        }
        for (peer, count) in &self.vouched_only {
            assert_eq!(*count, made.get(peer).copied().unwrap_or_default());
        }
        self.eligible.check();
        assert_eq!((self.wants, self.ordered), (wants, ordered));
        self.recent.check();
        self.refusals.check();
    }
}

/// The entry of `key`, made if it is not there yet.
fn entry_of<'a>(
    (entries, refusals, recent): (&'a mut BTreeMap<Key, Entry>, &Refusals, &Repeats),
    now: Time,
    key: Key,
) -> &'a mut Entry {
    let fresh = || {
        let refused = refusals.last(&key);
        let decided = refused.is_some() || recent.contains(&key);
        let holders = Holders::after(refused.unwrap_or_default());
        Entry { made: now, since: now, holders, decided, ..Entry::default() }
    };
    entries.entry(key).or_insert_with(fresh)
}

fn release(counts: &mut BTreeMap<ReplicaId, usize>, peer: ReplicaId) {
    if let Some(made) = counts.get_mut(&peer) {
        *made = made.saturating_sub(1);
    }
}
