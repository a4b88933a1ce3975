//! Votes of the replicas on the reply to one outstanding frame (PBFT: a client accepts a reply
//! once f + 1 replicas gave the same one, so that a correct replica is among them).
//!
//! A replica has one vote; a later reply of it replaces the earlier one, since a frame may be
//! refused first and executed after it was sent again. Only when it says the same once more, less
//! firmly, the firm vote stays.
//!
//! A tentative vote counts together with final ones and with tentative ones of the same view: of
//! 2f + 1 replicas that say the same, f + 1 correct ones have prepared the batch in that view, so
//! that every later view begins with it (Castro's thesis, §5.1.2).
//!
//! Equality is of whole contents: the first content that arrives is kept and compared byte by
//! byte; any other one is kept as a digest, and a replica may send no more than that. So a frame
//! costs one copy and no hash as long as nobody lies and all replicas answer in full.
//!
//! Invariants: no two votes of one replica; one content at most is kept; who votes for the kept
//! one is not counted under its digest.

use alloc::vec::Vec;

use base::reply::{ReplyBody, ReplyHead, reply_digest};
use base::{Digest, FrameId, ReplicaId, ReplyStatus, Seq, View};

use super::Acceptance;

/// Larger contents are kept only as far as there is room that all ballots share, and else their
/// digests: whoever answers each frame in flight with the largest reply there may be, before
/// anybody else does, takes no more than that. Where one replica is to send the content for all,
/// the room is for that one.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Larger contents are large.
pub(super) const LARGE_BYTES_MIN: usize = KEPT_BYTES_MAX + 1;

/// Bytes of large contents that all ballots of a client keep together.
pub(super) const LARGE_BYTES_MAX: usize = 64 << 20;

/// What one replica says about a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    /// The frame that it answers.
    pub(super) frame: FrameId,
    /// Where in the total order that was decided, as it says.
    pub(super) seq: Seq,
    /// What became of the frame, as it says.
    pub(super) status: ReplyStatus,
    /// The content, or its digest.
    pub(super) what: What<'a>,
    /// The view in which the batch is prepared; `None` when it is committed.
    pub(super) tentative: Option<View>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    Content(&'a [u8]),
    Digest(Digest),
}

/// A reply that enough replicas gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Accepted {
    pub(super) head: ReplyHead,
    pub(super) content: Vec<u8>,
    /// Who said something that no correct replica says beside it.
    pub(super) liars: Vec<ReplicaId>,
}

/// The votes on one frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    kept: Option<Kept>,
    votes: Vec<Vote>,
}

/// What the ballot knows about a voter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Voter {
    /// It is the one that is to send the content, so that its content comes before others'.
    pub(super) designated: bool,
    /// Bytes that there are for its content beyond what each ballot may keep.
    pub(super) room: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    content: Vec<u8>,
    /// Once it was needed.
    digest: Option<Digest>,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    replica: ReplicaId,
    executed: bool,
    tentative: Option<View>,
    /// It said the content itself.
    whole: bool,
    choice: Choice,
}

/// What is voted for. The number stands in the content, too; beside a digest it is only said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Choice {
    seq: Seq,
    which: Which,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Kept,
    Other(Digest),
}

impl<'a> Said<'a> {
    /// What a reply says; `None` when it is none.
    pub(super) fn read(body: ReplyBody<'a>, tentative: Option<View>) -> Option<Said<'a>> {
        match body {
            ReplyBody::Whole(content) => {
                let (ReplyHead { frame, seq, status, .. }, _) = ReplyHead::peek(content).ok()?;
                Some(Said { frame, seq, status, what: What::Content(content), tentative })
            }
            ReplyBody::Digest(said) => {
                let (frame, seq, status) = (said.frame, said.seq, ReplyStatus::Executed);
                Some(Said { frame, seq, status, what: What::Digest(said.digest), tentative })
            }
        }
    }
}

impl Ballot {
    /// Counts `from`'s vote. With enough of them, and the content, the ballot is over.
    pub(super) fn cast(
        &mut self,
        from: ReplicaId,
        said: &Said<'_>,
        (voter, acceptance): (Voter, Acceptance),
    ) -> Option<Accepted> {
        let choice = Choice { seq: said.seq, which: self.which(&said.what, voter) };
        let (executed, tentative) = (is_final(said.status), said.tentative);
        let whole = matches!(said.what, What::Content(_));
        let vote = Vote { replica: from, executed, tentative, whole, choice };
        match self.votes.iter_mut().find(|vote| vote.replica == from) {
            Some(_) if base::mutant!(RepliesNotReplicasCount) => self.votes.push(vote),
            // What is committed stays so.
            Some(old) if old.choice == choice && old.tentative.is_none() => old.whole |= whole,
            Some(old) => *old = vote,
            None => self.votes.push(vote),
        }
        let few = matches!(said.what, What::Digest(_)) && base::mutant!(DigestsOfFew);
        if !self.suffices(choice, acceptance.short(usize::from(few))) {
            return None;
        }
        let content = match &said.what {
            _ if choice.which == Which::Kept => Vec::new(),
            What::Content(content) => content.to_vec(),
            // Nobody said in full what so many say.
            What::Digest(_) => return None,
        };
        self.settle(choice, content)
    }

    /// Whether so many replicas say the same that it is to be accepted.
    fn suffices(&self, choice: Choice, acceptance: Acceptance) -> bool {
        let Acceptance::Vote { matching, tentative } = acceptance;
        let same = || self.votes.iter().filter(|vote| vote.choice == choice);
        let firm = same().filter(|vote| vote.tentative.is_none()).count();
        let tentative = if base::mutant!(TentativeOfFew) { matching } else { tentative };
        let in_view = |vote: &&Vote, view| {
            vote.tentative == Some(view)
                || (base::mutant!(TentativeViewsMix) && vote.tentative.is_some())
        };
        let with = |view: View| firm + same().filter(|vote| in_view(vote, view)).count();
        firm >= matching
            || same().filter_map(|vote| vote.tentative).any(|view| with(view) >= tentative)
    }

    /// Which of what was said this is; the first content becomes the kept one, until the one
    /// comes that was to come.
    fn which(&mut self, what: &What<'_>, voter: Voter) -> Which {
        let kept = match (what, &mut self.kept) {
            (What::Content(content), Some(kept)) if kept.content == *content => true,
            (What::Content(content), kept) => {
                let fits = content.len() <= KEPT_BYTES_MAX.max(voter.room);
                let keeps = fits && (kept.is_none() || voter.designated);
                if keeps {
                    self.keep(content);
                }
                keeps
            }
            (What::Digest(digest), kept) => {
                let same = |kept: &mut Kept| kept.digest() == *digest;
                let any = base::mutant!(DigestIsContent);
                kept.as_mut().is_some_and(|kept| any || same(kept))
            }
        };
        match what {
            _ if kept => Which::Kept,
            What::Content(content) => Which::Other(reply_digest(content)),
            What::Digest(digest) => Which::Other(*digest),
        }
    }

    fn keep(&mut self, content: &[u8]) {
        let mut kept = Kept { content: content.to_vec(), digest: None };
        if let Some(mut old) = self.kept.take() {
            for vote in self.votes.iter_mut().filter(|vote| vote.choice.which == Which::Kept) {
                vote.choice.which = Which::Other(old.digest());
            }
        }
        for vote in &mut self.votes {
            if matches!(vote.choice.which, Which::Other(digest) if digest == kept.digest()) {
                vote.choice.which = Which::Kept;
            }
        }
        self.kept = Some(kept);
    }

    /// Ends the ballot in favour of `choice`, whose content is the kept one or `content`.
    fn settle(&mut self, choice: Choice, content: Vec<u8>) -> Option<Accepted> {
        let kept = self.kept.take().filter(|_| choice.which == Which::Kept);
        let content = kept.map_or(content, |kept| kept.content);
        // Not what somebody said beside a digest: what so many have signed with it.
        let (head, _) = ReplyHead::peek(&content).ok()?;
        let contradicts = |vote: &&Vote| {
            let both_final = vote.executed && is_final(head.status);
            // What is said outside the total order has no number, and depends on when it is said.
            let same_seq = vote.choice.seq == head.seq && head.seq != Seq(0);
            let same_place = both_final || same_seq;
            vote.choice != choice && vote.tentative.is_none() && same_place
        };
        let liars = self.votes.iter().filter(contradicts).map(|vote| vote.replica).collect();
        self.votes.clear();
        Some(Accepted { head, content, liars })
    }

    /// How many replicas have said something.
    pub(super) fn voters(&self) -> usize {
        self.votes.len()
    }

    /// Whether `replica` has said something.
    pub(super) fn has(&self, replica: ReplicaId) -> bool {
        self.votes.iter().any(|vote| vote.replica == replica)
    }

    /// Whether enough replicas say the same and nobody has said it so that it was kept; and if
    /// so, whether `designated` has not said it in full.
    pub(super) fn lacks_content(
        &self,
        designated: ReplicaId,
        acceptance: Acceptance,
    ) -> Option<bool> {
        let mut choices = self.votes.iter().map(|vote| vote.choice);
        let wanted = choices.find(|choice| self.suffices(*choice, acceptance))?;
        let said = |vote: &Vote| vote.replica == designated && vote.whole && vote.choice == wanted;
        Some(!self.votes.iter().any(said))
    }

    /// Bytes of the content that is kept, if they are so many that there is a bound for all.
    pub(super) fn kept_bytes(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.content.len());
        if kept > KEPT_BYTES_MAX { kept } else { 0 }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.kept = None;
        self.votes.clear();
    }

    /// Checks the invariants.
    pub(super) fn check(&self) {
        let digest = self.kept.as_ref().and_then(|kept| kept.digest);
        for (at, vote) in self.votes.iter().enumerate() {
            let again = self.votes[..at].iter().any(|other| other.replica == vote.replica);
            assert!(!again, "{:?} voted twice", vote.replica);
            match vote.choice.which {
                Which::Kept => assert!(self.kept.is_some(), "a vote for what is not kept"),
                Which::Other(other) => assert!(Some(other) != digest, "votes are split"),
            }
        }
    }
}

impl Kept {
    fn digest(&mut self) -> Digest {
        *self.digest.get_or_insert_with(|| reply_digest(&self.content))
    }
}

/// Whether a correct replica that says `status` about a frame once never says another final
/// status, nor other results, about it.
pub(super) fn is_final(status: ReplyStatus) -> bool {
    matches!(status, ReplyStatus::Executed | ReplyStatus::TooLarge)
}

#[cfg(test)]
#[path = "tests/vote.rs"]
mod tests;
