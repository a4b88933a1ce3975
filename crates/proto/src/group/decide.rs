//! What a set of VIEW-CHANGEs decides: a pure function, computed by the leader and again by
//! everybody who accepts its NEW-VIEW (design, traps 1 and 2).
//!
//! The rules, for a set of verified VIEW-CHANGEs of distinct replicas for one view:
//!
//! | step | rule |
//! |---|---|
//! | start | the highest checkpoint that one of them certifies |
//! | top | the highest number above it that one of them has in P |
//! | choose (d, v) for n | A1 and A2, where (d, v) is in somebody's P for n |
//! | A1 | a quorum has no P for n, or one of a lower view, or (d, v) itself |
//! | A2 | a weak quorum has (d, v' >= v) in Q for n |
//! | choose null for n | a quorum has no P for n |
//! | else | undecided: wait for more |
//!
//! Who leads no number in the view follows from the same set (`roster`).
//!
//! Where several choices pass for one number, none of them was committed, and the one of the
//! highest view is taken, so that everybody takes the same. More VIEW-CHANGEs never make a
//! decided set undecided.
//!
//! Not here: signatures, certificates and the shape of a VIEW-CHANGE (`rules`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Digest, Quorums, Seq, StableCheckpoint, View};

use super::link::{Choice, Plan, SliceEntry};
use super::msg::ViewChange;
use super::roster;

/// What a set of VIEW-CHANGEs comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It fixes everything that must be fixed.
    Decided(Plan),
    /// More VIEW-CHANGEs are needed. The number is the first that stands open, or the start
    /// where there are too few of them.
    Undecided(Seq),
}

/// Decides what `view` begins with. The `changes` are verified, for that view, and from distinct
/// replicas.
#[must_use]
pub fn decide(quorums: Quorums, view: View, changes: &[Arc<ViewChange>]) -> Decision {
    let place = |stable: &&StableCheckpoint| match base::mutant!(StartsAtLowest) {
        true => !stable.seq.0,
        false => stable.seq.0,
    };
    let highest = changes.iter().map(|change| &change.stable).max_by_key(place);
    let quorum = quorums.quorum() - usize::from(base::mutant!(ViewChangeQuorumShort));
    let Some(start) = highest.filter(|_| changes.len() >= quorum) else {
        return Decision::Undecided(Seq(0));
    };
    let start = start.clone();
    let top = changes
        .iter()
        .filter_map(|c| c.entries.iter().rev().find(|e| e.prepared.is_some()))
        .map(|entry| entry.seq)
        .fold(start.seq, Seq::max);
    let mut cursors: Vec<&[SliceEntry]> = changes.iter().map(|c| c.entries.as_slice()).collect();
    let count = usize::try_from(top.0 - start.seq.0).expect("bounded by the window");
    let mut choices = Vec::with_capacity(count);
    for seq in (start.seq.0 + 1..=top.0).map(Seq) {
        let said: Vec<Option<&SliceEntry>> =
            cursors.iter_mut().map(|cursor| advance(cursor, seq)).collect();
        match choose(quorums, &said) {
            Some(choice) => choices.push(choice),
            None => return Decision::Undecided(seq),
        }
    }
    let excluded = roster::decide(quorums, changes, top);
    Decision::Decided(Plan { view, start, choices, excluded })
}

/// Decides with `changes`, or else with as few of the `others`, in their order, as it takes: the
/// VIEW-CHANGEs that do, by replica, and what they decide.
pub(super) fn decide_with_few(
    quorums: Quorums,
    view: View,
    mut changes: Vec<Arc<ViewChange>>,
    mut others: impl Iterator<Item = Arc<ViewChange>>,
) -> Option<(Vec<Arc<ViewChange>>, Plan)> {
    loop {
        if let Decision::Decided(plan) = decide(quorums, view, &changes) {
            return Some((changes, plan));
        }
        changes.push(others.next()?);
        changes.sort_unstable_by_key(|change| change.replica);
    }
}

/// Moves `cursor` to `seq`; its entry, when there is one.
fn advance<'a>(cursor: &mut &'a [SliceEntry], seq: Seq) -> Option<&'a SliceEntry> {
    let below = cursor.iter().take_while(|entry| entry.seq < seq).count();
    *cursor = &cursor[below..];
    cursor.first().filter(|entry| entry.seq == seq)
}

/// The choice for one number; `said` has one element per VIEW-CHANGE.
fn choose(quorums: Quorums, said: &[Option<&SliceEntry>]) -> Option<Choice> {
    let prepared = || said.iter().map(|entry| entry.and_then(|entry| entry.prepared));
    let mut candidates: Vec<(View, Digest)> = prepared().flatten().collect();
    // The highest view first.
    candidates.sort_unstable_by(|a, b| b.cmp(a));
    candidates.dedup();
    if let (true, Some(first)) = (base::mutant!(FirstPreparedWins), prepared().flatten().next()) {
        return Some(Choice::Digest(first.1));
    }
    for (view, digest) in candidates {
        let compatible = prepared()
            .filter(|p| p.is_none_or(|(v, d)| v < view || (v, d) == (view, digest)))
            .count();
        let answer_for = said
            .iter()
            .flatten()
            .filter(|entry| entry.pre_prepared.iter().any(|(v, d)| *v >= view && *d == digest))
            .count();
        let a1 = base::mutant!(A1Missing)
            || compatible >= quorums.quorum() - usize::from(base::mutant!(A1QuorumShort));
        let a2 = base::mutant!(A2Missing)
            || answer_for >= quorums.weak() - usize::from(base::mutant!(A2QuorumShort));
        if a1 && a2 {
            return Some(Choice::Digest(digest));
        }
    }
    let free = prepared().filter(Option::is_none).count();
    let quorum = quorums.quorum() - usize::from(base::mutant!(NullQuorumShort));
    (free >= quorum).then_some(Choice::Null)
}
