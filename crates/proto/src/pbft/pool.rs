//! Frames on their way to being ordered: what arrived, who vouches for it, who waits for it.
//!
//! Keyed by identity *and* digest, so that a client that sends different bodies under one id to
//! different replicas makes entries that never gather a quorum, and nothing else (design §3.4).
//!
//! Invariants:
//! 1. a principal has at most the entries and bytes that its quota allows;
//! 2. a peer has at most [`VOUCHED_ONLY_MAX`] entries that exist because of its vouch alone;
//! 3. `eligible` holds an entry at most once, and only as leader.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{BatchEntry, ClientId, Digest, Frame, FrameId, ReplicaId, Seq, Time, VoteSet, limits};

/// Most entries that exist because one peer vouched for a frame that has not arrived here.
const VOUCHED_ONLY_MAX: usize = 16_384;
/// Executed frames that are remembered, to tell a retransmission from a new frame.
const RECENT_MAX: usize = 8_192;

/// A frame by name: identity and content.
pub(super) type Key = (FrameId, Digest);

/// What a key is, from a proposal's entry.
pub(super) fn key_of(entry: &BatchEntry) -> Key {
    (entry.id, entry.digest)
}

#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) frame: Option<Arc<Frame>>,
    /// This replica has the client's own word for it: it came over the client's link, or this
    /// replica's part of the authenticator is genuine.
    pub(super) own: bool,
    pub(super) vouches: VoteSet,
    /// A proposal that this replica made or accepted names it.
    pub(super) ordered: bool,
    queued: bool,
    /// Whose vouch alone made this entry, while that is so.
    made_by: Option<ReplicaId>,
    /// Proposals that wait for it, and whether they need trust besides the body.
    wanted: Vec<(Seq, bool)>,
    pub(super) since: Time,
}

/// The frames that one pillar holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    entries: BTreeMap<Key, Entry>,
    quota: BTreeMap<ClientId, (usize, usize)>,
    vouched_only: BTreeMap<ReplicaId, usize>,
    eligible: VecDeque<Key>,
    recent: BTreeSet<FrameId>,
    recent_order: VecDeque<FrameId>,
}

/// What an arriving frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It was not here before.
    Fresh,
    /// It waits for its order already.
    Known,
    /// It was executed not long ago: the client wants its reply again.
    Executed,
    /// The principal is at its quota.
    OverQuota,
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// A frame arrived on its principal's own link.
    pub(super) fn arrive(&mut self, now: Time, frame: &Arc<Frame>) -> Arrival {
        if self.forget_recent(&frame.id()) {
            return Arrival::Executed;
        }
        let key = (frame.id(), frame.digest());
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.frame.is_some()
        {
            entry.own = true;
            return Arrival::Known;
        }
        if !self.charge(frame) {
            return Arrival::OverQuota;
        }
        self.put_body(now, key, frame).own = true;
        Arrival::Fresh
    }

    /// A body came from a peer. False when nobody waits for it.
    pub(super) fn body(&mut self, now: Time, frame: &Arc<Frame>, own: bool) -> bool {
        let key = (frame.id(), frame.digest());
        let waited_for =
            self.entries.get(&key).is_some_and(|e| !e.wanted.is_empty() && e.frame.is_none());
        if waited_for {
            // What is already proposed is not subject to the quota: the window bounds it.
            let (frames, bytes) = self.quota.entry(frame.id().client).or_default();
            *frames += 1;
            *bytes += frame.weight();
            self.put_body(now, key, frame).own |= own;
        }
        waited_for
    }

    /// This replica has found `key` genuine, if `own`.
    pub(super) fn trust(&mut self, key: &Key, own: bool) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.own |= own;
        }
    }

    fn put_body(&mut self, now: Time, key: Key, frame: &Arc<Frame>) -> &mut Entry {
        let entry = self.entries.entry(key).or_default();
        if let Some(peer) = entry.made_by.take() {
            release(&mut self.vouched_only, peer);
        }
        entry.frame = Some(frame.clone());
        entry.since = now;
        entry
    }

    fn charge(&mut self, frame: &Frame) -> bool {
        let (frames, bytes) = self.quota.entry(frame.id().client).or_default();
        let fits = *frames < limits::PENDING_FRAMES_PER_CLIENT_MAX
            && *bytes + frame.weight() <= limits::PENDING_BYTES_PER_CLIENT_MAX;
        if fits {
            *frames += 1;
            *bytes += frame.weight();
        }
        fits
    }

    /// `peer` vouches for `key`. False when that is one vouch too many for a frame not here.
    pub(super) fn vouch(&mut self, now: Time, peer: ReplicaId, key: Key) -> bool {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.vouches.insert(peer);
            return true;
        }
        // A vouch for what was just executed is a late one.
        if self.recent.contains(&key.0) {
            return true;
        }
        let made = self.vouched_only.entry(peer).or_default();
        if *made >= VOUCHED_ONLY_MAX {
            return false;
        }
        *made += 1;
        let mut entry = Entry { since: now, made_by: Some(peer), ..Entry::default() };
        entry.vouches.insert(peer);
        self.entries.insert(key, entry);
        true
    }

    /// The proposal for `seq` names `key`; `needs_trust` unless it is known to be decided. The
    /// body when nothing is missing; otherwise [`Pool::satisfied`] tells when it is there.
    pub(super) fn want(
        &mut self,
        now: Time,
        key: Key,
        seq: Seq,
        needs_trust: bool,
        weak: usize,
    ) -> Option<Arc<Frame>> {
        let entry = self.entries.entry(key).or_insert_with(|| Entry { since: now, ..Entry::default() });
        if let Some(peer) = entry.made_by.take() {
            release(&mut self.vouched_only, peer);
        }
        if is_satisfied(entry, needs_trust, weak) {
            return entry.frame.clone();
        }
        entry.wanted.push((seq, needs_trust));
        None
    }

    /// The proposals that waited for `key` and have it now: each is named once per occurrence.
    pub(super) fn satisfied(&mut self, key: &Key, weak: usize) -> Vec<Seq> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        let mut wanted = core::mem::take(&mut entry.wanted);
        let done = wanted
            .extract_if(.., |(_, needs_trust)| is_satisfied(entry, *needs_trust, weak))
            .map(|(seq, _)| seq)
            .collect();
        entry.wanted = wanted;
        done
    }

    /// Nobody waits for `key` on behalf of `seq` any more.
    pub(super) fn unwant(&mut self, key: &Key, seq: Seq) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.wanted.retain(|(s, _)| *s != seq);
        }
    }

    /// A proposal of this replica, or one that it accepted, names `key`.
    pub(super) fn mark_ordered(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.ordered = true;
        }
    }

    /// As leader: queues `key` for proposal when it has its body and `quorum` vouches.
    pub(super) fn queue_if_eligible(&mut self, key: Key, quorum: usize) {
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.frame.is_some()
            && entry.vouches.len() >= quorum
            && !entry.ordered
            && !entry.queued
        {
            entry.queued = true;
            self.eligible.push_back(key);
        }
    }

    /// Whether frames wait to be proposed.
    pub(super) fn has_eligible(&self) -> bool {
        !self.eligible.is_empty()
    }

    /// Frames and bytes that wait to be proposed, counted up to a batch of the given size:
    /// true when there is a full one.
    pub(super) fn has_full_batch(&self, frames_max: usize, bytes_max: usize) -> bool {
        if self.eligible.len() >= frames_max {
            return true;
        }
        let mut bytes = 0;
        self.eligible.iter().any(|key| {
            bytes += self.weight(key);
            bytes >= bytes_max
        })
    }

    /// Takes the next batch out of the queue, oldest first, and marks it ordered.
    pub(super) fn take_batch(&mut self, frames_max: usize, bytes_max: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut bytes = 0;
        while let Some(key) = self.eligible.front().copied() {
            let weight = self.weight(&key);
            if keys.len() >= frames_max || (!keys.is_empty() && bytes + weight > bytes_max) {
                break;
            }
            self.eligible.pop_front();
            // An entry may have been ordered or forgotten since it was queued.
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.queued = false;
                if !entry.ordered && entry.frame.is_some() {
                    entry.ordered = true;
                    bytes += weight;
                    keys.push(key);
                }
            }
        }
        keys
    }

    fn weight(&self, key: &Key) -> usize {
        self.entries.get(key).and_then(|e| e.frame.as_ref()).map_or(0, |f| f.weight())
    }

    /// `key` was executed: it leaves the pool and is remembered for a while.
    pub(super) fn executed(&mut self, key: &Key) {
        self.remove(key);
        if self.recent.insert(key.0) {
            self.recent_order.push_back(key.0);
            if self.recent_order.len() > RECENT_MAX
                && let Some(oldest) = self.recent_order.pop_front()
            {
                self.recent.remove(&oldest);
            }
        }
    }

    /// Forgets that `id` was executed; true if it was remembered. A second retransmission is
    /// thus ordered once more, and the client table answers it: a frame that was *refused* (out
    /// of order) must be able to come again.
    fn forget_recent(&mut self, id: &FrameId) -> bool {
        self.recent.remove(id)
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        if let Some(peer) = entry.made_by {
            release(&mut self.vouched_only, peer);
        }
        if let Some(frame) = entry.frame
            && let Some((frames, bytes)) = self.quota.get_mut(&key.0.client)
        {
            *frames = frames.saturating_sub(1);
            *bytes = bytes.saturating_sub(frame.weight());
            if *frames == 0 {
                self.quota.remove(&key.0.client);
            }
        }
    }

    /// Own frames that wait for their order, oldest ids first, at most `max`.
    pub(super) fn unordered_own(&self, max: usize) -> Vec<BatchEntry> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.own && !entry.ordered)
            .map(|((id, digest), _)| BatchEntry { id: *id, digest: *digest })
            .take(max)
            .collect()
    }

    /// Frames that a weak quorum vouches for and whose body has not come since `before`.
    pub(super) fn bodies_to_fetch(&self, weak: usize, before: Time) -> Vec<BatchEntry> {
        self.entries
            .iter()
            .filter(|(_, e)| e.frame.is_none() && e.vouches.len() >= weak && e.since <= before)
            .map(|((id, digest), _)| BatchEntry { id: *id, digest: *digest })
            .take(limits::BATCH_FRAMES_MAX)
            .collect()
    }

    /// Makes a leader wait for a body that a weak quorum vouches for.
    pub(super) fn want_unproposed(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.wanted.is_empty()
        {
            entry.wanted.push((Seq(0), false));
        }
    }

    /// Forgets what nobody ordered since `before` and nobody waits for.
    pub(super) fn expire(&mut self, before: Time) {
        let old: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, e)| !e.ordered && e.since < before && e.wanted.iter().all(|w| w.0.0 == 0))
            .map(|(key, _)| *key)
            .collect();
        old.iter().for_each(|key| self.remove(key));
        let entries = &self.entries;
        self.eligible.retain(|key| entries.contains_key(key));
    }

    pub(super) fn check(&self) {
        for (client, (frames, bytes)) in &self.quota {
            let of = || self.entries.iter().filter(|(k, e)| k.0.client == *client && e.frame.is_some());
            assert_eq!(of().count(), *frames);
            let weight: usize = of().filter_map(|(_, e)| e.frame.as_ref()).map(|f| f.weight()).sum();
            assert_eq!(weight, *bytes);
        }
        for (peer, made) in &self.vouched_only {
            assert_eq!(self.entries.values().filter(|e| e.made_by == Some(*peer)).count(), *made);
        }
        assert!(self.recent.len() <= RECENT_MAX);
    }
}

fn is_satisfied(entry: &Entry, needs_trust: bool, weak: usize) -> bool {
    entry.frame.is_some() && (!needs_trust || entry.own || entry.vouches.len() >= weak)
}

fn release(counts: &mut BTreeMap<ReplicaId, usize>, peer: ReplicaId) {
    if let Some(made) = counts.get_mut(&peer) {
        *made = made.saturating_sub(1);
    }
}
