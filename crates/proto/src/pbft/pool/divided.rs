//! Clients that send different bodies under one id to different replicas.
//!
//! Where a frame of theirs is proposed, some backup lacks its body: it has to fetch it before it
//! can vote, deliver and answer, and for so long the others' frames in the same batch, and all
//! that follow, are without its help. No correct client is the cause of that, so the leader holds
//! back all frames of such a client for a while, but for those that a quorum endorses as overdue
//! (`endorse`): a quorum has their bodies, and the leader owes them.
//!
//! A client is known to do this when a weak quorum answers for another body than the one that it
//! sent here over its own link: one of them is correct and has that from the client, too. Fewer
//! than f + 1 liars can say so of nobody.
//!
//! Not here: which of the bodies counts, if any, which the client table decides after they are
//! ordered.

use alloc::collections::BTreeMap;

use base::{ClientId, Span, Time};

/// How long frames of such a client are held back.
const HELD_BACK: Span = Span::secs(10);

/// Who was found out, and when last: one row for each principal of the group at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Divided(BTreeMap<ClientId, Time>);

impl Divided {
    /// `client` sends different bodies under one id.
    pub(super) fn note(&mut self, now: Time, client: ClientId) {
        self.0.insert(client, now);
    }

    /// Whether frames of `client` are held back.
    pub(super) fn holds(&self, client: ClientId) -> bool {
        self.0.contains_key(&client)
    }

    /// Forgives those who did it long enough ago.
    pub(super) fn forgive(&mut self, now: Time) {
        self.0.retain(|_, at| now.since(*at) < HELD_BACK);
    }
}
