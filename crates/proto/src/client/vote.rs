//! Votes of the replicas on the reply to one outstanding frame (PBFT: a client accepts a reply
//! once f + 1 replicas gave the same one, so that a correct replica is among them).
//!
//! A replica has one vote; a later reply of it replaces the earlier one, since a frame may be
//! refused first and executed after it was sent again. Equality is of whole contents: the first
//! content that arrives is kept and compared byte by byte, unless it is large; any other one is
//! kept as a digest. So a frame costs one copy and no hash as long as nobody lies and results are
//! small.
//!
//! Invariant: no two votes of one replica.

use alloc::vec::Vec;

use base::reply::{ReplyHead, reply_digest};
use base::{Digest, ReplicaId, ReplyStatus, Seq};

/// Larger contents are never kept, only their digests: whoever answers each frame in flight
/// with the largest reply there may be, before anybody else does, takes no memory.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The votes on one frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    first: Option<Vec<u8>>,
    votes: Vec<Vote>,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    replica: ReplicaId,
    seq: Seq,
    executed: bool,
    choice: Choice,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Choice {
    First,
    Other(Digest),
}

impl Ballot {
    /// Counts `from`'s vote for `content`; returns how many replicas now say the same.
    pub(super) fn cast(&mut self, from: ReplicaId, head: &ReplyHead, content: &[u8]) -> usize {
        let choice = match &self.first {
            None if content.len() <= KEPT_BYTES_MAX => {
                self.first = Some(content.to_vec());
                Choice::First
            }
            Some(first) if first == content => Choice::First,
            _ => Choice::Other(reply_digest(content)),
        };
        let vote = Vote { replica: from, seq: head.seq, executed: is_final(head.status), choice };
        match self.votes.iter_mut().find(|vote| vote.replica == from) {
            Some(_) if base::mutant!(RepliesNotReplicasCount) => self.votes.push(vote),
            Some(old) => *old = vote,
            None => self.votes.push(vote),
        }
        self.votes.iter().filter(|vote| vote.choice == choice).count()
    }

    /// Ends the ballot: the accepted content, which `from` was the last to say, and the
    /// replicas that said something that no correct replica says beside it.
    pub(super) fn settle(
        &mut self,
        from: ReplicaId,
        head: &ReplyHead,
        content: &[u8],
    ) -> (Vec<u8>, Vec<ReplicaId>) {
        let accepted = self.votes.iter().find(|vote| vote.replica == from).map(|v| v.choice);
        let contradicts = |vote: &&Vote| {
            let same_place = vote.executed && is_final(head.status) || vote.seq == head.seq;
            Some(vote.choice) != accepted && same_place
        };
        let liars = self.votes.iter().filter(contradicts).map(|vote| vote.replica).collect();
        let kept = self.first.take().filter(|_| accepted == Some(Choice::First));
        self.votes.clear();
        (kept.unwrap_or_else(|| content.to_vec()), liars)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.first = None;
        self.votes.clear();
    }

    /// Checks the invariant.
    pub(super) fn check(&self) {
        for (at, vote) in self.votes.iter().enumerate() {
            let again = self.votes[..at].iter().any(|other| other.replica == vote.replica);
            assert!(!again, "{:?} voted twice", vote.replica);
        }
    }
}

/// Whether a correct replica that says `status` about a frame once never says another final
/// status, nor other results, about it.
pub(super) fn is_final(status: ReplyStatus) -> bool {
    matches!(status, ReplyStatus::Executed | ReplyStatus::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::reply::Reply;
    use base::{ClientId, FrameId, SessionId};
    use std::vec;

    fn reply(bytes: usize, fill: u8) -> (ReplyHead, Vec<u8>) {
        let frame = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 1 };
        let (seq, status) = (Seq(1), ReplyStatus::Executed);
        let mut results = u32::try_from(bytes).expect("small").to_le_bytes().to_vec();
        results.resize(4 + bytes, fill);
        let mut content = vec![];
        Reply { frame, seq, status, count: 1, results }.encode(&mut content);
        let (head, _) = ReplyHead::peek(&content).expect("own encoding");
        (head, content)
    }

    /// A liar that answers first, and with much, does not get its answer kept; a large answer is
    /// accepted all the same.
    #[test]
    fn large_contents_are_counted_and_not_kept() {
        let (lie_head, lie) = reply(1 << 20, 1);
        let (head, truth) = reply(1 << 20, 2);
        let mut ballot = Ballot::default();
        assert_eq!(ballot.cast(ReplicaId(3), &lie_head, &lie), 1);
        assert!(ballot.first.is_none(), "nothing large is kept");
        assert_eq!(ballot.cast(ReplicaId(0), &head, &truth), 1);
        assert_eq!(ballot.cast(ReplicaId(1), &head, &truth), 2);
        let (accepted, liars) = ballot.settle(ReplicaId(1), &head, &truth);
        assert_eq!((accepted, liars), (truth, vec![ReplicaId(3)]));
    }
}
