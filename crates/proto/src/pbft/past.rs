//! What this replica has promised about one number in earlier views, and the batches that these
//! promises speak of (design, trap 2).
//!
//! Not here: the promises of the present view, which follow from the slot's phase until the view
//! is left (`log`).
//!
//! Invariants:
//! 1. Q names each digest once, with the latest view, ascending, and at most
//!    [`PRE_PREPARED_MAX`] of them;
//! 2. every batch kept here is named in P or Q.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, Digest, View};

use super::msg::Proposal;
use crate::group::link::PRE_PREPARED_MAX;

/// A proposal with all its bodies.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) proposal: Proposal,
    pub(super) batch: Arc<Batch>,
}

/// P and Q of one number.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    prepared: Option<(View, Digest)>,
    pre_prepared: Vec<(View, Digest)>,
    contents: Vec<Content>,
}

impl Past {
    /// P: what was prepared, in the highest view in which anything was.
    pub(super) fn prepared(&self) -> Option<(View, Digest)> {
        self.prepared
    }

    /// Q: what was pre-prepared, ascending by digest.
    pub(super) fn pre_prepared(&self) -> &[(View, Digest)] {
        &self.pre_prepared
    }

    /// Whether anything was voted for in `view`.
    pub(super) fn voted_in(&self, view: View) -> bool {
        self.pre_prepared.iter().any(|(in_view, _)| *in_view == view)
    }

    /// The proposal of `view` that was voted for.
    pub(super) fn voted_for(&self, view: View) -> Option<Digest> {
        self.pre_prepared.iter().find(|(in_view, _)| *in_view == view).map(|(_, d)| *d)
    }

    /// Records Q(digest, view). Beyond the cap the entry of the lowest view goes, and with it
    /// the batch unless P names it. That costs liveness only: fewer replicas then answer for an
    /// old proposal.
    pub(super) fn pre_prepare(&mut self, view: View, digest: Digest) {
        match self.pre_prepared.binary_search_by_key(&digest, |(_, d)| *d) {
            Ok(at) => {
                let known = &mut self.pre_prepared[at].0;
                *known = if base::mutant!(QKeepsFirstView) { *known } else { (*known).max(view) };
            }
            Err(at) => self.pre_prepared.insert(at, (view, digest)),
        }
        if self.pre_prepared.len() > PRE_PREPARED_MAX {
            let views = self.pre_prepared.iter().map(|(v, _)| *v);
            let lowest = if base::mutant!(QDropsTheLatest) { views.max() } else { views.min() };
            let at = self.pre_prepared.iter().position(|(v, _)| Some(*v) == lowest);
            self.pre_prepared.remove(at.expect("the lowest is one of them"));
            self.forget_unnamed();
        }
    }

    /// Records P(digest, view).
    pub(super) fn prepare(&mut self, view: View, digest: Digest) {
        if self.prepared.is_none_or(|(known, _)| known <= view && !base::mutant!(PKeepsTheFirst)) {
            self.prepared = Some((view, digest));
            self.forget_unnamed();
        }
    }

    fn forget_unnamed(&mut self) {
        let mut contents = core::mem::take(&mut self.contents);
        contents.retain(|content| self.names(content.digest));
        self.contents = contents;
    }

    /// Whether P or Q names `digest`.
    pub(super) fn names(&self, digest: Digest) -> bool {
        self.pre_prepared.binary_search_by_key(&digest, |(_, d)| *d).is_ok()
            || self.prepared.is_some_and(|(_, d)| d == digest)
    }

    /// Keeps a batch for as long as P or Q names it.
    pub(super) fn keep(&mut self, content: Content) {
        let known = self.contents.iter().any(|c| c.digest == content.digest);
        if !known && self.names(content.digest) {
            self.contents.push(content);
        }
    }

    /// The batch with this digest, if it is kept here.
    pub(super) fn content(&self, digest: Digest) -> Option<&Content> {
        self.contents.iter().find(|content| content.digest == digest)
    }

    /// All batches that are kept here.
    pub(super) fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// Checks the invariants. `current`: the digest whose batch the slot itself holds.
    pub(super) fn check(&self, current: Option<Digest>) {
        assert!(self.pre_prepared.len() <= PRE_PREPARED_MAX);
        assert!(self.pre_prepared.windows(2).all(|pair| pair[0].1 < pair[1].1));
        let named = self.pre_prepared.iter().chain(&self.prepared);
        for (_, digest) in named {
            assert!(current == Some(*digest) || self.content(*digest).is_some(), "no batch");
        }
        assert!(self.contents.iter().all(|content| self.names(content.digest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(byte: u8) -> Content {
        let digest = Digest([byte; 32]);
        Content { digest, proposal: Proposal::Null, batch: Arc::new(Batch::Null) }
    }

    #[test]
    fn q_is_capped_and_what_nobody_names_is_forgotten() {
        let mut past = Past::default();
        for (view, byte) in [(0, 4), (1, 3), (2, 2), (3, 1)] {
            past.pre_prepare(View(view), Digest([byte; 32]));
            past.keep(content(byte));
            past.check(None);
        }
        let digests: Vec<u8> = past.pre_prepared().iter().map(|(_, d)| d.0[0]).collect();
        assert_eq!(digests, [1, 2, 3], "ascending, without the one of the lowest view");
        assert!(past.content(Digest([4; 32])).is_none());
        past.pre_prepare(View(4), Digest([3; 32]));
        assert_eq!(past.voted_for(View(4)), Some(Digest([3; 32])));
        assert!(!past.voted_in(View(1)), "each digest once, with the latest view");
    }

    #[test]
    fn what_was_prepared_stays_beyond_the_cap() {
        let mut past = Past::default();
        past.pre_prepare(View(0), Digest([9; 32]));
        past.prepare(View(0), Digest([9; 32]));
        past.keep(content(9));
        for (view, byte) in [(1, 1), (2, 2), (3, 3)] {
            past.pre_prepare(View(view), Digest([byte; 32]));
            past.keep(content(byte));
        }
        past.check(None);
        assert!(past.content(Digest([9; 32])).is_some());
        past.prepare(View(3), Digest([3; 32]));
        assert_eq!(past.prepared(), Some((View(3), Digest([3; 32]))));
        assert!(past.content(Digest([9; 32])).is_none());
    }
}
