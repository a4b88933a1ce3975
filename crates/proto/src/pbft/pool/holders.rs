//! Who holds a frame, as far as a leader can know.
//!
//! Whoever vouches for a frame holds it until a batch names it that it executes later: then the
//! frame is executed, or refused and dropped. So a vouch says how far its sender has executed, and
//! counts if that is beyond the last refusal that this replica knows of.

use base::{ReplicaId, Seq, Span, Time, VoteSet};

/// Who holds a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::pbft) struct Holders {
    who: VoteSet,
    /// Since when the first of them does.
    since: Time,
    /// Only who has executed up to here counts: the frame was refused there.
    after: Seq,
    /// The highest number whose proposal names the frame, while one does.
    order: Seq,
    /// Those who go on holding it when it is refused there.
    beyond: VoteSet,
}

impl Holders {
    /// Nobody yet; only those will count who have executed `after`.
    pub(super) fn after(after: Seq) -> Holders {
        Holders { after, ..Holders::default() }
    }

    pub(super) fn who(&self) -> VoteSet {
        self.who
    }

    /// Where it was refused last.
    pub(super) fn since_refusal(&self) -> Seq {
        self.after
    }

    /// `who` vouches for the frame, and has executed up to `executed`. `ordered`: a proposal names
    /// it.
    pub(super) fn add(&mut self, now: Time, (who, executed): (ReplicaId, Seq), ordered: bool) {
        if executed < self.after {
            return;
        }
        if self.who.is_empty() {
            self.since = now;
        }
        self.who.insert(who);
        if ordered && executed >= self.order {
            self.beyond.insert(who);
        }
    }

    /// This replica, which leads, holds it.
    pub(super) fn add_me(&mut self, now: Time, me: ReplicaId) {
        self.add(now, (me, self.after), false);
    }

    /// A proposal for `seq` names the frame. `ordered`: another one did before.
    pub(super) fn named_at(&mut self, seq: Seq, ordered: bool) {
        if !ordered || seq > self.order {
            (self.order, self.beyond) = (seq, VoteSet::EMPTY);
        }
    }

    /// The highest number whose proposal names the frame, if one does.
    pub(super) fn ordered_at(&self) -> Seq {
        self.order
    }

    /// The frame was refused at `seq`.
    pub(super) fn refused(&mut self, now: Time, seq: Seq) {
        self.after = self.after.max(seq);
        (self.who, self.since) = (self.beyond, now);
    }

    /// Whether others hold it whenever it is refused.
    pub(super) fn outlast(&self) -> bool {
        !self.beyond.is_empty()
    }

    /// Whether some of them may hold it no more: the first said so longer ago than `lifetime`.
    pub(super) fn are_old(&self, now: Time, lifetime: Span) -> bool {
        now.since(self.since) > lifetime
    }

    /// Forgets them.
    pub(super) fn forget(&mut self) {
        (self.who, self.beyond) = (VoteSet::EMPTY, VoteSet::EMPTY);
    }
}
