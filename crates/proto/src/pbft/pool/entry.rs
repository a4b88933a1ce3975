//! One frame on its way to being ordered, and a place that waits for it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Frame, ReplicaId, Seq, Time, VoteSet};

use super::holders::Holders;

/// What is known about a frame.
#[derive(Clone, Debug, Default)]
pub(in crate::pbft) struct Entry {
    pub(in crate::pbft) frame: Option<Arc<Frame>>,
    /// This replica has the client's own word for it: it came over the client's link, or this
    /// replica's part of the authenticator is genuine.
    pub(in crate::pbft) own: bool,
    /// A batch that named it was executed here, not long ago: it is its client's, whatever became
    /// of it, and whoever gives its body.
    pub(super) decided: bool,
    /// It came over the client's link.
    pub(super) came: bool,
    /// Who has vouched that it is its client's.
    pub(super) vouches: VoteSet,
    /// Those of them who hold it.
    pub(super) holders: Holders,
    /// It came over the client's link once more than it was refused.
    pub(super) again: bool,
    /// How far the group was, as far as was known here, when it came last: what was ordered up to
    /// there was ordered before that, and a refusal there takes nothing of it.
    pub(super) beyond: Seq,
    /// It was refused, and has not come since. It is here because others hold it, and this replica
    /// does not speak up for it: a client may have an order for each time that it sends its frame,
    /// and not as many as replicas repeat what they have said.
    pub(in crate::pbft) dormant: bool,
    /// A proposal that this replica made or accepted names it.
    pub(in crate::pbft) ordered: bool,
    pub(super) queued: bool,
    /// Whose vouch alone made this entry, while that is so.
    pub(super) made_by: Option<ReplicaId>,
    /// When a weak quorum said last that its leader owes it: it goes before others.
    pub(super) owed_at: Option<Time>,
    /// When this replica said so last.
    pub(super) kept_at: Option<Time>,
    /// Who waits for it.
    pub(super) wanted: Vec<Want>,
    /// When the entry was made: how old the oldest vouch for it may be.
    pub(super) made: Time,
    /// When the frame came last: since then this replica has vouched for it.
    pub(super) since: Time,
    /// Since when this replica, which has the client's own word for it, waits for its order.
    pub(in crate::pbft) pending_since: Time,
}

/// A place in a proposal that waits for a frame.
#[derive(Clone, Copy, Debug)]
pub(in crate::pbft) struct Want {
    /// The proposal's number; 0 for a leader that has not proposed the frame yet.
    pub(in crate::pbft) seq: Seq,
    /// The place of the frame in the proposal.
    pub(in crate::pbft) place: usize,
    /// Whether trust is needed besides the body.
    pub(in crate::pbft) needs_trust: bool,
}

impl Entry {
    /// Whether this replica waits for its order, and says so to others.
    pub(in crate::pbft) fn is_awaited(&self) -> bool {
        self.own && !self.dormant
    }

    /// Whether its leader owes it.
    pub(in crate::pbft) fn is_urgent(&self) -> bool {
        self.owed_at.is_some()
    }

    /// Whether somebody has counted on it since `at`, as its leader owes it.
    pub(super) fn counts_since(&self, at: Time) -> bool {
        self.owed_at.max(self.kept_at).is_some_and(|last| last >= at)
    }

    /// Whether somebody waits for it.
    pub(in crate::pbft) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether a proposal of this view waits for it.
    pub(in crate::pbft) fn needs_trust(&self) -> bool {
        self.wanted.iter().any(|want| want.needs_trust)
    }

    /// How many replicas answer for it.
    pub(super) fn backers(&self) -> usize {
        self.vouches.len()
    }

    /// `who` vouches for it, and holds it if it says how far it has executed.
    pub(super) fn is_vouched_for(&mut self, now: Time, (who, executed): (ReplicaId, Option<Seq>)) {
        self.vouches.insert(who);
        if let Some(executed) = executed {
            self.holders.add(now, (who, executed), self.ordered);
        }
    }

    /// A proposal for `seq` names it.
    pub(super) fn is_ordered_at(&mut self, seq: Seq) {
        self.holders.named_at(seq, self.ordered);
        self.ordered = true;
    }

    /// Whether this replica may take it for its client's: on its own word, a weak quorum's, or
    /// since it was decided before.
    pub(in crate::pbft) fn is_trusted(&self, weak: usize) -> bool {
        self.own
            || self.decided
            || self.backers() >= weak - usize::from(base::mutant!(LeadersWordIsTrust))
    }

    /// Whether a leader may propose it: its body is here, and a quorum holds it or says that it is
    /// owed, or, where it would travel `inline`, this replica has checked its signature.
    pub(super) fn is_eligible(&self, quorum: usize, inline: bool) -> bool {
        let needed = if base::mutant!(OneVouchIsEnough) { 1 } else { quorum };
        let may = |frame: &Arc<Frame>| match inline && frame.is_small() {
            true => self.own && (self.is_urgent() || !self.dormant),
            false => self.is_urgent() || self.holders.who().len() >= needed,
        };
        !self.ordered && self.frame.as_ref().is_some_and(may)
    }

    pub(super) fn satisfies(&self, want: &Want, weak: usize) -> bool {
        self.frame.is_some() && (!want.needs_trust || self.is_trusted(weak))
    }
}
