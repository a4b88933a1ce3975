//! No contradiction (design, traps 3 and 12): a correct replica votes once per kind, number and
//! view, votes in no view that it left, and says the same after a restart.
//!
//! Looks at what leaves a correct replica for others, in the order in which it leaves, over all
//! its lives. Whether a vote was durable before is the journal's to check.

use std::collections::BTreeMap;

use base::{Digest, GroupId, ReplicaId, Seq, View};
use proto::group::msg::GroupMessage;
use proto::pbft::msg::Message;

use super::Verdict;

/// Kinds of promises about a number in a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Promise {
    Proposal,
    Prepare,
    Commit,
}

/// What correct replicas have promised.
#[derive(Debug)]
pub struct Contradiction {
    group: GroupId,
    promises: BTreeMap<(ReplicaId, Promise, View, Seq), Digest>,
    left: BTreeMap<ReplicaId, View>,
}

impl Contradiction {
    /// Nothing is promised yet.
    #[must_use]
    pub fn new(group: GroupId) -> Contradiction {
        Contradiction { group, promises: BTreeMap::new(), left: BTreeMap::new() }
    }

    /// `replica` begins a new life; whether it knows what it has promised.
    pub fn reborn(&mut self, replica: ReplicaId, knows: bool) {
        if !knows {
            // Its old VIEW-CHANGEs are void as soon as it may vote again.
            self.left.remove(&replica);
        }
    }

    /// `replica` says `message` to others.
    ///
    /// # Errors
    /// When it contradicts what it said before.
    pub fn says(&mut self, replica: ReplicaId, message: &Message) -> Verdict {
        let (promise, view, seq, digest) = match message {
            Message::PrePrepare { view, seq, proposal } => {
                (Promise::Proposal, *view, *seq, proposal.digest(self.group, *seq))
            }
            Message::Prepare(vote) => (Promise::Prepare, vote.view, vote.seq, vote.digest),
            Message::Commit(vote) => (Promise::Commit, vote.view, vote.seq, vote.digest),
            Message::Group(message) => {
                if let GroupMessage::ViewChange(change) = &**message
                    && change.replica == replica
                {
                    let left = self.left.entry(replica).or_default();
                    *left = (*left).max(change.view);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let left = self.left.get(&replica).copied().unwrap_or_default();
        if view < left {
            return Err(format!("{replica:?} left for {left:?} and says {message:?}"));
        }
        let before = self.promises.entry((replica, promise, view, seq)).or_insert(digest);
        if *before != digest {
            return Err(format!("{replica:?} said {before:?} before and says {message:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::pbft::msg::Vote;

    fn vote(view: u64, digest: u8) -> Vote {
        Vote { view: View(view), seq: Seq(5), digest: Digest([digest; 32]) }
    }

    #[test]
    fn a_second_vote_is_seen_also_after_a_restart_that_forgets() {
        let mut oracle = Contradiction::new(GroupId([7; 32]));
        let me = ReplicaId(2);
        assert_eq!(oracle.says(me, &Message::Prepare(vote(1, 1))), Ok(()));
        assert_eq!(oracle.says(me, &Message::Prepare(vote(1, 1))), Ok(()), "the same again");
        assert_eq!(oracle.says(me, &Message::Commit(vote(1, 2))), Ok(()), "another kind");
        assert_eq!(oracle.says(me, &Message::Prepare(vote(2, 2))), Ok(()), "another view");
        assert!(oracle.says(me, &Message::Prepare(vote(1, 2))).is_err());
        oracle.reborn(me, false);
        assert!(oracle.says(me, &Message::Prepare(vote(1, 2))).is_err());
    }
}
