//! No contradiction (design, traps 2, 3 and 12): a correct replica votes once per kind, number
//! and view, votes in no view that it left, and says the same after a restart. What it signs when
//! it leaves a view names everything that it has promised: each COMMIT in P, each PREPARE and
//! proposal in Q, above its low mark, over all pillars.
//!
//! Looks at what leaves a correct replica for others, in the order in which it leaves, over all
//! its lives; who may have forgotten is held to its votes, but not to name them. Whether a vote
//! was durable before is the journal's to check. Does not see what a VIEW-CHANGE says too much.

use std::collections::BTreeMap;

use base::{Digest, Incarnation, ReplicaId, Seq, View};
use proto::group::link::{PRE_PREPARED_MAX, SliceEntry};
use proto::group::msg::{GroupMessage, ViewChange};
use proto::group::rules::Rules;
use proto::pbft::msg::Message;

use super::Verdict;

/// Kinds of promises about a number in a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Promise {
    Proposal,
    Prepare,
    Commit,
}

/// A promise as it was made.
#[derive(Clone, Copy, Debug)]
struct Made {
    digest: Digest,
    /// How often the replica had forgotten its promises by then.
    forgotten: u32,
}

/// What correct replicas have promised.
#[derive(Debug)]
pub struct Contradiction {
    rules: Rules,
    promises: BTreeMap<(ReplicaId, Promise, View, Seq), Made>,
    left: BTreeMap<ReplicaId, View>,
    changes: BTreeMap<(ReplicaId, View, Incarnation), Digest>,
    begun: BTreeMap<View, Vec<Digest>>,
    forgotten: BTreeMap<ReplicaId, u32>,
}

impl Contradiction {
    /// Nothing is promised yet.
    #[must_use]
    pub fn new(rules: Rules) -> Contradiction {
        Contradiction {
            rules,
            promises: BTreeMap::new(),
            left: BTreeMap::new(),
            changes: BTreeMap::new(),
            begun: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        }
    }

    /// `replica` begins a new life; whether it knows what it has promised.
    pub fn reborn(&mut self, replica: ReplicaId, knows: bool) {
        if !knows {
            // Its old VIEW-CHANGEs are void as soon as it may vote again.
            self.left.remove(&replica);
            *self.forgotten.entry(replica).or_default() += 1;
        }
    }

    /// `replica` says `message` to others.
    ///
    /// # Errors
    /// When it contradicts what it said before.
    pub fn says(&mut self, replica: ReplicaId, message: &Message) -> Verdict {
        let (promise, view, seq, digest) = match message {
            Message::PrePrepare { view, seq, proposal } => {
                (Promise::Proposal, *view, *seq, proposal.digest(self.rules.group, *seq))
            }
            Message::Prepare(vote) => (Promise::Prepare, vote.view, vote.seq, vote.digest),
            Message::Commit(vote) => (Promise::Commit, vote.view, vote.seq, vote.digest),
            Message::Group(message) => return self.says_of_views(replica, message),
            _ => return Ok(()),
        };
        let left = self.left.get(&replica).copied().unwrap_or_default();
        if view < left {
            return Err(format!("{replica:?} left for {left:?} and says {message:?}"));
        }
        let forgotten = self.forgotten.get(&replica).copied().unwrap_or_default();
        let made = Made { digest, forgotten };
        let before = *self.promises.entry((replica, promise, view, seq)).or_insert(made);
        if before.digest != digest {
            return Err(format!("{replica:?} said {before:?} before and says {message:?}"));
        }
        Ok(())
    }

    fn says_of_views(&mut self, replica: ReplicaId, message: &GroupMessage) -> Verdict {
        match message {
            GroupMessage::ViewChange(change) if change.replica == replica => {
                let left = self.left.entry(replica).or_default();
                *left = (*left).max(change.view);
                let digest = self.rules.change_digest(change);
                let key = (replica, change.view, change.incarnation);
                match self.changes.insert(key, digest) {
                    Some(before) if before == digest => Ok(()),
                    Some(_) => Err(format!("{replica:?} leaves twice, and says now {change:?}")),
                    None => self.names_all(replica, change),
                }
            }
            GroupMessage::NewView(nv) if nv.view.leader(self.rules.quorums.n()) == replica => {
                let changes = nv.changes.iter().map(|change| self.rules.change_digest(change));
                let now: Vec<Digest> = changes.collect();
                let before = self.begun.entry(nv.view).or_insert_with(|| now.clone());
                match *before == now {
                    true => Ok(()),
                    false => Err(format!("{replica:?} begins {:?} in two ways", nv.view)),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether a VIEW-CHANGE names what was promised above its low mark.
    fn names_all(&self, replica: ReplicaId, change: &ViewChange) -> Verdict {
        let now = self.forgotten.get(&replica).copied().unwrap_or_default();
        for promise in [Promise::Proposal, Promise::Prepare, Promise::Commit] {
            let first = (replica, promise, View(0), Seq(0));
            let all = self.promises.range(first..(replica, promise, change.view, Seq(0)));
            let above = all.filter(|((.., seq), _)| *seq > change.stable.seq);
            for ((.., view, seq), made) in above.filter(|(_, made)| made.forgotten == now) {
                let at = change.entries.binary_search_by_key(seq, |entry| entry.seq);
                let entry = at.ok().map(|at| &change.entries[at]);
                let named = entry.is_some_and(|entry| match promise {
                    Promise::Commit => names_prepared(entry, *view, made.digest),
                    _ => names_pre_prepared(entry, *view, made.digest),
                });
                if !named {
                    let what = format!("{promise:?} of {:?} at {seq:?} in {view:?}", made.digest);
                    return Err(format!(
                        "{replica:?} leaves for {:?} and does not name its {what}: \
                        {entry:?}",
                        change.view
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether P has this, or something prepared later.
fn names_prepared(entry: &SliceEntry, view: View, digest: Digest) -> bool {
    entry.prepared.is_some_and(|(at, of)| at > view || (at, of) == (view, digest))
}

/// Whether Q has this, or something else was dropped for it.
fn names_pre_prepared(entry: &SliceEntry, view: View, digest: Digest) -> bool {
    let q = &entry.pre_prepared;
    q.iter().any(|(at, of)| *of == digest && *at >= view) || q.len() == PRE_PREPARED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::rules;
    use base::{Signature, StableCheckpoint};
    use proto::group::msg::NewView;
    use proto::group::roster::Roster;
    use proto::pbft::msg::Vote;
    use std::sync::Arc;

    fn vote(view: u64, digest: u8) -> Vote {
        Vote { view: View(view), seq: Seq(5), digest: Digest([digest; 32]) }
    }

    #[test]
    fn a_second_vote_is_seen_also_after_a_restart_that_forgets() {
        let mut oracle = Contradiction::new(rules());
        let me = ReplicaId(2);
        assert_eq!(oracle.says(me, &Message::Prepare(vote(1, 1))), Ok(()));
        assert_eq!(oracle.says(me, &Message::Prepare(vote(1, 1))), Ok(()), "the same again");
        assert_eq!(oracle.says(me, &Message::Commit(vote(1, 2))), Ok(()), "another kind");
        assert_eq!(oracle.says(me, &Message::Prepare(vote(2, 2))), Ok(()), "another view");
        assert!(oracle.says(me, &Message::Prepare(vote(1, 2))).is_err());
        oracle.reborn(me, false);
        assert!(oracle.says(me, &Message::Prepare(vote(1, 2))).is_err());
    }

    fn leaves(view: u64, incarnation: u64, entries: &[SliceEntry]) -> Message {
        let change = ViewChange {
            replica: ReplicaId(2),
            incarnation: Incarnation(incarnation),
            view: View(view),
            stable: StableCheckpoint::default(),
            entries: entries.to_vec(),
            roster: Roster::default(),
            signature: Signature([0; 64]),
        };
        Message::Group(Arc::new(GroupMessage::ViewChange(Arc::new(change))))
    }

    fn entry(prepared: Option<(u64, u8)>, pre_prepared: &[(u64, u8)]) -> SliceEntry {
        let pair = |(view, digest): &(u64, u8)| (View(*view), Digest([*digest; 32]));
        let pre_prepared = pre_prepared.iter().map(pair).collect();
        SliceEntry { seq: Seq(5), prepared: prepared.as_ref().map(pair), pre_prepared }
    }

    #[test]
    fn who_leaves_a_view_names_its_promises_and_keeps_to_it() {
        let me = ReplicaId(2);
        let left = |entries: &[SliceEntry]| {
            let mut oracle = Contradiction::new(rules());
            assert_eq!(oracle.says(me, &Message::Prepare(vote(1, 1))), Ok(()));
            assert_eq!(oracle.says(me, &Message::Commit(vote(1, 1))), Ok(()));
            (oracle.says(me, &leaves(2, 1, entries)), oracle)
        };
        let (verdict, mut oracle) = left(&[entry(Some((1, 1)), &[(1, 1)])]);
        assert_eq!(verdict, Ok(()));
        assert!(oracle.says(me, &Message::Commit(vote(1, 1))).is_err(), "it has left that view");
        assert!(oracle.says(me, &leaves(2, 1, &[])).is_err(), "another VIEW-CHANGE");
        assert!(oracle.says(me, &leaves(3, 1, &[])).is_err(), "still to be named");
        oracle.reborn(me, false);
        assert_eq!(oracle.says(me, &leaves(3, 2, &[])), Ok(()), "forgotten, and it says so");
        assert!(left(&[]).0.is_err(), "P and Q are missing");
        assert!(left(&[entry(None, &[(1, 1)])]).0.is_err(), "P is missing");
        assert!(left(&[entry(Some((1, 2)), &[(1, 1)])]).0.is_err(), "P of another digest");
        assert!(left(&[entry(Some((0, 1)), &[(1, 1)])]).0.is_err(), "P of an older view");
        assert!(left(&[entry(Some((1, 1)), &[(0, 1)])]).0.is_err(), "Q of an older view");
        assert_eq!(left(&[entry(Some((1, 1)), &[(0, 2), (0, 3), (0, 4)])]).0, Ok(()), "Q is full");
    }

    #[test]
    fn a_leader_begins_its_view_in_one_way() {
        let mut oracle = Contradiction::new(rules());
        let begins = |view: u64, entries: &[SliceEntry]| {
            let Message::Group(message) = leaves(view, 1, entries) else { panic!("made above") };
            let GroupMessage::ViewChange(change) = &*message else { panic!("made above") };
            let changes = vec![change.clone()];
            let nv = NewView { view: View(view), changes, signature: Signature([0; 64]) };
            Message::Group(Arc::new(GroupMessage::NewView(Arc::new(nv))))
        };
        let (one, other) = (begins(1, &[]), begins(1, &[entry(None, &[(0, 1)])]));
        assert_eq!(oracle.says(ReplicaId(1), &one), Ok(()));
        assert_eq!(oracle.says(ReplicaId(3), &other), Ok(()), "passed on by another");
        assert_eq!(oracle.says(ReplicaId(1), &one), Ok(()));
        assert!(oracle.says(ReplicaId(1), &other).is_err());
    }
}
