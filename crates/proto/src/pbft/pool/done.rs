//! What becomes of a frame when the batch that names it is executed: it was executed or refused, or
//! the batch is skipped with a state.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Frame, ReplicaId, Seq, Time};

use super::repeats::Came;
use super::{Entry, Key, Pool, Want};

impl Pool {
    /// `key` was executed at `seq`: it leaves the pool and is remembered for a while. Who still
    /// waits for it (a faulty leader may propose a frame twice) may have it: what the group
    /// executed is authentic.
    pub(in crate::pbft) fn executed(&mut self, key: &Key, seq: Seq) -> Vec<Want> {
        let came = self.entries.get(key).map_or(Came::Never, |entry| match entry.came {
            true if entry.again => Came::Twice,
            true => Came::Once,
            false => Came::Never,
        });
        self.recent.executed(key, came, seq);
        self.remove(key)
    }

    /// `key` was ordered before its predecessor and refused at `seq`: it may be ordered again, on
    /// the word of those who hold it all the same, which may have come already. It is not
    /// remembered as executed, and leaves the pool unless it has come again, others hold it, or a
    /// later number names it, too. `replayed`: this is a refusal of an earlier life, after which
    /// it has come. Returns who waits, as [`Pool::executed`] does.
    pub(in crate::pbft) fn refused(
        &mut self,
        now: Time,
        (key, seq): (&Key, Seq),
        replayed: bool,
    ) -> Vec<Want> {
        self.refusals.note(*key, seq);
        // Where it was let go.
        self.recent.forget(key);
        let spared = |e: &Entry| e.came && (replayed || seq <= e.beyond);
        let later = |e: &Entry| e.ordered && e.holders.ordered_at() > seq;
        let stays = |e: &Entry| later(e) || spared(e) || e.again || e.holders.outlast();
        let held = self.entries.get_mut(key).filter(|entry| entry.frame.is_some());
        let Some(entry) = held.filter(|entry| stays(entry)) else {
            return self.remove(key);
        };
        entry.decided = true;
        entry.holders.refused(now, seq);
        // Who endorses it anew says something new.
        (entry.owed_at, entry.kept_at) = (None, None);
        if !later(entry) {
            let again = core::mem::take(&mut entry.again);
            entry.dormant = !(again || spared(entry));
            self.ordered -= usize::from(core::mem::take(&mut entry.ordered));
            entry.pending_since = entry.since;
        }
        let wanted = core::mem::take(&mut entry.wanted);
        self.wants -= wanted.len();
        wanted
    }

    /// A batch that names `key` is decided at `seq`, and this replica, which waits for a state,
    /// does not learn now what becomes of it. It leaves the pool. If it comes once more, or
    /// somebody holds it beyond that, it may have been refused, and waits for its order anew.
    pub(in crate::pbft) fn let_go(&mut self, key: &Key, seq: Seq) -> Vec<Want> {
        // Whether it has come over its client's link, now or before it was decided last.
        let here = self.entries.get(key).is_some_and(|entry| entry.came);
        let came = self.recent.forget(key).had_come() || here;
        self.recent.executed(key, Came::LetGo { came }, seq);
        self.remove(key)
    }

    /// A state is fetched: what waits here may have been executed or refused in what it skips, and
    /// who had it may have it no more. Who goes on holding it says so again within a second. `me`:
    /// this replica, if it leads.
    pub(in crate::pbft) fn fetched(&mut self, now: Time, me: Option<ReplicaId>) {
        for entry in self.entries.values_mut() {
            entry.holders.forget();
            entry.owed_at = None;
            if let Some(me) = me.filter(|_| entry.is_awaited()) {
                entry.holders.add_me(now, me);
            }
        }
    }

    /// `key` was taken for executed and has left the pool, and was refused at `seq`. If it has come
    /// again since, `frame` waits for its order here.
    pub(in crate::pbft) fn refused_late(
        &mut self,
        now: Time,
        (key, seq): (Key, Seq),
        frame: Option<&Arc<Frame>>,
    ) {
        self.refusals.note(key, seq);
        if self.recent.at(&key).is_some_and(|at| at > seq) {
            return;
        }
        let again = matches!(self.recent.forget(&key), Came::Again | Came::Twice);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.decided = true;
            entry.holders.refused(now, seq);
            (entry.owed_at, entry.kept_at) = (None, None);
        }
        let is_here = self.entries.get(&key).is_some_and(|entry| entry.frame.is_some());
        if let Some(frame) = frame.filter(|_| again && !is_here)
            && self.charge(frame)
        {
            let entry = self.put_body(now, key, frame);
            (entry.own, entry.came, entry.pending_since) = (true, true, now);
        }
    }
}
