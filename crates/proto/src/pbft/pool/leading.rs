//! What a leader does with the pool: what it may propose, and what it takes for a batch.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use base::{BatchEntry, ReplicaId, Seq, Time, VoteSet, limits};

use super::{Entry, Key, Pool, Queue, Want};
use crate::pbft::roles::Roles;

/// Which frames are dealt to this replica, where leaders rotate.
#[derive(Clone, Debug)]
pub(super) struct Deal {
    roles: Roles,
    me: ReplicaId,
    /// Any number of the checkpoint interval for which they are dealt.
    seq: Seq,
}

impl Deal {
    pub(super) fn is_mine(&self, key: &Key) -> bool {
        self.roles.dealt_to(&key.0, self.seq) == self.me
    }
}

/// For whose part a pool keeps frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::pbft) enum Keeps {
    /// A leader's, which proposes what it has vouches for.
    AsLeader,
    /// A backup's, which has at hand what is proposed.
    AsBackup,
    /// Where leaders rotate: both.
    Both,
}

impl Pool {
    /// This replica, `me`, may propose from now on what is dealt to it in the checkpoint interval
    /// of `seq`: that is queued, as far as it has its body and `quorum` vouches.
    pub(in crate::pbft) fn deal(
        &mut self,
        (roles, me, seq): (&Roles, ReplicaId, Seq),
        quorum: usize,
    ) {
        self.deal = Some(Deal { roles: roles.clone(), me, seq });
        self.eligible = Queue::default();
        self.entries.values_mut().for_each(|entry| entry.queued = false);
        let ready: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, e)| e.is_eligible(quorum, self.inline))
            .map(|(key, _)| *key)
            .collect();
        ready.into_iter().for_each(|key| self.queue_if_eligible(key, quorum));
    }

    /// As leader: queues `key` for proposal when it has its body and `quorum` vouches, and its
    /// client is not one that is held back.
    pub(in crate::pbft) fn queue_if_eligible(&mut self, key: Key, quorum: usize) {
        let divided = self.divided.holds(key.0.client);
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.is_eligible(quorum, self.inline)
            && (entry.is_urgent() || !divided)
            && !entry.queued
            && self.deal.as_ref().is_none_or(|deal| deal.is_mine(&key))
        {
            entry.queued = true;
            let weight = entry.frame.as_ref().map_or(0, |frame| frame.weight());
            self.eligible.push(key, weight, entry.is_urgent());
        }
    }

    /// Whether frames wait to be proposed.
    pub(in crate::pbft) fn has_eligible(&self) -> bool {
        self.eligible.len() > 0
    }

    /// Whether what waits to be proposed fills a batch of the given size.
    pub(in crate::pbft) fn has_full_batch(&self, frames_max: usize, bytes_max: usize) -> bool {
        self.eligible.len() >= frames_max || self.eligible.bytes() >= bytes_max
    }

    /// Takes the next batch out of the queue, the principals in turn, and marks it ordered. Where
    /// something in it is owed, what is of one session is in the order of that.
    pub(in crate::pbft) fn take_batch(
        &mut self,
        quorum: usize,
        (frames_max, bytes_max): (usize, usize),
    ) -> Vec<Key> {
        let mut keys = Vec::new();
        let (mut bytes, mut urgent) = (0, false);
        while let Some((key, weight)) = self.eligible.peek() {
            if keys.len() >= frames_max || (!keys.is_empty() && bytes + weight > bytes_max) {
                break;
            }
            self.eligible.pop();
            // An entry may have been ordered, refused or forgotten since it was queued, and have
            // another place in the queue.
            if let Some(entry) = self.entries.get_mut(&key)
                && core::mem::take(&mut entry.queued)
                && entry.is_eligible(quorum, self.inline)
                && (entry.is_urgent() || !self.divided.holds(key.0.client))
            {
                entry.is_ordered_at(Seq(0));
                self.ordered += 1;
                bytes += weight;
                urgent |= entry.is_urgent();
                keys.push(key);
            }
        }
        if urgent {
            put_in_order(&mut keys);
        }
        keys
    }

    /// How many names are looked at for bodies to fetch.
    #[cfg(test)]
    pub(in crate::pbft) fn bodyless(&self) -> usize {
        self.bodyless.len()
    }

    /// Makes a leader wait for the bodies that a weak quorum vouches for: those of entries made
    /// up to `before`, at most a batch of them. Also whether there are any more, or younger ones.
    pub(in crate::pbft) fn want_unproposed(
        &mut self,
        weak: usize,
        before: Time,
    ) -> (Vec<BatchEntry>, bool) {
        let entries = &mut self.entries;
        let mut seen = BTreeSet::new();
        let missing = |key: &Key| entries.get(key).is_some_and(|e| e.frame.is_none());
        self.bodyless.retain(|key| missing(key) && seen.insert(*key));
        let (mut due, mut more) = (Vec::new(), false);
        for key in &self.bodyless {
            let Some(entry) = entries.get_mut(key) else { continue };
            // Who may not propose it need not have it.
            let mine = self.deal.as_ref().is_none_or(|deal| deal.is_mine(key));
            let held_back = self.divided.holds(key.0.client) && !entry.is_urgent();
            if entry.backers() < weak || !mine || held_back {
                continue;
            }
            more = true;
            let young = entry.made > before;
            if young && entry.is_urgent() {
                continue;
            }
            if young || due.len() >= limits::BATCH_FRAMES_MAX {
                break;
            }
            if !entry.is_wanted() {
                entry.wanted.push(Want { seq: Seq(0), place: 0, needs_trust: false });
                self.wants += 1;
            }
            due.push(*key);
        }
        // So they come, too.
        put_in_order(&mut due);
        (due.into_iter().map(|(id, digest)| BatchEntry { id, digest }).collect(), more)
    }

    /// Forgets what nobody ordered and nobody waits for: as leader what was first vouched for
    /// before `vouched`, else what came before `came`, but nothing that was said to be owed since
    /// `owed`. Who is both keeps the frame, which others may propose, and proposes it itself on
    /// fresh vouches only.
    pub(in crate::pbft) fn expire(
        &mut self,
        now: Time,
        keeps: Keeps,
        (vouched, came): (Time, Time),
        owed: Time,
    ) {
        let is_old = |e: &Entry| match keeps {
            _ if e.counts_since(owed) => false,
            Keeps::AsLeader => e.made < vouched,
            Keeps::AsBackup | Keeps::Both => e.since < came,
        };
        let old: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, e)| !e.ordered && is_old(e) && e.wanted.iter().all(|w| w.seq.0 == 0))
            .map(|(key, _)| *key)
            .collect();
        old.iter().for_each(|key| drop(self.remove(key)));
        if keeps == Keeps::Both {
            let is_old = |e: &Entry| !e.ordered && e.made < vouched && !e.counts_since(owed);
            for entry in self.entries.values_mut().filter(|e| is_old(e)) {
                // Who endorses it anew says something new.
                (entry.made, entry.queued, entry.owed_at) = (now, false, None);
                entry.vouches = VoteSet::EMPTY;
                entry.holders.forget();
            }
        }
        self.recent.expire(came);
        self.divided.forgive(now);
        let entries = &self.entries;
        self.eligible.retain(|key| entries.get(key).is_some_and(|entry| entry.queued));
        self.bodyless.retain(|key| entries.get(key).is_some_and(|e| e.frame.is_none()));
    }
}

/// Frames of one session execute as they were sent, and are refused otherwise, but come to be owed
/// in any order: each session's places are given to its frames in the order of their ids.
fn put_in_order(keys: &mut [Key]) {
    let session = |key: &Key| (key.0.client, key.0.session);
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_by_key(|place| session(&keys[*place]));
    let mut sorted = keys.to_vec();
    sorted.sort_by_key(|key| (session(key), key.0.id));
    places.into_iter().zip(sorted).for_each(|(place, key)| keys[place] = key);
}
