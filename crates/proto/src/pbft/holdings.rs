//! What a lane holds in memory, counted: for whoever checks that it is bounded.

use super::{Lane, early};

/// Frames on their way to being ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeldFrames {
    /// Names of frames.
    pub names: usize,
    /// Most frames with a body of one principal.
    pub of_one_client: usize,
    /// Most bytes of such frames of one principal.
    pub bytes_of_one_client: usize,
    /// Most names that are known because of one peer's word alone.
    pub of_one_peer: usize,
    /// Places of proposals that wait for frames.
    pub wants: usize,
    /// Names that wait to be proposed, or to have their body fetched.
    pub queued: usize,
    /// Names of executed frames that are remembered.
    pub recent: usize,
}

/// What a lane holds. Costs time in proportion to it: not for every turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holdings {
    /// Frames, with or without a body, that wait for their order.
    pub frames: HeldFrames,
    /// Numbers that have a slot.
    pub slots: usize,
    /// Most votes of one kind that one slot has.
    pub votes: usize,
    /// Most proposals that one slot keeps, of earlier views and as told by others.
    pub proposals: usize,
    /// Numbers with signatures of checkpoints, or with an own digest of one.
    pub checkpoints: usize,
    /// What was said of views that have not begun here.
    pub early: early::Held,
}

impl Lane {
    /// What this lane holds.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let mut held = Holdings {
            frames: self.pool.held(),
            checkpoints: self.checkpoints.held(),
            early: self.views.early(),
            ..Holdings::default()
        };
        for (_, slot) in self.log.iter() {
            let votes = [&slot.prepares, &slot.commits, &slot.decisions];
            let most = votes.iter().map(|votes| votes.all().count()).max();
            let past = slot.past.as_ref().map_or(0, |past| past.contents().len());
            held.slots += 1;
            held.votes = held.votes.max(most.unwrap_or(0));
            held.proposals = held.proposals.max(past.max(slot.decision_bodies.len()));
        }
        held
    }
}
